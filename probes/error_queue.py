"""A datagram socket's error queue: ICMP errors about what it sent, and when it left (ip(7), MSG_ERRQUEUE).

Both kinds of message share the queue, so one reader takes both out. What is left there would wake every
later poll.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from probes.network import errno_name

# linux/in.h and linux/in6.h; missing from Python 3.11's socket module.
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_EXTENDED_ERROR = struct.Struct("@IBBBxII")  # struct sock_extended_err, linux/errqueue.h
_ORIGIN_ICMP, _ORIGIN_ICMP6, _ORIGIN_TIMESTAMPING = 2, 3, 4
_QUOTED_OCTETS = 65_536
_MESSAGES = frozenset({(socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)})
_NANOSECONDS = 1_000_000_000

SCM_TIMESTAMPING = 37  # asm-generic/socket.h
# struct scm_timestamping: three timespecs, of which the first is the kernel's and the last the card's.
_THREE_TIMES = struct.Struct("@llllll")


@dataclass(frozen=True, slots=True)
class QueuedError:
    """One error: the octets of ours that it quotes, what it stands for, and its type and code as text."""

    quoted: bytes
    error: OSError
    detail: str


@dataclass(frozen=True, slots=True)
class TransmitStamp:
    """When the datagram numbered `number` (OPT_ID, from 0) left, by the kernel's wall clock or the card's."""

    number: int
    kernel_wall_ns: int | None
    hardware_ns: int | None


def report_errors(sock: socket.socket) -> None:
    """Have the kernel keep ICMP errors about what `sock` sends, also while it is not connected."""
    if sock.family is socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)


def queued_messages(sock: socket.socket) -> Iterator[QueuedError | TransmitStamp]:
    """Everything that waits in the error queue, taken out of it."""
    while True:
        try:
            quoted, ancillary, _flags, _address = sock.recvmsg(_QUOTED_OCTETS, 512, socket.MSG_ERRQUEUE)
        except OSError:
            return
        kernel_wall_ns: int | None = None
        hardware_ns: int | None = None
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == SCM_TIMESTAMPING:
                kernel_wall_ns, hardware_ns = kernel_and_hardware_ns(value)
        for level, kind, value in ancillary:
            if (level, kind) not in _MESSAGES:
                continue
            number, origin, icmp_type, icmp_code, _info, data = _EXTENDED_ERROR.unpack_from(value)
            if origin == _ORIGIN_TIMESTAMPING:
                yield TransmitStamp(data, kernel_wall_ns, hardware_ns)
                continue
            error = OSError(number, os.strerror(number))
            by_icmp = origin in (_ORIGIN_ICMP, _ORIGIN_ICMP6)
            detail = f"ICMP type {icmp_type} code {icmp_code}" if by_icmp else errno_name(error)
            yield QueuedError(quoted, error, detail)


def kernel_and_hardware_ns(value: bytes) -> tuple[int | None, int | None]:
    """The two times of a SCM_TIMESTAMPING message; zero in it means that there is none."""
    kernel_s, kernel_ns, _old_s, _old_ns, hardware_s, hardware_ns = _THREE_TIMES.unpack_from(value)
    return kernel_s * _NANOSECONDS + kernel_ns or None, hardware_s * _NANOSECONDS + hardware_ns or None
