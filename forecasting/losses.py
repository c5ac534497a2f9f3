"""How wrong a forecast was: pure functions of what came and what was forecast, all free of units.

Definitions: MASE and RMSSE after Hyndman and Koehler (2006), scaled by the seasonal naive errors within
the history; pinball loss and CRPS as in Gneiting and Raftery (2007). A step in which nothing was measured
(NaN) is left out. `None` where the definition gives no number, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from forecasting.frame import Floats


def mase(actual: Floats, forecast: Floats, history: Floats, season_steps: int) -> float | None:
    """Mean absolute error over that of the seasonal naive within the history; below 1 beats it."""
    scale = _mean(np.abs(_seasonal_differences(history, season_steps)))
    return _ratio(_mean(np.abs(actual - forecast)), scale)


def rmsse(actual: Floats, forecast: Floats, history: Floats, season_steps: int) -> float | None:
    """Root of the mean squared error over that of the seasonal naive within the history."""
    scale = _mean(_seasonal_differences(history, season_steps) ** 2)
    squared = _ratio(_mean((actual - forecast) ** 2), scale)
    return None if squared is None else math.sqrt(squared)


def pinball(actual: Floats, quantile: Floats, probability: float) -> float | None:
    """Mean pinball loss of one quantile: an error above it costs `probability`, one below 1 minus that."""
    return _mean(_pinball(actual, quantile, probability))


def scaled_crps(
    actual: Floats, quantiles: Mapping[float, Floats], history: Floats, season_steps: int
) -> float | None:
    """Continuous ranked probability score over the seasonal naive's mean absolute error in the history.

    Twice the integral of the pinball loss over all probabilities, by trapezoids between the quantiles
    given and flat beyond the outermost two.
    """
    probabilities = sorted(quantiles)
    losses = np.array([_pinball(actual, quantiles[p], p) for p in probabilities])
    edges = np.array([0.0, *probabilities, 1.0])
    padded = np.vstack([losses[:1], losses, losses[-1:]])
    crps = np.sum((padded[1:] + padded[:-1]) * np.diff(edges)[:, None], axis=0)
    scale = _mean(np.abs(_seasonal_differences(history, season_steps)))
    return _ratio(_mean(crps), scale)


def coverage(actual: Floats, lower: Floats, upper: Floats) -> float | None:
    """Share of the steps whose value lay within the interval, bounds included (0-1)."""
    known = ~np.isnan(actual)
    inside = (actual >= lower) & (actual <= upper)
    return _mean(inside[known].astype(np.float64))


def geometric_mean(ratios: Iterable[float]) -> float | None:
    """The mean for ratios: halving and doubling cancel out. A ratio of 0 is left out, having no logarithm."""
    logs = [math.log(ratio) for ratio in ratios if ratio > 0]
    return math.exp(math.fsum(logs) / len(logs)) if logs else None


def _pinball(actual: Floats, quantile: Floats, probability: float) -> Floats:
    error = actual - quantile
    return np.asarray(np.maximum(probability * error, (probability - 1) * error))


def _seasonal_differences(history: Floats, season_steps: int) -> Floats:
    return history[season_steps:] - history[:-season_steps]


def _mean(values: Floats) -> float | None:
    known = values[~np.isnan(values)]
    return float(np.mean(known)) if len(known) else None


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole
