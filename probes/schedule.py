"""When each task is due: pure arithmetic on monotonic time.

Every probe starts at its own random phase, so that a country's probes never fire together. A test that could
not start before the next one was due is missed and counted; missed tests are never made up in a burst (after
a suspend, say), because that would measure the burst.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from nhip.statistics import NANOSECONDS_PER_SECOND
from probes.agent_config import Arrival

# An exponential gap has no upper end; the collector calls a series silent after three intervals.
LONGEST_POISSON_GAP_INTERVALS = 2.5
# Cutting the long gaps would make the mean 8 % too short. This is the m with m × (1 − e^(−2.5/m)) = 1: an
# exponential of that mean, cut at 2.5, has the mean 1.
_MEAN_BEFORE_CUT_INTERVALS = 1.120_266


@dataclass(slots=True)
class Timetable:
    """The due times of one task."""

    interval_seconds: float
    arrival: Arrival
    rng: random.Random
    missed: int = 0

    def first_due_ns(self, now_ns: int, *, at_once: bool) -> int:
        """The first due time: now, or anywhere within one interval from now."""
        return now_ns if at_once else now_ns + self._ns(self.rng.uniform(0, self.interval_seconds))

    def next_due_ns(self, due_ns: int, now_ns: int) -> int:
        """The due time after `due_ns`, the past ones being counted as missed and skipped."""
        following = due_ns + self._gap_ns()
        while following < now_ns:
            self.missed += 1
            following += self._gap_ns()
        return following

    def _gap_ns(self) -> int:
        if self.arrival is Arrival.FIXED:
            return self._ns(self.interval_seconds)
        gap_seconds = self.rng.expovariate(1 / (_MEAN_BEFORE_CUT_INTERVALS * self.interval_seconds))
        return max(1, self._ns(min(gap_seconds, LONGEST_POISSON_GAP_INTERVALS * self.interval_seconds)))

    @staticmethod
    def _ns(seconds: float) -> int:
        return round(seconds * NANOSECONDS_PER_SECOND)
