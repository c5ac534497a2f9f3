"""ICMP errors about packets a datagram socket sent, read from its error queue (ip(7), IP_RECVERR)."""

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
_ORIGIN_ICMP, _ORIGIN_ICMP6 = 2, 3
_QUOTED_OCTETS = 65_536
_MESSAGES = frozenset({(socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)})


@dataclass(frozen=True, slots=True)
class QueuedError:
    """One error: the octets of ours that it quotes, what it stands for, and its type and code as text."""

    quoted: bytes
    error: OSError
    detail: str


def report_errors(sock: socket.socket) -> None:
    """Have the kernel keep ICMP errors about what `sock` sends, also while it is not connected."""
    if sock.family is socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)


def queued_errors(sock: socket.socket) -> Iterator[QueuedError]:
    """Every error that waits, taken out of the queue; what is left there would wake every later poll."""
    while True:
        try:
            quoted, ancillary, _flags, _address = sock.recvmsg(_QUOTED_OCTETS, 512, socket.MSG_ERRQUEUE)
        except OSError:
            return
        for level, kind, value in ancillary:
            if (level, kind) not in _MESSAGES:
                continue
            number, origin, icmp_type, icmp_code, _info, _data = _EXTENDED_ERROR.unpack_from(value)
            error = OSError(number, os.strerror(number))
            by_icmp = origin in (_ORIGIN_ICMP, _ORIGIN_ICMP6)
            detail = f"ICMP type {icmp_type} code {icmp_code}" if by_icmp else errno_name(error)
            yield QueuedError(quoted, error, detail)
