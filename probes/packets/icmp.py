"""ICMP echo, IPv4 (RFC 792) and IPv6 (RFC 4443 section 4).

::

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |     Type      |     Code      |          Checksum             |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |           Identifier          |        Sequence Number        |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |     Data ...
    +-+-+-+-+-
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from nhip.errors import WireError

HEADER_OCTETS = 8
HIGHEST_SEQUENCE = 0xFFFF

_HEADER = struct.Struct("!BBHHH")
_REQUEST = {4: 8, 6: 128}
_REPLY = {4: 0, 6: 129}


@dataclass(frozen=True, slots=True)
class Echo:
    """An echo request or reply."""

    identifier: int
    sequence: int
    data: bytes


def pack_request(echo: Echo, ip_version: int) -> bytes:
    """An echo request; the kernel writes the checksum for IPv6 (RFC 3542 section 3.1), we for IPv4.

    Of a sequence number above 16 bits the lowest stand in the header.
    """
    kind, sequence = _REQUEST[ip_version], echo.sequence & HIGHEST_SEQUENCE
    bare = _HEADER.pack(kind, 0, 0, echo.identifier, sequence) + echo.data
    total = checksum(bare) if ip_version == 4 else 0
    return _HEADER.pack(kind, 0, total, echo.identifier, sequence) + echo.data


def unpack_reply(octets: bytes, ip_version: int) -> Echo | None:
    """The echo reply in `octets`; `None` for any other message, WireError when it is cut short."""
    return _unpack(octets, _REPLY[ip_version])


def unpack_request(octets: bytes, ip_version: int) -> Echo | None:
    """The echo request in `octets`, as an ICMP error quotes it; `None` for any other message."""
    return _unpack(octets, _REQUEST[ip_version])


def strip_ip_header(octets: bytes) -> bytes:
    """What follows an IPv4 header, which a raw socket delivers in front of the message."""
    if not octets:
        raise WireError("an empty packet has no IPv4 header")
    return octets[(octets[0] & 0x0F) * 4 :]


def is_whole(octets: bytes) -> bool:
    """Whether a message's checksum holds, which a raw IPv4 socket leaves to its reader (RFC 1122 3.2.2)."""
    return checksum(octets) == 0


def checksum(octets: bytes) -> int:
    """The Internet checksum (RFC 1071): ones' complement of the ones' complement sum of 16-bit words."""
    padded = octets + b"\0" * (len(octets) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _unpack(octets: bytes, kind: int) -> Echo | None:
    if len(octets) < HEADER_OCTETS:
        raise WireError(f"{len(octets)} octets are no ICMP echo")
    found, _code, _checksum, identifier, sequence = _HEADER.unpack_from(octets)
    return Echo(identifier, sequence, octets[HEADER_OCTETS:]) if found == kind else None
