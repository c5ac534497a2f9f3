"""Whether a forecast can be believed to be one: pure checks of its words, dates and paths."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from itertools import pairwise

from nhip.wire import LinkForecast

PROVENANCES = frozenset({"measured", "simulated"})
VERDICTS = frozenset({"already_over", "crosses", "never", "no_capacity"})

_ROUNDING = 1e-9
"""Share of a value by which a quantile computed apart may lie on the wrong side of its neighbour."""


def fault_of(forecast: LinkForecast) -> str:
    """What is wrong with `forecast`, in a few words; empty when nothing is."""
    if forecast.provenance not in PROVENANCES:
        return "provenance is neither measured nor simulated"
    if not (forecast.series_id + forecast.produced_by).isprintable():
        return "series_id or produced_by holds control characters"
    return _fault_of_limits(forecast) or _fault_of_times(forecast) or _fault_of_paths(forecast)


def date_seconds(text: str) -> float | None:
    """Seconds since 1970 of an ISO 8601 date, or date and time, UTC by default; None when it is neither."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (OverflowError, ValueError):  # a day of the year 1 or 9999 that another zone moves out of both
        return None


def _fault_of_limits(forecast: LinkForecast) -> str:
    for limit in forecast.limits:
        if limit.verdict not in VERDICTS:
            return f"verdict of {limit.rule_id} is none of {', '.join(sorted(VERDICTS))}"
        dates = (limit.median_date, *(limit.interval80 or ()))
        if any(text is not None and date_seconds(text) is None for text in dates):
            return f"a date of {limit.rule_id} is not written as YYYY-MM-DD"
    return ""


def _fault_of_times(forecast: LinkForecast) -> str:
    moments = [date_seconds(text) for text in forecast.times]
    known = [moment for moment in moments if moment is not None]
    if len(known) < len(moments):
        return "a time of the path is not written as ISO 8601"
    if any(earlier >= later for earlier, later in pairwise(known)):
        return "times of the path do not ascend"
    return ""


def _fault_of_paths(forecast: LinkForecast) -> str:
    length = len(forecast.times)
    paths: list[tuple[float, list[float]]] = []
    for name, path in forecast.quantiles.items():
        probability = _probability(name)
        if probability is None:
            return "the name of a quantile is no number between 0 and 1"
        paths.append((probability, path))
    if any(len(path) != length for path in (forecast.median, *forecast.quantiles.values())):
        return "times, median and quantiles differ in length"
    if any(
        not 0 <= value < math.inf
        for path in (forecast.median, *forecast.quantiles.values())
        for value in path
    ):
        return "a value of median or quantiles is negative or not finite"
    if len({probability for probability, _path in paths}) < len(paths):
        return "a quantile is there twice"
    if all(probability != 0.5 for probability, _path in paths):
        paths.append((0.5, forecast.median))
    for (_low, below), (_high, above) in pairwise(sorted(paths, key=lambda item: item[0])):
        if any(low > high + _ROUNDING * high for low, high in zip(below, above, strict=True)):
            return "quantiles and median are not in order"
    return ""


def _probability(name: str) -> float | None:
    try:
        probability = float(name)
    except ValueError:
        return None
    return probability if 0 < probability < 1 else None
