"""Histories for tests: made in one line, with everything about them known."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from forecasting.frame import Provenance, Series, checked
from forecasting.units import Unit

DAY_SECONDS = 86_400


def series_of(
    values: Sequence[float] | np.ndarray,
    *,
    start: datetime = datetime(2026, 1, 5, tzinfo=UTC),
    step_seconds: int = DAY_SECONDS,
    series_id: str = "han-hcm",
    unit: Unit = "bit/s",
    provenance: Provenance = "measured",
) -> Series:
    """A series that starts on a Monday; NaN in `values` is a gap."""
    times = pd.date_range(start, periods=len(values), freq=pd.Timedelta(seconds=step_seconds))
    table = pd.DataFrame(
        {
            "series_id": series_id,
            "time": times,
            "value": np.asarray(values, dtype=float),
            "provenance": provenance,
        }
    )
    return checked(table, unit=unit, step_seconds=step_seconds).series(series_id)


def weekly(weeks: int, *, seed: int = 3, growth_per_week: float = 0.0, noise: float = 0.05) -> np.ndarray:
    """Daily traffic with a weekend, growth and independent noise; the seed is the whole of its chance."""
    random = np.random.default_rng(seed)
    days = np.arange(7 * weeks)
    shape = np.array([1.0, 1.02, 1.03, 1.05, 1.1, 1.3, 1.2])[days % 7]
    return 1e9 * shape * (1 + growth_per_week) ** (days / 7) * np.exp(random.normal(0, noise, len(days)))
