"""When each target is due: times in a column, the next ones taken out in order. Pure arithmetic.

Every target has its own random phase and its own gaps, so that many targets make a smooth stream and never
a burst. What was due while this program could not run is missed: counted, and not made up for afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probes.engine.packet import Int64s

# As for single tests (probes/schedule.py): exponential gaps cut at 2.5 intervals, of mean 1.
_LONGEST_GAP_INTERVALS = 2.5
_MEAN_BEFORE_CUT_INTERVALS = 1.120_266


@dataclass(frozen=True, slots=True)
class Due:
    """Probes in the order they are due."""

    due_ns: Int64s
    targets: Int64s
    rounds: Int64s
    missed: int
    """How many were not planned, for their time had passed."""


class Planner:
    """The due times of one lane's targets."""

    def __init__(
        self, count: int, interval_seconds: float, *, poisson: bool, start_ns: int, rng: np.random.Generator
    ) -> None:
        self._interval_ns = round(interval_seconds * 1e9)
        self._poisson = poisson
        self._rng = rng
        self._next_due_ns: Int64s = start_ns + self._first_ns(count)
        self._rounds: Int64s = np.zeros(count, np.int64)
        self.missed: NDArray[np.int64] = np.zeros(count, np.int64)
        """Of each target since somebody last took them; a missed probe has no round."""

    def plan(self, from_ns: int, until_ns: int, room: int | None = None) -> Due:
        """Everything due before `until_ns`, at most `room` probes.

        What was due before `from_ns`, and what finds no room, is counted as missed and has no round.
        """
        ready = np.flatnonzero(self._next_due_ns < until_ns)
        missed = self._skip(ready, from_ns)
        dues, targets, rounds = [], [], []
        while len(ready := ready[self._next_due_ns[ready] < until_ns]):
            dues.append(self._next_due_ns[ready])
            targets.append(ready)
            rounds.append(self._rounds[ready])
            self._rounds[ready] += 1
            self._next_due_ns[ready] += self._gaps_ns(len(ready))
        if not dues:
            nothing = np.empty(0, np.int64)
            return Due(nothing, nothing, nothing, missed)
        due_ns, who, which = np.concatenate(dues), np.concatenate(targets), np.concatenate(rounds)
        order = np.argsort(due_ns, kind="stable")
        if room is not None and len(order) > room:
            left_out = who[order[room:]]
            np.subtract.at(self._rounds, left_out, 1)
            np.add.at(self.missed, left_out, 1)
            missed += len(left_out)
            order = order[:room]
        return Due(due_ns[order], who[order], which[order], missed)

    def earliest_ns(self) -> int:
        """When the next probe is due."""
        return int(self._next_due_ns.min())

    def _skip(self, ready: Int64s, from_ns: int) -> int:
        overdue = ready[self._next_due_ns[ready] < from_ns]
        if not len(overdue):
            return 0
        behind_ns = from_ns - self._next_due_ns[overdue]
        intervals = -(-behind_ns // self._interval_ns)
        self.missed[overdue] += intervals
        if self._poisson:
            # What follows a pause of a Poisson stream is one more random gap.
            self._next_due_ns[overdue] = from_ns + self._gaps_ns(len(overdue))
        else:
            self._next_due_ns[overdue] += intervals * self._interval_ns
        return int(intervals.sum())

    def _first_ns(self, count: int) -> Int64s:
        """Where in its stream each target is found: no more and no fewer probes at first than later.

        That is the residual life of a gap, whose density is the share of gaps that are longer: anywhere in
        one interval for equal gaps, an exponential within the cut for the random ones.
        """
        if not self._poisson:
            return self._rng.integers(0, max(1, self._interval_ns), count)
        within = -np.expm1(-_LONGEST_GAP_INTERVALS / _MEAN_BEFORE_CUT_INTERVALS)
        residual = -_MEAN_BEFORE_CUT_INTERVALS * np.log1p(-self._rng.random(count) * within)
        first_ns: Int64s = (residual * self._interval_ns).astype(np.int64)
        return first_ns

    def _gaps_ns(self, count: int) -> Int64s:
        if not self._poisson:
            return np.full(count, self._interval_ns)
        gaps = np.minimum(
            self._rng.standard_exponential(count) * _MEAN_BEFORE_CUT_INTERVALS, _LONGEST_GAP_INTERVALS
        )
        return np.maximum(1, (gaps * self._interval_ns).astype(np.int64))
