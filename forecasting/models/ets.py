"""ETS(A,N,A) on the logarithm: a level and a weekly profile, both following the traffic slowly.

::

    x(t) = log(y(t) + 1 % of the median of y)            keeps forecasts above zero, errors in percent
    x(t) = level(t-1) + profile(t-season) + e(t)         e is normal with variance s2
    level moves by alpha * e(t), profile by gamma * e(t)

No trend on purpose: on real links a trend, damped or not, gained nothing at 30 days and lost at 90.
alpha and gamma are found by statsmodels, within bounds: the search looks one step ahead only, where the
best level is that of the last hour, which is the worst for tomorrow. The intervals are the analytic ones of
this model (Hyndman and Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., section 8.7), brought
back from the log.

Where the search does not converge, or the history is too short or constant, the seasonal naive model
answers in its own name and a note says why.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import pandas as pd

from forecasting.api import DEFAULT_LEVELS, FittedModel, Forecast, around, interval_probabilities
from forecasting.frame import Floats, Series
from forecasting.gaps import fill_gaps
from forecasting.models.seasonal_naive import SeasonalNaive
from forecasting.notes import Note
from forecasting.season import DAY_SECONDS, season_of

NAME = "ets"

# The start values need two seasons, the search a few more to tell level from profile.
SEASONS_NEEDED = 4
# Beyond this many steps to a week (finer than hours) the profile is a day's: 2,016 free states fit noise.
SEASON_STEPS_AT_MOST = 336
# Three years of days, 24 weeks of hours, two weeks of five minutes: what lies further back no longer moves
# level or profile and would only lengthen the search.
MOST_STEPS_DAILY = 1_095
MOST_STEPS_FINER = 4_032
OFFSET_RATIO = 0.01
# A level remembers a week of days, or half a day of hours. Looser bounds gave a worse CRPS on every real
# series tried (daily page views, hourly electricity, road traffic, bicycle hire and one hourly link).
ALPHA_AT_MOST_DAILY = 0.2
ALPHA_AT_MOST_FINER = 0.1
GAMMA_AT_MOST = 0.3
BOUND_AT_LEAST = 1e-4

CONSTANT = Note(en="the series is constant", vi="chuỗi không đổi")
NO_CONVERGENCE = Note(en="ets did not converge", vi="ets không hội tụ")


@dataclass(frozen=True, slots=True)
class Ets:
    """ETS(A,N,A) on log(y + 1 % of the median); `maxiter` bounds the search before it counts as failed."""

    season_steps: int | None = None
    maxiter: int = 200

    def fit(self, series: Series) -> FittedModel:
        """Find the two smoothing parameters; falls back to seasonal naive, which then says so itself."""
        season_steps = self.season_steps or _season_of(series)
        is_daily = series.step_seconds >= DAY_SECONDS
        complete = fill_gaps(series.last(MOST_STEPS_DAILY if is_daily else MOST_STEPS_FINER), season_steps)
        values = complete.values
        if len(values) < SEASONS_NEEDED * season_steps:
            return _fall_back(series, season_steps, _too_short(len(values), SEASONS_NEEDED * season_steps))
        if np.ptp(values) == 0:
            return _fall_back(series, season_steps, CONSTANT)
        offset = OFFSET_RATIO * float(np.median(values) or np.mean(values))
        alpha_at_most = ALPHA_AT_MOST_DAILY if is_daily else ALPHA_AT_MOST_FINER
        smoothing = _search(np.log(values + offset), season_steps, alpha_at_most, self.maxiter)
        if smoothing is None:
            return _fall_back(series, season_steps, NO_CONVERGENCE)
        return FittedEts(complete, offset, smoothing)


@dataclass(frozen=True, slots=True, eq=False)
class Smoothing:
    """Where level and profile stand at the end of a history, in logarithms, and how fast they move."""

    level: float
    profile: Floats
    alpha: float
    gamma: float
    residual_variance: float

    def path(self, horizon_steps: int) -> Floats:
        """The expected logarithm of each step ahead."""
        return self.level + np.resize(self.profile, horizon_steps)

    def variance(self, horizon_steps: int) -> Floats:
        """Its variance: s2 (1 + alpha²(h-1) + gamma k (2 alpha + gamma)), k the whole seasons before h.

        Written out because statsmodels gives the same number only after building matrices as wide as
        the season.
        """
        before = np.arange(horizon_steps, dtype=np.float64)
        seasons = np.floor(before / len(self.profile))
        relative = 1 + self.alpha**2 * before + self.gamma * seasons * (2 * self.alpha + self.gamma)
        return np.asarray(self.residual_variance * relative)


@dataclass(frozen=True, slots=True, eq=False)
class FittedEts:
    """A history without gaps, the offset its logarithm was taken with, and the smoothing found."""

    series: Series
    offset: float
    smoothing: Smoothing

    def forecast(self, horizon_steps: int, levels: Sequence[float] = DEFAULT_LEVELS) -> Forecast:
        """The level plus the repeated profile; the median is exp of the log path, not the biased mean."""
        path = self.smoothing.path(horizon_steps)
        deviation = np.sqrt(self.smoothing.variance(horizon_steps))
        bounds = {}
        for level in levels:
            reach = NormalDist().inv_cdf(interval_probabilities(level)[1]) * deviation
            bounds[level] = (self._back(path - reach), self._back(path + reach))
        median = self._back(path)
        return Forecast(
            series_id=self.series.series_id,
            produced_by=NAME,
            times=self.series.times_ahead(horizon_steps),
            median=np.maximum(median, 0.0),
            quantiles=around(median, bounds),
            unit=self.series.unit,
            step_seconds=self.series.step_seconds,
            provenance=self.series.provenance,
            notes=self.series.notes,
        )

    def _back(self, logarithms: Floats) -> Floats:
        return np.asarray(np.exp(logarithms) - self.offset)


def _too_short(steps: int, needed: int) -> Note:
    return Note(
        en=f"{steps} steps are fewer than the {needed} that ets needs",
        vi=f"{steps} bước ít hơn {needed} bước mà ets cần",
    )


def _season_of(series: Series) -> int:
    season_steps = season_of(series)
    return season_steps if season_steps <= SEASON_STEPS_AT_MOST else DAY_SECONDS // series.step_seconds


def _search(logarithms: Floats, season_steps: int, alpha_at_most: float, maxiter: int) -> Smoothing | None:
    """What statsmodels finds, or None when the search did not converge or ended in no finite number."""
    # statsmodels takes seconds to import; whoever only lists the models must not wait for it.
    from statsmodels.tools.sm_exceptions import ConvergenceWarning
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    # A pandas Series, because ETSModel drops half of its results when it is given a bare array.
    model = ETSModel(
        pd.Series(logarithms),
        error="add",
        trend=None,
        seasonal="add",
        seasonal_periods=season_steps,
        initialization_method="heuristic",
        bounds={
            "smoothing_level": (BOUND_AT_LEAST, alpha_at_most),
            "smoothing_seasonal": (BOUND_AT_LEAST, GAMMA_AT_MOST),
        },
    )
    with warnings.catch_warnings():
        # What the warning says is read from mle_retvals below, and acted on.
        warnings.simplefilter("ignore", ConvergenceWarning)
        result = model.fit(disp=False, maxiter=maxiter)
    variance = float(result.scale)
    if not result.mle_retvals["converged"] or not np.isfinite(variance) or variance <= 0:
        return None
    path = np.asarray(result.forecast(season_steps), dtype=np.float64)
    level = float(np.asarray(result.level)[-1])
    return Smoothing(
        level=level,
        profile=path - level,
        alpha=float(result.smoothing_level),
        gamma=float(result.smoothing_seasonal),
        residual_variance=variance,
    )


def _fall_back(series: Series, season_steps: int, reason: Note) -> FittedModel:
    note = Note(
        en=f"seasonal_naive answers instead of ets: {reason.en}",
        vi=f"seasonal_naive trả lời thay cho ets: {reason.vi}",
    )
    return SeasonalNaive(season_steps).fit(replace(series, notes=(*series.notes, note)))
