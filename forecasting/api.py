"""What a forecast is and what a model must do: fit a series, then forecast with honest quantiles.

::

    Model.fit(series) ──▶ FittedModel.forecast(horizon_steps, levels) ──▶ Forecast

`produced_by` names the model that really made the numbers: a model that falls back to another one says
the other one's name, because a planner who trusts a model must not be reading a substitute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from forecasting.frame import Floats, Provenance, Series
from forecasting.notes import Note
from forecasting.units import Unit

DEFAULT_LEVELS = (0.8, 0.95)


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """The future of one series: a median path and quantiles around it, all in `unit`.

    `quantiles` maps a probability (0.1 for "below this in one case of ten") to one value for each of
    `times`; :meth:`interval` reads the pair that belongs to a level. The median, not the mean, is given:
    it survives the way back from a log scale without bias.
    """

    series_id: str
    produced_by: str
    times: pd.DatetimeIndex
    median: Floats
    quantiles: Mapping[float, Floats]
    unit: Unit
    step_seconds: int
    provenance: Provenance
    notes: tuple[Note, ...] = ()

    def interval(self, level: float) -> tuple[Floats, Floats]:
        """Lower and upper bound of the central interval that holds the truth with probability `level`."""
        lower, upper = interval_probabilities(level)
        return self.quantiles[lower], self.quantiles[upper]


class FittedModel(Protocol):
    """A model that has seen one history."""

    def forecast(self, horizon_steps: int, levels: Sequence[float] = DEFAULT_LEVELS) -> Forecast:
        """The next `horizon_steps` steps with the central intervals of `levels` (ratios between 0 and 1)."""


class Model(Protocol):
    """A way of forecasting; holds its settings and nothing it learned."""

    def fit(self, series: Series) -> FittedModel:
        """Learn from `series`; SeriesError says by name why a series cannot be forecast."""


def interval_probabilities(level: float) -> tuple[float, float]:
    """The two quantile probabilities of a central interval: 0.8 gives 0.1 and 0.9."""
    if not 0 < level < 1:
        raise ValueError(f"a level lies between 0 and 1, got {level}")
    # Rounded so that 0.1 is the same key whether it came from 0.8 or was typed.
    return round((1 - level) / 2, 6), round((1 + level) / 2, 6)


def around(median: Floats, bounds: Mapping[float, tuple[Floats, Floats]]) -> dict[float, Floats]:
    """Quantiles by probability from the bounds of each level, ordered, never below zero traffic."""
    found: dict[float, Floats] = {0.5: np.maximum(median, 0.0)}
    for level, (low, high) in bounds.items():
        below, above = interval_probabilities(level)
        found[below], found[above] = np.maximum(low, 0.0), np.maximum(high, 0.0)
    return dict(sorted(found.items()))
