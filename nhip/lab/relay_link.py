"""The relays of one access link: every port of the server, at the link's own address."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from functools import partial

from nhip.lab.pairing import Pairing
from nhip.lab.plan import Interface, Link
from nhip.lab.probe_packets import udp_packet
from nhip.lab.relay_pipe import RelayPipe, StreamHalf
from nhip.lab.report import LinkTruth, TcpFlow

_MOST_CLIENTS = 512
_MOST_FLOWS = 500
_NO_LINGER = struct.pack("ii", 1, 0)


class LinkRelay:
    """All relays of one access link."""

    def __init__(self, link: Link, server: Interface, seed: int) -> None:
        self.link = link
        self._server = server
        self.up = RelayPipe(link.up, seed=f"{seed} {link.id} up")
        self.down = RelayPipe(link.down, seed=f"{seed} {link.id} down")
        self.pairing = Pairing()
        self.flows: list[tuple[tuple[str, int], tuple[str, int], StreamHalf, StreamHalf]] = []
        self._listeners: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._upstream: dict[tuple[int, tuple[str, int]], socket.socket] = {}
        self._near = socket.inet_aton(link.near.ipv4)
        self._far = socket.inet_aton(server.ipv4)

    async def listen(self, protocol: str, port: int) -> None:
        """Begin to relay one port of the server."""
        if protocol == "tcp":
            relay = await asyncio.start_server(self._connected, self.link.far.ipv4, port)
            self._servers.append(relay)
            return
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener.setblocking(False)
        listener.bind((self.link.far.ipv4, port))
        self._listeners.append(listener)
        asyncio.get_running_loop().add_reader(listener, self._from_client, listener, port)

    def close(self) -> None:
        """Stop relaying."""
        for server in self._servers:
            server.close()
        for listener in (*self._listeners, *self._upstream.values()):
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()

    def truth(self, since_ns: int, until_ns: int | None) -> LinkTruth:
        """What happened on this link so far."""
        self.pairing.expire(time.time_ns())
        return LinkTruth(
            id=self.link.id,
            near=self.link.near.host,
            far=self.link.far.host,
            operator=self.link.operator,
            technology=self.link.technology,
            up=self.up.truth(),
            down=self.down.truth(),
            round_trips=self.pairing.round_trips(since_ns=since_ns, until_ns=until_ns),
            tcp_flows=tuple(
                TcpFlow(*client, *server, opened_wall_ns=up.opened_wall_ns, up=up.truth(), down=down.truth())
                for client, server, up, down in self.flows
            ),
        )

    def _from_client(self, listener: socket.socket, port: int) -> None:
        for data, client in _datagrams(listener):
            upstream = self._upstream.get((port, client)) or self._open(listener, port, client)
            self._note(data, client[1], port, outgoing=True)
            self.up.datagram(len(data), partial(_send, upstream, data))

    def _open(self, listener: socket.socket, port: int, client: tuple[str, int]) -> socket.socket:
        """A socket that speaks to the server for one client, from the address of the access host."""
        if len(self._upstream) >= _MOST_CLIENTS:
            oldest = self._upstream.pop(next(iter(self._upstream)))
            asyncio.get_running_loop().remove_reader(oldest)
            oldest.close()
        upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        upstream.setblocking(False)
        upstream.bind((self.link.near.ipv4, 0))
        upstream.connect((self._server.ipv4, port))
        self._upstream[port, client] = upstream
        asyncio.get_running_loop().add_reader(upstream, self._from_server, upstream, listener, port, client)
        return upstream

    def _from_server(
        self, upstream: socket.socket, listener: socket.socket, port: int, client: tuple[str, int]
    ) -> None:
        for data, _ in _datagrams(upstream):

            def deliver(data: bytes = data) -> None:
                self._note(data, client[1], port, outgoing=False)
                _send(listener, data, client)

            self.down.datagram(len(data), deliver)

    def _note(self, data: bytes, near_port: int, far_port: int, *, outgoing: bool) -> None:
        packet = udp_packet(data, (self._near, near_port), (self._far, far_port), outgoing=outgoing)
        (self.pairing.outgoing if outgoing else self.pairing.incoming)(packet, time.time_ns())

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client, port = writer.get_extra_info("peername"), writer.get_extra_info("sockname")[1]
        opened_ns = time.time_ns()
        up, down = StreamHalf(opened_ns), StreamHalf(opened_ns)
        self.flows.append((client, (self._server.ipv4, port), up, down))
        del self.flows[:-_MOST_FLOWS]
        try:
            far_reader, far_writer = await asyncio.open_connection(
                self._server.ipv4, port, local_addr=(self.link.near.ipv4, 0)
            )
        except OSError:
            # The server refused: so does the relay, by a reset instead of an orderly end.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            writer.transport.abort()
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self.up.stream(reader, far_writer, up))
                both.create_task(self.down.stream(far_reader, writer, down))
        except* OSError:
            pass  # One side broke off; closing tells the other.
        finally:
            for end in (writer, far_writer):
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()


def _datagrams(source: socket.socket) -> list[tuple[bytes, tuple[str, int]]]:
    """What waits in a socket, a few at most so that the timers get their turn."""
    found = []
    for _ in range(16):
        try:
            found.append(source.recvfrom(65_535))
        except BlockingIOError:
            break
        except ConnectionRefusedError:
            continue  # The server is not listening: the datagram is lost, as it would be behind a link.
    return found


def _send(out: socket.socket, data: bytes, to: tuple[str, int] | None = None) -> None:
    # A full buffer, a closed socket or a server that does not listen lose a datagram, as on a network.
    with contextlib.suppress(OSError):
        if to is None:
            out.send(data)
        else:
            out.sendto(data, to)
