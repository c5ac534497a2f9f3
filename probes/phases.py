"""The phases of a longer exchange, noted one after the other."""

from __future__ import annotations

from nhip.clock import Clock
from nhip.measurement import Phase


def end_phase(phases: list[Phase], name: str, begun_ns: int, clock: Clock) -> int:
    """Note how long a phase took; returns the end of it, which is the beginning of the next."""
    ended_ns = clock.mono_ns()
    phases.append(Phase(name, ended_ns - begun_ns))
    return ended_ns
