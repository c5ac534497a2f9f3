"""How well each model forecasts, beside the seasonal naive on the same windows.

    python -m benchmarks.backtest FILE.csv [FILE.csv ...]
    python -m benchmarks.backtest --simulated

A file holds ``time,value`` with an optional ``series_id`` (``nhip forecast`` reads the same). Daily values,
or the daily peak of finer ones, are forecast 30 days ahead from every 30th day; hourly ones also 24 h ahead.
A ratio below 1 beats the peer, the seasonal naive. ``--simulated`` runs on the documented traffic model
instead; its figures say that the program works and nothing about any network.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from forecasting.csv_file import read_csv
from forecasting.evaluate import WindowScore, backtest, compare, origins
from forecasting.frame import Series
from forecasting.registry import MODELS
from forecasting.resample import daily
from forecasting.season import DAY_SECONDS
from forecasting.simulate import SimulatedLink, simulate
from nhip.errors import SeriesError

HOUR_SECONDS = 3_600
MOST_WINDOWS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--simulated", action="store_true")
    arguments = parser.parse_args()
    found = [series for path in arguments.files for series in read_series(path)]
    if arguments.simulated:
        found += simulated_series()
    if not found:
        parser.error("give a file, or --simulated")
    for model in MODELS:
        MODELS.load(model)().fit(found[0].last(400)).forecast(7)  # imports are no part of a model's time
    print(row("task", "model", "windows", "MASE", "relMASE", "relCRPS", "c80", "c95", "CPU ms"))
    show("daily, 30 days ahead", [score for series in found for score in score_days(series)])
    show("hourly, 24 h ahead", [score for series in found for score in score_hours(series)])


def read_series(path: Path) -> list[Series]:
    """The series of a file, each named after it."""
    frame = read_csv(path, off_grid="average").frame
    return [
        replace(series, series_id=f"{path.parent.name}/{path.name}/{series.series_id}")
        for series in map(frame.series, frame.series_ids)
    ]


def simulated_series() -> list[Series]:
    """Six links of the traffic model, 500 days of hours each."""
    links = tuple(
        SimulatedLink(f"simulated-{number}", 1e9 * (number + 1), growth_per_year=0.1 * number)
        for number in range(6)
    )
    frame = simulate(links, start=datetime(2024, 1, 1, tzinfo=UTC), days=500)
    return [frame.series(name) for name in frame.series_ids]


def score_days(series: Series) -> list[WindowScore]:
    try:
        days = series if series.step_seconds == DAY_SECONDS else daily(series, "daily_peak")
    except SeriesError:
        return []
    return score(days, horizon_steps=30, least_steps=150, season_steps=7, most_steps=730)


def score_hours(series: Series) -> list[WindowScore]:
    if series.step_seconds != HOUR_SECONDS:
        return []
    return score(series, horizon_steps=24, least_steps=840, season_steps=168, most_steps=1_344)


def score(
    series: Series, *, horizon_steps: int, least_steps: int, season_steps: int, most_steps: int
) -> list[WindowScore]:
    at = origins(
        len(series),
        horizon_steps=horizon_steps,
        least_steps=least_steps,
        every_steps=horizon_steps,
        most=MOST_WINDOWS,
    )
    return [
        line
        for model in MODELS
        for line in backtest(
            model,
            MODELS.load(model)(),
            series,
            at=at,
            horizon_steps=horizon_steps,
            season_steps=season_steps,
            most_steps=most_steps,
        )
    ]


def show(task: str, scores: Sequence[WindowScore]) -> None:
    if not scores:
        return
    for line in compare(scores):
        figures = (line.mase, line.relative_mase, line.relative_crps, line.coverage80, line.coverage95)
        shown = ["-" if figure is None else f"{figure:.3f}" for figure in figures[:3]]
        shown += ["-" if figure is None else f"{figure:.2f}" for figure in figures[3:]]
        print(row(task, line.model, str(line.windows), *shown, f"{line.cpu_ms:.1f}"))


def row(task: str, model: str, *figures: str) -> str:
    """One line of the table."""
    return f"{task:<22}{model:<16}" + "".join(f"{figure:>9}" for figure in figures)


if __name__ == "__main__":
    main()
