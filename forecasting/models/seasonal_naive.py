"""Seasonal naive: next week will be as this week was.

The yardstick of every other model and the one they fall back to. It knows nothing but the last season, so
it cannot overfit, diverge or fail to converge, and whoever does worse has learned nothing.

::

    history   ... | Mo Tu We Th Fr Sa Su | Mo Tu We Th Fr Sa Su |
                                           └────── copied ──────▶| Mo Tu We Th Fr Sa Su | Mo Tu ...
                                                                   1 season ahead         2 seasons ahead
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecasting.api import DEFAULT_LEVELS, Forecast, around
from forecasting.frame import Floats, Series
from forecasting.gaps import fill_gaps
from forecasting.season import season_of
from nhip.errors import SeriesError

NAME = "seasonal_naive"

# How far back the errors are looked at: a year of weeks, so that Tết and other rare days are among them.
ERROR_SEASONS = 52


@dataclass(frozen=True, slots=True)
class SeasonalNaive:
    """Repeats the last season; `season_steps` overrides the week that it chooses by itself."""

    season_steps: int | None = None

    def fit(self, series: Series) -> FittedSeasonalNaive:
        """Remember the last season and the errors its repetition has made; needs two seasons."""
        season_steps = season_of(series, stated_steps=self.season_steps)
        complete = fill_gaps(series, season_steps)
        if np.isnan(series.values[season_steps:] - series.values[:-season_steps]).all():
            raise SeriesError(
                f"series {series.series_id!r} holds no two values one season apart",
                remedy="give a more complete history: without them nobody can say how wrong it may be",
            )
        return FittedSeasonalNaive(series, complete, season_steps)


@dataclass(frozen=True, slots=True, eq=False)
class FittedSeasonalNaive:
    """One history as `measured`, and `complete` where its gaps are filled."""

    measured: Series
    complete: Series
    season_steps: int

    def forecast(self, horizon_steps: int, levels: Sequence[float] = DEFAULT_LEVELS) -> Forecast:
        """The last season again and again; the interval is that of the errors at the same distance."""
        median = np.resize(self.complete.values[-self.season_steps :], horizon_steps)
        seasons_ahead = 1 + np.arange(horizon_steps) // self.season_steps
        errors = _errors_by_season_ahead(self.measured.values, self.season_steps, int(seasons_ahead[-1]))
        bounds = {}
        for level in levels:
            reach = np.array([_quantile(error, level) for error in errors])[seasons_ahead - 1]
            bounds[level] = (median - reach, median + reach)
        return Forecast(
            series_id=self.measured.series_id,
            produced_by=NAME,
            times=self.measured.times_ahead(horizon_steps),
            median=median,
            quantiles=around(median, bounds),
            unit=self.measured.unit,
            step_seconds=self.measured.step_seconds,
            provenance=self.measured.provenance,
            notes=self.complete.notes,
        )


def _errors_by_season_ahead(values: Floats, season_steps: int, seasons: int) -> list[Floats]:
    """Sizes of the errors the model would have made in the past, for 1, 2, ... `seasons` ahead.

    Only measured values are compared: a filled gap repeats the season before it, and its error of zero
    would make the model look better than it is. A distance the history does not hold borrows the errors
    of the longest one it holds, widened as those of a random walk are, with the root of the distance.
    """
    found: list[Floats] = []
    longest = 1
    for ahead in range(1, seasons + 1):
        lag = ahead * season_steps
        recent = values[-(lag + ERROR_SEASONS * season_steps) :]
        errors = np.abs(recent[lag:] - recent[:-lag])
        errors = errors[~np.isnan(errors)]
        if len(errors) >= 2 * season_steps or not found:
            longest = ahead
            found.append(errors)
        else:
            found.append(found[longest - 1] * math.sqrt(ahead / longest))
    return found


def _quantile(errors: Floats, level: float) -> float:
    """The error size that the next one stays below with probability `level`.

    The rank is that of a conformal interval, ceil((n + 1) * level): the next error is one more draw beside
    the n seen. With few errors the largest seen is the best there is.
    """
    rank = min(math.ceil((len(errors) + 1) * level), len(errors))
    return float(np.sort(errors)[rank - 1])
