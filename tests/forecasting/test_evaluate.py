from dataclasses import replace

import numpy as np
import pytest

from forecasting.evaluate import backtest, compare, error_trajectories, origins
from forecasting.models.ets import Ets
from forecasting.models.seasonal_naive import SeasonalNaive
from tests.lab.series import series_of, weekly


def test_origins_leave_a_whole_horizon_and_enough_history() -> None:
    assert origins(100, horizon_steps=30, least_steps=40, every_steps=15, most=9) == [70, 55, 40]
    assert origins(100, horizon_steps=30, least_steps=40, every_steps=15, most=2) == [70, 55]
    assert origins(60, horizon_steps=30, least_steps=40, every_steps=15, most=9) == []


def test_model_never_sees_what_it_is_scored_on() -> None:
    """Spoiling everything after the origin changes no forecast: the error path moves by exactly that."""
    values = weekly(30)
    spoiled = values.copy()
    spoiled[150:] *= 3
    model = Ets()
    honest, other = (
        error_trajectories(model, series_of(v), at=[150], horizon_steps=20, offset=0.0)
        for v in (values, spoiled)
    )
    np.testing.assert_allclose(other - honest, np.log(3))


def test_score_of_a_window_is_worked_out_by_hand() -> None:
    """A line rising by 1 a day: the seasonal naive errs by 7 in the week ahead, as it did in the history."""
    scores = backtest(
        "seasonal_naive",
        SeasonalNaive(),
        series_of(np.arange(100.0, 170.0)),
        at=[60],
        horizon_steps=7,
        season_steps=7,
    )
    assert scores[0].mase == pytest.approx(1.0)
    assert scores[0].coverage[0.8] == 1.0
    assert scores[0].produced_by == "seasonal_naive"


def test_comparison_is_made_on_the_windows_that_all_answered() -> None:
    series = series_of(weekly(40))
    at = [20, 100, 180]  # at 20 days ets has no four weeks and falls back; at 10 nobody can answer
    scores = [
        *backtest("seasonal_naive", SeasonalNaive(), series, at=[10, *at], horizon_steps=14, season_steps=7),
        *backtest("ets", Ets(), series, at=at, horizon_steps=14, season_steps=7),
    ]
    lines = {line.model: line for line in compare(scores)}
    assert lines["ets"].windows == lines["seasonal_naive"].windows == 3
    assert lines["seasonal_naive"].refused == 1
    assert lines["ets"].fallbacks == 1
    assert lines["seasonal_naive"].relative_mase == pytest.approx(1.0)


def test_relative_loss_is_the_geometric_mean_over_windows() -> None:
    series = series_of(weekly(40))
    naive = backtest(
        "seasonal_naive", SeasonalNaive(), series, at=[100, 180], horizon_steps=7, season_steps=7
    )
    twin = [
        replace(score, model="twin", mase=None if score.mase is None else score.mase * factor)
        for score, factor in zip(naive, (0.5, 0.125), strict=True)
    ]
    lines = {line.model: line for line in compare([*naive, *twin])}
    assert lines["twin"].relative_mase == pytest.approx(0.25)


def test_comparison_without_its_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="no scores of the reference"):
        compare([])


def test_ets_beats_seasonal_naive_on_traffic_with_independent_noise() -> None:
    series = series_of(weekly(60))
    at = origins(len(series), horizon_steps=30, least_steps=150, every_steps=30, most=8)
    scores = [
        score
        for name, model in (("seasonal_naive", SeasonalNaive()), ("ets", Ets()))
        for score in backtest(name, model, series, at=at, horizon_steps=30, season_steps=7)
    ]
    best = compare(scores)[0]
    assert best.model == "ets"
    assert best.relative_crps is not None and best.relative_crps < 0.85
    assert best.coverage80 is not None and 0.7 < best.coverage80 < 0.9
