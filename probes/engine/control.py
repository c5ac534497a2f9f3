"""Control messages of a block of datagrams, read as columns: kernel stamps, departures, ICMP errors.

::

    reply       SOL_SOCKET/SO_TIMESTAMPING { 3 timespec }
    departure   SOL_SOCKET/SO_TIMESTAMPING { 3 timespec }, SOL_IP(V6)/RECVERR { sock_extended_err, sockaddr }
    ICMP error  as a departure, or without the stamp: read one by one

Each message is a cmsghdr (size 8, level 4, type 4) and its data, to the next multiple of eight octets.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass

import numpy as np

from probes.engine.batch import ReceiveBlock
from probes.engine.packet import Bools, Int64s

CONTROL_OCTETS = 192
QUOTED_OCTETS = 64

_TIMESTAMPING = 37
_RECVERR = {socket.AF_INET: (0, 11), socket.AF_INET6: (41, 25)}
_RECVERR_MESSAGES = frozenset(_RECVERR.values())
_LAYOUT = np.dtype(
    {
        "names": [
            *("level", "type", "seconds", "nanoseconds"),
            *("level2", "type2", "errno", "origin", "number"),
        ],
        "formats": ["i4", "i4", "i8", "i8", "i4", "i4", "u4", "u1", "u4"],
        "offsets": [8, 12, 16, 24, 72, 76, 80, 84, 92],
        "itemsize": CONTROL_OCTETS,
    }
)
_EXTENDED_ERROR = struct.Struct("@IBBBxII")  # struct sock_extended_err, linux/errqueue.h
_HEADER = struct.Struct("@Qii")  # struct cmsghdr
_ORIGIN_ICMP, _ORIGIN_ICMP6, _ORIGIN_STAMP = 2, 3, 4


@dataclass(frozen=True, slots=True)
class Departures:
    """What the error queue told: kernel stamps by number, and the rows that are something else."""

    numbers: Int64s
    wall_ns: Int64s
    other_rows: list[int]


@dataclass(frozen=True, slots=True)
class IcmpError:
    """An ICMP error about a packet of ours."""

    error: OSError
    quoted: bytes
    host: bytes
    """The row of the address our packet went to."""


def arrivals(block: ReceiveBlock, count: int) -> tuple[Int64s, Bools]:
    """The kernel's arrival stamp of each datagram, and which have none (their stamp is 0)."""
    fields = block.control[:count].view(_LAYOUT)[:, 0]
    stamped = (fields["level"] == socket.SOL_SOCKET) & (fields["type"] == _TIMESTAMPING)
    wall_ns = fields["seconds"] * 1_000_000_000 + fields["nanoseconds"]
    missing = ~stamped | (wall_ns == 0)
    wall_ns[missing] = 0
    return wall_ns, missing


def departures(block: ReceiveBlock, count: int, family: socket.AddressFamily) -> Departures:
    """The departure stamps among `count` messages of the error queue."""
    level, kind = _RECVERR[family]
    fields = block.control[:count].view(_LAYOUT)[:, 0]
    plain = (
        (fields["type"] == _TIMESTAMPING)
        & (fields["level2"] == level)
        & (fields["type2"] == kind)
        & (fields["errno"] == errno.ENOMSG)
        & (fields["origin"] == _ORIGIN_STAMP)
    )
    wall_ns = fields["seconds"] * 1_000_000_000 + fields["nanoseconds"]
    numbers = fields["number"].astype(np.int64)
    if plain.all():
        return Departures(numbers, wall_ns, [])
    return Departures(numbers[plain], wall_ns[plain], np.flatnonzero(~plain).tolist())


def icmp_error(block: ReceiveBlock, row: int) -> IcmpError | None:
    """The ICMP error in one row of the error queue; `None` when it is none."""
    octets, place = block.control[row, : int(block.control_lengths[row])].tobytes(), 0
    while place + _HEADER.size <= len(octets):
        size, level, kind = _HEADER.unpack_from(octets, place)
        if size < _HEADER.size:
            return None
        if (level, kind) in _RECVERR_MESSAGES:
            number, origin, _type, _code, _info, _data = _EXTENDED_ERROR.unpack_from(
                octets, place + _HEADER.size
            )
            if origin not in (_ORIGIN_ICMP, _ORIGIN_ICMP6):
                return None
            quoted = block.data[row, : int(block.lengths[row])].tobytes()
            return IcmpError(OSError(number, os.strerror(number)), quoted, block.addresses[row].tobytes())
        place += (size + 7) & ~7
    return None
