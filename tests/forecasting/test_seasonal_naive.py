import numpy as np
import pytest

from forecasting.models.seasonal_naive import SeasonalNaive
from nhip.errors import SeriesError
from tests.lab.series import series_of, weekly


def test_median_is_the_last_week_again_and_again() -> None:
    series = series_of(list(range(1, 8)) + list(range(11, 18)))
    forecast = SeasonalNaive().fit(series).forecast(10)
    assert forecast.median.tolist() == [11, 12, 13, 14, 15, 16, 17, 11, 12, 13]
    assert forecast.produced_by == "seasonal_naive"


def test_interval_of_one_week_ahead_is_the_ranked_error_of_one_week() -> None:
    """Two seasons of two steps: |errors| at lag 2 are 1, 2, 3, 4, so rank ceil(5 x 0.6) = 3 gives 3."""
    series = series_of([10, 20, 11, 22, 14, 26], step_seconds=3600)
    forecast = SeasonalNaive(season_steps=2).fit(series).forecast(2, (0.6,))
    low, high = forecast.interval(0.6)
    assert low.tolist() == [11, 23]
    assert high.tolist() == [17, 29]


def test_interval_of_two_weeks_ahead_comes_from_errors_over_two_weeks() -> None:
    """On a line rising by 1 a step every error at lag 7 is 7 and at lag 14 is 14."""
    forecast = SeasonalNaive().fit(series_of(np.arange(100.0, 200.0))).forecast(14, (0.8,))
    low, high = forecast.interval(0.8)
    np.testing.assert_allclose(high - forecast.median, [7] * 7 + [14] * 7)
    np.testing.assert_allclose(forecast.median - low, [7] * 7 + [14] * 7)


def test_distance_the_history_does_not_hold_is_widened_with_its_root() -> None:
    forecast = SeasonalNaive().fit(series_of(np.arange(100.0, 114.0))).forecast(28, (0.8,))
    reach = forecast.interval(0.8)[1] - forecast.median
    np.testing.assert_allclose(reach[::7], [7, 7 * np.sqrt(2), 7 * np.sqrt(3), 14])


def test_filled_gap_does_not_narrow_the_interval() -> None:
    """Its error of zero against the week it copies must not count; the twin counts it and narrows."""
    values = weekly(20)
    values[30:65] = np.nan
    gappy = SeasonalNaive().fit(series_of(values))
    honest = gappy.forecast(7, (0.5,))
    twin = SeasonalNaive().fit(gappy.complete).forecast(7, (0.5,))
    width = np.subtract(*honest.interval(0.5)[::-1])
    assert (width > 1.2 * np.subtract(*twin.interval(0.5)[::-1])).all()


def test_lower_bound_is_never_below_zero_traffic() -> None:
    values = np.abs(np.random.default_rng(1).normal(0, 1, 70))
    low, _ = SeasonalNaive().fit(series_of(values)).forecast(7).interval(0.95)
    assert (low >= 0).all()


def test_hours_of_ten_days_are_answered_from_the_day_before() -> None:
    series = series_of(np.tile(np.arange(24.0), 10), step_seconds=3600)
    forecast = SeasonalNaive().fit(series).forecast(30)
    assert forecast.median.tolist() == [*range(24), *range(6)]


def test_history_below_two_weeks_is_refused_with_what_it_needs() -> None:
    with pytest.raises(SeriesError, match="too short: 13 steps of 86400 s, and 14 are needed") as caught:
        SeasonalNaive().fit(series_of(np.ones(13)))
    assert "14 days" in caught.value.remedy


def test_history_without_two_values_one_week_apart_is_refused() -> None:
    values = np.full(14, np.nan)
    values[:7] = 1.0
    with pytest.raises(SeriesError, match="no two values one season apart"):
        SeasonalNaive().fit(series_of(values))


def test_weekly_values_fit_no_season() -> None:
    with pytest.raises(SeriesError, match="fits neither a day nor a week"):
        SeasonalNaive().fit(series_of(np.ones(60), step_seconds=7 * 86_400))
