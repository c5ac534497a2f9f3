"""What ``nhip forecast`` does, as plain functions: a CSV in, forecasts and crossing dates out.

A horizon in days or weeks is answered one value a day, the grain in which links are planned; one in hours
at the step of the file. Every series of the file gets its answer or is refused by name, so that one broken
link of two hundred does not hide the others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from forecasting.api import DEFAULT_LEVELS, Forecast, Model
from forecasting.capacity import LimitVerdict, Outlook, judge, look_ahead
from forecasting.capacity_rules import CapacityRule
from forecasting.csv_file import SeriesFile, read_csv
from forecasting.frame import Series, SeriesFrame
from forecasting.notes import Note
from forecasting.registry import MODELS
from forecasting.resample import STATISTICS, Statistic, as_rate, daily
from forecasting.season import DAY_SECONDS
from forecasting.units import parse_rate
from nhip.clock import Clock, SystemClock
from nhip.errors import SeriesError
from nhip.language import TRAFFIC_STATISTICS, Language

DEFAULT_LEAD_TIME_DAYS = 90
# What the daily values of a file are when nobody says: the mean is what most archives keep.
DEFAULT_DAILY_STATISTIC: Statistic = "daily_mean"
# What is shown of a finer file: links are filled by their busiest hour, not by their mean.
DEFAULT_SHOWN_STATISTIC: Statistic = "daily_peak"

# A history that ends further back is answered from its end, and the reader is told.
FRESH_DAYS = 3

# Beyond these nothing a model says means anything, and the arithmetic would only take longer.
LONGEST_HORIZON_DAYS = 1_096
LONGEST_LEAD_TIME_DAYS = 3_650

_HORIZON = re.compile(r"^(?P<number>[1-9][0-9]{0,4})\s*(?P<unit>[hdw])$")
_HORIZON_SECONDS = {"h": 3_600, "d": DAY_SECONDS, "w": 7 * DAY_SECONDS}


@dataclass(frozen=True, slots=True, eq=False)
class LinkAnswer:
    """The answer for one link: its forecast and what each rule says about it.

    `statistic` names what the values are, None where they are the steps of the file themselves.
    """

    link_id: str
    forecast: Forecast
    statistic: Statistic | None
    made_at_wall_ns: int
    capacity_bits_per_second: float | None
    limits: tuple[LimitVerdict, ...]
    limits_produced_by: tuple[str, ...]
    notes: tuple[Note, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, ready to be published; times in UTC, dates of crossing local."""
        forecast = self.forecast
        return {
            "link_id": self.link_id,
            "series_id": forecast.series_id,
            "produced_by": forecast.produced_by,
            "made_at_wall_ns": self.made_at_wall_ns,
            "unit": forecast.unit,
            "step_seconds": forecast.step_seconds,
            "statistic": self.statistic,
            "provenance": forecast.provenance,
            "capacity_bits_per_second": self.capacity_bits_per_second,
            "limits": [
                _limit_dict(verdict, produced_by)
                for verdict, produced_by in zip(self.limits, self.limits_produced_by, strict=True)
            ],
            "times": [time.strftime("%Y-%m-%dT%H:%M:%SZ") for time in forecast.times],
            "median": forecast.median.tolist(),
            "quantiles": {f"{p:g}": values.tolist() for p, values in forecast.quantiles.items()},
            "notes": [{"vi": note.vi, "en": note.en} for note in self.notes],
        }


@dataclass(frozen=True, slots=True)
class Refusal:
    """A series that could not be forecast, and what to do about it."""

    series_id: str
    what: str
    remedy: str


