"""The socket seam: every socket a probe uses is made here, bound as the task says.

A task bound to an interface must never be answered through another one: if the interface is gone, that
is an error to report, not a measurement over the default route. Names are resolved with a deadline, and
what is no name and no address is refused before it reaches the resolver, which would read ``2130706433`` or
``0x7f.1`` as 127.0.0.1.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
import threading
from dataclasses import dataclass
from typing import Any, Protocol

from nhip.errors import CannotMeasureError
from nhip.measurement import Outcome

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_INTERFACE = re.compile(r"[A-Za-z0-9_.:-]{1,15}")


@dataclass(frozen=True, slots=True)
class Address:
    """Where packets go: an address family and what the socket calls want."""

    family: socket.AddressFamily
    sockaddr: tuple[Any, ...]

    @property
    def host(self) -> str:
        """The address as text, without port."""
        return str(self.sockaddr[0])

    @property
    def ip_version(self) -> int:
        return 4 if self.family is socket.AF_INET else 6


class Network(Protocol):
    """What a probe asks for; tests may hand in another one."""

    interface: str | None
    source: str | None

    def resolve(self, host: str, port: int, *, timeout_seconds: float) -> Address | None:
        """The address of `host`, or `None` when the name has none (which is a measurement)."""

    def tcp(self, family: socket.AddressFamily) -> socket.socket:
        """A non-blocking stream socket, bound as configured."""

    def udp(self, family: socket.AddressFamily) -> socket.socket:
        """A non-blocking datagram socket, bound as configured."""

    def icmp(self, family: socket.AddressFamily) -> tuple[socket.socket, bool]:
        """A non-blocking ICMP echo socket, and whether it is a raw one."""


class HostNetwork:
    """The sockets of this host, optionally bound to one interface, source address and IP version."""

    def __init__(
        self, *, interface: str | None = None, source: str | None = None, ip_version: int | None = None
    ) -> None:
        self.interface = interface
        self.source = source
        self.ip_version = ip_version

    def resolve(self, host: str, port: int, *, timeout_seconds: float) -> Address | None:
        wanted = {None: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}[self._version()]
        literal = _literal(host)
        if literal is None and not _is_name(host):
            raise CannotMeasureError(
                f"{host!r} is neither a name nor an address", remedy="correct the target"
            )
        flags = socket.AI_NUMERICHOST if literal else 0
        found: list[Address] = []

        def look_up() -> None:
            try:
                answers = socket.getaddrinfo(host, port, wanted, socket.SOCK_STREAM, 0, flags)
            except OSError:
                return
            found.extend(Address(family, sockaddr) for family, _type, _proto, _name, sockaddr in answers)

        # getaddrinfo has no deadline of its own and blocks for many seconds when the resolver is dead.
        thread = threading.Thread(target=look_up, name="resolve", daemon=True)
        thread.start()
        thread.join(timeout_seconds)
        return found[0] if found else None

    def tcp(self, family: socket.AddressFamily) -> socket.socket:
        return self._bound(_open(family, socket.SOCK_STREAM))

    def udp(self, family: socket.AddressFamily) -> socket.socket:
        return self._bound(_open(family, socket.SOCK_DGRAM))

    def icmp(self, family: socket.AddressFamily) -> tuple[socket.socket, bool]:
        protocol = socket.IPPROTO_ICMP if family is socket.AF_INET else socket.IPPROTO_ICMPV6
        refusals = []
        for kind, raw in ((socket.SOCK_DGRAM, False), (socket.SOCK_RAW, True)):
            try:
                sock = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
            except OSError as error:
                refusals.append(f"{'raw' if raw else 'datagram'} socket: {error.strerror}")
            else:
                return self._bound(sock), raw
        raise CannotMeasureError(
            f"this host allows no ICMP echo ({'; '.join(refusals)})",
            remedy="as root, in this network namespace: sysctl -w net.ipv4.ping_group_range='0 2147483647'",
        )

    def _version(self) -> int | None:
        source = _literal(self.source) if self.source else None
        return source.version if source else self.ip_version

    def _bound(self, sock: socket.socket) -> socket.socket:
        where = f"interface {self.interface}"
        try:
            if self.interface is not None:
                if not _INTERFACE.fullmatch(self.interface):
                    raise CannotMeasureError(
                        f"{self.interface!r} is no interface name", remedy="see: ip link"
                    )
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.interface.encode() + b"\0")
            if self.source is not None:
                where = f"source address {self.source}"
                sock.bind((self.source, 0))
        except OSError as error:
            sock.close()
            raise CannotMeasureError(
                f"cannot bind to {where}: {error.strerror}",
                remedy="check that it exists and is up: ip -brief address",
            ) from error
        except CannotMeasureError:
            sock.close()
            raise
        return sock


_OUTCOME_OF_ERRNO = {
    errno.ECONNREFUSED: Outcome.REFUSED,
    errno.EHOSTUNREACH: Outcome.UNREACHABLE,
    errno.ENETUNREACH: Outcome.UNREACHABLE,
    errno.EHOSTDOWN: Outcome.UNREACHABLE,
    errno.ENONET: Outcome.UNREACHABLE,
    errno.EACCES: Outcome.UNREACHABLE,  # an administratively prohibited route answers so
    errno.EPERM: Outcome.NOT_SENT,  # this host's own packet filter
    errno.ECONNRESET: Outcome.RESET,
    errno.EPIPE: Outcome.RESET,
    errno.ECONNABORTED: Outcome.RESET,
    errno.ETIMEDOUT: Outcome.LOST,
    errno.ENOBUFS: Outcome.NOT_SENT,
    errno.ENOMEM: Outcome.NOT_SENT,
    errno.EINVAL: Outcome.NOT_SENT,
    errno.EAGAIN: Outcome.NOT_SENT,
    errno.EADDRNOTAVAIL: Outcome.NOT_SENT,
}
_LOCAL_FAILURES = frozenset({errno.ENODEV, errno.ENETDOWN, errno.ENXIO, errno.EMFILE, errno.ENFILE})


def outcome_of(error: OSError) -> Outcome:
    """The fate an operating-system error stands for; CannotMeasureError when the fault is this host's own."""
    if error.errno in _LOCAL_FAILURES:
        raise CannotMeasureError(
            f"this host's network interface or resources failed: {error.strerror}",
            remedy="check the interface (ip -brief link) and the limit on open files",
        ) from error
    return _OUTCOME_OF_ERRNO.get(error.errno or 0, Outcome.UNREACHABLE)


def errno_name(error: OSError) -> str:
    """``ECONNREFUSED`` and the like, for a singleton's detail."""
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def _open(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
    try:
        return socket.socket(family, kind | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise CannotMeasureError(
            f"this host opens no IPv{4 if family is socket.AF_INET else 6} socket: {error.strerror}",
            remedy="check the limit on open files and whether IPv6 is switched off",
        ) from error


def _is_name(host: str) -> bool:
    """Whether `host` can be a host name: labels of RFC 1123, the last of them no number."""
    labels = host.removesuffix(".").split(".")
    whole = len(host) <= 254 and all(_LABEL.fullmatch(label) for label in labels)
    return whole and not _NUMBER.fullmatch(labels[-1])


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    scope = getattr(address, "scope_id", None)
    return None if scope is not None and not _INTERFACE.fullmatch(scope) else address
