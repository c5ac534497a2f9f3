"""The goals, held against all runs of a benchmark: the worst figure decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.accuracy.figures import Figures

RTT_P99_US = 25.0
RTT_BIAS_US = 10.0
STAMP_P99_US = 60.0


@dataclass(frozen=True)
class Condition:
    """What the line and the host were like."""

    delay_ms: float
    loss_ratio: float
    load: str

    def __str__(self) -> str:
        return f"{self.delay_ms:g} ms, {self.loss_ratio:.0%} loss, {self.load}"


@dataclass(frozen=True)
class Run:
    """One program in one condition; `failure` says why there are no figures."""

    condition: Condition
    program: str
    figures: Figures | None
    failure: str = ""


@dataclass(frozen=True)
class Verdict:
    """A goal, how many runs met it of how many, and the worst of them."""

    goal: str
    met: int
    of: int
    worst: str

    @property
    def is_met(self) -> bool:
        return self.of > 0 and self.met == self.of


def verdicts(runs: Sequence[Run]) -> list[Verdict]:
    """All goals that the runs say something about."""
    found: list[Verdict] = []
    for load in sorted({run.condition.load for run in runs}, key=lambda load: load != "idle"):
        here = [run for run in runs if run.condition.load == load]
        icmp = [run for run in here if run.program.startswith("nhip icmp")]
        stamp = [run for run in here if run.program == "nhip stamp"]
        for name, chosen, value, limit in (
            ("ICMP p99 |error|", icmp, lambda figures: figures.p99_us, RTT_P99_US),
            ("ICMP |bias|", icmp, _bias, RTT_BIAS_US),
            ("STAMP p99 |error|", stamp, lambda figures: figures.p99_us, STAMP_P99_US),
        ):
            if chosen:
                found.append(_verdict(f"{name} ≤ {limit / 1000:.3f} ms, {load}", chosen, value, limit))
    ours = [run for run in runs if run.program.startswith("nhip")]
    if ours:
        found.append(_verdict("loss exact, all of nhip's runs", ours, _loss_error, 0.0, unit="packets"))
    return found


def _verdict(
    goal: str,
    runs: Sequence[Run],
    value: Callable[[Figures], float | None],
    limit: float,
    unit: str = "µs",
) -> Verdict:
    values = [(None if run.figures is None else value(run.figures), run) for run in runs]
    met = sum(figure is not None and figure <= limit for figure, _ in values)
    # A run without a figure is worse than any figure.
    figure, run = max(values, key=lambda pair: float("inf") if pair[0] is None else pair[0])
    worst = (
        "no figure" if figure is None else f"{figure:.1f} {unit}" if unit == "µs" else f"{figure:.0f} {unit}"
    )
    return Verdict(goal, met, len(values), f"{worst} ({run.program}, {run.condition})")


def _bias(figures: Figures) -> float | None:
    return None if figures.bias_us is None else abs(figures.bias_us)


def _loss_error(figures: Figures) -> float:
    return abs(figures.lost_said - figures.lost_true)
