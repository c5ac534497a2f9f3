"""Kernel stamps carried from the wall clock, which steps, over to the monotonic clock, which does not.

Linux slews both clocks alike (NTP steers the one they share), so their difference is constant until
somebody sets the date. The difference is read once, as tightly as this host allows, and held; every later
reading is compared with it. A reading that deviates by more than both readings' uncertainty means that the
wall clock was stepped since, were it by twenty microseconds. Whatever happened before a step was noticed
cannot be carried over: its wall time belongs to another difference.
"""

from __future__ import annotations

from nhip.clock import Clock

# Reading two clocks one after the other leaves this open at best; the rest is the measured gap.
_RESOLUTION_NS = 2_000
# A deviation must survive this many readings: being scheduled away between two reads is no step.
_READINGS = 5
# A packet cannot have passed after it was read; the two clocks are read some microseconds apart.
_CARRYING_NOISE_NS = 50_000


class ClockBridge:
    """The difference of the two clocks, watched for steps."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_ns, self._gap_ns, self._steady_since_ns = self._tightest()
        self.steps = 0

    @property
    def uncertainty_ns(self) -> int:
        """How far a carried stamp may be off: half the time one reading of both clocks took."""
        return (self._gap_ns + 1) // 2

    def look(self) -> int:
        """Monotonic time now, a step of the wall clock having been noticed if there was one."""
        offset_ns, gap_ns, mono_ns = self._read()
        if abs(offset_ns - self._offset_ns) > self._allowed_ns(gap_ns):
            offset_ns, gap_ns, mono_ns = self._tightest()
            if abs(offset_ns - self._offset_ns) > self._allowed_ns(gap_ns):
                self._offset_ns, self._gap_ns, self._steady_since_ns = offset_ns, gap_ns, mono_ns
                self.steps += 1
        elif gap_ns < self._gap_ns:
            self._offset_ns, self._gap_ns = offset_ns, gap_ns
        return mono_ns

    def mono_ns(self, wall_ns: int, now_ns: int) -> int | None:
        """A kernel's wall-clock stamp on the monotonic clock; `None` when it may lie before a step.

        `now_ns` is what :meth:`look` gave after the stamp was made.
        """
        mono_ns = wall_ns - self._offset_ns
        return mono_ns if self._steady_since_ns <= mono_ns <= now_ns + _CARRYING_NOISE_NS else None

    def wall_ns(self, mono_ns: int) -> int:
        """The date of a monotonic time, by the difference held now."""
        return mono_ns + self._offset_ns

    def _allowed_ns(self, gap_ns: int) -> int:
        return (gap_ns + self._gap_ns) // 2 + _RESOLUTION_NS

    def _tightest(self) -> tuple[int, int, int]:
        readings = [self._read() for _ in range(_READINGS)]
        offset_ns, gap_ns, _mono_ns = min(readings, key=lambda reading: reading[1])
        return offset_ns, gap_ns, readings[-1][2]

    def _read(self) -> tuple[int, int, int]:
        """Wall minus monotonic, how long reading them took, and the monotonic time at its end."""
        before_ns = self._clock.mono_ns()
        wall_ns = self._clock.wall_ns()
        after_ns = self._clock.mono_ns()
        return wall_ns - (before_ns + after_ns) // 2, after_ns - before_ns, after_ns
