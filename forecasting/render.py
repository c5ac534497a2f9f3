"""A forecast as people read it: a table in Vietnamese or English, or one JSON document.

Numbers are rounded here and nowhere before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta

import numpy as np

from forecasting.capacity import LimitVerdict
from forecasting.command import ForecastResult, LinkAnswer
from forecasting.resample import UTC_OFFSET_HOURS
from forecasting.season import DAY_SECONDS
from forecasting.units import scale_for
from nhip.language import TRAFFIC_STATISTICS, Language, day, number, percent, rate

_WORDS: Mapping[Language, Mapping[str, str]] = {
    Language.ENGLISH: {
        "link": "link",
        "model": "model",
        "time": "date",
        "median": "median",
        "simulated": "simulated: these values come from a traffic model, none was measured",
        "capacity": "capacity",
        "limit": "limit",
        "crosses": "crosses on {day} (80 %: {low} to {high})",
        "crosses_alone": "crosses on {day}",
        "never": "never within {days} days",
        "earliest": "never within {days} days (10 % of the ways cross by {low})",
        "already_over": "already over",
        "no_capacity": "no capacity given, so no date",
        "probability": "{share} probability before the lead time of {days} days",
        "unverified": "not checked against the legal text",
        "note": "note",
        "refused": "refused",
        "later": "later",
    },
    Language.VIETNAMESE: {
        "link": "kênh",
        "model": "mô hình",
        "time": "ngày",
        "median": "trung vị",
        "simulated": "mô phỏng: các giá trị này do mô hình lưu lượng tạo ra, không phải đo thực tế",
        "capacity": "dung lượng",
        "limit": "giới hạn",
        "crosses": "chạm ngưỡng ngày {day} (80 %: {low} đến {high})",
        "crosses_alone": "chạm ngưỡng ngày {day}",
        "never": "không chạm ngưỡng trong {days} ngày tới",
        "earliest": "không chạm ngưỡng trong {days} ngày tới (10 % khả năng chạm trước {low})",
        "already_over": "đã vượt ngưỡng",
        "no_capacity": "chưa có dung lượng nên không có ngày",
        "probability": "xác suất {share} trước thời gian mở rộng {days} ngày",
        "unverified": "chưa đối chiếu văn bản",
        "note": "ghi chú",
        "refused": "từ chối",
        "later": "muộn hơn",
    },
}


def to_json(result: ForecastResult) -> str:
    """One JSON document: the links as they are published, and the series that were refused."""
    document = {
        "links": [link.as_dict() for link in result.links],
        "refused": [
            {"series_id": refusal.series_id, "what": refusal.what, "remedy": refusal.remedy}
            for refusal in result.refused
        ],
    }
    return json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False)


def render_table(result: ForecastResult, language: Language = Language.VIETNAMESE) -> str:
    """The answers as text: per link the forecast by day, what each rule says, and the notes."""
    words = _WORDS[language]
    blocks = [_link_block(link, result.levels, language) for link in result.links]
    blocks += [
        f"{words['refused']}: {refusal.series_id}: {refusal.what}; {refusal.remedy}"
        for refusal in result.refused
    ]
    return "\n\n".join(blocks) + "\n"


def _link_block(link: LinkAnswer, levels: tuple[float, ...], language: Language) -> str:
    words, forecast = _WORDS[language], link.forecast
    largest = max(float(np.max(values)) for values in forecast.quantiles.values())
    divisor, unit = scale_for(largest, forecast.unit)
    head = [
        f"{words['link']}: {link.link_id}",
        f"{words['model']}: {forecast.produced_by}",
        f"{TRAFFIC_STATISTICS[link.statistic or 'steps'][language]}, {unit}",
    ]
    if link.capacity_bits_per_second is not None:
        head.append(f"{words['capacity']}: {rate(link.capacity_bits_per_second, language)}")
    lines = ["   ".join(head)]
    if forecast.provenance == "simulated":
        lines.append(f"*** {words['simulated']} ***")
    lines += ["", *_forecast_lines(link, levels, divisor, language), ""]
    lines += [_limit_line(verdict, language) for verdict in link.limits]
    for note in link.notes:
        lines.append(f"{words['note']}: {note.vi if language == 'vi' else note.en}")
    return "\n".join(lines).rstrip()


def _forecast_lines(
    link: LinkAnswer, levels: tuple[float, ...], divisor: float, language: Language
) -> list[str]:
    words, forecast = _WORDS[language], link.forecast
    header = [words["time"], words["median"], *(percent(level, language, 0) for level in levels)]
    rows = [header]
    for index, time in enumerate(forecast.times):
        local = time.to_pydatetime() + timedelta(hours=UTC_OFFSET_HOURS)
        label = day(local.date(), language)
        if forecast.step_seconds < DAY_SECONDS:
            label += f" {local:%H:%M}"
        row = [label, _figure(forecast.median[index] / divisor, language)]
        for level in levels:
            low, high = forecast.interval(level)
            row.append(
                f"{_figure(low[index] / divisor, language)} – {_figure(high[index] / divisor, language)}"
            )
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _limit_line(verdict: LimitVerdict, language: Language) -> str:
    words, rule = _WORDS[language], verdict.rule
    title = rule.title_vi if language is Language.VIETNAMESE else rule.title_en
    said = [_verdict_words(verdict, language)]
    if verdict.probability_before_lead_time is not None and verdict.verdict != "already_over":
        share = percent(verdict.probability_before_lead_time, language, 0)
        said.append(words["probability"].format(share=share, days=verdict.lead_time_days))
    limit = f"{TRAFFIC_STATISTICS[rule.statistic][language]} ≤ {percent(rule.limit_ratio, language, 0)}"
    if verdict.limit_bits_per_second is not None:
        limit += f" = {rate(verdict.limit_bits_per_second, language)}"
    marks = "" if rule.verified else f" [{words['unverified']}]"
    return f"{rule.id}: {title} ({limit}){marks}\n    → {'; '.join(said)}"


def _verdict_words(verdict: LimitVerdict, language: Language) -> str:
    words = _WORDS[language]
    low, high = verdict.interval80 or (None, None)
    if verdict.verdict == "crosses" and verdict.median_date is not None:
        key = "crosses_alone" if verdict.interval80 is None else "crosses"
        return words[key].format(
            day=day(verdict.median_date, language),
            low=day(low, language) if low else words["later"],
            high=day(high, language) if high else words["later"],
        )
    if verdict.verdict == "never" and low is not None:
        return words["earliest"].format(days=verdict.horizon_days, low=day(low, language))
    return words[verdict.verdict].format(days=verdict.horizon_days)


def _figure(value: float, language: Language) -> str:
    """Three digits that carry meaning: 4.12, 41.2, 412."""
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return number(value, decimals, language)
