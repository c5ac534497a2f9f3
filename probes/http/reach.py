"""How far in an address lies, and that no server may send a probe further in than itself is.

Whoever answers a probe chooses where a redirect leads. A server of the Internet must not make it knock at its
own host, at a cloud's metadata service or at its operator's routers, nor may a server of the operator's::

    public  ->  private  ->  link  ->  this host
            outwards and level: followed; inwards: refused

An IPv6 address that carries an IPv4 address leads to both, and the innermost of them counts.
"""

from __future__ import annotations

import ipaddress
from enum import IntEnum

_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address

# RFC 6052 section 2.1: what a NAT64 of anybody's turns into IPv4.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# RFC 8215: the same within one network, which alone knows where in it the IPv4 address lies.
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
# RFC 6890: "this host on this network", and what was kept for later, broadcast included.
_NOBODY = (ipaddress.IPv4Network("0.0.0.0/8"), ipaddress.IPv4Network("240.0.0.0/4"))
# RFC 4291 section 2.5.5.1, deprecated; some stacks still take it for IPv4.
_COMPATIBLE = ipaddress.IPv6Network("::/96")


class Reach(IntEnum):
    """From whom packets to an address come: the wider, the greater."""

    HOST = 0
    LINK = 1
    PRIVATE = 2
    PUBLIC = 3


_WORDS = {
    Reach.HOST: "an address of its own host",
    Reach.LINK: "an address of one link",
    Reach.PRIVATE: "a private address",
    Reach.PUBLIC: "a public address",
}


def step_refused(before: str, then: str) -> str:
    """Why a server at address `before` may not send a probe to address `then`; empty when it may."""
    inner = reach(then)
    if inner is None:
        return "redirect to an address that is no host's"
    outer = reach(before)
    if outer is not None and inner < outer:
        return f"redirect from {_WORDS[outer]} to {_WORDS[inner]}"
    return ""


def reach(address: str) -> Reach | None:
    """How far in `address` lies; `None` for one that no single host has, or that had better have none."""
    found = [_reach(ip) for ip in _meant(ipaddress.ip_address(address.partition("%")[0]))]
    known = [each for each in found if each is not None]
    return min(known) if len(known) == len(found) else None


def _reach(ip: _Ip) -> Reach | None:
    if ip.is_loopback:
        return Reach.HOST
    if ip.is_unspecified or ip.is_multicast or any(ip in network for network in _NOBODY):
        return None
    if isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local:
        return None
    if ip.is_link_local:
        return Reach.LINK
    return Reach.PUBLIC if ip.is_global and ip not in _LOCAL_NAT64 else Reach.PRIVATE


def _meant(ip: _Ip) -> list[_Ip]:
    """The addresses that packets to `ip` may end at."""
    if ip.version == 4:
        return [ip]
    if ip.ipv4_mapped is not None:
        return [ip.ipv4_mapped]
    embedded = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
    if ip in _NAT64:
        return [embedded]
    if ip in _LOCAL_NAT64:
        return [ip, embedded]
    if ip in _COMPATIBLE and not (ip.is_loopback or ip.is_unspecified):
        return [ip, embedded]
    if ip.sixtofour is not None:
        return [ip, ip.sixtofour]
    if ip.teredo is not None:
        return [ip, *ip.teredo]
    return [ip]
