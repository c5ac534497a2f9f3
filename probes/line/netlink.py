"""What the kernel knows of this host's own links and routes, asked over rtnetlink (RFC 3549).

Asked this way it is the network namespace of the calling thread that answers; /sys shows that of whoever
mounted it. A question is one datagram, and so is its answer::

    nlmsghdr   length:4  type:2  flags:2  sequence:4  port:4
    ifinfomsg  family:1  pad:1  type:2  index:4  flags:4  change:4                + attributes (a link)
    rtmsg      family:1  dst_len:1  src_len:1  tos:1  table  protocol  scope  type:1  flags:4  + … (a route)
    ifaddrmsg  family:1  prefixlen:1  flags:1  scope:1  index:4                   + … (an address)
    fib_rule   family:1  dst_len:1  src_len:1  tos:1  table:1  pad:2  action:1  flags:4  + … (a rule)
    rtattr     length:2  type:2  value, padded to four octets

Asked for all of something it answers with many such messages, the last of them "done".

NoAnswerError where netlink is not to be had at all; CannotMeasureError where this host is out of descriptors
or memory, which it says of any question.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from nhip.errors import CannotMeasureError
from probes.line.shortage import shortage

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BBHiII")
_ROUTE = struct.Struct("=8BI")
_ADDRESS = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_COUNTS = struct.Struct("=4Q")  # rtnl_link_stats64 begins: packets in, packets out, octets in, octets out
# linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/fib_rules.h
_NLM_F_REQUEST, _NLM_F_DUMP = 1, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTM_GETLINK, _RTM_GETADDR, _RTM_GETROUTE, _RTM_GETRULE = 18, 22, 26, 34
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_TABLE, _RTA_MARK = 1, 2, 4, 15, 16
_RTM_F_LOOKUP_TABLE = 0x1000
_IFLA_IFNAME, _IFLA_MASTER, _IFLA_OPERSTATE, _IFLA_STATS64, _IFLA_CARRIER_CHANGES = 3, 10, 16, 23, 35
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_FRA_FWMARK, _FRA_TABLE, _FRA_FWMASK = 10, 15, 16
_FR_ACT_TO_TBL = 1
_UNICAST, _LOCAL = 1, 2
# linux/if.h
_IFF_UP, _IFF_LOOPBACK, _IFF_POINTOPOINT, _IFF_NOARP, _IFF_LOWER_UP = 0x1, 0x8, 0x10, 0x80, 0x10000
_OPERATIONAL = frozenset({0, 6})  # unknown, which many modems and tunnels stay at, and up
_ANSWER_OCTETS = 65_536
_PATIENCE_SECONDS = 2.0
# A sandbox may keep a process from netlink; what it does not let us know is not held against the network.
_FORBIDDEN = frozenset({errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EPERM, errno.EACCES})


@dataclass(frozen=True, slots=True)
class LineCount:
    """What an interface has carried since it came into being: frames and octets, headers included."""

    packets_sent: int
    packets_received: int
    octets_sent: int
    octets_received: int

    def since(self, before: LineCount) -> LineCount:
        """What it has carried since `before` was read."""
        return LineCount(
            self.packets_sent - before.packets_sent,
            self.packets_received - before.packets_received,
            self.octets_sent - before.octets_sent,
            self.octets_received - before.octets_received,
        )

    def plus(self, other: LineCount) -> LineCount:
        """What the two have carried together."""
        return LineCount(
            self.packets_sent + other.packets_sent,
            self.packets_received + other.packets_received,
            self.octets_sent + other.octets_sent,
            self.octets_received + other.octets_received,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One interface as it is now."""

    index: int
    name: str
    up: bool
    """Switched on by its administrator."""
    carrier: bool
    """It has a line: a cable, an attached radio, the other end of a tunnel."""
    carrier_changes: int
    loopback: bool = False
    one_far_end: bool = False
    """Whatever is sent by it arrives at its one far end; no neighbour has to be found (PPP, raw IP)."""
    master_index: int | None = None
    """Of the bridge, bond or VRF it belongs to."""
    count: LineCount | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Route:
    """How packets to an address leave: the interface, the table that said so, and whether to this host."""

    interface_index: int
    table: int | None
    """`None` when no table said so: bound to an interface, IPv4 takes everything to be its neighbour."""
    local: bool


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
        carrier_changes=_number(values.get(_IFLA_CARRIER_CHANGES)) or 0,
        loopback=bool(flags & _IFF_LOOPBACK),
        one_far_end=bool(flags & (_IFF_POINTOPOINT | _IFF_NOARP)),
        master_index=_number(values.get(_IFLA_MASTER)),
        count=_count(values.get(_IFLA_STATS64)),
    )


