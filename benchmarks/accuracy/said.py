"""What a program said about a run, and what a program is to this benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.accuracy.line import Line


@dataclass(frozen=True, kw_only=True)
class Said:
    """A program's own account. Delays are named by what `by` says of the :class:`~.truth.Trip`."""

    by: Literal["order", "sequence", "far"]
    sent: int
    lost: int
    delays_ns: Mapping[int | str, float] = field(default_factory=dict)
    mean: tuple[int, float] | None = None
    """Of a program that tells no single delay: how many answers it counted and their mean (ns)."""
    own_error_ns: Mapping[int | str, int] = field(default_factory=dict)
    """How far the program says each delay may be wrong by its own doing."""
    departed_ns: Mapping[int | str, int] = field(default_factory=dict)
    arrived_ns: Mapping[int | str, int] = field(default_factory=dict)
    """Its time stamps on the wall clock, where it tells them."""
    levels: Counter[str] = field(default_factory=Counter)
    """How many delays rest on which stamps (departure/arrival)."""


@dataclass(frozen=True)
class Plan:
    """How much to send in one run."""

    count: int
    interval_seconds: float
    loss_threshold_seconds: float = 0.5

    @property
    def seconds(self) -> float:
        return self.count * self.interval_seconds


@dataclass(frozen=True)
class Program:
    """One competitor. `excludes_turnaround`: its delay is defined without the far host's share."""

    name: str
    run: Callable[[Line, Plan], Said]
    command: str = ""
    package: str = ""
    excludes_turnaround: bool = False
    note: str = ""
