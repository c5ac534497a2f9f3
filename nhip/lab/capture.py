"""Packets at an interface with the kernel's own stamps; transfers are filtered out inside the kernel."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from nhip.lab.namespace import inside

SNAP_BYTES = 128
"""Enough for an IPv6 and a UDP header and a STAMP packet."""

LARGEST_UDP_BYTES = 600
"""Longer UDP packets are bulk traffic, not probes, and left out; answers of DNS are kept at any length."""

_ETH_P_ALL = 0x0003
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_SO_TIMESTAMPNS = 35
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_PACKET_OUTGOING = 4


@dataclass(frozen=True, slots=True)
class Captured:
    """One packet from its network header on, cut at 128 bytes, with the kernel's wall-clock stamp."""

    data: bytes
    stamp_ns: int
    outgoing: bool


class Capture:
    """ICMP echo and small UDP packets at one interface of a namespace; :meth:`start` begins to listen."""

    def __init__(self, namespace: str, interface: str) -> None:
        self._namespace = namespace
        self._interface = interface
        self._socket: socket.socket | None = None
        self.missed = 0
        """Packets the kernel had no room to keep, as of the last :meth:`count_missed`."""

    def start(self) -> int:
        """Open the socket inside the namespace; the descriptor to watch."""
        with inside(self._namespace):
            # Protocol 0 receives nothing until bind, so that nothing passes before the filter stands.
            capture = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
            _attach_filter(capture)
            capture.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            capture.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
            capture.setblocking(False)
            capture.bind((self._interface, _ETH_P_ALL))
        self._socket = capture
        return capture.fileno()

    def packets(self, most: int = 256) -> Iterator[Captured]:
        """What was captured since the last call, at most `most` packets."""
        assert self._socket is not None  # noqa: S101 - start comes first
        for _ in range(most):
            try:
                data, ancillary, _, address = self._socket.recvmsg(SNAP_BYTES, 64)
            except BlockingIOError:
                return
            for level, kind, value in ancillary:
                if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
                    seconds, nanoseconds = struct.unpack("qq", value[:16])
                    yield Captured(data, seconds * 10**9 + nanoseconds, address[2] == _PACKET_OUTGOING)

    def count_missed(self) -> int:
        """All packets dropped for want of room so far."""
        if self._socket is not None:
            _, dropped = struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
            self.missed += dropped  # Reading sets the kernel's counter back to 0.
        return self.missed

    def close(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


# A classic BPF program: (code, jump if true, jump if false, operand). The packet begins with its
# network header. Jumps are counted from the next instruction; ACCEPT and DROP stand at the end.
_LD_BYTE, _LD_HALF = 0x30, 0x28
_LD_BYTE_X, _LD_HALF_X, _LDX_IP_HEADER = 0x50, 0x48, 0xB1
_AND, _JEQ, _JGT, _JSET, _RETURN = 0x54, 0x15, 0x25, 0x45, 0x06


def _program() -> list[tuple[int, int, int, int]]:
    accept, drop = "accept", "drop"
    lines: list[tuple[str | None, int, str | None, str | None, int]] = [
        (None, _LD_BYTE, None, None, 0),
        (None, _AND, None, None, 0xF0),
        (None, _JEQ, None, "six", 0x40),
        (None, _LD_BYTE, None, None, 9),
        (None, _JEQ, "icmp4", None, 1),
        (None, _JEQ, None, drop, 17),
        (None, _LD_HALF, None, None, 6),
        (None, _JSET, drop, None, 0x1FFF),  # A later fragment has no ports.
        (None, _LD_HALF, None, None, 2),
        (None, _JGT, None, accept, LARGEST_UDP_BYTES),
        (None, _LDX_IP_HEADER, None, None, 0),
        (None, _LD_HALF_X, None, None, 0),
        (None, _JEQ, accept, drop, 53),
        ("icmp4", _LDX_IP_HEADER, None, None, 0),
        (None, _LD_BYTE_X, None, None, 0),
        (None, _JEQ, accept, None, 8),
        (None, _JEQ, accept, drop, 0),
        ("six", _LD_BYTE, None, None, 6),
        (None, _JEQ, "icmp6", None, 58),
        (None, _JEQ, None, drop, 17),
        (None, _LD_HALF, None, None, 4),
        (None, _JGT, None, accept, LARGEST_UDP_BYTES - 40),
        (None, _LD_HALF, None, None, 40),
        (None, _JEQ, accept, drop, 53),
        ("icmp6", _LD_BYTE, None, None, 40),
        (None, _JEQ, accept, None, 128),
        (None, _JEQ, accept, drop, 129),
        ("drop", _RETURN, None, None, 0),
        ("accept", _RETURN, None, None, SNAP_BYTES),
    ]
    places = {label: number for number, (label, *_) in enumerate(lines) if label}

    def jump(number: int, label: str | None) -> int:
        return 0 if label is None else places[label] - number - 1

    return [
        (code, jump(number, true), jump(number, false), operand)
        for number, (_, code, true, false, operand) in enumerate(lines)
    ]


def _attach_filter(capture: socket.socket) -> None:
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in _program())
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    capture.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)
