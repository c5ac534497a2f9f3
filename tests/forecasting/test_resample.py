from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from forecasting.resample import as_rate, daily, hourly_mean
from nhip.errors import SeriesError
from tests.lab.series import series_of

LOCAL_MIDNIGHT = datetime(2026, 1, 4, 17, tzinfo=UTC)  # 5 January, 00:00 in Viet Nam


def test_the_four_statistics_of_a_day_differ_as_defined() -> None:
    """A day of 288 five-minute values 1..288: mean 144.5, p95 273.65, peak 288, last hour 282.5."""
    series = series_of(np.arange(1.0, 289.0), start=LOCAL_MIDNIGHT, step_seconds=300)
    assert daily(series, "daily_mean").values.tolist() == [144.5]
    assert daily(series, "daily_p95").values[0] == pytest.approx(273.65)
    assert daily(series, "daily_peak").values.tolist() == [288]
    assert daily(series, "busy_hour").values.tolist() == [282.5]


def test_days_are_local_so_an_evening_is_not_cut_by_midnight_utc() -> None:
    values = np.ones(72)
    values[23] = 9.0  # 23:00 local on the first day, 16:00 UTC
    peaks = daily(series_of(values, start=LOCAL_MIDNIGHT, step_seconds=3600), "daily_peak")
    assert peaks.values.tolist() == [9, 1, 1]
    local = [(time.to_pydatetime() + timedelta(hours=7)).date() for time in peaks.times]
    assert local == [date(2026, 1, 5), date(2026, 1, 6), date(2026, 1, 7)]


def test_day_with_too_few_values_is_a_gap_and_unfinished_ends_are_left_out() -> None:
    values = np.ones(24 * 4 + 5)
    values[24:30] = np.nan  # a quarter of the second day
    days = daily(series_of(values, start=LOCAL_MIDNIGHT, step_seconds=3600), "daily_mean")
    np.testing.assert_array_equal(days.values, [1, np.nan, 1, 1])


def test_day_missing_a_few_values_is_the_mean_of_the_rest() -> None:
    values = np.ones(48)
    values[24:27] = np.nan
    values[27] = 22.0
    days = daily(series_of(values, start=LOCAL_MIDNIGHT, step_seconds=3600), "daily_mean")
    np.testing.assert_array_equal(days.values, [1, 2])


def test_hourly_mean_averages_twelve_five_minute_steps() -> None:
    hours = hourly_mean(series_of(np.repeat([1.0, 5.0], 12), start=LOCAL_MIDNIGHT, step_seconds=300))
    assert hours.values.tolist() == [1, 5]
    assert hours.step_seconds == 3600


def test_day_cannot_be_made_finer() -> None:
    with pytest.raises(SeriesError, match="too long for a daily_p95"):
        daily(series_of(np.ones(30)), "daily_p95")


def test_volume_becomes_the_mean_rate_of_its_step() -> None:
    rate = as_rate(series_of([450e9] * 3, step_seconds=3600, unit="bytes"))
    assert rate.unit == "bit/s"
    assert rate.values.tolist() == [1e9] * 3


def test_provenance_survives_resampling() -> None:
    series = series_of(np.ones(48), start=LOCAL_MIDNIGHT, step_seconds=3600, provenance="simulated")
    assert daily(series, "daily_peak").provenance == "simulated"
