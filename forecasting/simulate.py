"""A traffic model for links whose history does not exist, labelled simulated wherever it goes.

::

    y(t) = base x (1 + growth)^years x day_of_week x time_of_day x events(t) x exp(noise(t))

============  =============================================================================================
realistic     the week, the evening peak and the night valley of residential traffic; growth; errors that
              last for hours; events as the public figures state them (Viet Nam's national exchange +40 %
              in March 2020; provinces gaining and cities losing traffic at Tết)
not           steps when a link is upgraded or rerouted, saturation at the capacity, football evenings and
realistic     software releases, the slow change of the daily profile, measurement errors, and everything
              that several links share: each link's noise is its own
============  =============================================================================================

So it serves to show and to test: where the truth is known, a forecast can be held against it. It says
nothing about any operator's network, and no accuracy may be quoted from it.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd

from forecasting.frame import Floats, SeriesFrame, checked
from forecasting.resample import UTC_OFFSET_HOURS
from forecasting.season import DAY_SECONDS
from nhip.errors import SeriesError

YEAR_SECONDS = 365.25 * DAY_SECONDS

# Shares of the daily mean at the local hours 0 to 23: residential traffic with its peak at 21 h.
EVENING_PROFILE = (
    0.75, 0.52, 0.40, 0.34, 0.32, 0.36, 0.48, 0.66, 0.84, 0.96, 1.03, 1.08,
    1.13, 1.08, 1.03, 1.05, 1.10, 1.18, 1.31, 1.52, 1.72, 1.80, 1.62, 1.16,
)  # fmt: skip
# Monday to Sunday.
RESIDENTIAL_WEEK = (0.97, 0.97, 0.97, 0.98, 1.00, 1.06, 1.05)


@dataclass(frozen=True, slots=True)
class Holiday:
    """Tết: traffic is multiplied by `ratio` on the day itself, fading out over the days around it."""

    day: date
    ratio: float
    days_before: int = 5
    days_after: int = 7


@dataclass(frozen=True, slots=True)
class Surge:
    """A lasting rise such as that of March 2020: up by `ratio` within `ramp_days`, then it stays."""

    day: date
    ratio: float
    ramp_days: int = 7


@dataclass(frozen=True, slots=True)
class SimulatedLink:
    """What one link carries: `base_bits_per_second` is the mean of the first day without any event."""

    series_id: str
    base_bits_per_second: float
    growth_per_year: float = 0.25
    hour_profile: tuple[float, ...] = EVENING_PROFILE
    week_profile: tuple[float, ...] = RESIDENTIAL_WEEK
    noise_ratio: float = 0.06
    noise_hours: float = 12.0
    holidays: tuple[Holiday, ...] = ()
    surges: tuple[Surge, ...] = ()


def simulate(
    links: tuple[SimulatedLink, ...],
    *,
    start: datetime,
    days: int,
    step_seconds: int = 3_600,
    seed: int = 1,
) -> SeriesFrame:
    """The history of `links` from `start` (with a zone) for `days` days, with provenance "simulated".

    The same seed gives the same history, whatever other links are beside it. SeriesError for a step that
    does not divide a day and for a start without a zone.
    """
    if DAY_SECONDS % step_seconds:
        raise SeriesError(f"a step of {step_seconds} s does not divide a day", remedy="use 300, 900 or 3600")
    if start.tzinfo is None:
        raise SeriesError(f"the start {start.isoformat()} has no zone", remedy="give it in UTC")
    times = pd.date_range(
        start, periods=days * DAY_SECONDS // step_seconds, freq=pd.Timedelta(seconds=step_seconds)
    ).tz_convert("UTC")
    parts = [
        pd.DataFrame(
            {
                "series_id": link.series_id,
                "time": times,
                "value": _traffic(link, times, step_seconds, seed),
                "provenance": "simulated",
            }
        )
        for link in links
    ]
    return checked(
        pd.concat(parts, ignore_index=True), unit="bit/s", step_seconds=step_seconds, source="simulation"
    )


def _traffic(link: SimulatedLink, times: pd.DatetimeIndex, step_seconds: int, seed: int) -> Floats:
    local = times.tz_localize(None) + pd.Timedelta(hours=UTC_OFFSET_HOURS)
    seconds = np.arange(len(times)) * float(step_seconds)
    growth = (1 + link.growth_per_year) ** (seconds / YEAR_SECONDS)
    # The profile is a value for the middle of each hour; between two middles traffic slides.
    hours = local.hour.to_numpy() + local.minute.to_numpy() / 60 + step_seconds / 7_200
    of_day = np.interp(hours, np.arange(24) + 0.5, link.hour_profile, period=24)
    of_week = np.array(link.week_profile)[local.day_of_week.to_numpy()]
    days = np.array(local.normalize().to_numpy(), dtype="datetime64[D]")
    noise = _noise(link, len(times), step_seconds, seed)
    mean_shape = np.mean(link.hour_profile) * np.mean(link.week_profile)
    steady = link.base_bits_per_second * growth * of_day * of_week / mean_shape
    return np.asarray(steady * _events(link, days) * np.exp(noise))


def _events(link: SimulatedLink, days: np.ndarray[tuple[int], np.dtype[np.datetime64]]) -> Floats:
    factor = np.ones(len(days))
    for holiday in link.holidays:
        since = (days - np.datetime64(holiday.day)).astype(np.int64).astype(np.float64)
        reach = np.where(since < 0, holiday.days_before + 1, holiday.days_after + 1)
        factor *= 1 + (holiday.ratio - 1) * np.clip(1 - np.abs(since) / reach, 0, 1)
    for surge in link.surges:
        since = (days - np.datetime64(surge.day)).astype(np.int64).astype(np.float64)
        factor *= 1 + (surge.ratio - 1) * np.clip((since + 1) / max(surge.ramp_days, 1), 0, 1)
    return factor


def _noise(link: SimulatedLink, count: int, step_seconds: int, seed: int) -> Floats:
    """First-order autoregression of the logarithm: deviation `noise_ratio`, memory `noise_hours`."""
    random = np.random.default_rng([seed, zlib.crc32(link.series_id.encode())])
    keep = float(np.exp(-step_seconds / (link.noise_hours * 3_600)))
    shocks = random.normal(0.0, link.noise_ratio * np.sqrt(1 - keep**2), count)
    noise = np.empty(count)
    state = random.normal(0.0, link.noise_ratio)
    for index, shock in enumerate(shocks):
        state = keep * state + shock
        noise[index] = state
    return noise


def start_before(end: datetime, days: int) -> datetime:
    """Local midnight `days` days before the day of `end`, so that the last day simulated is yesterday."""
    local = end + timedelta(hours=UTC_OFFSET_HOURS)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight - timedelta(days=days, hours=UTC_OFFSET_HOURS)
