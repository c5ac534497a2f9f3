"""What is known of each target: settled probes in rows, given out as a window when a row is full.

A window of a target is a fixed number of its probes, one after another, and a row has just that many places.
Nothing is ever taken back from the totals, and a probe enters them once, when its loss threshold has passed:
what is in flight is neither received nor lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from probes.engine import fate
from probes.engine.packet import Int64s

NO_DELAY = 0xFFFF_FFFF
"""Stands for a delay that does not exist; the largest real one is below 4.3 s."""
LONGEST_DELAY_NS = NO_DELAY - 1
LARGEST_LAG = 0xFFFF
"""Lags are kept in microseconds and end here."""

_SLOT = np.dtype([("delay_ns", "u4"), ("lag_us", "u2"), ("status", "u1"), ("duplicates", "u1")])


@dataclass(frozen=True, slots=True)
class Settled:
    """Probes whose fate is final, in the order they were sent."""

    targets: Int64s
    rounds: Int64s
    status: NDArray[np.uint8]
    delays_ns: NDArray[np.uint32]
    lags_us: NDArray[np.uint16]
    duplicates: NDArray[np.uint8]
    handed_ns: Int64s


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of several targets, one a row. Places that hold no probe have the status OPEN."""

    targets: Int64s
    started_ns: Int64s
    """When the first probe was handed over, monotonic."""
    ended_ns: Int64s
    """When the fate of the last was settled."""
    status: NDArray[np.uint8]
    delays_ns: NDArray[np.uint32]
    lags_us: NDArray[np.uint16]
    duplicates: Int64s
    missed: Int64s


@dataclass(slots=True)
class Totals:
    """Everything settled so far. `sent` counts what was handed to the network."""

    fates: Int64s = field(default_factory=lambda: np.zeros(16, np.int64))
    duplicate: int = 0
    reordered: int = 0
    sent_by_user_stamp: int = 0
    received_by_user_stamp: int = 0
    without_delay: int = 0
    """Received, and the delay undefined: the clock was stepped meanwhile, or the stamps contradict."""

    def of(self, kind: int) -> int:
        """How many met this fate."""
        return int(self.fates[kind])

    @property
    def received(self) -> int:
        return self.of(fate.RECEIVED)

    @property
    def late(self) -> int:
        return self.of(fate.LATE)

    @property
    def lost(self) -> int:
        """Late ones included."""
        return self.of(fate.LOST) + self.of(fate.LATE)

    @property
    def failed(self) -> int:
        return sum(self.of(kind) for kind in fate.FAILED)

    @property
    def sent(self) -> int:
        return self.received + self.lost + self.failed


class Book:
    """The rows of one lane's targets."""

    def __init__(self, targets: int, window_rounds: int) -> None:
        self.window_rounds = window_rounds
        self.totals = Totals()
        shape = (targets, window_rounds)
        self._base: Int64s = np.zeros(targets, np.int64)
        self._started_ns: Int64s = np.zeros(targets, np.int64)
        # Eight octets a probe, side by side: writing one touches memory once.
        self._slots = np.empty(shape, _SLOT)
        self._words: NDArray[np.uint64] = self._slots.view(np.uint64)
        self._words.fill(0)  # now, for the system gives memory at the first touch, and that takes its time

    def settle(self, settled: Settled, now_ns: int, missed: Int64s) -> list[Windows]:
        """Enter probes; the windows that became full. Their targets' `missed` is taken and set to 0.

        The probes of each target must come in the order of their rounds.
        """
        self._count(settled)
        windows: list[Windows] = []
        first, count = 0, len(settled.targets)
        while first < count:
            targets, rounds = settled.targets[first:], settled.rounds[first:]
            # A probe of a target's next window waits until the full one is taken.
            beyond = np.flatnonzero(rounds - self._base[targets] >= self.window_rounds)
            upto = first + (int(beyond[0]) if len(beyond) else len(targets))
            if upto == first:
                raise AssertionError("a probe of the next window came before the last one of this")
            full = self._enter(settled, slice(first, upto))
            if len(full):
                windows.append(self._take(full, now_ns, missed))
                self._base[full] += self.window_rounds
            first = upto
        return windows

    def rest(self, now_ns: int, missed: Int64s, *, at_once: int = 256) -> Iterator[Windows]:
        """What stands in windows that are not full, for the end; the rows are empty afterwards."""
        for first in range(0, len(self._base), at_once):
            targets = np.arange(first, min(first + at_once, len(self._base)))
            begun = targets[self._slots["status"][targets].any(axis=1)]
            if len(begun):
                yield self._take(begun, now_ns, missed)

    def _enter(self, settled: Settled, part: slice) -> Int64s:
        """Write one part into the rows; the targets whose window it filled."""
        targets, rounds = settled.targets[part], settled.rounds[part]
        columns = rounds - self._base[targets]
        packed = np.empty(len(targets), _SLOT)
        packed["delay_ns"] = settled.delays_ns[part]
        packed["lag_us"] = settled.lags_us[part]
        packed["status"] = settled.status[part]
        packed["duplicates"] = settled.duplicates[part]
        self._words[targets, columns] = packed.view(np.uint64)
        begins = columns == 0
        self._started_ns[targets[begins]] = settled.handed_ns[part][begins]
        full: Int64s = targets[columns == self.window_rounds - 1]
        return full

    def _take(self, targets: Int64s, now_ns: int, missed: Int64s) -> Windows:
        slots = self._slots[targets]
        taken = Windows(
            targets=targets,
            started_ns=self._started_ns[targets],
            ended_ns=np.full(len(targets), now_ns),
            status=slots["status"],
            delays_ns=slots["delay_ns"],
            lags_us=slots["lag_us"],
            duplicates=slots["duplicates"].sum(axis=1, dtype=np.int64),
            missed=missed[targets],
        )
        missed[targets] = 0
        self._words[targets] = 0
        return taken

    def _count(self, settled: Settled) -> None:
        totals, status = self.totals, settled.status
        kinds = status & fate.FATE
        totals.fates += np.bincount(kinds, minlength=16)
        totals.duplicate += int(settled.duplicates.sum(dtype=np.int64))
        received = kinds == fate.RECEIVED
        for bit, name in (
            (fate.REORDERED, "reordered"),
            (fate.SENT_BY_USER_STAMP, "sent_by_user_stamp"),
            (fate.RECEIVED_BY_USER_STAMP, "received_by_user_stamp"),
        ):
            setattr(totals, name, getattr(totals, name) + int((received & ((status & bit) != 0)).sum()))
        totals.without_delay += int((received & (settled.delays_ns == NO_DELAY)).sum())
