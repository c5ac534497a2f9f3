"""When a link passes its limit, and how sure that is.

A line drawn to a limit is worse than knowing how often links cross one. Here the model's own past errors
answer: at earlier origins it forecast the same horizon, and the whole path of its errors there, added to
today's path, is one way the future may go.

::

    traffic                            ╭── median + errors made at origin 1
       limit ─ ─ ─ ─ ─ ─ ─ ─ ─ ─╭──────╯─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─
                        ╭───────╯──────── median
     history ───────────┤╰──────────────── median + errors made at origin 2
                      today    10 %  50 %  90 %  of the crossing dates

A link crosses on the first day from which 3 of 7 days lie above the limit: one evening of football is no
upgrade. "Already over" and "never within the horizon" are answers of their own, and without a capacity
there is no date at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

import numpy as np

from forecasting.api import Model
from forecasting.capacity_rules import CapacityRule
from forecasting.evaluate import error_trajectories, origins
from forecasting.frame import Floats, Integers, Series
from forecasting.gaps import fill_gaps
from forecasting.notes import Note
from forecasting.resample import UTC_OFFSET_HOURS
from forecasting.season import DAY_SECONDS
from nhip.errors import SeriesError

Verdict = Literal["already_over", "crosses", "never", "no_capacity"]

DAYS_ABOVE = 3
DAYS_LOOKED_AT = 7

WEEK_DAYS = 7
# A model needs eight weeks to have something to say at an earlier origin.
LEAST_TRAIN_DAYS = 56
TRAJECTORIES_AT_MOST = 16
# Fewer past paths say nothing about one case in ten.
TRAJECTORIES_AT_LEAST = 4
# A horizon shortened below two weeks would answer no planner's question.
LEAST_HORIZON_DAYS = 14
OFFSET_RATIO = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Outlook:
    """The next `horizon_days` days of one daily series: a median path and ways it may go, one a row."""

    series: Series
    produced_by: str
    median: Floats
    paths: Floats
    horizon_days: int
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class LimitVerdict:
    """What one rule says about one link. Dates are local days; None where there is none to give.

    `median_date` is the day by which half of the ways have crossed, `interval80` the days of one in ten
    and nine in ten (None within it: not within the horizon). `probability_before_lead_time` is None when
    the lead time reaches beyond the horizon judged or the history is too short for a probability.
    """

    rule: CapacityRule
    verdict: Verdict
    limit_bits_per_second: float | None
    lead_time_days: int
    horizon_days: int
    median_date: date | None = None
    interval80: tuple[date | None, date | None] | None = None
    probability_before_lead_time: float | None = None


def look_ahead(
    model: Model, series: Series, horizon_days: int, *, most: int = TRAJECTORIES_AT_MOST
) -> Outlook:
    """The outlook of a daily series; the horizon is shortened, with a note, to what its history can judge.

    SeriesError when the series is not daily or the model refuses it.
    """
    if series.step_seconds != DAY_SECONDS:
        raise SeriesError(
            f"series {series.series_id!r} has steps of {series.step_seconds} s",
            remedy="make one value a day of it first",
        )
    complete = fill_gaps(series, WEEK_DAYS)
    notes: list[Note] = []
    judged = _horizon_within(len(series), horizon_days, notes)
    at = _origins(len(series), judged, most)
    forecast = model.fit(series).forecast(judged, ())
    offset = OFFSET_RATIO * float(np.mean(complete.values)) or 1.0
    errors = error_trajectories(model, complete, at=at, horizon_steps=judged, offset=offset)
    return Outlook(
        series=series,
        produced_by=forecast.produced_by,
        median=forecast.median,
        paths=_paths(forecast.median, errors, offset),
        horizon_days=judged,
        notes=(*forecast.notes, *notes),
    )


def judge(
    outlook: Outlook, rule: CapacityRule, capacity_bits_per_second: float | None, *, lead_time_days: int
) -> LimitVerdict:
    """The verdict of `rule` on a link of `capacity_bits_per_second`; None there means no date is given.

    ValueError for a rule without a limit: nobody can be judged by a number nobody has read.
    """
    if rule.limit_ratio is None:
        raise ValueError(f"rule {rule.id} has no limit")
    if capacity_bits_per_second is None:
        return LimitVerdict(rule, "no_capacity", None, lead_time_days, outlook.horizon_days)
    limit = rule.limit_ratio * capacity_bits_per_second
    if above_now(outlook.series.values, limit):
        return LimitVerdict(
            rule,
            "already_over",
            limit,
            lead_time_days,
            outlook.horizon_days,
            probability_before_lead_time=1.0,
        )
    enough = len(outlook.paths) > 0
    days = first_crossings(outlook.paths if enough else outlook.median[None, :], limit)
    low, middle, high = (_order_statistic(days, share) for share in (0.1, 0.5, 0.9))
    known_lead_time = enough and lead_time_days <= outlook.horizon_days
    return LimitVerdict(
        rule=rule,
        verdict="crosses" if middle < outlook.horizon_days else "never",
        limit_bits_per_second=limit,
        lead_time_days=lead_time_days,
        horizon_days=outlook.horizon_days,
        median_date=_day(outlook, middle),
        interval80=(_day(outlook, low), _day(outlook, high)) if enough else None,
        probability_before_lead_time=share_before(days, lead_time_days) if known_lead_time else None,
    )


def first_crossings(
    paths: Floats, limit: float, *, days_above: int = DAYS_ABOVE, days_looked_at: int = DAYS_LOOKED_AT
) -> Integers:
    """For each path (a row) the first day above `limit` from which `days_above` of the next days are.

    Days count from 0; a path that never crosses gives the length of the path. The last days look at what
    is left of the horizon.
    """
    above = paths > limit
    counts: Integers = np.cumsum(np.pad(above, ((0, 0), (1, days_looked_at))), axis=1)
    ahead: Integers = (
        counts[:, days_looked_at : days_looked_at + paths.shape[1]] - counts[:, : paths.shape[1]]
    )
    crosses = above & (ahead >= days_above)
    first = np.where(crosses.any(axis=1), crosses.argmax(axis=1), paths.shape[1])
    return np.asarray(first, dtype=np.int64)


def above_now(
    values: Floats, limit: float, *, days_above: int = DAYS_ABOVE, days_looked_at: int = DAYS_LOOKED_AT
) -> bool:
    """Whether `days_above` of the last measured days lie above `limit`: the crossing is behind us."""
    return bool(np.sum(values[-days_looked_at:] > limit) >= days_above)


def share_before(days: Integers, lead_time_days: int) -> float:
    """Probability of crossing within `lead_time_days`: (crossed + 1/2) / (ways + 1).

    With 16 ways seen nobody may say 0 or 1; half a case on either side says what was not seen.
    """
    return float((np.sum(days < lead_time_days) + 0.5) / (len(days) + 1))


def _paths(median: Floats, errors: Floats, offset: float) -> Floats:
    """Today's path with each past error path on it, and once more without what all of them share.

    The shared part is how the model was wrong on average; with few origins nobody knows whether it will
    be so again, so both stand.
    """
    if len(errors) < TRAJECTORIES_AT_LEAST:
        return np.empty((0, len(median)))
    both = np.vstack([errors, errors - np.median(errors, axis=0)])
    return np.asarray(np.exp(np.log(median + offset) + both) - offset)


def _horizon_within(length: int, horizon_days: int, notes: list[Note]) -> int:
    """The longest horizon up to the asked one that at least four past origins can show."""
    possible = length - LEAST_TRAIN_DAYS - (TRAJECTORIES_AT_LEAST - 1) * WEEK_DAYS
    if possible >= horizon_days:
        return horizon_days
    if possible >= LEAST_HORIZON_DAYS:
        notes.append(
            Note(
                en=f"{length} days of history can judge {possible} days ahead, not {horizon_days}",
                vi=f"{length} ngày lịch sử chỉ đủ để đánh giá {possible} ngày tới, không phải {horizon_days}",
            )
        )
        return possible
    notes.append(
        Note(
            en=f"{length} days of history are too few for an interval or a probability of the date",
            vi=f"{length} ngày lịch sử quá ít để có khoảng tin cậy hoặc xác suất cho ngày chạm ngưỡng",
        )
    )
    return horizon_days


def _origins(length: int, horizon_days: int, most: int) -> list[int]:
    room = length - horizon_days - LEAST_TRAIN_DAYS
    every = max(WEEK_DAYS, room // most // WEEK_DAYS * WEEK_DAYS)
    return origins(
        length, horizon_steps=horizon_days, least_steps=LEAST_TRAIN_DAYS, every_steps=every, most=most
    )


def _order_statistic(days: Integers, share: float) -> int:
    """The smallest day by which at least `share` of the ways have crossed; never a day between two."""
    return int(np.quantile(days, share, method="inverted_cdf"))


def _day(outlook: Outlook, index: int) -> date | None:
    if index >= outlook.horizon_days:
        return None
    return local_day(outlook.series) + timedelta(days=1 + index)


def local_day(series: Series) -> date:
    """The local date of the last day of a daily series."""
    return (series.times[-1].to_pydatetime() + timedelta(hours=UTC_OFFSET_HOURS)).date()