def route(
    host: str,
    *,
    interface_index: int | None = None,
    source: str | None = None,
    mark: int | None = None,
) -> Route | None:
    """How packets to the address `host` leave; ``None`` without a route.

    `interface_index`, `source` and `mark` are what the sending socket is bound to. NoAnswerError without
    netlink.
    """
    destination = ipaddress.ip_address(host.partition("%")[0])
    family = _family_of(destination)
    sender = ipaddress.ip_address(source.partition("%")[0]).packed if source else b""
    question = _ROUTE.pack(
        family, destination.max_prefixlen, 8 * len(sender), 0, 0, 0, 0, 0, _RTM_F_LOOKUP_TABLE
    )
    question += _attribute(_RTA_DST, destination.packed)
    if sender:
        question += _attribute(_RTA_SRC, sender)
    if interface_index is not None:
        question += _attribute(_RTA_OIF, struct.pack("=I", interface_index))
    if mark is not None:
        question += _attribute(_RTA_MARK, struct.pack("=I", mark))
    answer = _ask(_RTM_GETROUTE, question)
    if isinstance(answer, int):
        return None
    kind = _ROUTE.unpack_from(answer)[7]
    values = dict(_attributes(answer[_ROUTE.size :]))
    found = _number(values.get(_RTA_OIF))
    if kind not in (_UNICAST, _LOCAL) or found is None:
        return None
    return Route(found, _number(values.get(_RTA_TABLE)) or None, kind == _LOCAL)


def owner(address: str) -> int | None:
    """The index of the interface that has this address; ``None`` when none has exactly it."""
    wanted = ipaddress.ip_address(address.partition("%")[0])
    for answer in _ask_for_all(_RTM_GETADDR, _ADDRESS.pack(_family_of(wanted), 0, 0, 0, 0)):
        values = dict(_attributes(answer[_ADDRESS.size :]))
        if values.get(_IFA_LOCAL, values.get(_IFA_ADDRESS)) == wanted.packed:
            return int(_ADDRESS.unpack_from(answer)[4])
    return None


def tables_of_mark(mark: int, ip_version: int) -> frozenset[int]:
    """The routing tables that a rule of this host selects for packets with `mark`."""
    family = socket.AF_INET if ip_version == 4 else socket.AF_INET6
    found = set()
    for answer in _ask_for_all(_RTM_GETRULE, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)):
        header = _ROUTE.unpack_from(answer)
        values = dict(_attributes(answer[_ROUTE.size :]))
        wanted, mask = _number(values.get(_FRA_FWMARK)), _number(values.get(_FRA_FWMASK))
        if wanted and header[7] == _FR_ACT_TO_TBL and not (mark ^ wanted) & (mask or 0xFFFFFFFF):
            found.add(_number(values.get(_FRA_TABLE)) or int(header[4]))
    return frozenset(found)


def _ask_for_all(kind: int, body: bytes) -> Iterator[bytes]:
    """The body of every message of a long answer; nothing when the kernel refuses the question."""
    with _talking() as sock:
        sock.send(_HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0) + body)
        while True:
            octets = sock.recv(_ANSWER_OCTETS)
            while len(octets) >= _HEADER.size:
                length, answer_kind, _flags, _sequence, _port = _HEADER.unpack_from(octets)
                if answer_kind in (_NLMSG_DONE, _NLMSG_ERROR) or length < _HEADER.size:
                    return
                yield octets[_HEADER.size : length]
                octets = octets[(length + 3) & ~3 :]


def _ask(kind: int, body: bytes) -> bytes | int:
    """The answer's body behind its header, or the errno it was refused with."""
    with _talking() as sock:
        sock.send(_HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST, 1, 0) + body)
        octets = sock.recv(_ANSWER_OCTETS)
    length, answer_kind, _flags, _sequence, _port = _HEADER.unpack_from(octets)
    content = octets[_HEADER.size : length]
    return -int(struct.unpack_from("=i", content)[0]) if answer_kind == _NLMSG_ERROR else content


@contextlib.contextmanager
def _talking() -> Iterator[socket.socket]:
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
            sock.settimeout(_PATIENCE_SECONDS)
            sock.bind((0, 0))
            yield sock
    except OSError as error:
        if error.errno in _FORBIDDEN or isinstance(error, TimeoutError):
            raise NoAnswerError(os.strerror(error.errno or errno.ETIMEDOUT)) from error
        what = "the kernel cannot be asked for routes"
        raise shortage(error, what) or CannotMeasureError(
            f"{what}: {error.strerror}", remedy="try: ip route; ip -brief link"
        ) from error


def _family_of(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _number(octets: bytes | None) -> int | None:
    return int.from_bytes(octets, sys.byteorder) if octets else None


def _count(octets: bytes | None) -> LineCount | None:
    if octets is None or len(octets) < _COUNTS.size:
        return None
    packets_received, packets_sent, octets_received, octets_sent = _COUNTS.unpack_from(octets)
    return LineCount(packets_sent, packets_received, octets_sent, octets_received)


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(octets: bytes) -> Iterator[tuple[int, bytes]]:
    while len(octets) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(octets)
        if length < _ATTRIBUTE.size:
            return
        yield kind, octets[_ATTRIBUTE.size : length]
        octets = octets[(length + 3) & ~3 :]
