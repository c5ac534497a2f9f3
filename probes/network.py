"""The socket seam: every socket a probe uses is made here, bound as the task says.

A task bound to an interface must never be answered through another one: if the interface is gone, that
is an error to report, not a measurement over the default route. Names are resolved with a deadline, and
what is no name and no address is refused before it reaches the resolver, which would read ``2130706433`` or
``0x7f.1`` as 127.0.0.1. A host that cannot send at all says so before it sends, because a dead modem answers
exactly as a dead network does: not at all.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nhip.errors import CannotMeasureError
from nhip.measurement import Outcome
from probes import netlink

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


@dataclass(frozen=True, slots=True)
class Way:
    """By which interface packets leave, and how often that interface has lost or found its line so far."""

    interface: str
    index: int
    carrier_changes: int


class Network(Protocol):
    """What a probe asks for; tests may hand in another one."""

    interface: str | None
    source: str | None

    def resolve(self, host: str, port: int, *, timeout_seconds: float) -> Address | None:
        """The address of `host`, or `None` when the name has none (which is a measurement).

        A name is asked of this host's own resolver, over whatever route leads there: being bound to an
        interface or a source binds the test's packets, not the look-up (see :func:`notes_on_name`).
        CannotMeasureError for what is neither a name nor an address, for an address of the IP version that
        this network does not send, and when this host has no way to any name server.
        """

    def way(self, address: Address) -> Way | None:
        """How packets to `address` leave now; `None` where the kernel cannot be asked.

        CannotMeasureError when they cannot leave: no route, or an interface that is absent, down or
        without its line.
        """

    def tcp(self, family: socket.AddressFamily) -> socket.socket:
        """A non-blocking stream socket, bound as configured."""

    def udp(self, family: socket.AddressFamily) -> socket.socket:
        """A non-blocking datagram socket, bound as configured."""

    def icmp(self, family: socket.AddressFamily) -> tuple[socket.socket, bool]:
        """A non-blocking ICMP echo socket, and whether it is a raw one."""


class HostNetwork:
    """The sockets of this host, optionally bound to one interface, source address and IP version."""

    def __init__(
        self,
        *,
        interface: str | None = None,
        source: str | None = None,
        ip_version: int | None = None,
        resolver_file: Path = Path("/etc/resolv.conf"),
    ) -> None:
        self.interface = interface
        self.source = source
        self.ip_version = ip_version
        self._resolver_file = resolver_file

    def resolve(self, host: str, port: int, *, timeout_seconds: float) -> Address | None:
        """The first address the host's resolver gives; it is asked over the default route, bound or not."""
        version = self._version()
        wanted = {None: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}[version]
        literal = _literal(host)
        if not is_host(host):
            raise CannotMeasureError(
                f"{host!r} is neither a name nor an address", remedy="correct the target"
            )
        if literal is not None and version not in (None, literal.version):
            raise CannotMeasureError(
                f"{host} is an IPv{literal.version} address, and this test sends IPv{version}",
                remedy="give an address of that version, or another source or ip_version",
            )
        if literal is None and self.interface is not None:
            self._own_link()  # behind a dead line no name has an address, which says nothing of the name
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
        if not found and literal is None:
            self._check_way_to_resolver()
        return found[0] if found else None

    def way(self, address: Address) -> Way | None:
        try:
            own = self._own_link() if self.interface is not None else None
            scope = address.sockaddr[3] if len(address.sockaddr) > 3 else 0
            index = netlink.route(
                address.host, interface_index=own.index if own else scope or None, source=self.source
            )
            if index is None:
                by = f" by interface {self.interface}" if self.interface else ""
                by += f" from {self.source}" if self.source else ""
                oif = f" oif {self.interface}" if self.interface else ""
                oif += f" from {self.source}" if self.source else ""
                raise CannotMeasureError(
                    f"this host has no route to {address.host}{by}",
                    remedy=f"check the route: ip route get {address.host}{oif}",
                )
            found = _usable(netlink.link(index), str(index))
        except netlink.NoAnswerError:
            return None
        return Way(found.name, found.index, found.carrier_changes)

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

    def _check_way_to_resolver(self) -> None:
        """CannotMeasureError when this host can reach none of its name servers: no name is to blame."""
        free = HostNetwork()
        failure: CannotMeasureError | None = None
        for server in _name_servers(self._resolver_file) or _SOMEWHERE:
            family = socket.AF_INET if server.version == 4 else socket.AF_INET6
            try:
                free.way(Address(family, (str(server), 0)))
            except CannotMeasureError as error:
                failure = failure or error
            else:
                return
        if failure is not None:
            raise CannotMeasureError(
                f"no name can be resolved: {failure.what}", remedy=failure.remedy
            ) from failure

    def _own_link(self) -> netlink.Link | None:
        """The interface this network is bound to; CannotMeasureError unless packets can leave by it."""
        name = _checked(self.interface or "")
        try:
            return _usable(netlink.link(name), name)
        except netlink.NoAnswerError:
            return None

    def _version(self) -> int | None:
        source = _literal(self.source) if self.source else None
        return source.version if source else self.ip_version

    def _bound(self, sock: socket.socket) -> socket.socket:
        where = f"interface {self.interface}"
        try:
            if self.interface is not None:
                name = _checked(self.interface).encode() + b"\0"
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
            if self.source is not None:
                where = f"source address {self.source}"
                sock.bind((self.source, 0))
        except OSError as error:
            sock.close()
            raise CannotMeasureError(
                f"cannot bind to {where}: {error.strerror}",
                remedy=_CHECK_INTERFACE,
            ) from error
        except CannotMeasureError:
            sock.close()
            raise
        return sock


