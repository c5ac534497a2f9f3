"""How well this host's clock was set during a test: the worst of what the kernel said while it ran.

What the kernel gives as the largest error of a set clock grows until its daemon corrects it again, and a
daemon may lose its servers in the middle of a test. So the kernel is asked again once a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nhip.measurement import ClockState, Singleton
from nhip.statistics import NANOSECONDS_PER_SECOND

_AGE_NS = NANOSECONDS_PER_SECOND


class OwnClock:
    """Reads the clock's state as the test goes on and keeps the worst."""

    def __init__(self, read: Callable[[], ClockState]) -> None:
        self._read = read
        self.newest = self.worst = read()
        self._read_mono_ns: int | None = None

    def look(self, mono_ns: int) -> bool:
        """Ask again when the last answer is a second old at `mono_ns`; True when it was asked."""
        if self._read_mono_ns is not None and mono_ns - self._read_mono_ns < _AGE_NS:
            return False
        self._read_mono_ns = mono_ns
        self.ask()
        return True

    def ask(self) -> None:
        """Ask now."""
        self.newest = self._read()
        self.worst = _worse(self.worst, self.newest)


def drift_ns(singletons: Sequence[Singleton]) -> int:
    """By how much the wall clock moved against the monotonic one within these packets.

    Both are slewed alike, so that only a clock that was set, or two clocks read apart, moves them.
    """
    offsets_ns = [
        stamp.wall_ns - stamp.mono_ns
        for singleton in singletons
        for stamp in (singleton.sent, singleton.received)
        if stamp is not None
    ]
    return max(offsets_ns) - min(offsets_ns) if offsets_ns else 0


def _worse(one: ClockState, other: ClockState) -> ClockState:
    errors_ns = (one.maximum_error_ns, other.maximum_error_ns)
    known_ns = [error_ns for error_ns in errors_ns if error_ns is not None]
    synchronised: bool | None = True
    if one.synchronised is False or other.synchronised is False:
        synchronised = False
    elif one.synchronised is None or other.synchronised is None:
        synchronised = None
    return ClockState(
        synchronised=synchronised,
        estimated_error_ns=other.estimated_error_ns,
        maximum_error_ns=max(known_ns) if len(known_ns) == len(errors_ns) else None,
    )
