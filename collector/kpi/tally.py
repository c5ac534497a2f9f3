"""The samples of the running period, per access and indicator, and the verdict table made of them."""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from collector.kpi.profile import Indicator, RegulationProfile
from collector.kpi.qcvn34 import samples
from collector.kpi.verdict import estimate, judge, limit_of
from nhip.clock import Clock
from nhip.measurement import Direction, Technology
from nhip.status import VerdictRow
from nhip.wire import Record

AT_MOST = 200_000
"""Samples kept of one indicator of one access: 16 octets each, two hundred times the regulation's minimum."""

Access = tuple[str, Technology, str]
"""Operator, technology, province: what a regulation judges; the default where it does not say."""
DeclaredSpeed = Callable[[str, Technology, Direction], float | None]


@dataclass(slots=True)
class _Cell:
    started_wall_ns: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))
    failed_wall_ns: array[int] = field(default_factory=lambda: array("q"))


class Tally:
    """Collects samples as records come; `rows` judges those of the last `period_days`."""

    def __init__(
        self, profile: RegulationProfile, period_days: float, declared: DeclaredSpeed, clock: Clock
    ) -> None:
        self.profile = profile
        self._period_ns = round(period_days * 86_400e9)
        self._declared = declared
        self._clock = clock
        self._lock = threading.Lock()
        self._cells: dict[tuple[Access, str], _Cell] = {}

    def since_wall_ns(self) -> int:
        """Where the running period began."""
        return self._clock.wall_ns() - self._period_ns

    def observe(self, records: Iterable[Record]) -> None:
        """Take in records that are stored; each one once."""
        for record in records:
            if record.access.technology in self.profile.technologies:
                for indicator in self.profile.indicators:
                    self._take(indicator, record)

    def expect(self, accesses: Iterable[Access]) -> None:
        """Accesses that have a row before their first sample."""
        with self._lock:
            for access in accesses:
                if access[1] in self.profile.technologies:
                    for indicator in self.profile.indicators:
                        self._cells.setdefault((access, indicator.id), _Cell())

    def rows(self) -> tuple[VerdictRow, ...]:
        """One row for each access and indicator, in the order of the profile."""
        since_wall_ns = self.since_wall_ns()
        with self._lock:
            cells = sorted(self._cells.items(), key=lambda item: item[0][0])
            windows = [(access, name, _window(cell, since_wall_ns)) for (access, name), cell in cells]
        order = {indicator.id: place for place, indicator in enumerate(self.profile.indicators)}
        windows.sort(key=lambda window: (window[0], order[window[1]]))
        return tuple(
            self._row(access, self.profile.indicators[order[name]], values)
            for access, name, values in windows
        )

    def failures(self, access: Access, indicator_id: str) -> int:
        """Tests or transfers of the period that failed and so are in no mean."""
        since_wall_ns = self.since_wall_ns()
        with self._lock:
            cell = self._cells.get((access, indicator_id), _Cell())
            return sum(failed >= since_wall_ns for failed in cell.failed_wall_ns)

    def _take(self, indicator: Indicator, record: Record) -> None:
        found = samples(indicator, record)
        if not found.values and not found.failures:
            return
        access = (record.access.operator, record.access.technology, record.access.province)
        with self._lock:
            cell = self._cells.setdefault((access, indicator.id), _Cell())
            cell.failed_wall_ns.extend([record.started_wall_ns] * found.failures)
            del cell.failed_wall_ns[:-AT_MOST]
            for value in found.values:
                _insert(cell, record.started_wall_ns, value)

    def _in_force(self) -> bool:
        return self.profile.in_force_on(datetime.fromtimestamp(self._clock.wall_ns() / 1e9, UTC).date())

    def _row(self, access: Access, indicator: Indicator, values: array[float]) -> VerdictRow:
        operator, technology, province = access
        direction = _DIRECTIONS.get(indicator.formula)
        declared = None if direction is None else self._declared(operator, technology, direction)
        found = estimate(values)
        return VerdictRow(
            operator=operator,
            technology=technology,
            province=province,
            indicator_id=indicator.id,
            title_vi=indicator.title_vi,
            title_en=indicator.title_en,
            clause=indicator.clause,
            unit=indicator.unit,
            value=found.mean,
            interval=found.interval,
            interval_method=found.interval_method,
            limit=limit_of(indicator, declared),
            comparison=indicator.comparison,
            samples=found.samples,
            samples_required=indicator.minimum_samples,
            failures=self.failures(access, indicator.id),
            verdict=judge(indicator, found, declared, in_force=self._in_force()),
            source=indicator.source,
            mark=indicator.mark,
        )


_DIRECTIONS = {"mean_speed_down": Direction.DOWN, "mean_speed_up": Direction.UP}


def _insert(cell: _Cell, started_wall_ns: int, value: float) -> None:
    """Keep the cell ordered by time; records mostly come in that order, so the place is mostly the end."""
    place = len(cell.started_wall_ns)
    if place and cell.started_wall_ns[-1] > started_wall_ns:
        place = bisect_left(cell.started_wall_ns, started_wall_ns)
    cell.started_wall_ns.insert(place, started_wall_ns)
    cell.values.insert(place, value)
    if len(cell.values) > AT_MOST:
        del cell.started_wall_ns[0], cell.values[0]


def _window(cell: _Cell, since_wall_ns: int) -> array[float]:
    return cell.values[bisect_left(cell.started_wall_ns, since_wall_ns) :]
