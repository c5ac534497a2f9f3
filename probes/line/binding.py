"""What ties a socket to one line, put on the socket and read back from it.

A socket that is not tied is answered over whatever route leads there, so a test of a dead modem would show
the fibre beside it. Every option is set on the socket itself and then asked of the kernel again; a socket
that does not say what it was told is closed and never used.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from nhip.errors import CannotMeasureError
from probes.line.namespace import Namespace

LARGEST_MARK = 2**32 - 1
_INTERFACE = re.compile(r"[A-Za-z0-9_.:-]{1,15}")
CHECK_INTERFACE = "check that it exists and is up: ip -brief address"
# Set by the kernel in the text it returns, terminating zero included (IFNAMSIZ in linux/if.h).
_INTERFACE_NAME_OCTETS = 16
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """By what packets are tied to a line; several of them hold together."""

    interface: str | None = None
    """The interface's name; of a VRF, the name of its master."""
    source: str | None = None
    mark: int | None = None
    """The routing mark (SO_MARK) that this host's ``ip rule`` selects a table by."""
    namespace: Namespace | None = None
    iccid: str | None = None
    """The SIM that `interface` was found by."""

    @property
    def bound(self) -> bool:
        """True when packets must not take just any way."""
        return self != Binding()

    @property
    def parameters(self) -> dict[str, str | int | float | bool]:
        """What a sample says of its binding beside interface and source, which have places of their own."""
        found: dict[str, str | int | float | bool] = {}
        if self.mark is not None:
            found["fwmark"] = self.mark
        if self.namespace is not None:
            found["network_namespace"] = self.namespace.which
        if self.iccid is not None:
            found["iccid"] = self.iccid
        return found

    def __str__(self) -> str:
        """As a person would say it: ``by interface wwan0 with mark 0x7``."""
        words = [
            f"by interface {self.interface}" if self.interface is not None else "",
            f"from {self.source}" if self.source is not None else "",
            f"with mark {self.mark:#x}" if self.mark is not None else "",
            f"in namespace {self.namespace.which}" if self.namespace is not None else "",
        ]
        return " ".join(word for word in words if word)

    def route_command(self, host: str) -> str:
        """The command that shows a person which way packets to `host` take."""
        words = ["ip"]
        if self.namespace is not None:
            words += ["-n", self.namespace.which]
        words += ["route", "get", host]
        words += ["oif", self.interface] if self.interface is not None else []
        words += ["from", self.source] if self.source is not None else []
        words += ["mark", str(self.mark)] if self.mark is not None else []
        return " ".join(words)

    def inside(self, call: Callable[[], Found]) -> Found:
        """What `call` gives in the namespace the packets leave from."""
        return call() if self.namespace is None else self.namespace.run(call)

    def open(self, make: Callable[[], socket.socket]) -> socket.socket:
        """The socket that `make` makes, in the right namespace, tied and asked whether it is."""
        return self.inside(lambda: self._tied(make()))

    def _tied(self, sock: socket.socket) -> socket.socket:
        try:
            if self.interface is not None:
                _tie_to_interface(sock, checked_interface(self.interface))
            if self.mark is not None:
                _mark(sock, self.mark)
            if self.source is not None:
                _tie_to_source(sock, self.source)
            self._confirm(sock)
        except BaseException:
            sock.close()
            raise
        return sock

    def _confirm(self, sock: socket.socket) -> None:
        """CannotMeasureError unless the kernel says of `sock` what it was told."""
        if self.interface is not None:
            octets = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _INTERFACE_NAME_OCTETS)
            _same("interface", self.interface, octets.rstrip(b"\0").decode("ascii", "replace"))
        if self.mark is not None:
            found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) % (LARGEST_MARK + 1)
            _same("mark", f"{self.mark:#x}", f"{found:#x}")
        if self.source is not None:
            _same("source address", _plain(self.source), _plain(str(sock.getsockname()[0])))


def checked_interface(name: str) -> str:
    """`name`, if an interface can be called so; CannotMeasureError otherwise."""
    if not is_interface_name(name):
        raise CannotMeasureError(f"{name!r} is no interface name", remedy="see: ip link")
    return name


def is_interface_name(text: str) -> bool:
    """Whether an interface can be called `text`."""
    return _INTERFACE.fullmatch(text) is not None


def _tie_to_interface(sock: socket.socket, name: str) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode() + b"\0")
    except OSError as error:
        remedy = CHECK_INTERFACE
        if error.errno == errno.EPERM:
            # Since Linux 5.7 anybody may tie a socket that is not tied yet.
            remedy = "run as root or give this process CAP_NET_RAW; Linux 5.7 and newer need neither"
        raise CannotMeasureError(
            f"cannot bind to interface {name}: {error.strerror}", remedy=remedy
        ) from error


def _mark(sock: socket.socket, mark: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark.to_bytes(4, sys.byteorder))
    except OverflowError as error:
        raise CannotMeasureError(
            f"mark {mark} does not fit 32 bits", remedy=f"give one of 1 to {LARGEST_MARK}"
        ) from error
    except OSError as error:
        raise CannotMeasureError(
            f"cannot mark packets with {mark:#x}: {error.strerror}",
            remedy="run as root or give this process CAP_NET_ADMIN (systemd: AmbientCapabilities)",
        ) from error


def _tie_to_source(sock: socket.socket, source: str) -> None:
    try:
        ipaddress.ip_address(source)  # a name would be looked up, and tied to whatever that gives
    except ValueError as error:
        raise CannotMeasureError(
            f"source {source!r} is no address", remedy="give an address of this host: ip -brief address"
        ) from error
    try:
        sock.bind((source, 0))
    except OSError as error:
        raise CannotMeasureError(
            f"cannot bind to source address {source}: {error.strerror}", remedy=CHECK_INTERFACE
        ) from error


def _same(what: str, told: str, found: str) -> None:
    if told != found:
        raise CannotMeasureError(
            f"a socket told to use {what} {told} says {found or 'none'}",
            remedy="report the kernel's version (uname -r); this host cannot tie a test to a line",
        )


def _plain(address: str) -> str:
    return str(ipaddress.ip_address(address.partition("%")[0]))
