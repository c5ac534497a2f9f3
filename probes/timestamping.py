"""When a packet really left and really arrived: the stamps of the kernel or the card, on the monotonic clock.

A program that reads the clock around its own system calls measures its host's scheduler too: tens of
milliseconds when the host is busy. The kernel stamps a packet where it leaves the driver's queue
(SO_TIMESTAMPING, read back from the error queue) and where it arrives, whenever this program gets to run.

What is asked for, and what there is when it is refused::

    hardware   both ends, by the network card's own clock   where an administrator has switched it on
    kernel     both ends (SO_TIMESTAMPING)                   Linux 4.0 and any driver that stamps
    kernel     arrival only (SO_TIMESTAMPNS)                 the departure is then stamped in user space
    user       neither

Every stamp says which of these it is. A card's clock is its own: its stamps give the time between a departure
and an arrival at the same card and no date. Kernel stamps are wall-clock times, carried over to the monotonic
clock by :mod:`probes.clock_bridge`; one that may lie before a step of the wall clock is not used.
"""

from __future__ import annotations

import socket
import struct
import sys
from dataclasses import dataclass
from typing import Any

from nhip.clock import Clock
from nhip.measurement import Stamp, StampSource
from probes.clock_bridge import ClockBridge
from probes.error_queue import (
    SCM_TIMESTAMPING,
    QueuedError,
    TransmitStamp,
    kernel_and_hardware_ns,
    queued_messages,
)

# Not in the socket module of Python 3.11; the numbers of asm-generic/socket.h (x86-64, arm64, riscv).
SO_TIMESTAMPNS = 35
SO_TIMESTAMPING = 37
_IP_RECVTTL, _IP_RECVTOS = 12, 13  # linux/in.h

# linux/net_tstamp.h
_TX_HARDWARE, _TX_SOFTWARE, _RX_HARDWARE, _RX_SOFTWARE = 1, 2, 4, 8
_SOFTWARE, _RAW_HARDWARE = 16, 64
_OPT_ID, _OPT_CMSG, _OPT_TSONLY, _OPT_TX_SWHW = 1 << 7, 1 << 10, 1 << 11, 1 << 14
_KERNEL = _TX_SOFTWARE | _RX_SOFTWARE | _SOFTWARE | _OPT_CMSG | _OPT_TSONLY
_HARDWARE = _TX_HARDWARE | _RX_HARDWARE | _RAW_HARDWARE | _OPT_TX_SWHW

KERNEL_STAMP_ERROR_NS = 5_000
"""How far from the wire a kernel's stamp may be: between the driver and the wire nobody stamps. What lies
between the driver's stamp and the far end was measured as at most 4.2 µs (99th percentile,
benchmarks/accuracy)."""

_TIMESPEC = struct.Struct("@ll")  # struct timespec, as this number of the option has it
_ANCILLARY_OCTETS = 512
# The kernel's work queue switches stamping on; this is ample unless the host is very busy.
_SWITCHING_ON_SECONDS = 0.005
_HOP_LIMITS = frozenset({(socket.IPPROTO_IP, socket.IP_TTL), (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)})
_TRAFFIC_CLASSES = frozenset({(socket.IPPROTO_IP, socket.IP_TOS), (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)})


@dataclass(frozen=True, slots=True)
class Datagram:
    """What one read of a socket gave; what the packet did not tell is `None`."""

    data: bytes
    address: Any
    stamp: Stamp
    hop_limit: int | None = None
    traffic_class: int | None = None
    """The octet that holds code point and ECN bits, where :meth:`PacketClock.enable` was asked for it."""
    host_mono_ns: int = 0
    """When this program had read it."""
    hardware_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Departure:
    """When the datagram numbered `number` (what :meth:`PacketClock.send` gave) really left."""

    number: int
    stamp: Stamp | None
    """`None` when the kernel's time could not be carried over a step of the wall clock."""
    hardware_ns: int | None = None


