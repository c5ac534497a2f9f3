"""How ready a measured line is for the ten groups of services, as ``nhip measure --services`` shows it."""

from __future__ import annotations

from nhip import statistics
from nhip.language import Language, number, text
from nhip.measurement import Sample
from nhip.qoo import ServiceReadiness, metadata_of, part_title, readiness
from nhip.service_profiles import directive16


def services(sample: Sample) -> list[ServiceReadiness]:
    """The readiness for each service, by the delays and losses of `sample`; speeds are another test's."""
    counters = statistics.count(sample.singletons)
    return readiness(
        directive16(),
        statistics.delay_quantiles_seconds(sample.singletons),
        len(statistics.delays_seconds(sample.singletons)),
        statistics.loss_ratio(counters),
        counters.lost + counters.received,
        None,
        None,
        metadata=metadata_of(sample),
    )


def services_table(sample: Sample, language: Language) -> str:
    """One line for each service: its score or what it is at most, what decides, what is missing."""
    profile, found = directive16(), services(sample)
    rows = [tuple(_HEADINGS[column][language] for column in _HEADINGS)]
    for one in found:
        limiting = "" if one.limiting is None else part_title(one.limiting)[language]
        missing = ", ".join(
            f"{part.title[language]} ({part.reason[language]})" if part.reason else part.title[language]
            for part in one.not_assessed
        )
        score = number(one.score, 0, language)
        at_most = number(one.at_most, 0, language)
        rows.append((one.title[language], score, at_most, one.verdict[language], limiting, missing))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    notes = dict.fromkeys(note[language] for one in found for note in one.notes)
    return "\n".join(
        [f"{profile.title[language]}, {profile.version}", *lines, *notes, profile.note[language]]
    )


_HEADINGS = {
    "service": text("Nhóm dịch vụ", "Service"),
    "score": text("Điểm", "Score"),
    "at_most": text("Tối đa", "At most"),
    "verdict": text("Đánh giá", "Verdict"),
    "limiting": text("Do", "Decided by"),
    "missing": text("Thiếu", "Missing"),
}
