"""A system clock whose wall time somebody sets while a test runs."""

from __future__ import annotations

import itertools

from nhip.clock import SystemClock


class SteppedClock(SystemClock):
    """The wall clock jumps by `step_seconds` at its `after_readings`-th reading, and stays there."""

    def __init__(self, *, step_seconds: float, after_readings: int) -> None:
        self._step_ns = round(step_seconds * 1e9)
        self._after = after_readings
        self._readings = itertools.count(1)

    def wall_ns(self) -> int:
        stepped = next(self._readings) > self._after
        return super().wall_ns() + (self._step_ns if stepped else 0)
