"""The models behind the plain call that forecasting benchmarks use: numbers in, quantiles out.

::

    f(y, h, m, seasons, q, freq) -> array of h rows and len(q) columns

`y` is a pandas Series with a DatetimeIndex, `h` the horizon, `m` the season in steps, `q` ascending
quantile probabilities, symmetric around 0.5, `freq` a pandas rule such as ``D``, ``h`` or ``5min``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from forecasting.api import Model
from forecasting.frame import Floats, checked
from forecasting.models.ets import Ets
from forecasting.models.seasonal_naive import SeasonalNaive


def seasonal_naive(
    y: pd.Series[float], h: int, m: int, seasons: Sequence[int], q: Sequence[float], freq: str
) -> Floats:
    """Quantiles of the seasonal naive model."""
    return _quantiles(SeasonalNaive(season_steps=m), y, h, q, freq)


def ets(y: pd.Series[float], h: int, m: int, seasons: Sequence[int], q: Sequence[float], freq: str) -> Floats:
    """Quantiles of ETS(A,N,A) on the logarithm."""
    return _quantiles(Ets(season_steps=m), y, h, q, freq)


def _quantiles(model: Model, y: pd.Series[float], h: int, q: Sequence[float], freq: str) -> Floats:
    start = pd.Timestamp("2000-01-03", tz="UTC")
    # Positions, not stamps, are what the benchmark forecasts; its own stamps may be irregular.
    times = pd.date_range(start, periods=len(y), freq=freq)
    table = pd.DataFrame({"series_id": "y", "time": times, "value": y.to_numpy(dtype=np.float64)})
    series = checked(table, unit="bit/s").series("y")
    levels = [round(2 * probability - 1, 6) for probability in q if probability > 0.5]
    quantiles = model.fit(series).forecast(h, levels).quantiles
    return np.column_stack([quantiles[round(float(probability), 6)] for probability in q])
