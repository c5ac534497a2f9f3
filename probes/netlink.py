"""What the kernel knows of this host's own links and routes, asked over rtnetlink (RFC 3549).

Asked this way it is the network namespace of the calling thread that answers; /sys shows that of whoever
mounted it. A question is one datagram, and so is its answer::

    nlmsghdr   length:4  type:2  flags:2  sequence:4  port:4
    ifinfomsg  family:1  pad:1  type:2  index:4  flags:4  change:4                + attributes (a link)
    rtmsg      family:1  dst_len:1  src_len:1  tos:1  table  protocol  scope  type:1  flags:4  + … (a route)
    rtattr     length:2  type:2  value, padded to four octets
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BBHiII")
_ROUTE = struct.Struct("=8BI")
_ATTRIBUTE = struct.Struct("=HH")
# linux/netlink.h, linux/rtnetlink.h, linux/if_link.h
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_RTM_GETLINK, _RTM_GETROUTE = 18, 26
_RTA_DST, _RTA_SRC, _RTA_OIF = 1, 2, 4
_IFLA_IFNAME, _IFLA_OPERSTATE, _IFLA_CARRIER_CHANGES = 3, 16, 35
_UNICAST, _LOCAL = 1, 2
# linux/if.h
_IFF_UP, _IFF_LOWER_UP = 0x1, 0x10000
_OPERATIONAL = frozenset({0, 6})  # unknown, which many modems and tunnels stay at, and up
_ANSWER_OCTETS = 65_536
_PATIENCE_SECONDS = 2.0
# A sandbox may keep a process from netlink; what it does not let us know is not held against the network.
_FORBIDDEN = frozenset({errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EPERM, errno.EACCES})


@dataclass(frozen=True, slots=True)
class Link:
    """One interface as it is now."""

    index: int
    name: str
    up: bool
    """Switched on by its administrator."""
    carrier: bool
    """It has a line: a cable, an attached radio, the other end of a tunnel."""
    carrier_changes: int


class NoAnswerError(Exception):
    """Netlink cannot be asked on this host."""


def link(which: str | int) -> Link | None:
    """The interface of that name or index; ``None`` when there is none. NoAnswerError without netlink."""
    index, name = (which, b"") if isinstance(which, int) else (0, which.encode() + b"\0")
    question = _LINK.pack(socket.AF_UNSPEC, 0, 0, index, 0, 0)
    answer = _ask(_RTM_GETLINK, question + (_attribute(_IFLA_IFNAME, name) if name else b""))
    if isinstance(answer, int):
        return None
    _family, _pad, _type, index, flags, _change = _LINK.unpack_from(answer)
    values = dict(_attributes(answer[_LINK.size :]))
    operational = values.get(_IFLA_OPERSTATE, b"\0")[0] in _OPERATIONAL
    return Link(
        index=index,
        name=values.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("ascii", "replace"),
        up=bool(flags & _IFF_UP),
        carrier=bool(flags & _IFF_LOWER_UP) and operational,
        carrier_changes=int.from_bytes(values.get(_IFLA_CARRIER_CHANGES, b""), sys.byteorder),
    )


def route(host: str, *, interface_index: int | None = None, source: str | None = None) -> int | None:
    """The index of the interface by which packets to the address `host` leave; ``None`` without a route.

    `interface_index` and `source` are what the sending socket is bound to. NoAnswerError without netlink.
    """
    destination = ipaddress.ip_address(host.partition("%")[0])
    family = socket.AF_INET if destination.version == 4 else socket.AF_INET6
    sender = ipaddress.ip_address(source.partition("%")[0]).packed if source else b""
    question = _ROUTE.pack(family, destination.max_prefixlen, 8 * len(sender), 0, 0, 0, 0, 0, 0)
    question += _attribute(_RTA_DST, destination.packed)
    if sender:
        question += _attribute(_RTA_SRC, sender)
    if interface_index is not None:
        question += _attribute(_RTA_OIF, struct.pack("=I", interface_index))
    answer = _ask(_RTM_GETROUTE, question)
    if isinstance(answer, int) or _ROUTE.unpack_from(answer)[7] not in (_UNICAST, _LOCAL):
        return None
    found = dict(_attributes(answer[_ROUTE.size :])).get(_RTA_OIF)
    return int.from_bytes(found, sys.byteorder) if found else None


def _ask(kind: int, body: bytes) -> bytes | int:
    """The answer's body behind its header, or the errno it was refused with."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
            sock.settimeout(_PATIENCE_SECONDS)
            sock.bind((0, 0))
            sock.send(_HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST, 1, 0) + body)
            octets = sock.recv(_ANSWER_OCTETS)
    except OSError as error:
        if error.errno in _FORBIDDEN or isinstance(error, TimeoutError):
            raise NoAnswerError(os.strerror(error.errno or errno.ETIMEDOUT)) from error
        raise
    length, answer_kind, _flags, _sequence, _port = _HEADER.unpack_from(octets)
    content = octets[_HEADER.size : length]
    return -int(struct.unpack_from("=i", content)[0]) if answer_kind == _NLMSG_ERROR else content


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(octets: bytes) -> Iterator[tuple[int, bytes]]:
    while len(octets) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(octets)
        if length < _ATTRIBUTE.size:
            return
        yield kind, octets[_ATTRIBUTE.size : length]
        octets = octets[(length + 3) & ~3 :]
