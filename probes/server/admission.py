"""Who is served: fixed numbers of connections and transfers, and an account of what was done.

A measurement server that takes everybody measures itself. It says "busy" instead, and counts that too.
"""

from __future__ import annotations

import ipaddress
import threading
from collections import Counter, deque
from dataclasses import dataclass

from nhip.clock import Clock
from nhip.measurement import Direction
from nhip.statistics import NANOSECONDS_PER_SECOND

_WINDOW_SECONDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What the server is doing and has done."""

    active_connections: int
    active_transfers: int
    transfers_total: int
    """Transfers begun."""
    downloads_total: int
    uploads_total: int
    transfers_broken_total: int
    """Of those, how many ended before their last octet."""
    refused_total: int
    """Connections and transfers told "busy"."""
    octets_sent_total: int
    octets_received_total: int
    sent_bits_per_second: float
    """File octets of the last ten seconds, as bits over seconds."""
    received_bits_per_second: float


class Admission:
    """Counts connections and transfers against their limits; safe to use from every thread."""

    def __init__(
        self, *, clock: Clock, max_transfers: int, max_connections: int, max_connections_per_client: int
    ) -> None:
        self._clock = clock
        self._max_transfers = max_transfers
        self._max_connections = max_connections
        self._max_per_client = max_connections_per_client
        self._lock = threading.Lock()
        self._clients: Counter[str] = Counter()
        self._transfers = 0
        self._begun = {Direction.DOWN: 0, Direction.UP: 0}
        self._broken_total = 0
        self._refused_total = 0
        self._octets = {Direction.DOWN: 0, Direction.UP: 0}
        self._seconds: dict[Direction, deque[list[int]]] = {direction: deque() for direction in Direction}

    def enter(self, host: str) -> int | None:
        """Take a place for a connection of `host`; the HTTP status to refuse it with when there is none."""
        client = client_of(host)
        with self._lock:
            status = None
            if self._clients.total() >= self._max_connections:
                status = 503
            elif self._clients[client] >= self._max_per_client:
                status = 429
            if status is None:
                self._clients[client] += 1
            else:
                self._refused_total += 1
            return status

    def leave(self, host: str) -> None:
        """Give the connection's place back."""
        client = client_of(host)
        with self._lock:
            self._clients[client] -= 1
            if self._clients[client] <= 0:
                del self._clients[client]

    def begin_transfer(self, direction: Direction) -> bool:
        """Take a place for a transfer that way; False when all are taken."""
        with self._lock:
            if self._transfers >= self._max_transfers:
                self._refused_total += 1
                return False
            self._transfers += 1
            self._begun[direction] += 1
            return True

    def end_transfer(self, *, whole: bool) -> None:
        """Give the transfer's place back."""
        with self._lock:
            self._transfers -= 1
            self._broken_total += not whole

    def moved(self, direction: Direction, octets: int) -> None:
        """Count file octets that went out (down) or came in (up)."""
        second = self._clock.mono_ns() // NANOSECONDS_PER_SECOND
        with self._lock:
            self._octets[direction] += octets
            seconds = self._seconds[direction]
            if seconds and seconds[-1][0] == second:
                seconds[-1][1] += octets
            else:
                seconds.append([second, octets])
            while seconds[0][0] < second - _WINDOW_SECONDS:
                seconds.popleft()

    def account(self) -> Account:
        """The numbers as they stand."""
        second = self._clock.mono_ns() // NANOSECONDS_PER_SECOND
        with self._lock:
            rates = {}
            for direction, seconds in self._seconds.items():
                # The current second is not over yet; the ten before it are.
                octets = sum(count for at, count in seconds if second - _WINDOW_SECONDS <= at < second)
                rates[direction] = octets * 8 / _WINDOW_SECONDS
            return Account(
                active_connections=self._clients.total(),
                active_transfers=self._transfers,
                transfers_total=sum(self._begun.values()),
                downloads_total=self._begun[Direction.DOWN],
                uploads_total=self._begun[Direction.UP],
                transfers_broken_total=self._broken_total,
                refused_total=self._refused_total,
                octets_sent_total=self._octets[Direction.DOWN],
                octets_received_total=self._octets[Direction.UP],
                sent_bits_per_second=rates[Direction.DOWN],
                received_bits_per_second=rates[Direction.UP],
            )


def client_of(host: str) -> str:
    """What counts as one client: an IPv4 address, also when mapped into IPv6, or an IPv6 /64."""
    address = ipaddress.ip_address(host.split("%", 1)[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
