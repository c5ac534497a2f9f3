"""How ready each measured line is for the ten groups of services, for Prometheus (nhip/qoo.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from collector.export.latency import Families
from collector.state import Series, SeriesKey, Snapshot
from nhip.measurement import Direction, Technology
from nhip.qoo import readiness
from nhip.service_profiles import directive16
from nhip.wire import Record

_Speeds = tuple[float | None, float | None]


class Readiness:
    """Scores of the last test of each series with a delay, each worked out once and not at every scrape."""

    def __init__(self) -> None:
        self._known: dict[SeriesKey, tuple[UUID, _Speeds, list[tuple[str, float]]]] = {}

    def add(
        self, families: Families, snapshot: Snapshot, labels_of: Callable[[Series], Sequence[str]]
    ) -> None:
        """One sample for each series and service that has a score; `labels_of` gives a series' labels."""
        speeds = _speeds(snapshot)
        seen = {}
        for series in snapshot.series:
            key = series.key
            if series.last.round_trip_delay_quantiles_seconds is None:
                continue
            between = speeds.get((key.probe_id, key.technology), (None, None))
            known = self._known.get(key)
            if known is None or known[:2] != (series.last.record_id, between):
                known = (series.last.record_id, between, _scores(series.last, between))
            seen[key] = known
            labels = labels_of(series)
            for service, score in known[2]:
                families.add("nhip_probe_last_service_readiness_score", (*labels, service), score)
        self._known = seen


def _scores(record: Record, speeds: _Speeds) -> list[tuple[str, float]]:
    delay, counters = record.round_trip_delay_seconds, record.counters
    try:
        found = readiness(
            directive16(),
            record.round_trip_delay_quantiles_seconds,
            delay.count if delay else 0,
            record.loss_ratio,
            counters.lost + counters.received,
            *speeds,
        )
    except ValueError:
        # Numbers that no honest probe sends; one record must never take the page from all the others.
        return []
    return [(one.service, one.score) for one in found if one.score is not None]


def _speeds(snapshot: Snapshot) -> dict[tuple[str, Technology], _Speeds]:
    """The newest speeds of each access, down and up."""
    newest: dict[tuple[str, Technology, Direction], tuple[int, float]] = {}
    for series in snapshot.series:
        for speed in series.last.speeds:
            place = (series.key.probe_id, series.key.technology, speed.direction)
            told = (series.last.started_wall_ns, speed.mean_bits_per_second)
            newest[place] = max(newest.get(place, told), told)
    rates = {place: rate for place, (_started, rate) in newest.items()}
    return {
        (probe_id, technology): (
            rates.get((probe_id, technology, Direction.DOWN)),
            rates.get((probe_id, technology, Direction.UP)),
        )
        for probe_id, technology, _direction in rates
    }
