"""What every registered forecast model must do, whoever wrote it."""

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest

from forecasting.api import Forecast, Model
from forecasting.evaluate import backtest, compare, origins
from forecasting.frame import Series
from forecasting.models.seasonal_naive import SeasonalNaive
from forecasting.registry import MODELS
from forecasting.simulate import SimulatedLink, simulate
from nhip.errors import SeriesError
from tests.lab.series import series_of, weekly

LEVELS = (0.5, 0.8, 0.95)

each_model = pytest.mark.parametrize("name", MODELS.names())


def new(name: str) -> Model:
    make: Callable[[], Model] = MODELS.load(name)
    return make()


def with_gaps() -> np.ndarray:
    values = weekly(30)
    values[[3, 50, 51, 52, 120]] = np.nan
    return values


AWKWARD = {
    "one value": np.array([1e9]),
    "six days": np.full(6, 1e9),
    "two weeks": weekly(2),
    "five weeks": weekly(5),
    "constant": np.full(90, 1e9),
    "all zero": np.zeros(90),
    "mostly zero": np.where(np.arange(140) % 7 == 0, 1e9, 0.0),
    "one step up": np.where(np.arange(140) < 100, 1e9, 4e9),
    "a few gaps": with_gaps(),
    "mostly gaps": np.where(np.arange(140) % 9 == 0, 1e9, np.nan),
    "gap at the end": np.concatenate([weekly(20), np.full(4, np.nan), [1e9]]),
    "tiny": weekly(20) * 1e-9,
    "huge": weekly(20) * 1e6,
}


def awkward(case: str) -> Series:
    return series_of(AWKWARD[case], step_seconds=86_400)


def checked_shape(forecast: Forecast, series: Series, steps: int) -> None:
    assert len(forecast.times) == len(forecast.median) == steps
    assert np.isfinite(forecast.median).all()
    for level in LEVELS:
        low, high = forecast.interval(level)
        assert np.isfinite(low).all() and np.isfinite(high).all()
        assert (low >= 0).all()
        assert (low <= forecast.median).all() and (forecast.median <= high).all()
    assert forecast.series_id == series.series_id
    assert forecast.produced_by in MODELS
    assert forecast.unit == series.unit
    assert forecast.provenance == series.provenance


@each_model
@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_series_is_answered_or_refused_by_name(name: str, case: str) -> None:
    series = awkward(case)
    try:
        forecast = new(name).fit(series).forecast(10, LEVELS)
    except SeriesError as error:
        assert repr(series.series_id) in error.what
        assert error.remedy
    else:
        checked_shape(forecast, series, 10)


@each_model
@pytest.mark.parametrize("case", ["five weeks", "constant", "a few gaps", "one step up"])
def test_ordinary_trouble_is_answered_and_not_refused(name: str, case: str) -> None:
    series = awkward(case)
    checked_shape(new(name).fit(series).forecast(10, LEVELS), series, 10)


@each_model
def test_filled_gaps_are_counted_in_the_notes(name: str) -> None:
    forecast = new(name).fit(awkward("a few gaps")).forecast(3, LEVELS)
    assert any("5 of 210 steps" in note.en for note in forecast.notes)
    assert all(note.vi for note in forecast.notes)


@each_model
def test_forecast_stands_at_the_steps_that_follow_across_the_end_of_a_month(name: str) -> None:
    series = series_of(weekly(10), start=datetime(2025, 12, 21, tzinfo=UTC))
    forecast = new(name).fit(series).forecast(40)
    assert forecast.times[0].to_pydatetime() == datetime(2026, 3, 1, tzinfo=UTC)
    assert forecast.times[-1].to_pydatetime() == datetime(2026, 4, 9, tzinfo=UTC)
    assert forecast.times.is_unique and forecast.times.is_monotonic_increasing


@each_model
def test_hours_are_forecast_as_hours(name: str) -> None:
    series = simulate((SimulatedLink("a", 1e9),), start=datetime(2026, 1, 1, tzinfo=UTC), days=42).series("a")
    forecast = new(name).fit(series).forecast(24, LEVELS)
    checked_shape(forecast, series, 24)
    assert forecast.step_seconds == 3600
    assert forecast.times[0].to_pydatetime() == datetime(2026, 2, 12, tzinfo=UTC)
    assert forecast.provenance == "simulated"


@each_model
def test_wider_level_contains_the_narrower(name: str) -> None:
    forecast = new(name).fit(series_of(weekly(40))).forecast(60, LEVELS)
    for narrow, wide in ((0.5, 0.8), (0.8, 0.95)):
        assert (forecast.interval(wide)[0] <= forecast.interval(narrow)[0]).all()
        assert (forecast.interval(wide)[1] >= forecast.interval(narrow)[1]).all()


@each_model
def test_same_history_gives_the_same_forecast(name: str) -> None:
    first, second = (new(name).fit(series_of(weekly(30))).forecast(30, LEVELS) for _ in range(2))
    np.testing.assert_array_equal(first.median, second.median)
    np.testing.assert_array_equal(first.interval(0.8), second.interval(0.8))


@each_model
def test_history_itself_is_left_as_it_was(name: str) -> None:
    series = awkward("a few gaps")
    before = series.values.copy()
    new(name).fit(series).forecast(10)
    np.testing.assert_array_equal(series.values, before)


@each_model
def test_forecast_scales_with_the_traffic(name: str) -> None:
    small = new(name).fit(series_of(weekly(30))).forecast(14, LEVELS)
    large = new(name).fit(series_of(weekly(30) * 1000)).forecast(14, LEVELS)
    np.testing.assert_allclose(large.median, small.median * 1000, rtol=1e-3)


@each_model
def test_name_is_that_of_the_model_where_it_did_the_work_itself(name: str) -> None:
    assert new(name).fit(series_of(weekly(30))).forecast(7).produced_by == name


@each_model
def test_model_is_no_worse_than_seasonal_naive_on_simulated_links(name: str) -> None:
    frame = simulate(
        tuple(SimulatedLink(f"link-{i}", 1e9 * (i + 1), growth_per_year=0.2 * i) for i in range(3)),
        start=datetime(2025, 1, 1, tzinfo=UTC),
        days=280,
        step_seconds=3600,
    )
    from forecasting.resample import daily

    scores = []
    for series_id in frame.series_ids:
        days = daily(frame.series(series_id), "daily_peak")
        at = origins(len(days), horizon_steps=30, least_steps=120, every_steps=40, most=4)
        for label, model in (("seasonal_naive", SeasonalNaive()), (f"this {name}", new(name))):
            scores += backtest(label, model, days, at=at, horizon_steps=30, season_steps=7)
    line = next(line for line in compare(scores) if line.model == f"this {name}")
    assert line.windows >= 9
    assert line.relative_crps is not None and line.relative_crps <= 1.0 + 1e-9
    assert line.coverage95 is not None and line.coverage95 > 0.8
