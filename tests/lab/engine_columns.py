"""Columns for tests of the engine: probes under way, and replies to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from probes.engine.flight import Flight
from probes.engine.packet import Replies

HOSTS = np.array([[10, 0, 0, number] for number in range(8)], np.uint8)
WALL_NS = 1_790_000_000_000_000_000
"""Wall minus monotonic clock in these tests."""


def flight_of(targets: Sequence[int], rounds: Sequence[int], *, check_nonce: bool = True) -> Flight:
    """Probes handed over one microsecond apart, with nonce 1000 + serial."""
    flight = Flight(64, check_nonce=check_nonce)
    count = len(targets)
    serials = flight.begin(np.array(targets), np.array(rounds), np.arange(count) * 1000)
    flight.nonce[serials] = 1000 + serials
    flight.handed_ns[serials] = np.arange(count) * 1000
    return flight


def replies_of(
    flight: Flight,
    serials: Sequence[int],
    *,
    nonces: Sequence[int] | None = None,
    hosts: Sequence[int] | None = None,
    intact: Sequence[bool] | None = None,
    foreign: int = 0,
) -> Replies:
    """Replies as a block of datagrams would give them."""
    numbers = np.array(serials, np.int64)
    targets = flight.target[numbers % flight.capacity].astype(np.int64)
    return Replies(
        rows=np.arange(len(numbers)),
        serials=numbers,
        nonces=np.array([1000 + number for number in serials] if nonces is None else nonces, np.uint64),
        targets=targets,
        intact=np.array([True] * len(numbers) if intact is None else intact),
        hosts=HOSTS[targets if hosts is None else np.array(hosts)],
        foreign=foreign,
    )


def note(flight: Flight, replies: Replies, *, at_ns: int, newest: np.ndarray, step_ns: int = 1) -> None:
    """Replies that arrived `step_ns` apart from `at_ns` on, by the wall clock."""
    wall_ns = WALL_NS + at_ns + np.arange(len(replies.serials)) * step_ns
    by_user = np.zeros(len(replies.serials), np.bool_)
    flight.replied(replies, wall_ns, by_user, [HOSTS], newest)
