"""The socket of one lane: what the kernel is asked for, and what it grants.

Timestamping (Documentation/networking/timestamping.rst): the kernel stamps each packet when it leaves and
when it arrives. Departures come back by the error queue with the number of the packet and nothing else
(OPT_ID, OPT_TSONLY). Error queue and receive queue share one buffer, whose size is the longest pause this
program can make without loss of its own doing.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from dataclasses import dataclass

from nhip.errors import CannotMeasureError
from probes.network import Network

# asm-generic/socket.h, linux/in.h, linux/in6.h and linux/net_tstamp.h; missing from Python 3.11's module.
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE, _SO_TIMESTAMPING, _SO_MEMINFO = 32, 33, 37, 55
_IP_MTU_DISCOVER, _IP_PMTUDISC_DONT, _IP_PMTUDISC_PROBE = 10, 0, 3
_IPV6_MTU_DISCOVER, _IPV6_DONTFRAG = 23, 62
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_TX_SOFTWARE, _RX_SOFTWARE, _SOFTWARE = 1 << 1, 1 << 3, 1 << 4
_OPT_ID, _OPT_CMSG, _OPT_TSONLY = 1 << 7, 1 << 10, 1 << 11
_STAMPS = _TX_SOFTWARE | _RX_SOFTWARE | _SOFTWARE | _OPT_CMSG | _OPT_TSONLY
_SOL_RAW, _ICMP_FILTER, _ICMP6_FILTER = 255, 1, 1
_ECHO_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}

_WANTED_OCTETS = 32 * 1024 * 1024
# What a departure and a small reply each take in the buffer, with the kernel's own book-keeping.
_SKB_OCTETS = 768


@dataclass(slots=True)
class Endpoint:
    """An open socket and what it can do."""

    sock: socket.socket
    raw: bool
    stamps: bool
    """Whether the kernel was willing to stamp at all."""
    buffer_octets: int

    def restart_numbers(self) -> None:
        """Have the kernel count departures from 0 again: after a refused packet nobody knows its count."""
        if self.stamps:
            self.sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _STAMPS)
            self.sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _STAMPS | _OPT_ID)

    def dropped(self) -> int | None:
        """Replies the kernel had no room for; `None` where it does not tell."""
        try:
            octets = self.sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)
        except OSError:
            return None
        return int(struct.unpack("9I", octets)[8]) if len(octets) == 36 else None

    def close(self) -> None:
        self.sock.close()


def probes_in_buffer(buffer_octets: int, packet_octets: int) -> int:
    """How many unread probes a receive buffer holds: one departure and one reply each."""
    reply = _SKB_OCTETS + (1 << max(0, (packet_octets + 320 - 1).bit_length()) if packet_octets > 192 else 0)
    return max(1, buffer_octets // (_SKB_OCTETS + reply))


def open_endpoint(
    network: Network, family: socket.AddressFamily, *, dscp: int, dont_fragment: bool
) -> Endpoint:
    """A socket ready to probe with; CannotMeasureError when this host allows none."""
    sock, raw = network.icmp(family)
    try:
        _forced(sock, _SO_RCVBUFFORCE, socket.SO_RCVBUF)
        _forced(sock, _SO_SNDBUFFORCE, socket.SO_SNDBUF)
        _set_header(sock, family, dscp, dont_fragment)
        if raw:
            _only_replies(sock, family)
        stamps = True
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _STAMPS | _OPT_ID)
        except OSError:
            stamps = False
        buffer_octets = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    except OSError as error:
        sock.close()
        raise CannotMeasureError(
            f"the kernel refuses a setting of the ICMP socket: {error.strerror}",
            remedy="leave dscp and dont_fragment at their defaults",
        ) from error
    return Endpoint(sock, raw, stamps, buffer_octets)


def _forced(sock: socket.socket, forced: int, plain: int) -> None:
    """The largest buffer this process may have: any with CAP_NET_ADMIN, else up to the host's limit."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, forced, _WANTED_OCTETS)
    except OSError:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, plain, _WANTED_OCTETS)


def _set_header(sock: socket.socket, family: socket.AddressFamily, dscp: int, dont_fragment: bool) -> None:
    if family is socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
        discover = _IP_PMTUDISC_PROBE if dont_fragment else _IP_PMTUDISC_DONT
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, discover)
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, dscp << 2)
        if dont_fragment:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)


def _only_replies(sock: socket.socket, family: socket.AddressFamily) -> None:
    """A raw socket sees every ICMP message of the host; let the kernel keep the others from it."""
    reply = _ECHO_REPLY[family]
    if family is socket.AF_INET:
        sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("@I", ~(1 << reply) & 0xFFFF_FFFF))
    else:
        blocked = [0xFFFF_FFFF] * 8
        blocked[reply >> 5] &= ~(1 << (reply & 31))
        sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("@8I", *blocked))
