"""The tables of the status page as text in cells: accesses, verdicts and last results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime

from dashboards.web.figures import VIETNAM, Moment, moment, percents, quantities, quantity, signed
from dashboards.web.wording import (
    TECHNOLOGY_WORDS,
    VERDICT_WORDS,
    WORDS,
)
from nhip.comparison import Comparison, Tolerance, compare_delay, compare_loss, compare_speed
from nhip.errors import NhipError
from nhip.geography import provinces
from nhip.language import NO_DATA, Language, milliseconds, number, percent, rate
from nhip.measurement import Outcome
from nhip.status import AccessRow, SeriesRow, StatusView, VerdictRow
from nhip.words import OUTCOME_WORDS, STAMP_WORDS, word

FULL_BAR = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured value: as text, the samples it rests on, and the lab's truth where there is one.

    `bar` and `mark` are shares of the column's largest value in percent: the value's and the truth's.
    """

    value: str
    detail: str
    count: str
    truth: str = ""
    difference: str = ""
    agrees: bool | None = None
    bar: float | None = None
    mark: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessCells:
    operator: str
    technology: str
    province: str
    probe_id: str
    silent: bool
    silence: str
    last_seen: Moment | None
    delay: Figure
    loss: Figure
    down: Figure
    up: Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictCells:
    operator: str
    technology: str
    province: str
    title: str
    other_title: str
    other_language: str
    indicator_id: str
    clause: str
    value: str
    interval: str
    limit: str
    samples: str
    failures: str
    enough: bool
    verdict: str
    verdict_word: str
    source: str
    mark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesCells:
    probe_id: str
    kind: str
    target: str
    answered: bool
    outcome: str
    started: Moment
    delay: str
    loss: str
    timestamps: str


def access_cells(view: StatusView, language: Language, tolerance: Tolerance) -> list[AccessCells]:
    """One row of cells for each access; bars are drawn against the largest value of their column."""
    rows = view.accesses
    top_delay = _largest(value for row in rows for value in (row.delay_seconds, _true(row, "delay_seconds")))
    top_down = _largest(
        value for row in rows for value in (row.down_bits_per_second, _true(row, "down_bits_per_second"))
    )
    top_up = _largest(
        value for row in rows for value in (row.up_bits_per_second, _true(row, "up_bits_per_second"))
    )
    day = _day_of(view)
    cells = []
    for row in rows:
        seen = None if row.last_seen_wall_ns is None else moment(row.last_seen_wall_ns, language)
        cells.append(
            AccessCells(
                operator=row.operator,
                technology=word(TECHNOLOGY_WORDS, row.technology, language),
                province=province_name(row.province, day),
                probe_id=row.probe_id,
                silent=row.silent,
                silence=_silence(seen, language) if row.silent else "",
                last_seen=seen,
                delay=_delay(row, language, tolerance, top_delay),
                loss=_loss(row, language),
                down=_speed(
                    row.down_bits_per_second,
                    row.down_count,
                    _true(row, "down_bits_per_second"),
                    language,
                    tolerance,
                    top_down,
                ),
                up=_speed(
                    row.up_bits_per_second,
                    row.up_count,
                    _true(row, "up_bits_per_second"),
                    language,
                    tolerance,
                    top_up,
                ),
            )
        )
    return cells


def verdict_cells(view: StatusView, language: Language) -> list[VerdictCells]:
    """One row of cells for each indicator of each access that was judged."""
    day = _day_of(view)
    return [_verdict(row, language, day) for row in view.verdicts]


def series_cells(view: StatusView, language: Language) -> list[SeriesCells]:
    """One row of cells for the last result of each test."""
    return [_series(row, language) for row in view.series]


def province_name(code: str, day: date) -> str:
    """What the code named on that day; the code itself when the table does not know it."""
    try:
        return provinces().on(code, day).name
    except NhipError:
        return code


def _day_of(view: StatusView) -> date:
    return datetime.fromtimestamp(view.made_wall_ns / 1e9, tz=VIETNAM).date()


def _true(row: AccessRow, quantity_name: str) -> float | None:
    found: float | None = None if row.truth is None else getattr(row.truth, quantity_name)
    return found


def _largest(values: Iterable[float | None]) -> float:
    return max((value for value in values if value is not None), default=0.0)


