"""The seasons of traffic: how many steps make a week or a day."""

from __future__ import annotations

from forecasting.frame import Series
from nhip.errors import SeriesError

DAY_SECONDS = 86_400
WEEK_SECONDS = 7 * DAY_SECONDS


def season_of(series: Series, *, stated_steps: int | None = None, seasons_needed: int = 2) -> int:
    """Steps of the longest season the history shows `seasons_needed` times: a week, otherwise a day.

    Traffic follows the week, so a week is preferred; a history too short for it may still show days.
    `stated_steps` overrides the choice. SeriesError when the history holds too little of any season.
    """
    step = series.step_seconds
    if stated_steps is not None:
        candidates = [stated_steps]
    else:
        candidates = [
            length // step for length in (WEEK_SECONDS, DAY_SECONDS) if length % step == 0 and length > step
        ]
    for season_steps in candidates:
        if len(series) >= seasons_needed * season_steps:
            return season_steps
    if not candidates:
        raise SeriesError(
            f"series {series.series_id!r}: a step of {step} s fits neither a day nor a week",
            remedy="resample it to 5 minutes, hours or days",
        )
    raise SeriesError(
        f"series {series.series_id!r} is too short: {len(series)} steps of {step} s, "
        f"and {seasons_needed * candidates[-1]} are needed",
        remedy=f"give at least {seasons_needed * candidates[-1] * step // DAY_SECONDS} days of history",
    )
