"""A name with addresses of both families on loopback, and servers behind either of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from probes.network import Address, HostNetwork
from tests.lab.deaf_network import DeafNetwork

V6, V4 = socket.AF_INET6, socket.AF_INET
LOOPBACK = {V6: "::1", V4: "127.0.0.1"}


class TwoFamilies(HostNetwork):
    """Every name has the addresses of `order`; what arrives for the `deaf` families is dropped."""

    def __init__(
        self,
        order: Sequence[socket.AddressFamily] = (V6, V4),
        *,
        deaf: Sequence[socket.AddressFamily] = (),
        ip_version: int | None = None,
    ) -> None:
        super().__init__(ip_version=ip_version)
        self.order = order
        self.deaf = deaf
        self.opened: list[socket.AddressFamily] = []

    def resolve_all(self, host: str, port: int, *, timeout_seconds: float) -> tuple[Address, ...]:
        return tuple(Address(family, (LOOPBACK[family], port)) for family in self.order)

    def tcp(self, family: socket.AddressFamily) -> socket.socket:
        self.opened.append(family)
        return DeafNetwork().tcp(family) if family in self.deaf else super().tcp(family)


@contextmanager
def listeners(*families: socket.AddressFamily) -> Iterator[int]:
    """One port at which the kernel completes handshakes of these families."""
    for _ in range(50):
        with ExitStack() as stack:
            port = 0
            try:
                for family in families:
                    server = socket.socket(family, socket.SOCK_STREAM)
                    stack.enter_context(server)
                    if family is V6:
                        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    server.bind((LOOPBACK[family], port))
                    server.listen(64)
                    port = server.getsockname()[1]
            except OSError:
                continue  # the other family's port is somebody else's
            yield port
            return
    raise AssertionError("no port is free in both families")
