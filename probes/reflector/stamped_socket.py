"""The reflector's UDP socket: the kernel's arrival stamps, and departure stamps of answers that want one.

A departure stamp is asked for by a control message of its own (SO_TIMESTAMPING, linux
Documentation/networking/timestamping.rst section 1.3.4), so that answers nobody asks about cost nothing; the
kernel numbers those it stamps from 0. On a socket bound to no one address, an answer leaves from the address
its request came to: a host with several would otherwise answer from another one, which no sender recognises.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nhip.clock import Clock
from nhip.errors import CannotMeasureError
from probes.error_queue import SCM_TIMESTAMPING, TransmitStamp, kernel_and_hardware_ns, queued_messages
from probes.receive_buffer import make_room
from probes.timestamping import SO_TIMESTAMPING, SO_TIMESTAMPNS

# linux/in.h and linux/net_tstamp.h; not in the socket module of Python 3.11.
_IP_PKTINFO, _IP_RECVTTL, _IP_RECVTOS = 8, 12, 13
_TX_SOFTWARE, _RX_SOFTWARE, _SOFTWARE = 1 << 1, 1 << 3, 1 << 4
_OPT_ID, _OPT_CMSG, _OPT_TSONLY = 1 << 7, 1 << 10, 1 << 11
_STAMPS = _RX_SOFTWARE | _SOFTWARE | _OPT_CMSG | _OPT_TSONLY
_WANT_DEPARTURE = (socket.SOL_SOCKET, SO_TIMESTAMPING, struct.pack("@I", _TX_SOFTWARE))

_TIMESPEC = struct.Struct("@ll")
_PKTINFO4, _PKTINFO6 = struct.Struct("@i4s4s"), struct.Struct("@16si")
_ANCILLARY_OCTETS = 256
# The kernel's work queue switches stamping on; this is ample unless the host is very busy.
_SWITCHING_ON_SECONDS = 0.005
_MAPPED = bytes(10) + b"\xff\xff"


@dataclass(slots=True)
class Request:
    """One datagram as it came."""

    octets: bytes
    address: Any
    received_wall_ns: int
    by_kernel: bool
    """Whether `received_wall_ns` is the kernel's stamp and not one read here."""
    hop_limit: int = 0
    traffic_class: int | None = None
    arrived_at: bytes | None = None
    """The address it came to, 4 or 16 octets; `None` on a socket bound to one address."""


