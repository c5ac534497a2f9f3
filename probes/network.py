"""The socket seam: every socket a probe uses is made here, bound as the task says.

A task bound to a line must never be answered through another one: if that line is gone, or packets would not
leave by it, that is an error to report, not a measurement over the default route. Names are resolved with a
deadline, and what is no name and no address is refused before it reaches the resolver. A host that cannot
send at all says so before it sends, because a dead modem answers exactly as a dead network does: not at all.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from nhip.errors import CannotMeasureError
from nhip.measurement import Outcome
from probes.line import netlink
from probes.line.binding import Binding
from probes.line.modem import SimLine
from probes.line.namespace import Namespace
from probes.line.route import leaving_link, usable_link
from probes.line.shortage import shortage
from probes.look_ups import LOOK_UPS, LookUps, read_address
from probes.names import is_host as is_host  # also asked for here
from probes.names import literal, name_servers


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
    loopback: bool = False
    count: netlink.LineCount | None = field(default=None, compare=False)
    """What the interface had carried when this was asked; `None` where nobody counts."""


class Network(Protocol):
    """What a probe asks for; tests may hand in another one."""

    interface: str | None
    source: str | None
    binding: Binding

    def resolve(self, host: str, port: int, *, timeout_seconds: float) -> Address | None:
        """The address of `host`, or `None` when the name has none (which is a measurement).

        A name is asked of this host's own resolver, over whatever route leads there: being bound to an
        interface, a source or a mark binds the test's packets, not the look-up (see :func:`notes_on_name`).
        A namespace binds both.
        Of several addresses it is the first to which there is a way; CannotMeasureError when there is one to
        none of them, for what is neither a name nor an address, for an address of the IP version that this
        network does not send, and when this host has no way to any name server.
        """

    def passed_over(self, host: str) -> tuple[str, ...]:
        """The addresses before the one that :meth:`resolve` last gave for `host`, each with its lack."""

    def resolve_all(self, host: str, port: int, *, timeout_seconds: float) -> tuple[Address, ...]:
        """Every address of `host` in the resolver's order of preference; as :meth:`resolve` otherwise."""

    def way(self, address: Address) -> Way | None:
        """How packets to `address` leave now; `None` where the kernel cannot be asked.

        CannotMeasureError when they cannot leave: no route, or an interface that is absent, down or
        without its line; and when they would leave otherwise than this network is bound to.
        """

    def count(self, way: Way) -> netlink.LineCount | None:
        """What the interface of `way` has carried by now; `None` when it is gone or cannot be asked."""

    def check_line(self) -> None:
        """CannotMeasureError when the line is no longer the one this network was bound to at first."""

    def tcp(self, family: socket.AddressFamily) -> socket.socket:
        """A non-blocking stream socket, bound as configured."""

    def udp(self, family: socket.AddressFamily) -> socket.socket:
        """A non-blocking datagram socket, bound as configured."""

    def icmp(self, family: socket.AddressFamily) -> tuple[socket.socket, bool]:
        """A non-blocking ICMP echo socket, and whether it is a raw one."""


