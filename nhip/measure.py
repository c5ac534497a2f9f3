"""What ``nhip measure`` shows of one sample: a JSON document for programs, a table for people."""

from __future__ import annotations

from typing import Any

import msgspec

from nhip import statistics, wire
from nhip.language import Language, megabits, milliseconds, percent, text
from nhip.measurement import Counters, Outcome, Sample, Summary
from nhip.words import OUTCOME_WORDS, STAMP_WORDS, word

# Documented in docs/commands.md.
MEASURED, UNREACHABLE, COULD_NOT_MEASURE = 0, 1, 2


def exit_code(sample: Sample) -> int:
    """0 when anything answered, 1 when the target did not, 2 when this host sent nothing."""
    fates = {singleton.outcome for singleton in sample.singletons}
    if Outcome.RECEIVED in fates:
        return MEASURED
    return UNREACHABLE if fates - {Outcome.NOT_SENT} else COULD_NOT_MEASURE


def document(sample: Sample) -> dict[str, Any]:
    """The sample and its statistics as plain JSON values; what does not exist is null."""
    counters = statistics.count(sample.singletons)
    differences = [abs(value) for value in statistics.ipdv_seconds(sample.singletons)]
    found: dict[str, Any] = {
        "kind": sample.kind,
        "method": sample.method,
        "target": sample.target,
        "address": sample.address,
        "outcome": wire.overall_outcome(sample),
        **msgspec.to_builtins(counters),
        "loss_ratio": statistics.loss_ratio(counters),
        "loss_interval": statistics.wilson_interval(counters.lost, counters.lost + counters.received),
        "loss_threshold_seconds": sample.loss_threshold_seconds,
        "round_trip_delay_seconds": _delay_summary(sample),
        "ipdv_seconds": statistics.summary(differences, "seconds"),
        "pdv_seconds": statistics.summary(statistics.pdv_seconds(sample.singletons), "seconds"),
        "speeds": wire.speeds(sample),
        "phases_seconds": wire.phases_seconds(sample),
        "timestamp_source": sample.timestamp_source,
        "clock": sample.clock,
        "type_p": sample.type_p,
        "interface": sample.interface,
        "source_address": sample.source_address,
        "started_wall_ns": sample.started.wall_ns,
        "octets_sent": sample.octets_sent,
        "octets_received": sample.octets_received,
        "parameters": dict(sample.parameters),
        "notes": list(sample.notes),
        "singletons": list(sample.singletons),
    }
    builtins: dict[str, Any] = msgspec.to_builtins(found)
    return builtins


def table(sample: Sample, language: Language) -> str:
    """The same for a person: a few lines, what does not exist left out."""
    counters = statistics.count(sample.singletons)
    heading = f"{sample.kind}  {sample.target.host}"
    if sample.address and sample.address != sample.target.host:
        heading += f" ({sample.address})"
    if sample.type_p.destination_port:
        heading += f"  {_WORDS['port'][language]} {sample.type_p.destination_port}"
    rows = [(_WORDS["attempts"][language], _attempts(counters, language))]
    if (ratio := statistics.loss_ratio(counters)) is not None and not wire.speeds(sample):
        interval = statistics.wilson_interval(counters.lost, counters.lost + counters.received)
        low, high = interval or (None, None)
        between = f"{percent(low, language)} … {percent(high, language)}"
        rows.append((_WORDS["loss"][language], f"{percent(ratio, language)}   (95 %: {between})"))
    if summary := _delay_summary(sample):
        rows.append((_WORDS["delay"][language], _summary_line(summary, language)))
    if variation := statistics.summary(statistics.pdv_seconds(sample.singletons), "seconds"):
        rows.append(("PDV (RFC 5481)", f"p95 {milliseconds(variation.p95, language)}"))
    for name, seconds in wire.phases_seconds(sample).items():
        rows.append((f"{_WORDS['phase'][language]} {name}", milliseconds(seconds, language)))
    for speed in wire.speeds(sample):
        rows.append((_WORDS[speed.direction][language], f"{megabits(speed.mean_bits_per_second, language)}"))
    rows.append((_WORDS["stamps"][language], word(STAMP_WORDS, sample.timestamp_source, language)))
    details = sorted(
        {
            word(OUTCOME_WORDS, singleton.outcome, language)
            + (f" ({singleton.detail})" if singleton.detail else "")
            for singleton in sample.singletons
            if singleton.outcome is not Outcome.RECEIVED
        }
    )
    if details:
        rows.append((_WORDS["failures"][language], ", ".join(details)))
    rows += [(_WORDS["note"][language], note) for note in sample.notes]
    width = max(len(label) for label, _value in rows)
    return "\n".join([heading, *(f"  {label:<{width}}  {value}" for label, value in rows)])


_WORDS = {
    "port": text("cổng", "port"),
    "attempts": text("Lượt đo", "Attempts"),
    "loss": text("Tỷ lệ mất", "Loss"),
    "delay": text("Trễ khứ hồi", "Round-trip delay"),
    "phase": text("Pha", "Phase"),
    "down": text("Tốc độ tải xuống", "Download speed"),
    "up": text("Tốc độ tải lên", "Upload speed"),
    "stamps": text("Nguồn dấu thời gian", "Time stamps"),
    "failures": text("Không thành công", "Failures"),
    "note": text("Ghi chú", "Note"),
    "sent": text("gửi", "sent"),
    "received": text("nhận", "received"),
    "lost": text("mất", "lost"),
    "failed": text("lỗi", "failed"),
    "late": text("muộn", "late"),
    "duplicate": text("trùng", "duplicate"),
    "reordered": text("sai thứ tự", "reordered"),
    "not_sent": text("không gửi", "not sent"),
}


def _attempts(counters: Counters, language: Language) -> str:
    always = [(counters.sent, "sent"), (counters.received, "received"), (counters.lost, "lost")]
    sometimes = [
        (counters.failed, "failed"),
        (counters.late, "late"),
        (counters.duplicate, "duplicate"),
        (counters.reordered, "reordered"),
        (counters.not_sent, "not_sent"),
    ]
    shown = always + [(value, word) for value, word in sometimes if value]
    return ", ".join(f"{value} {_WORDS[word][language]}" for value, word in shown)


def _delay_summary(sample: Sample) -> Summary | None:
    return statistics.summary(statistics.delays_seconds(sample.singletons), "seconds")


def _summary_line(summary: Summary, language: Language) -> str:
    points = (
        ("min", summary.min),
        ("p50", summary.p50),
        ("p95", summary.p95),
        ("p99", summary.p99),
        ("max", summary.max),
    )
    return "  ".join(f"{name} {milliseconds(value, language)}" for name, value in points)
