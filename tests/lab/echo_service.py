"""A service that returns every datagram (RFC 862), for tests on loopback only."""

from __future__ import annotations

import socket
from contextlib import AbstractContextManager

from tests.lab.peers import udp_peer


def echo_service(host: str = "127.0.0.1") -> AbstractContextManager[int]:
    """A running one; gives its port."""
    return udp_peer(_return_it, host)


def _return_it(sock: socket.socket, data: bytes, peer: tuple[str, int]) -> None:
    sock.sendto(data, peer)
