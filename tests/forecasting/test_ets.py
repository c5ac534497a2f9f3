from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from statsmodels.tsa.exponential_smoothing.ets import ETSModel

from forecasting.models.ets import Ets
from forecasting.models.seasonal_naive import SeasonalNaive
from tests.lab.series import series_of, weekly


def test_path_and_intervals_equal_those_of_statsmodels_brought_back_from_the_log() -> None:
    values = weekly(40, growth_per_week=0.005)
    forecast = Ets().fit(series_of(values)).forecast(30, (0.8, 0.95))

    offset = 0.01 * np.median(values)
    fitted = ETSModel(
        pd.Series(np.log(values + offset)),
        error="add",
        seasonal="add",
        seasonal_periods=7,
        initialization_method="heuristic",
        bounds={"smoothing_level": (1e-4, 0.2), "smoothing_seasonal": (1e-4, 0.3)},
    ).fit(disp=False)
    predicted = fitted.get_prediction(start=len(values), end=len(values) + 29)
    path = np.asarray(predicted.predicted_mean)
    spread = np.sqrt(np.asarray(predicted.forecast_variance))

    assert forecast.produced_by == "ets"
    np.testing.assert_allclose(forecast.median, np.exp(path) - offset, rtol=1e-9)
    for level in (0.8, 0.95):
        reach = NormalDist().inv_cdf((1 + level) / 2) * spread
        low, high = forecast.interval(level)
        np.testing.assert_allclose(low, np.exp(path - reach) - offset, rtol=1e-9)
        np.testing.assert_allclose(high, np.exp(path + reach) - offset, rtol=1e-9)


def test_median_is_the_median_and_not_the_mean_of_a_skewed_future() -> None:
    """Half of many noisy futures lie below the median; with the mean given in its place more would."""
    values = weekly(300, noise=0.5)
    forecast = Ets().fit(series_of(values)).forecast(7, (0.8,))
    futures = np.vstack([weekly(1, noise=0.5, seed=seed) for seed in range(400)])
    below = np.mean(futures < forecast.median)
    assert 0.44 < below < 0.56
    assert np.mean(futures < forecast.median * np.exp(0.5**2 / 2)) > 0.57


def test_search_that_does_not_converge_is_answered_by_seasonal_naive_in_its_own_name() -> None:
    series = series_of(weekly(20))
    forecast = Ets(maxiter=1).fit(series).forecast(14)
    assert forecast.produced_by == "seasonal_naive"
    np.testing.assert_array_equal(forecast.median, SeasonalNaive().fit(series).forecast(14).median)
    assert [note.en for note in forecast.notes] == [
        "seasonal_naive answers instead of ets: ets did not converge"
    ]
    assert "không hội tụ" in forecast.notes[0].vi


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full(70, 5e9), "the series is constant"),
        (np.zeros(70), "the series is constant"),
        (weekly(3), "21 steps are fewer than the 28 that ets needs"),
    ],
)
def test_history_that_ets_cannot_learn_from_names_seasonal_naive_and_the_reason(
    values: np.ndarray, reason: str
) -> None:
    forecast = Ets().fit(series_of(values)).forecast(7)
    assert forecast.produced_by == "seasonal_naive"
    assert reason in forecast.notes[-1].en


def test_link_that_is_idle_most_days_is_answered_above_zero() -> None:
    values = np.zeros(140)
    values[::7] = 1e9
    forecast = Ets().fit(series_of(values)).forecast(14)
    assert np.isfinite(forecast.median).all()
    assert (forecast.interval(0.95)[0] >= 0).all()


def test_one_odd_hour_does_not_move_tomorrow() -> None:
    """The bound on alpha: with it free, the level of the next day follows the last hour."""
    hours = np.tile(1 + 0.5 * np.sin(np.arange(24) * np.pi / 12), 42) * 1e9
    random = np.random.default_rng(5)
    noise = np.zeros(len(hours))
    for index in range(1, len(hours)):
        noise[index] = 0.9 * noise[index - 1] + random.normal(0, 0.05)
    values = hours * np.exp(noise)
    values[-1] *= 2
    forecast = Ets().fit(series_of(values, step_seconds=3600)).forecast(24, (0.8,))
    assert forecast.produced_by == "ets"
    assert np.median(forecast.median / hours[:24]) < 1.25


def test_five_minute_history_uses_the_day_as_its_season() -> None:
    day = 1e9 * (1.5 + np.sin(np.arange(288) * 2 * np.pi / 288))
    values = np.tile(day, 15) * np.exp(np.random.default_rng(2).normal(0, 0.02, 288 * 15))
    forecast = Ets().fit(series_of(values, step_seconds=300)).forecast(288)
    assert forecast.produced_by == "ets"
    np.testing.assert_allclose(forecast.median, day, rtol=0.1)
