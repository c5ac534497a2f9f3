"""What ``nhip measure`` shows people of one sample: a few lines, what does not exist left out."""

from __future__ import annotations

import datetime

from nhip import statistics, wire
from nhip.emodel import SATISFACTION_WORDS, satisfaction
from nhip.language import Language, megabits, milliseconds, number, percent, text
from nhip.measurement import Counters, Outcome, Sample, Statistic, Summary
from nhip.words import FINDING_WORDS, OUTCOME_WORDS, STAMP_WORDS, word


def table(sample: Sample, language: Language) -> str:
    """The sample as lines of label and value."""
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
    if summary := statistics.summary(statistics.delays_seconds(sample.singletons), "seconds"):
        rows.append((_WORDS["delay"][language], _summary_line(summary, language)))
    if variation := statistics.summary(statistics.pdv_seconds(sample.singletons), "seconds"):
        rows.append(("PDV (RFC 5481)", _summary_line(variation, language, lowest=False)))
    differences = [abs(value) for value in statistics.ipdv_seconds(sample.singletons)]
    if apart := statistics.summary(differences, "seconds"):
        rows.append(("|IPDV| (RFC 3393)", _summary_line(apart, language, lowest=False)))
    for one_way in statistics.one_way_delays(sample.singletons):
        error = milliseconds(one_way.error_seconds, language)
        line = f"{_summary_line(one_way.delay_seconds, language)}  (± {error})"
        rows.append((_WORDS[f"one_way_{one_way.direction}"][language], line))
    rows += _loss_rows(sample, language)
    for name, seconds in wire.phases_seconds(sample).items():
        rows.append((f"{_WORDS['phase'][language]} {name}", milliseconds(seconds, language)))
    for speed in wire.speeds(sample):
        rows.append((_WORDS[speed.direction][language], f"{megabits(speed.mean_bits_per_second, language)}"))
    rows += [_statistic_row(statistic, language) for statistic in sample.statistics]
    rows += [(word(FINDING_WORDS, name, language), said) for name, said in sample.facts.items()]
    rows += _timing_rows(sample, language)
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
    "one_way_up": text("Trễ một chiều lên", "One-way delay up"),
    "one_way_down": text("Trễ một chiều xuống", "One-way delay down"),
    "loss_periods": text("Cụm mất gói (RFC 3357)", "Loss periods (RFC 3357)"),
    "longest": text("dài nhất", "longest"),
    "lost_where": text("Mất ở chiều", "Lost where"),
    "lost_up": text("chiều lên", "on the way up"),
    "lost_down": text("chiều xuống", "on the way down"),
    "lost_undetermined": text("không xác định", "undetermined"),
    "send_lag": text("Gửi chậm so với lịch", "Sent after due"),
    "own_error": text("Sai số của máy đo", "This host's own error"),
    "doubtful": text("Trễ đáng ngờ", "Delay doubtful"),
    "doubtful_why": text(
        "sai số của máy đo chưa biết hoặc vượt", "this host's own error is unknown or more than"
    ),
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


def _summary_line(summary: Summary, language: Language, *, lowest: bool = True) -> str:
    points = (
        *((("min", summary.min),) if lowest else ()),
        ("p50", summary.p50),
        ("p95", summary.p95),
        ("p99", summary.p99),
        ("p99.9", summary.p999),
        ("max", summary.max),
    )
    return "  ".join(f"{name} {milliseconds(value, language)}" for name, value in points if value is not None)


def _loss_rows(sample: Sample, language: Language) -> list[tuple[str, str]]:
    """Where and how packets were lost; nothing where none was."""
    rows = []
    pattern = statistics.loss_pattern(sample.singletons)
    if pattern is not None and pattern.periods:
        rows.append(
            (
                _WORDS["loss_periods"][language],
                f"{pattern.periods}, {_WORDS['longest'][language]} {pattern.longest_period_packets}",
            )
        )
    where = sample.directional_loss
    if where is not None and where.lost_up + where.lost_down + where.undetermined:
        parts = (("up", where.lost_up), ("down", where.lost_down), ("undetermined", where.undetermined))
        shown = ", ".join(f"{count} {_WORDS[f'lost_{name}'][language]}" for name, count in parts)
        rows.append((_WORDS["lost_where"][language], shown))
    return rows


def _statistic_row(statistic: Statistic, language: Language) -> tuple[str, str]:
    label = f"{word(FINDING_WORDS, statistic.name, language)} {statistic.of}".rstrip()
    if statistic.value is None:
        return label, "-"
    if statistic.unit == "seconds" and not statistic.name.endswith("_timestamp"):
        value = milliseconds(statistic.value, language)
    elif statistic.unit == "ratio":
        value = percent(statistic.value, language)
    elif statistic.name.endswith("_timestamp"):
        value = f"{datetime.datetime.fromtimestamp(statistic.value, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
    else:
        value = number(statistic.value, 0 if float(statistic.value).is_integer() else 3, language)
        if statistic.name == "mos":
            value += f" {SATISFACTION_WORDS[satisfaction(statistic.value)][language]}"
    return label, f"{value}   ({statistic.definition})"


def _timing_rows(sample: Sample, language: Language) -> list[tuple[str, str]]:
    """Who stamped, how late this host was, and whether its own error spoils the delay."""
    rows = [(_WORDS["stamps"][language], word(STAMP_WORDS, sample.timestamp_source, language))]
    timing = statistics.self_timing(sample.singletons)
    if timing is None:
        return rows
    if timing.send_lag_seconds is not None:
        lag = f"p99 {milliseconds(timing.send_lag_seconds.p99, language)}"
        rows.append((_WORDS["send_lag"][language], lag))
    if timing.own_error_seconds is not None:
        rows.append(
            (
                _WORDS["own_error"][language],
                f"p99 {milliseconds(timing.own_error_seconds.p99, language)}",
            )
        )
    if timing.doubtful:
        limit = percent(timing.error_share_limit, language)
        rows.append((_WORDS["doubtful"][language], f"{_WORDS['doubtful_why'][language]} {limit}"))
    return rows
