"""When a packet really arrived: the kernel's receive stamp, put on the monotonic clock.

The kernel stamps a packet on arrival (SO_TIMESTAMPNS), before this process is scheduled; on a busy host
that removes tens of milliseconds of error. The stamp is a wall-clock time, and wall clocks step, so it is
carried over to the monotonic clock with the difference of the two clocks. When that difference has changed
by more than slewing can explain, the clock was stepped in between. Every packet that arrived before the step
was noticed, however many wait in the socket, then gets a stamp read here, marked as such.

Linux switches stamping on a moment after the first socket of the host asks for it, and until then fills in
the time at which a packet is *read*. Such a stamp is no better than one of ours and is marked so too.
"""

from __future__ import annotations

import socket
import struct
import sys
from dataclasses import dataclass
from typing import Any

from nhip.clock import Clock
from nhip.measurement import Stamp, StampSource

# Not in the socket module of Python 3.11; the numbers of asm-generic/socket.h (x86-64, arm64, riscv).
SO_TIMESTAMPNS = 35

_TIMESPEC = struct.Struct("@ll")  # struct timespec, as this number of the option has it
_ANCILLARY_OCTETS = 512
# The kernel's work queue switches stamping on; this is ample unless the host is very busy.
_SWITCHING_ON_SECONDS = 0.005
# adjtime(3) and NTP slew by at most 500 ppm; anything beyond that and reading noise is a step.
_SLEW_PARTS = 500e-6
_READING_NOISE_NS = 1_000_000
# A packet cannot have arrived after it was read; the two clocks are read some microseconds apart.
_CARRYING_NOISE_NS = 50_000


@dataclass(frozen=True, slots=True)
class Datagram:
    """What one read of a socket gave; `hop_limit` is the TTL or hop limit it arrived with, if known."""

    data: bytes
    address: Any
    stamp: Stamp
    hop_limit: int | None = None


class ReceiveClock:
    """Reads datagrams of one socket with the best stamp there is, and tells which level that was."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_ns, self._offset_mono_ns = self._difference()
        # Since when, on the monotonic clock, the difference is known not to have stepped.
        self._steady_since_ns = self._offset_mono_ns

    def enable(self, sock: socket.socket) -> None:
        """Ask the kernel to stamp what arrives at `sock` and, for IPv4 and IPv6, to tell its TTL."""
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        if sock.family is socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL, linux/in.h
        elif sock.family is socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        self._clock.sleep(_SWITCHING_ON_SECONDS)

    def receive(self, sock: socket.socket, size: int) -> Datagram:
        """The next datagram; BlockingIOError when there is none, OSError as the socket gives it."""
        asked_wall_ns = self._clock.wall_ns()
        data, ancillary, _flags, address = sock.recvmsg(size, _ANCILLARY_OCTETS)
        kernel_wall_ns: int | None = None
        hop_limit: int | None = None
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack_from(value)
                kernel_wall_ns = seconds * 1_000_000_000 + nanoseconds
                if kernel_wall_ns >= asked_wall_ns:  # made while we read: the kernel had none
                    kernel_wall_ns = None
            elif (level, kind) in _HOP_LIMITS:
                hop_limit = int.from_bytes(value[:4], sys.byteorder)
        return Datagram(data, address, self._stamp(kernel_wall_ns), hop_limit)

    def _stamp(self, kernel_wall_ns: int | None) -> Stamp:
        offset_ns, mono_ns = self._difference()
        allowed_ns = _READING_NOISE_NS + _SLEW_PARTS * (mono_ns - self._offset_mono_ns)
        if abs(offset_ns - self._offset_ns) > allowed_ns:
            self._steady_since_ns = mono_ns
        self._offset_ns, self._offset_mono_ns = offset_ns, mono_ns
        if kernel_wall_ns is not None:
            arrived_ns = kernel_wall_ns - offset_ns
            if self._steady_since_ns <= arrived_ns <= mono_ns + _CARRYING_NOISE_NS:
                return Stamp(kernel_wall_ns, arrived_ns, StampSource.KERNEL)
        return Stamp(mono_ns + offset_ns, mono_ns, StampSource.USER)

    def _difference(self) -> tuple[int, int]:
        """Wall minus monotonic, and the monotonic time it was read at.

        The tightest of three readings counts: being scheduled away between two clock reads would
        otherwise move every stamp.
        """
        best: tuple[int, int, int] | None = None
        for _ in range(3):
            before = self._clock.mono_ns()
            wall = self._clock.wall_ns()
            after = self._clock.mono_ns()
            if best is None or after - before < best[0]:
                best = (after - before, wall - (before + after) // 2, after)
        assert best is not None  # noqa: S101 - the loop ran
        return best[1], best[2]


_HOP_LIMITS = frozenset({(socket.IPPROTO_IP, socket.IP_TTL), (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)})