class StampedSocket:
    """One bound UDP socket; IPv6 and IPv4 both on ``::``."""

    def __init__(self, host: str, port: int, clock: Clock) -> None:
        self._host, self._port, self._clock = host, port, clock
        self._socket: socket.socket | None = None
        self._both = host == "::"
        self._any = host in ("::", "0.0.0.0")  # noqa: S104 - compared, not bound
        self._stamps = False
        self._sent = self._first = 0

    @property
    def sock(self) -> socket.socket:
        """The socket itself; CannotMeasureError before `open`."""
        if self._socket is None:
            raise CannotMeasureError("the reflector is not started", remedy="call start first")
        return self._socket

    def open(self) -> None:
        """Bind; CannotMeasureError when the port cannot be had."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            if self._both:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind((self._host, self._port))
        except OSError as error:
            sock.close()
            raise CannotMeasureError(
                f"the STAMP reflector cannot bind {self._host} port {self._port}: {error.strerror}",
                remedy="give another port, or run with CAP_NET_BIND_SERVICE for a port below 1024",
            ) from error
        make_room(sock)
        self._ask_for_stamps(sock)
        self._ask_about_packets(sock)
        self._sent = self._first = 0
        self._socket = sock

    def close(self) -> None:
        """Free the port; safe to call at any time."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def receive(self, size: int) -> Request:
        """The next datagram; BlockingIOError when there is none, OSError as the socket gives it."""
        asked_wall_ns = self._clock.wall_ns()
        octets, ancillary, _flags, address = self.sock.recvmsg(size, _ANCILLARY_OCTETS)
        request = Request(octets, address, 0, False)
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET:
                if kind == SCM_TIMESTAMPING:
                    request.received_wall_ns = kernel_and_hardware_ns(value)[0] or 0
                elif kind == SO_TIMESTAMPNS:
                    seconds, nanoseconds = _TIMESPEC.unpack_from(value)
                    request.received_wall_ns = seconds * 1_000_000_000 + nanoseconds
            elif level == socket.IPPROTO_IP:
                if kind == socket.IP_TTL:
                    request.hop_limit = int.from_bytes(value[:4], sys.byteorder)
                elif kind == socket.IP_TOS:
                    request.traffic_class = value[0]
                elif kind == _IP_PKTINFO:
                    request.arrived_at = value[8:12]
            elif level == socket.IPPROTO_IPV6:
                if kind == socket.IPV6_HOPLIMIT:
                    request.hop_limit = int.from_bytes(value[:4], sys.byteorder)
                elif kind == socket.IPV6_TCLASS:
                    request.traffic_class = int.from_bytes(value[:4], sys.byteorder) & 0xFF
                elif kind == socket.IPV6_PKTINFO:
                    request.arrived_at = value[:16]
        # Until stamping is switched on SO_TIMESTAMPNS fills in when the packet was read: no better than ours.
        if request.received_wall_ns > 0 and (self._stamps or request.received_wall_ns < asked_wall_ns):
            request.by_kernel = True
        else:
            request.received_wall_ns = self._clock.wall_ns()
        return request

    def send(
        self, octets: bytes | bytearray, to: Request, *, traffic_class: int, departure: bool
    ) -> int | None:
        """Send an answer to where `to` came from; its number when a departure stamp was asked for.

        OSError as the socket gives it.
        """
        ancillary: list[tuple[int, int, bytes]] = []
        if to.arrived_at is not None:
            ancillary.append(self._from(to.arrived_at))
        if traffic_class:
            ancillary.append(self._marked(traffic_class, to.address[0]))
        departure = departure and self._stamps
        if departure:
            ancillary.append(_WANT_DEPARTURE)
        if not ancillary:
            self.sock.sendto(octets, to.address)
            return None
        try:
            self.sock.sendmsg((octets,), ancillary, 0, to.address)
        except OSError:
            # Nobody knows whether the kernel counted it.
            if departure:
                self._count_anew()
            raise
        if not departure:
            return None
        self._sent += 1
        return self._sent - 1

    def departures(self) -> Iterator[tuple[int, int]]:
        """Number and wall-clock nanoseconds of each answer that has left since the last look.

        The error queue is empty afterwards, whatever else was in it: what stays there wakes every poll.
        """
        for message in queued_messages(self.sock):
            if isinstance(message, TransmitStamp):
                number = self._first + message.number
                if number < self._sent and message.kernel_wall_ns is not None:
                    yield number, message.kernel_wall_ns

    def _ask_for_stamps(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, _STAMPS | _OPT_ID)
            self._stamps = True
        if not self._stamps:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._clock.sleep(_SWITCHING_ON_SECONDS)

    def _ask_about_packets(self, sock: socket.socket) -> None:
        if sock.family is socket.AF_INET6:
            for option in (socket.IPV6_RECVHOPLIMIT, socket.IPV6_RECVTCLASS):
                sock.setsockopt(socket.IPPROTO_IPV6, option, 1)
            if self._any:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        if sock.family is socket.AF_INET or self._both:
            for option in (_IP_RECVTTL, _IP_RECVTOS):
                sock.setsockopt(socket.IPPROTO_IP, option, 1)
            if self._any and sock.family is socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)

    def _count_anew(self) -> None:
        for _departure in self.departures():
            pass
        for flags in (_STAMPS, _STAMPS | _OPT_ID):
            self.sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, flags)
        self._first = self._sent

    @staticmethod
    def _from(address: bytes) -> tuple[int, int, bytes]:
        if len(address) == 4:
            return socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO4.pack(0, address, bytes(4))
        return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PKTINFO6.pack(address, 0)

    @staticmethod
    def _marked(traffic_class: int, host: str) -> tuple[int, int, bytes]:
        value = struct.pack("@i", traffic_class)
        if ":" in host and not host.startswith("::ffff:"):
            return socket.IPPROTO_IPV6, socket.IPV6_TCLASS, value
        return socket.IPPROTO_IP, socket.IP_TOS, value
