"""Whether the wall clock was stepped: the kernel's stamps are of that clock, and both must be of one piece.

The clock is looked at after every reading of a socket. Between two looks the difference of wall and
monotonic clock changes by slewing (500 parts in a million, adjtime(3)) and by how exactly the two could be
read; anything more is a step. The delay of a probe that was under way meanwhile is then not known.
"""

from __future__ import annotations

from nhip.clock import Clock

_SLEW_PARTS = 600e-6
_NOISE_NS = 5_000
_TIGHT_NS = 20_000
_TRIES = 3


class StepWatch:
    """Follows the difference of the two clocks of this host."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.steps = 0
        self.suspect_until_ns = -1
        """Monotonic time of the look that found the last step: what was sent before it has no delay."""
        self.offset_ns, self._gap_ns, self.seen_ns = self._read()
        """Wall minus monotonic clock, and when it was read."""

    def look(self) -> None:
        """Read both clocks; a step since the last look is noted."""
        offset_ns, gap_ns, seen_ns = self._read()
        allowed_ns = _NOISE_NS + gap_ns + self._gap_ns + _SLEW_PARTS * (seen_ns - self.seen_ns)
        if abs(offset_ns - self.offset_ns) > allowed_ns:
            self.steps += 1
            self.suspect_until_ns = seen_ns
        self.offset_ns, self._gap_ns, self.seen_ns = offset_ns, gap_ns, seen_ns

    def _read(self) -> tuple[int, int, int]:
        """The tightest of a few readings: being scheduled away between two clocks would look like a step."""
        best: tuple[int, int, int] | None = None
        for _ in range(_TRIES):
            before = self._clock.mono_ns()
            wall = self._clock.wall_ns()
            after = self._clock.mono_ns()
            if best is None or after - before < best[1]:
                best = (wall - (before + after) // 2, after - before, after)
            if best[1] <= _TIGHT_NS:
                break
        assert best is not None  # noqa: S101 - the loop ran
        return best
