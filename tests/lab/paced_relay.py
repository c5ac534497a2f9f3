"""A TCP relay whose speed is known: a token bucket decides when each octet goes on, each way.

The truth is arithmetic: `octets` octets through a bucket of `rate` octets a second and depth `burst` take at
least ``(octets - burst) / rate`` seconds, and exactly that when there is always something to send.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.peers import tcp_peer

PIECE_OCTETS = 4_096


class TokenBucket:
    """Lets octets through at `rate` a second, at most `burst` at once; due times never drift."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._stop = threading.Event()
        self._empty_at: float | None = None

    def take(self, octets: int) -> None:
        """Return when `octets` may pass."""
        now = time.monotonic()
        full_at = now - self._burst / self._rate
        self._empty_at = max(self._empty_at if self._empty_at is not None else full_at, full_at)
        self._empty_at += octets / self._rate
        if (wait := self._empty_at - now) > 0:
            self._stop.wait(wait)


def true_rate_bits_per_second(octets: int, rate: float, burst: int) -> float:
    """The speed of `octets` through a bucket that was full at their beginning."""
    return octets * 8 / ((octets - burst) / rate)


@contextmanager
def paced_relay(port: int, rate: float, burst: int = PIECE_OCTETS) -> Iterator[int]:
    """A relay to `port` of loopback passing `rate` octets a second each way; gives its own port."""

    def carry(source: socket.socket, sink: socket.socket) -> None:
        bucket = TokenBucket(rate, burst)
        with contextlib.suppress(OSError):
            while part := source.recv(PIECE_OCTETS):
                bucket.take(len(part))
                sink.sendall(part)
            sink.shutdown(socket.SHUT_WR)

    def relay(client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with socket.create_connection(("127.0.0.1", port)) as server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=carry, args=(server, client), daemon=True)
            back.start()
            carry(client, server)
            back.join(20)

    with tcp_peer(relay) as own:
        yield own
