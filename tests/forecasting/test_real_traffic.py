"""Real traffic: series of exchanges, mobile cells and links, kept beside the repository and not in it.

The folder holds one directory a dataset with ``public_daily.csv``, ``public_hourly.csv`` or
``public_5min.csv`` (or .gz). ``NHIP_TRAFFIC`` names another folder of the same shape.
"""

import os
from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from forecasting.capacity_rules import read_capacity_rules, rules_for
from forecasting.command import forecast_series
from forecasting.csv_file import read_csv
from forecasting.evaluate import WindowScore, backtest, compare, origins
from forecasting.frame import Series
from forecasting.registry import MODELS
from forecasting.resample import daily
from forecasting.season import DAY_SECONDS
from nhip.errors import SeriesError

FOLDER = Path(os.environ.get("NHIP_TRAFFIC", Path(__file__).parents[3] / "shared" / "data" / "traffic"))
FILES = sorted([*FOLDER.glob("*/public_*.csv"), *FOLDER.glob("*/public_*.csv.gz")])

needs_traffic = pytest.mark.skipif(
    not FILES, reason=f"no recorded traffic in {FOLDER}; NHIP_TRAFFIC names another folder"
)
each_file = pytest.mark.parametrize(
    "path",
    FILES or [pytest.param(None, marks=needs_traffic)],
    ids=lambda path: path and str(path.relative_to(FOLDER)),
)

pytestmark = needs_traffic


def series_in(path: Path) -> list[Series]:
    frame = read_csv(path, off_grid="average").frame
    return [frame.series(name) for name in frame.series_ids]


@each_file
@pytest.mark.slow
def test_every_series_is_answered_or_refused_by_name(path: Path) -> None:
    outcomes: Counter[str] = Counter()
    for series in series_in(path):
        for name in MODELS:
            try:
                forecast = MODELS.load(name)().fit(series).forecast(7)
            except SeriesError as error:
                assert repr(series.series_id) in error.what
                outcomes["refused"] += 1
            else:
                assert np.isfinite(forecast.median).all()
                assert (forecast.interval(0.95)[0] >= 0).all()
                assert forecast.produced_by in MODELS
                outcomes["answered"] += 1
    assert outcomes["answered"] > outcomes["refused"], dict(outcomes)


@pytest.mark.slow
def test_command_answers_a_file_of_real_series_with_verdicts_in_words() -> None:
    path = next((path for path in FILES if "daily" in path.name), FILES[0])
    rules = rules_for(read_capacity_rules(), day=date(2026, 1, 1))
    result = forecast_series(path, horizon="30d", capacity="10Tbit/s", rules=rules)
    assert result.links
    for link in result.links:
        assert link.forecast.provenance == "measured"
        assert {verdict.verdict for verdict in link.limits} <= {"already_over", "crosses", "never"}


@pytest.mark.slow
def test_ets_beats_seasonal_naive_thirty_days_ahead_on_real_days() -> None:
    """Judged over all windows together, and only where there are enough of them to say anything."""
    scores = daily_scores()
    ets = next(line for line in compare(scores) if line.model == "ets")
    if ets.windows < 20:
        pytest.skip(f"only {ets.windows} windows of 30 days in {FOLDER}")
    assert ets.fallbacks < 0.1 * ets.windows, ets
    assert ets.relative_crps is not None and ets.relative_crps < 0.95, ets
    assert ets.relative_mase is not None and ets.relative_mase < 1.0, ets
    assert ets.coverage80 is not None and 0.70 < ets.coverage80 < 0.95, ets
    assert ets.coverage95 is not None and ets.coverage95 > 0.85, ets


def daily_scores() -> list[WindowScore]:
    scores: list[WindowScore] = []
    for path in FILES:
        if "5min" in path.name:
            continue
        for series in series_in(path):
            try:
                days = series if series.step_seconds == DAY_SECONDS else daily(series, "daily_peak")
            except SeriesError:
                continue
            # Two datasets may use one name.
            days = replace(days, series_id=f"{path.parent.name}/{path.name}/{days.series_id}")
            at = origins(len(days), horizon_steps=30, least_steps=150, every_steps=60, most=6)
            for name in MODELS:
                scores += backtest(
                    name, MODELS.load(name)(), days, at=at, horizon_steps=30, season_steps=7, most_steps=730
                )
    return scores