@dataclass(frozen=True, slots=True, eq=False)
class ForecastResult:
    """The answers for all series of one file; `levels` are the intervals every forecast carries."""

    links: tuple[LinkAnswer, ...]
    refused: tuple[Refusal, ...]
    levels: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about every link of a file; checked once, so that a typing error costs no waiting."""

    horizon_seconds: int
    by_day: bool
    capacity_bits_per_second: float | None
    levels: tuple[float, ...]
    rules: tuple[CapacityRule, ...]
    lead_time_days: int
    daily_statistic: Statistic | None


def forecast_series(
    path: Path,
    *,
    horizon: str = "30d",
    capacity: str | None = None,
    model: str = "ets",
    levels: Sequence[float] = DEFAULT_LEVELS,
    rules: Sequence[CapacityRule] = (),
    lead_time_days: int = DEFAULT_LEAD_TIME_DAYS,
    series_id: str | None = None,
    link_id: str | None = None,
    unit: str | None = None,
    step_seconds: int | None = None,
    daily_statistic: str | None = None,
    clock: Clock | None = None,
) -> ForecastResult:
    """Forecasts for the series in a CSV file, and for each rule when the link crosses it.

    `horizon` is written as 48h, 30d or 12w (three years at most), `capacity` as 10Gbit/s. `unit` is for a
    file that names none. `daily_statistic` says what the values of a daily file are, or which statistic of a
    finer file is shown. `link_id` renames the one series asked for. SeriesError when the file or the question
    is wrong, or no series could be answered.
    """
    if link_id is not None and series_id is None:
        raise SeriesError("a link_id names one series", remedy="state the series_id it belongs to")
    seconds, by_day = parse_horizon(horizon)
    question = Question(
        horizon_seconds=seconds,
        by_day=by_day,
        capacity_bits_per_second=None if capacity is None else parse_rate(capacity),
        levels=_checked_levels(levels),
        rules=tuple(rules),
        lead_time_days=_checked_lead_time(lead_time_days),
        daily_statistic=None if daily_statistic is None else _statistic(daily_statistic),
    )
    chosen = MODELS.load(model)()
    found = read_csv(path, unit=unit, step_seconds=step_seconds, off_grid="average")
    return answer(
        found.frame,
        question,
        chosen,
        (clock or SystemClock()).wall_ns(),
        file_statistic=_file_statistic(found, path),
        series_id=series_id,
        link_id=link_id,
    )


def answer(
    frame: SeriesFrame,
    question: Question,
    model: Model,
    made_at_wall_ns: int,
    *,
    file_statistic: Statistic | None = None,
    series_id: str | None = None,
    link_id: str | None = None,
) -> ForecastResult:
    """The same for a frame that is already in memory, for example one that was simulated."""
    links: list[LinkAnswer] = []
    refused: list[Refusal] = []
    first_error: SeriesError | None = None
    for name in [series_id] if series_id is not None else frame.series_ids:
        try:
            found = _answer_one(frame.series(name), question, model, file_statistic, made_at_wall_ns)
            links.append(replace(found, link_id=link_id or name))
        except SeriesError as error:
            first_error = first_error or error
            refused.append(Refusal(name, error.what, error.remedy))
    if not links and first_error is not None:
        raise first_error
    return ForecastResult(tuple(links), tuple(refused), question.levels)


def parse_horizon(text: str) -> tuple[int, bool]:
    """Seconds of a horizon such as ``30d``, and whether it is answered by day; one in hours is not.

    SeriesError when the text is no horizon, or one of more than three years.
    """
    match = _HORIZON.match(text.strip())
    if match is None:
        raise SeriesError(f"{text!r} is no horizon", remedy="write it as 48h, 30d or 12w")
    seconds = int(match["number"]) * _HORIZON_SECONDS[match["unit"]]
    if seconds > LONGEST_HORIZON_DAYS * DAY_SECONDS:
        raise SeriesError(
            f"the horizon {text!r} is longer than {LONGEST_HORIZON_DAYS:,} days",
            remedy=f"ask for {LONGEST_HORIZON_DAYS}d or less",
        )
    return seconds, match["unit"] != "h"


# ------------------------------------------------------------------------------------------ one series


def _answer_one(
    series: Series,
    question: Question,
    model: Model,
    file_statistic: Statistic | None,
    made_at_wall_ns: int,
) -> LinkAnswer:
    if question.capacity_bits_per_second is not None:
        series = as_rate(series)
    notes: list[Note] = []
    _note_old_history(series, made_at_wall_ns, notes)
    is_daily = series.step_seconds == DAY_SECONDS
    statistic = _shown_statistic(question, is_daily, file_statistic, notes)
    shown = series if is_daily or not question.by_day or statistic is None else daily(series, statistic)
    steps = -(-question.horizon_seconds // shown.step_seconds)
    forecast = model.fit(shown).forecast(steps, question.levels)
    limits, produced_by = _limits(series, question, model, statistic if is_daily else None, notes)
    return LinkAnswer(
        link_id=series.series_id,
        forecast=forecast,
        statistic=statistic,
        made_at_wall_ns=made_at_wall_ns,
        capacity_bits_per_second=question.capacity_bits_per_second,
        limits=limits,
        limits_produced_by=produced_by,
        notes=tuple(dict.fromkeys([*forecast.notes, *notes])),
    )


def _shown_statistic(
    question: Question, is_daily: bool, file_statistic: Statistic | None, notes: list[Note]
) -> Statistic | None:
    if not is_daily:
        return (question.daily_statistic or DEFAULT_SHOWN_STATISTIC) if question.by_day else None
    known = question.daily_statistic or file_statistic
    if known is None:
        taken = TRAFFIC_STATISTICS[DEFAULT_DAILY_STATISTIC]
        notes.append(
            Note(
                en=f"nobody said what the daily values are; taken as {taken[Language.ENGLISH]}",
                vi=f"không có thông tin giá trị ngày là gì; hiểu là {taken[Language.VIETNAMESE]}",
            )
        )
    return known or DEFAULT_DAILY_STATISTIC


def _note_old_history(series: Series, made_at_wall_ns: int, notes: list[Note]) -> None:
    last = series.times[-1].to_pydatetime()
    age_days = (datetime.fromtimestamp(made_at_wall_ns / 1e9, tz=UTC) - last).days
    if age_days > FRESH_DAYS:
        notes.append(
            Note(
                en=f"the history ended {age_days} days ago; the dates follow its end, not today",
                vi=f"lịch sử kết thúc cách đây {age_days} ngày; các ngày tính từ đó, không phải từ hôm nay",
            )
        )


def _limits(
    series: Series, question: Question, model: Model, daily_is: Statistic | None, notes: list[Note]
) -> tuple[tuple[LimitVerdict, ...], tuple[str, ...]]:
    """One verdict for each rule that this history can be held against; a note for each that it cannot."""
    days_ahead = max(-(-question.horizon_seconds // DAY_SECONDS), question.lead_time_days)
    outlooks: dict[Statistic, Outlook] = {}
    verdicts: list[LimitVerdict] = []
    for rule in question.rules:
        if rule.limit_ratio is None:
            notes.append(
                Note(
                    en=f"rule {rule.id}: its limit has not been read in the text, so nothing is judged by it",
                    vi=f"quy tắc {rule.id}: chưa đọc được mức giới hạn trong văn bản nên không đánh giá",
                )
            )
            continue
        if daily_is is not None and rule.statistic != daily_is:
            needed, held = TRAFFIC_STATISTICS[rule.statistic], TRAFFIC_STATISTICS[daily_is]
            english, vietnamese = Language.ENGLISH, Language.VIETNAMESE
            notes.append(
                Note(
                    en=f"rule {rule.id} needs the {needed[english]}; the file holds the {held[english]} only",
                    vi=f"quy tắc {rule.id} cần {needed[vietnamese]}; tệp chỉ có {held[vietnamese]}",
                )
            )
            continue
        if rule.statistic not in outlooks:
            try:
                of_days = series if daily_is is not None else daily(series, rule.statistic)
                outlook = look_ahead(model, of_days, days_ahead)
            except SeriesError as error:
                # The forecast itself may stand, for example hours from a history of a few days.
                notes.append(
                    Note(
                        en=f"rule {rule.id} could not be judged: {error}",
                        vi=f"quy tắc {rule.id} không đánh giá được: {error}",
                    )
                )
                continue
            outlooks[rule.statistic] = outlook
            notes.extend(outlook.notes)
        verdicts.append(
            judge(
                outlooks[rule.statistic],
                rule,
                question.capacity_bits_per_second,
                lead_time_days=question.lead_time_days,
            )
        )
    return tuple(verdicts), tuple(outlooks[verdict.rule.statistic].produced_by for verdict in verdicts)


def _limit_dict(verdict: LimitVerdict, produced_by: str) -> dict[str, Any]:
    rule = verdict.rule
    return {
        "rule_id": rule.id,
        "title_vi": rule.title_vi,
        "title_en": rule.title_en,
        "mark": rule.mark,
        "verified": rule.verified,
        "statistic": rule.statistic,
        "limit_ratio": rule.limit_ratio,
        "limit_bits_per_second": verdict.limit_bits_per_second,
        "produced_by": produced_by,
        "verdict": verdict.verdict,
        "horizon_days": verdict.horizon_days,
        "median_date": _iso_date(verdict.median_date),
        "interval80": None if verdict.interval80 is None else [_iso_date(day) for day in verdict.interval80],
        "probability_before_lead_time": verdict.probability_before_lead_time,
        "lead_time_days": verdict.lead_time_days,
    }


def _iso_date(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


def _checked_levels(levels: Sequence[float]) -> tuple[float, ...]:
    for level in levels:
        if not 0 < level < 1:
            raise SeriesError(f"{level:g} is no level", remedy="write a ratio between 0 and 1, such as 0.8")
    return tuple(sorted(set(levels)))


def _checked_lead_time(days: int) -> int:
    if not 0 <= days <= LONGEST_LEAD_TIME_DAYS:
        raise SeriesError(
            f"a lead time of {days} days cannot be",
            remedy=f"write the days it takes to add capacity, from 0 to {LONGEST_LEAD_TIME_DAYS}",
        )
    return days


def _statistic(text: str) -> Statistic:
    for known in STATISTICS:
        if text == known:
            return known
    raise SeriesError(f"{text!r} is no statistic", remedy=f"use one of {', '.join(STATISTICS)}")


def _file_statistic(found: SeriesFile, path: Path) -> Statistic | None:
    if found.statistic is None:
        return None
    try:
        return _statistic(found.statistic)
    except SeriesError as error:
        raise SeriesError(f"{path}: statistic: {error.what}", remedy=error.remedy) from error