class HostNetwork:
    """The sockets of this host, optionally bound to one line and one IP version.

    A line is given by `interface` (or `sim`, which knows its interface), `source` address, routing mark
    `fwmark` and network `namespace`; several of them hold together.
    """

    def __init__(
        self,
        *,
        interface: str | None = None,
        source: str | None = None,
        ip_version: int | None = None,
        fwmark: int | None = None,
        namespace: Namespace | None = None,
        sim: SimLine | None = None,
        resolver_file: Path | None = None,
        look_ups: LookUps = LOOK_UPS,
    ) -> None:
        self.binding = Binding(
            interface=sim.interface if sim else interface,
            source=source,
            mark=fwmark,
            namespace=namespace,
            iccid=sim.iccid if sim else None,
        )
        self.interface = self.binding.interface
        self.source = source
        self.ip_version = ip_version
        self._sim = sim
        self._resolver_file = resolver_file
        self._look_ups = look_ups
        self._passed_over: dict[str, tuple[str, ...]] = {}

    def resolve(self, host: str, port: int, *, timeout_seconds: float) -> Address | None:
        """The first address the resolver gives to which packets can leave as this network is bound.

        The resolver is asked over the default route, and sorts by it: behind it may be IPv6 where the bound
        line has none. So what it prefers is held against the line, and what was passed over is remembered.
        """
        found = self.resolve_all(host, port, timeout_seconds=timeout_seconds)
        if len(found) < 2:
            return found[0] if found else None  # nothing to choose; whoever sends looks at the way
        failures: list[tuple[Address, CannotMeasureError]] = []
        for address in found:
            try:
                self.way(address)
            except CannotMeasureError as error:
                failures.append((address, error))
            else:
                self._passed_over[host] = tuple(f"{other.host} ({error.what})" for other, error in failures)
                return address
        first = failures[0][1]
        if len({address.ip_version for address in found}) < 2:
            raise first
        choose = "or test one IP version alone: ip_version = 4 in the file, -4 on the command line"
        raise CannotMeasureError(first.what, remedy=f"{first.remedy}; {choose}") from first

    def passed_over(self, host: str) -> tuple[str, ...]:
        return self._passed_over.get(host, ())

    def resolve_all(self, host: str, port: int, *, timeout_seconds: float) -> tuple[Address, ...]:
        """Every address the host's resolver gives, in its order (RFC 6724), each once."""
        version = self._version()
        wanted = {None: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}[version]
        address = literal(host)
        if not is_host(host):
            raise CannotMeasureError(
                f"{host!r} is neither a name nor an address", remedy="correct the target"
            )
        if address is not None and version not in (None, address.version):
            raise CannotMeasureError(
                f"{host} is an IPv{address.version} address, and this test sends IPv{version}",
                remedy="give an address of that version, or another source or ip_version",
            )
        if address is None and self.interface is not None:
            # Behind a dead line no name has an address, which says nothing of the name.
            self._look_at_own_link()
        namespace = self.binding.namespace
        if address is not None:
            answers = read_address(host, port, wanted, namespace)
        else:
            answers = self._look_ups.look_up(
                host, port, wanted, namespace=namespace, timeout_seconds=timeout_seconds
            )
        found = [Address(family, sockaddr) for family, _type, _protocol, _name, sockaddr in answers]
        if not found and address is None:
            self._check_way_to_resolver()
        return tuple(dict.fromkeys(found))

    def way(self, address: Address) -> Way | None:
        scope = address.sockaddr[3] if len(address.sockaddr) > 3 else 0
        try:
            link = self.binding.inside(lambda: leaving_link(address.host, self.binding, scope_index=scope))
        except netlink.NoAnswerError:
            return None
        return Way(link.name, link.index, link.carrier_changes, link.loopback, link.count)

    def count(self, way: Way) -> netlink.LineCount | None:
        try:
            link = self.binding.inside(lambda: netlink.link(way.index))
        except netlink.NoAnswerError:
            return None
        return link.count if link is not None else None

    def check_line(self) -> None:
        if self._sim is not None:
            self._sim.check()

    def tcp(self, family: socket.AddressFamily) -> socket.socket:
        return self.binding.open(lambda: _open(family, socket.SOCK_STREAM))

    def udp(self, family: socket.AddressFamily) -> socket.socket:
        return self.binding.open(lambda: _open(family, socket.SOCK_DGRAM))

    def icmp(self, family: socket.AddressFamily) -> tuple[socket.socket, bool]:
        protocol = socket.IPPROTO_ICMP if family is socket.AF_INET else socket.IPPROTO_ICMPV6
        refusals = []
        for kind, raw in ((socket.SOCK_DGRAM, False), (socket.SOCK_RAW, True)):
            try:
                make = partial(socket.socket, family, kind | socket.SOCK_NONBLOCK, protocol)
                return self.binding.open(make), raw
            except OSError as error:
                if short := shortage(error, "this host opens no ICMP socket"):
                    raise short from error
                refusals.append(f"{'raw' if raw else 'datagram'} socket: {error.strerror}")
        raise CannotMeasureError(
            f"this host allows no ICMP echo ({'; '.join(refusals)})",
            remedy="as root, in this network namespace: sysctl -w net.ipv4.ping_group_range='0 2147483647'",
        )

    def _check_way_to_resolver(self) -> None:
        """CannotMeasureError when this host can reach none of its name servers: no name is to blame."""
        namespace = self.binding.namespace
        own_file = self._resolver_file or (namespace.resolver_file if namespace else None)
        servers = name_servers(own_file or _RESOLVER_FILE)
        beyond = [server for server in servers if not server.is_loopback]
        if namespace is not None and own_file is None and servers and not beyond:
            raise CannotMeasureError(
                f"namespace {namespace.which} has no resolver: that of this host, {servers[0]}, is not in it",
                remedy=f"write {namespace.files / (namespace.name or 'NAME') / 'resolv.conf'}",
            )
        free = HostNetwork(namespace=namespace)
        failure: CannotMeasureError | None = None
        for server in beyond or _SOMEWHERE:
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

    def _look_at_own_link(self) -> None:
        """CannotMeasureError unless packets can leave by the interface this network is bound to."""
        with contextlib.suppress(netlink.NoAnswerError):
            self.binding.inside(lambda: usable_link(self.interface or ""))

    def _version(self) -> int | None:
        source = literal(self.source) if self.source else None
        return source.version if source else self.ip_version


def notes_on_name(network: Network, host: str) -> tuple[str, ...]:
    """What a sample must say when its target was a name: who resolved it, and what could not be measured."""
    if literal(host) is not None:
        return ()
    passed_over = tuple(f"not measured: {address}" for address in network.passed_over(host))
    return (*_note_on_resolver(network.binding), *passed_over)


def _note_on_resolver(binding: Binding) -> tuple[str, ...]:
    """What must be said when packets are bound to one line: the look-up was not."""
    if not binding.bound:
        return ()
    resolver = "this host's resolver"
    if binding.namespace is not None:
        file = binding.namespace.resolver_file or "this host's file"
        resolver = f"the resolver of namespace {binding.namespace.which} ({file})"
    if binding.interface is not None:
        line = f", not over {binding.interface}"
    elif binding.source is not None:
        line = f", not from {binding.source}"
    else:
        line = f", not with mark {binding.mark:#x}" if binding.mark is not None else ""
    return (f"name resolved by {resolver}{line}",)


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
        if short := shortage(error, "this host opens no socket"):
            raise short from error
        raise CannotMeasureError(
            f"this host opens no IPv{4 if family is socket.AF_INET else 6} socket: {error.strerror}",
            remedy="check whether IPv6 is switched off: sysctl net.ipv6.conf.all.disable_ipv6",
        ) from error


_RESOLVER_FILE = Path("/etc/resolv.conf")
# Where a resolver on this host itself would ask on: any address beyond (RFC 5737, RFC 3849).
_SOMEWHERE = [ipaddress.ip_address("198.51.100.1"), ipaddress.ip_address("2001:db8::1")]