def _share(value: float | None, top: float) -> float | None:
    return None if value is None or top <= 0 else round(FULL_BAR * max(value, 0.0) / top, 1)


def _silence(seen: Moment | None, language: Language) -> str:
    if seen is None:
        return WORDS["never_heard"][language]
    return WORDS["silent_since"][language].format(moment=seen.text)


def _count(count: int, language: Language) -> str:
    return f"n = {number(count, 0, language)}"


def _delay(row: AccessRow, language: Language, tolerance: Tolerance, top: float) -> Figure:
    true = _true(row, "delay_seconds")
    found = compare_delay(row.delay_seconds, true, tolerance)
    return Figure(
        value=milliseconds(row.delay_seconds, language),
        detail="",
        count=_count(row.delay_count, language),
        truth="" if true is None else milliseconds(true, language),
        difference="" if found is None else _signed_milliseconds(found.difference, language),
        agrees=_agrees(found),
        bar=_share(row.delay_seconds, top),
        mark=_share(true, top),
    )


def _signed_milliseconds(seconds: float, language: Language) -> str:
    return signed(milliseconds(abs(seconds), language), seconds)


def _loss(row: AccessRow, language: Language) -> Figure:
    true = _true(row, "loss_ratio")
    found = compare_loss(row.loss_ratio, row.loss_interval, true)
    return Figure(
        value=percent(row.loss_ratio, language),
        detail=percents(row.loss_interval, language),
        count=_count(row.loss_count, language),
        truth="" if true is None else percent(true, language),
        difference=""
        if found is None
        else signed(percent(abs(found.difference), language), found.difference),
        agrees=_agrees(found),
    )


def _speed(
    value: float | None,
    count: int,
    true: float | None,
    language: Language,
    tolerance: Tolerance,
    top: float,
) -> Figure:
    found = compare_speed(value, true, tolerance)
    difference = ""
    if found is not None and true:
        share = found.difference / true
        difference = signed(percent(abs(share), language, 1), share)
    return Figure(
        value=rate(value, language),
        detail="",
        count=_count(count, language),
        truth="" if true is None else rate(true, language),
        difference=difference,
        agrees=_agrees(found),
        bar=_share(value, top),
        mark=_share(true, top),
    )


def _agrees(found: Comparison | None) -> bool | None:
    return None if found is None else found.agrees


def _verdict(row: VerdictRow, language: Language, day: date) -> VerdictCells:
    vietnamese = language is Language.VIETNAMESE
    required = NO_DATA if row.samples_required is None else number(row.samples_required, 0, language)
    limit = WORDS["limit_unknown"][language]
    if row.limit is not None:
        sign = {"<=": "≤", ">=": "≥"}.get(row.comparison, row.comparison)
        limit = f"{sign} {quantity(row.limit, row.unit, language)}"
    return VerdictCells(
        operator=row.operator,
        technology=word(TECHNOLOGY_WORDS, row.technology, language),
        province=province_name(row.province, day),
        title=row.title_vi if vietnamese else row.title_en,
        other_title=row.title_en if vietnamese else row.title_vi,
        other_language=Language.ENGLISH if vietnamese else Language.VIETNAMESE,
        indicator_id=row.indicator_id,
        clause=row.clause,
        value=quantity(row.value, row.unit, language),
        interval=quantities(row.interval, row.unit, language),
        limit=limit,
        samples=WORDS["samples_of"][language].format(
            samples=number(row.samples, 0, language), required=required
        ),
        failures=WORDS["failed_samples"][language].format(count=number(row.failures, 0, language))
        if row.failures
        else "",
        enough=row.samples_required is not None and row.samples >= row.samples_required,
        verdict=row.verdict if row.verdict in VERDICT_WORDS else "limit_unverified",
        verdict_word=word(VERDICT_WORDS, row.verdict, language),
        source=row.source,
        mark=row.mark,
    )


def _series(row: SeriesRow, language: Language) -> SeriesCells:
    return SeriesCells(
        probe_id=row.probe_id,
        kind=row.kind,
        target=row.target,
        answered=row.outcome is Outcome.RECEIVED,
        outcome=word(OUTCOME_WORDS, row.outcome, language),
        started=moment(row.started_wall_ns, language),
        delay=milliseconds(row.delay_seconds, language),
        loss=percent(row.loss_ratio, language),
        timestamps=word(STAMP_WORDS, row.timestamp_source, language),
    )
