"""The drawing of one link's forecast: median, 80 % band and limits as paths in a small SVG.

::

    top      ┌───────────────────────────── capacity
             │- - - - - - - - - - - - - - - limit 90 %
             │            ░░░░░░▒▒▒▒▒▒▒▒▒▒  band: quantiles 0.1 to 0.9
             │ ▁▂▂▃▃▃▄▄▄▅▅▅▅▆▆▆▆▆           median
    bottom   └──────────────────────────────
             first day                last day

Pure geometry: numbers in, coordinates out. The vertical axis starts at zero, so that a link at 40 % looks
like one. Long paths are thinned to what a screen can show; within one column of the screen the band keeps its
outer edges and the median becomes the mean of its points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nhip.wire import LinkForecast

WIDTH, HEIGHT = 420.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 8.0, 96.0, 12.0, 22.0
LABEL_HEIGHT = 13.0
MOST_POINTS = 120
BAND = (0.1, 0.9)
RATE_UNIT = "bit/s"


@dataclass(frozen=True, slots=True)
class Level:
    """A horizontal line: a limit or the capacity. `ratio` is the share of the capacity, 1 for itself."""

    y: float
    label_y: float
    ratio: float | None
    value: float


@dataclass(frozen=True, slots=True)
class FanChart:
    """Paths ready for an SVG of WIDTH × HEIGHT; `band` is empty when the forecast has no such quantiles."""

    median: str
    band: str
    levels: tuple[Level, ...]
    highest: float
    first: float
    last: float
    first_time: str
    last_time: str


def fan_chart(forecast: LinkForecast) -> FanChart | None:
    """The drawing of `forecast`; None when it has fewer than two points."""
    count = min(len(forecast.median), len(forecast.times))
    if count < 2:
        return None
    low, high = (_quantile(forecast, probability, count) for probability in BAND)
    columns = _columns(count)
    median = [_mean(forecast.median[a:b]) for a, b in columns]
    lows = [min(low[a:b]) for a, b in columns] if low and high else []
    highs = [max(high[a:b]) for a, b in columns] if low and high else []
    lines = _lines(forecast)
    highest = max([*median, *highs, *(value for value, _ in lines)]) * 1.04
    if highest <= 0:
        highest = 1.0
    xs = [LEFT + (WIDTH - LEFT - RIGHT) * index / max(len(columns) - 1, 1) for index in range(len(columns))]
    upper = [(x, _y(value, highest)) for x, value in zip(xs, highs, strict=False)]
    lower = [(x, _y(value, highest)) for x, value in zip(xs, lows, strict=False)]
    return FanChart(
        median=_path([(x, _y(value, highest)) for x, value in zip(xs, median, strict=True)]),
        band=_path(upper + lower[::-1]) + "Z" if upper else "",
        levels=_levels(lines, highest),
        highest=highest,
        first=forecast.median[0],
        last=forecast.median[count - 1],
        first_time=forecast.times[0],
        last_time=forecast.times[count - 1],
    )


def _quantile(forecast: LinkForecast, probability: float, count: int) -> list[float]:
    """The path of one quantile, found by the number its name spells; empty when there is none."""
    for name, path in forecast.quantiles.items():
        try:
            found = abs(float(name) - probability) < 1e-9
        except ValueError:
            continue
        if found and len(path) >= count:
            return path[:count]
    return []


def _columns(count: int) -> list[tuple[int, int]]:
    """Slices of the points that share a column of the drawing; one point each when they are few."""
    columns = min(count, MOST_POINTS)
    return [(index * count // columns, (index + 1) * count // columns) for index in range(columns)]


def _lines(forecast: LinkForecast) -> list[tuple[float, float | None]]:
    """Value and share of capacity of each different limit, and of the capacity; only rates can be drawn."""
    if forecast.unit != RATE_UNIT:
        return []
    found: dict[float, float | None] = {}
    for limit in forecast.limits:
        if limit.limit_bits_per_second is not None:
            found.setdefault(limit.limit_bits_per_second, limit.limit_ratio)
    if forecast.capacity_bits_per_second is not None:
        found[forecast.capacity_bits_per_second] = 1.0
    return sorted(found.items(), key=lambda item: item[0], reverse=True)


def _levels(lines: Sequence[tuple[float, float | None]], highest: float) -> tuple[Level, ...]:
    """The lines from top to bottom, their labels pushed down where they would cover each other."""
    levels = []
    free = TOP
    for value, ratio in lines:
        y = _y(value, highest)
        label_y = max(y, free)
        free = label_y + LABEL_HEIGHT
        levels.append(Level(_round(y), _round(label_y), ratio, value))
    return tuple(levels)


def _y(value: float, highest: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - max(value, 0.0) / highest)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_round(x):g},{_round(y):g}" for x, y in points) if points else ""


def _round(value: float) -> float:
    return round(value, 1)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