class PacketClock:
    """Sends and reads the datagrams of one socket with the best stamps there are."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._bridge = ClockBridge(clock)
        self._flags = 0
        self._sent = 0
        # The kernel numbers from 0 again after each `_renumber`; ours go on.
        self._first = 0

    @property
    def uncertainty_ns(self) -> int:
        """How far a kernel stamp on the monotonic clock may be off."""
        return self._bridge.uncertainty_ns

    @property
    def clock_steps(self) -> int:
        """How often the wall clock was set since this began."""
        return self._bridge.steps

    def enable(self, sock: socket.socket, *, traffic_class: bool = False) -> None:
        """Ask the kernel to stamp what `sock` sends and receives and, for IPv4 and IPv6, to tell its TTL.

        `traffic_class` asks for the octet with code point and ECN bits as well.
        """
        for flags in (_KERNEL | _HARDWARE, _KERNEL):
            if _accepted(sock, SO_TIMESTAMPING, flags | _OPT_ID):
                self._flags = flags
                break
        else:
            _accepted(sock, SO_TIMESTAMPNS, 1)
        if sock.family is socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
            if traffic_class:
                sock.setsockopt(socket.IPPROTO_IP, _IP_RECVTOS, 1)
        elif sock.family is socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
            if traffic_class:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        self._clock.sleep(_SWITCHING_ON_SECONDS)

    def send(self, sock: socket.socket, octets: bytes, sockaddr: Any) -> int:
        """Hand a datagram over; its number, by which :meth:`queued` later tells when it left.

        OSError as the socket gives it; nobody then knows whether the kernel counted the datagram, so it
        is told to count anew.
        """
        try:
            sock.sendto(octets, sockaddr)
        except OSError:
            self._renumber(sock)
            raise
        self._sent += 1
        return self._sent - 1

    def receive(self, sock: socket.socket, size: int) -> Datagram:
        """The next datagram; BlockingIOError when there is none, OSError as the socket gives it."""
        asked_wall_ns = self._clock.wall_ns()
        data, ancillary, _flags, address = sock.recvmsg(size, _ANCILLARY_OCTETS)
        kernel_wall_ns: int | None = None
        hardware_ns: int | None = None
        hop_limit: int | None = None
        traffic_class: int | None = None
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET:
                if kind == SCM_TIMESTAMPING:
                    kernel_wall_ns, hardware_ns = kernel_and_hardware_ns(value)
                elif kind == SO_TIMESTAMPNS:
                    seconds, nanoseconds = _TIMESPEC.unpack_from(value)
                    kernel_wall_ns = seconds * 1_000_000_000 + nanoseconds
                    # Until stamping is switched on this option fills in when the packet was read, which is no
                    # better than a stamp of ours; SO_TIMESTAMPING tells nothing then.
                    if kernel_wall_ns >= asked_wall_ns:
                        kernel_wall_ns = None
            elif (level, kind) in _HOP_LIMITS:
                hop_limit = int.from_bytes(value[:4], sys.byteorder)
            elif (level, kind) in _TRAFFIC_CLASSES:
                # One octet for IPv4, an int for IPv6.
                traffic_class = int.from_bytes(value[:4], sys.byteorder) & 0xFF
        now_ns = self._bridge.look()
        stamp = self._carried(kernel_wall_ns, now_ns)
        if stamp is None:
            stamp = Stamp(self._bridge.wall_ns(now_ns), now_ns, StampSource.USER)
        return Datagram(data, address, stamp, hop_limit, traffic_class, now_ns, hardware_ns)

    def queued(self, sock: socket.socket) -> list[Departure | QueuedError]:
        """Departures and ICMP errors that wait, oldest first."""
        found: list[Departure | QueuedError] = []
        now_ns: int | None = None
        for message in queued_messages(sock):
            if isinstance(message, TransmitStamp):
                now_ns = self._bridge.look() if now_ns is None else now_ns
                number = self._first + message.number
                if number < self._sent:
                    stamp = self._carried(message.kernel_wall_ns, now_ns)
                    found.append(Departure(number, stamp, message.hardware_ns))
            else:
                found.append(message)
        return found

    def _carried(self, kernel_wall_ns: int | None, now_ns: int) -> Stamp | None:
        mono_ns = None if kernel_wall_ns is None else self._bridge.mono_ns(kernel_wall_ns, now_ns)
        if kernel_wall_ns is None or mono_ns is None:
            return None
        return Stamp(kernel_wall_ns, mono_ns, StampSource.KERNEL)

    def _renumber(self, sock: socket.socket) -> None:
        if self._flags and _accepted(sock, SO_TIMESTAMPING, self._flags):
            _accepted(sock, SO_TIMESTAMPING, self._flags | _OPT_ID)
        self._first = self._sent


def _accepted(sock: socket.socket, option: int, value: int) -> bool:
    try:
        sock.setsockopt(socket.SOL_SOCKET, option, value)
    except OSError:
        return False
    return True
