"""From counters of minutes or hours to what planners and regulations look at: one number a day.

A mean, a 95th percentile, a peak and a busy hour of one link differ by a factor of two and more, so each
carries its name. Days are local days: the busy hour of an evening must not be cut in two by midnight UTC.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import pandas as pd

from forecasting.frame import Floats, Series
from forecasting.notes import Note
from forecasting.season import DAY_SECONDS
from forecasting.units import BITS_PER_BYTE
from nhip.errors import SeriesError

Statistic = Literal["daily_mean", "daily_p95", "daily_peak", "busy_hour"]
STATISTICS: tuple[Statistic, ...] = get_args(Statistic)

HOUR_SECONDS = 3_600
# Viet Nam, all year round.
UTC_OFFSET_HOURS = 7
# A day of which a fifth or more was not measured may have lost its peak; it counts as not measured.
COMPLETE_RATIO = 0.8


def hourly_mean(series: Series) -> Series:
    """The mean of each hour; an hour measured for less than 80 % of its steps is a gap."""
    return _reduced(series, HOUR_SECONDS, 0, lambda block: np.nanmean(block, axis=1))


def daily(series: Series, statistic: Statistic, *, utc_offset_hours: float = UTC_OFFSET_HOURS) -> Series:
    """One value a local day: mean, 95th percentile, peak, or the mean of the busiest clock hour.

    A rate stays a rate; of a volume (bytes per step) the busiest steps are meant. A day measured for less
    than 80 % of its steps is a gap. SeriesError when the steps are longer than an hour.
    """
    if series.step_seconds > HOUR_SECONDS:
        raise SeriesError(
            f"series {series.series_id!r} has steps of {series.step_seconds} s, too long for a {statistic}",
            remedy="give a history of hours or finer",
        )
    if statistic == "busy_hour":
        series = hourly_mean(series)
    reduce = {
        "daily_mean": lambda block: np.nanmean(block, axis=1),
        "daily_p95": lambda block: np.nanquantile(block, 0.95, axis=1),
        "daily_peak": lambda block: np.nanmax(block, axis=1),
        "busy_hour": lambda block: np.nanmax(block, axis=1),
    }[statistic]
    return _reduced(series, DAY_SECONDS, int(utc_offset_hours * HOUR_SECONDS), reduce)


def as_rate(series: Series) -> Series:
    """The same series in bit/s: a volume per step becomes its mean rate over the step."""
    if series.unit == "bit/s":
        return series
    note = Note(
        en=f"bytes per {series.step_seconds} s turned into the mean bit/s of each step",
        vi=f"số byte mỗi {series.step_seconds} s được đổi thành bit/s trung bình của bước",
    )
    values = series.values * BITS_PER_BYTE / series.step_seconds
    return replace(series, values=values, unit="bit/s", notes=(*series.notes, note))


def _reduced(
    series: Series, into_seconds: int, offset_seconds: int, reduce: Callable[[Floats], Floats]
) -> Series:
    if into_seconds % series.step_seconds:
        raise SeriesError(
            f"series {series.series_id!r}: {series.step_seconds} s do not divide {into_seconds} s",
            remedy="give a step such as 300 s, 900 s or 3600 s",
        )
    per_block = into_seconds // series.step_seconds
    stamps = series.times.as_unit("ns").asi8 // 1_000_000_000 + offset_seconds
    first_block, last_block = int(stamps[0]) // into_seconds, int(stamps[-1]) // into_seconds
    blocks = last_block - first_block + 1
    padded = np.full(blocks * per_block, np.nan)
    start = (int(stamps[0]) - first_block * into_seconds) // series.step_seconds
    padded[start : start + len(series)] = series.values
    grid = padded.reshape(blocks, per_block)
    enough = (~np.isnan(grid)).sum(axis=1) >= COMPLETE_RATIO * per_block
    values = np.full(blocks, np.nan)
    if enough.any():
        values[enough] = reduce(grid[enough])
    # An unfinished block at either end is no gap in the history; it is where the history begins or ends.
    known = np.flatnonzero(enough)
    if len(known) == 0:
        raise SeriesError(
            f"series {series.series_id!r} has no {into_seconds} s that were measured to {COMPLETE_RATIO:.0%}",
            remedy="give a more complete history",
        )
    keep = slice(int(known[0]), int(known[-1]) + 1)
    origin = pd.Timestamp(first_block * into_seconds - offset_seconds, unit="s", tz="UTC")
    times = pd.date_range(origin, periods=blocks, freq=pd.Timedelta(seconds=into_seconds))[keep]
    kept: Floats = values[keep]
    return replace(series, times=times, values=kept, step_seconds=into_seconds)
