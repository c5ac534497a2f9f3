"""An HTTP/2 server on loopback, built on h2's server side; what it answers, or does wrong, is the test's."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from tests.lab.peers import tcp_peer

Fields = list[tuple[str, str]]


@dataclass
class Http2Visitor:
    """One connection as the server sees it."""

    sock: socket.socket
    connection: h2.connection.H2Connection
    requests: list[Fields] = field(default_factory=list)
    pending: dict[int, bytes] = field(default_factory=dict)

    def answer(self, stream_id: int, fields: Fields, body: bytes = b"") -> None:
        """A whole answer, its body as fast as the client's window allows."""
        self.connection.send_headers(stream_id, fields, end_stream=not body)
        if body:
            self.pending[stream_id] = body
        self.flush()

    def flush(self) -> None:
        """Send what the windows allow."""
        for stream_id, body in list(self.pending.items()):
            while body:
                window = self.connection.local_flow_control_window(stream_id)
                size = min(window, self.connection.max_outbound_frame_size, len(body))
                if size == 0:
                    break
                self.connection.send_data(stream_id, body[:size], end_stream=size == len(body))
                body = body[size:]
                self.sock.sendall(self.connection.data_to_send())
            if body:
                self.pending[stream_id] = body
            else:
                del self.pending[stream_id]
        self.sock.sendall(self.connection.data_to_send())


Script = Callable[[Http2Visitor, int, Fields], None]


@contextmanager
def http2_server(
    script: Script, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> Iterator[int]:
    """Calls `script` with each request; gives the port. Without `context` it speaks in clear (h2c)."""

    def serve(plain: socket.socket) -> None:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.suppress(ssl.SSLError, h2.exceptions.ProtocolError))
            sock = stack.enter_context(context.wrap_socket(plain, server_side=True)) if context else plain
            configuration = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
            visitor = Http2Visitor(sock, h2.connection.H2Connection(configuration))
            visitor.connection.initiate_connection()
            sock.sendall(visitor.connection.data_to_send())
            while octets := sock.recv(65_536):
                for event in visitor.connection.receive_data(octets):
                    if isinstance(event, h2.events.RequestReceived):
                        fields = [(str(name), str(value)) for name, value in event.headers or []]
                        visitor.requests.append(fields)
                        script(visitor, event.stream_id or 0, fields)
                visitor.flush()

    with tcp_peer(serve, host) as port:
        yield port
