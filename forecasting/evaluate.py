"""Rolling-origin backtest: what a model would have said in the past, held against what came.

::

    history ├──────────── train ────────────┤── horizon ──┤
            ├──────── train ────────┤── horizon ──┤
            ├──── train ────┤── horizon ──┤                 one window per origin, newest first

Models are compared on the windows that all of them answered, as the geometric mean of the ratio to the
seasonal naive on the same window.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean, median

import numpy as np

from forecasting import losses
from forecasting.api import Forecast, Model
from forecasting.frame import Floats, Series
from forecasting.gaps import fill_gaps
from nhip.errors import SeriesError

REFERENCE = "seasonal_naive"
# Eleven quantiles: 2.5 %, 10 % to 90 %, 97.5 %.
SCORED_LEVELS = (0.2, 0.4, 0.6, 0.8, 0.95)


@dataclass(frozen=True, slots=True)
class WindowScore:
    """One model on one window; the losses are None where it `refused` or the definition gives no number."""

    series_id: str
    origin: datetime
    model: str
    produced_by: str | None
    mase: float | None
    rmsse: float | None
    scaled_crps: float | None
    coverage: Mapping[float, float | None]
    cpu_seconds: float
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model over the windows that every model answered; `relative_*` below 1 beats seasonal naive."""

    model: str
    windows: int
    refused: int
    fallbacks: int
    mase: float | None
    relative_mase: float | None
    relative_crps: float | None
    coverage80: float | None
    coverage95: float | None
    cpu_ms: float


def origins(length: int, *, horizon_steps: int, least_steps: int, every_steps: int, most: int) -> list[int]:
    """Training lengths from the newest that leaves a whole horizon down to `least_steps`."""
    return list(range(length - horizon_steps, least_steps - 1, -every_steps))[:most]


def backtest(
    name: str,
    model: Model,
    series: Series,
    *,
    at: Sequence[int],
    horizon_steps: int,
    season_steps: int,
    most_steps: int | None = None,
    cpu_clock: Callable[[], float] = time.process_time,
) -> list[WindowScore]:
    """The scores of `model` at each training length of `at`, with at most `most_steps` of history."""
    scores = []
    for length in at:
        train = series.first(length)
        train = train.last(most_steps) if most_steps else train
        actual = series.values[length : length + horizon_steps]
        started = cpu_clock()
        try:
            forecast = model.fit(train).forecast(horizon_steps, SCORED_LEVELS)
        except SeriesError as error:
            scores.append(_refused(name, train, cpu_clock() - started, error))
        else:
            scores.append(_scored(name, train, actual, forecast, season_steps, cpu_clock() - started))
    return scores


def compare(scores: Iterable[WindowScore], *, reference: str = REFERENCE) -> list[Comparison]:
    """One line per model on the windows that all answered; the best relative CRPS first."""
    by_model: dict[str, dict[tuple[str, datetime], WindowScore]] = {}
    for score in scores:
        by_model.setdefault(score.model, {})[score.series_id, score.origin] = score
    if reference not in by_model:
        raise ValueError(f"no scores of the reference {reference!r}")
    common = set.intersection(
        *({window for window, score in found.items() if not score.refused} for found in by_model.values())
    )
    lines = [_comparison(name, found, common, by_model[reference]) for name, found in by_model.items()]
    return sorted(lines, key=lambda line: line.relative_crps if line.relative_crps is not None else np.inf)


def error_trajectories(
    model: Model, series: Series, *, at: Sequence[int], horizon_steps: int, offset: float
) -> Floats:
    """log(actual + offset) - log(median + offset) along the whole horizon, one row for each past origin.

    The rows keep what a quantile for each step loses: that a model wrong today is wrong the same way
    tomorrow. An origin that the model refuses gives no row.
    """
    rows = []
    for length in at:
        try:
            path = model.fit(series.first(length)).forecast(horizon_steps, ()).median
        except SeriesError:
            continue
        actual = series.values[length : length + horizon_steps]
        rows.append(np.log(actual + offset) - np.log(path + offset))
    return np.array(rows) if rows else np.empty((0, horizon_steps))


def _scored(
    name: str, train: Series, actual: Floats, forecast: Forecast, season_steps: int, cpu_seconds: float
) -> WindowScore:
    # The scale is that of the history as a model sees it, without gaps.
    history = fill_gaps(train, season_steps).values
    return WindowScore(
        series_id=train.series_id,
        origin=train.times[-1].to_pydatetime(),
        model=name,
        produced_by=forecast.produced_by,
        mase=losses.mase(actual, forecast.median, history, season_steps),
        rmsse=losses.rmsse(actual, forecast.median, history, season_steps),
        scaled_crps=losses.scaled_crps(actual, forecast.quantiles, history, season_steps),
        coverage={level: losses.coverage(actual, *forecast.interval(level)) for level in SCORED_LEVELS},
        cpu_seconds=cpu_seconds,
    )


def _refused(name: str, train: Series, cpu_seconds: float, error: SeriesError) -> WindowScore:
    origin = train.times[-1].to_pydatetime()
    return WindowScore(train.series_id, origin, name, None, None, None, None, {}, cpu_seconds, error.what)


def _comparison(
    name: str,
    found: Mapping[tuple[str, datetime], WindowScore],
    common: set[tuple[str, datetime]],
    reference: Mapping[tuple[str, datetime], WindowScore],
) -> Comparison:
    mine = [found[window] for window in sorted(common)]
    theirs = [reference[window] for window in sorted(common)]
    return Comparison(
        model=name,
        windows=len(mine),
        refused=sum(bool(score.refused) for score in found.values()),
        fallbacks=sum(score.produced_by != name for score in mine),
        mase=_mean([score.mase for score in mine]),
        relative_mase=_relative([s.mase for s in mine], [s.mase for s in theirs]),
        relative_crps=_relative([s.scaled_crps for s in mine], [s.scaled_crps for s in theirs]),
        coverage80=_mean([score.coverage[0.8] for score in mine]),
        coverage95=_mean([score.coverage[0.95] for score in mine]),
        cpu_ms=1000 * median([score.cpu_seconds for score in mine] or [0.0]),
    )


def _relative(mine: Sequence[float | None], theirs: Sequence[float | None]) -> float | None:
    return losses.geometric_mean(m / t for m, t in zip(mine, theirs, strict=True) if m is not None and t)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
