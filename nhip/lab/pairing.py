"""Requests and replies out of captured packets: true round-trip times and true loss.

Pure: packets and their stamps come in, singletons come out; nothing here reads a clock.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from nhip.lab.probe_packets import ProbePacket
from nhip.lab.report import RoundTrips, Singleton

LOSS_THRESHOLD_NS = 3_000_000_000
"""How long a reply may take before its request counts as lost."""

_FORGET_NS = 12_000_000_000
_MOST_SINGLETONS = 5000
_MOST_FOREIGN_FLOWS = 4096


@dataclass(slots=True)
class _Series:
    """All that is known about one kind of request to one destination."""

    requests: int = 0
    received: int = 0
    lost: int = 0
    late: int = 0
    duplicate: int = 0
    singletons: deque[tuple[int, int | None, str]] = field(
        default_factory=lambda: deque(maxlen=_MOST_SINGLETONS)
    )


@dataclass(slots=True)
class _Asked:
    """A request that left; `fate` tells what became of it so far."""

    series: _Series
    sent_ns: int
    flow: str
    fate: Literal["waiting", "received", "lost"] = "waiting"


class Pairing:
    """Pairs what leaves and what returns at one interface."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], _Series] = {}
        self._asked: dict[bytes, _Asked] = {}
        self._foreign: dict[bytes, None] = {}

    def outgoing(self, packet: ProbePacket, stamp_ns: int) -> None:
        """A packet left by the interface at `stamp_ns` (wall clock)."""
        if packet.is_request is False:
            return
        if packet.is_request is None and packet.key[:-4] in self._foreign:
            return  # The other side began this flow: what leaves here are its replies.
        series = self._series.setdefault((packet.kind, packet.remote), _Series())
        old = self._asked.pop(packet.key, None)
        if old is not None and old.fate == "waiting":
            _lose(old)  # The number is used again, so no reply can be told to belong to the old request.
        series.requests += 1
        self._asked[packet.key] = _Asked(series, stamp_ns, packet.flow)

    def incoming(self, packet: ProbePacket, stamp_ns: int) -> None:
        """A packet came in by the interface at `stamp_ns` (wall clock)."""
        if packet.is_request is True:
            return
        asked = self._asked.get(packet.key)
        if asked is None:
            if packet.is_request is None:
                self._foreign[packet.key[:-4]] = None
                if len(self._foreign) > _MOST_FOREIGN_FLOWS:
                    del self._foreign[next(iter(self._foreign))]
            return
        if asked.fate == "received":
            asked.series.duplicate += 1
        elif asked.fate == "lost" or stamp_ns - asked.sent_ns > LOSS_THRESHOLD_NS:
            if asked.fate == "waiting":
                _lose(asked)
            asked.series.late += 1
        else:
            asked.fate = "received"
            asked.series.received += 1
            asked.series.singletons.append((asked.sent_ns, stamp_ns - asked.sent_ns, asked.flow))

    def expire(self, now_ns: int) -> None:
        """Count as lost what waits longer than the threshold at `now_ns`, and forget what is long over."""
        over = []
        for key, asked in self._asked.items():  # In the order of sending, so the loop ends early.
            age_ns = now_ns - asked.sent_ns
            if age_ns <= LOSS_THRESHOLD_NS:
                break
            if asked.fate == "waiting":
                _lose(asked)
            if age_ns > _FORGET_NS:
                over.append(key)
        for key in over:
            del self._asked[key]

    def round_trips(self, *, since_ns: int = 0, until_ns: int | None = None) -> tuple[RoundTrips, ...]:
        """Statistics for each kind and destination; with bounds only over requests sent within them."""
        waiting: dict[int, int] = {}
        for asked in self._asked.values():
            if asked.fate == "waiting" and since_ns <= asked.sent_ns < (until_ns or asked.sent_ns + 1):
                waiting[id(asked.series)] = waiting.get(id(asked.series), 0) + 1
        bounded = since_ns > 0 or until_ns is not None
        return tuple(
            _statistics(kind, destination, series, waiting.get(id(series), 0), since_ns, until_ns, bounded)
            for (kind, destination), series in sorted(self._series.items())
        )

    def singletons(self, link: str, *, since_ns: int = 0, until_ns: int | None = None) -> list[Singleton]:
        """Each request that was sent within the bounds and whose fate is known, by sending time."""
        found = [
            Singleton(link, kind, destination, flow, sent_ns, None if delay_ns is None else delay_ns / 1e9)
            for (kind, destination), series in self._series.items()
            for sent_ns, delay_ns, flow in series.singletons
            if sent_ns >= since_ns and (until_ns is None or sent_ns < until_ns)
        ]
        return sorted(found, key=lambda singleton: singleton.sent_wall_ns)


def quantile(ordered: list[float], ratio: float) -> float | None:
    """The quantile of an ordered list by linear interpolation between its ranks; None of nothing."""
    if not ordered:
        return None
    place = ratio * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _lose(asked: _Asked) -> None:
    asked.fate = "lost"
    asked.series.lost += 1
    asked.series.singletons.append((asked.sent_ns, None, asked.flow))


def _statistics(
    kind: str,
    destination: str,
    series: _Series,
    waiting: int,
    since_ns: int,
    until_ns: int | None,
    bounded: bool,
) -> RoundTrips:
    chosen = [
        delay_ns
        for sent_ns, delay_ns, _ in series.singletons
        if sent_ns >= since_ns and (until_ns is None or sent_ns < until_ns)
    ]
    delays = sorted(delay_ns / 1e9 for delay_ns in chosen if delay_ns is not None)
    received = len(delays) if bounded else series.received
    lost = len(chosen) - len(delays) if bounded else series.lost
    return RoundTrips(
        kind=kind,
        destination=destination,
        requests=received + lost + waiting if bounded else series.requests,
        received=received,
        lost=lost,
        waiting=waiting,
        late=series.late,
        duplicate=series.duplicate,
        min_seconds=delays[0] if delays else None,
        median_seconds=quantile(delays, 0.5),
        p95_seconds=quantile(delays, 0.95),
        max_seconds=delays[-1] if delays else None,
    )