def notes_on_name(network: Network, host: str) -> tuple[str, ...]:
    """What a sample must say when its target was a name and its packets were bound to one line."""
    if _literal(host) is not None or (network.interface is None and network.source is None):
        return ()
    line = f"over {network.interface}" if network.interface else f"from {network.source}"
    return (f"name resolved by this host's resolver, not {line}",)


def is_host(text: str) -> bool:
    """Whether `text` can be a target: an address, or a name that no resolver takes for a number."""
    return _literal(text) is not None or _is_name(text)


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


_CHECK_INTERFACE = "check that it exists and is up: ip -brief address"


def _checked(interface: str) -> str:
    if not _INTERFACE.fullmatch(interface):
        raise CannotMeasureError(f"{interface!r} is no interface name", remedy="see: ip link")
    return interface


def _usable(link: netlink.Link | None, name: str) -> netlink.Link:
    """The interface, if packets can leave by it."""
    if link is None:
        raise CannotMeasureError(f"interface {name} does not exist", remedy=_CHECK_INTERFACE)
    if not link.up:
        raise CannotMeasureError(
            f"interface {link.name} is down", remedy=f"switch it on: ip link set {link.name} up"
        )
    if not link.carrier:
        raise CannotMeasureError(
            f"interface {link.name} has no carrier",
            remedy=f"check the modem or the cable: ip link show {link.name}",
        )
    return link


def _open(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
    try:
        return socket.socket(family, kind | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise CannotMeasureError(
            f"this host opens no IPv{4 if family is socket.AF_INET else 6} socket: {error.strerror}",
            remedy="check the limit on open files and whether IPv6 is switched off",
        ) from error


# Where a resolver on this host itself would ask on: any address beyond (RFC 5737, RFC 3849).
_SOMEWHERE = [ipaddress.ip_address("198.51.100.1"), ipaddress.ip_address("2001:db8::1")]


def _name_servers(path: Path) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The name servers beyond this host that the file names (resolv.conf(5))."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    named = [_literal(found[1]) for found in words if found[:1] == ["nameserver"] and len(found) > 1]
    return [server for server in named if server is not None and not server.is_loopback]


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
