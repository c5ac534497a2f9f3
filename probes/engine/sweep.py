"""``nhip sweep``: one run of the engine over a list of targets, and what it found as table or document."""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from nhip.clock import Clock, clock_state
from nhip.language import NO_DATA, Language, milliseconds, number, percent, text
from nhip.measurement import Access, Outcome, Technology
from nhip.wire import Record
from nhip.words import OUTCOME_WORDS, word
from probes.engine.book import Windows
from probes.engine.capacity import promised_probes_per_second
from probes.engine.circumstances import Circumstances
from probes.engine.engine import Engine
from probes.engine.group import Group, TargetList, parse_targets, read_targets
from probes.engine.lane import Lane
from probes.engine.readings import EngineReadings
from probes.engine.records import WindowContext, records
from probes.engine.section import SweepSettings
from probes.engine.slice import ask_for_short_slice
from probes.network import Network

MEASURED, UNREACHABLE = 0, 1
_NOBODY = Access(operator="none", technology=Technology.FIXED, province="00")


@dataclass(frozen=True, slots=True)
class SweepResult:
    """One record a target that was probed at all, in the order of the list, and the engine's own figures."""

    records: Sequence[Record]
    readings: EngineReadings

    @property
    def exit_code(self) -> int:
        """0 when anything answered, 1 when nothing did."""
        answered = any(record.outcome is Outcome.RECEIVED for record in self.records)
        return MEASURED if answered else UNREACHABLE


def targets_of(path: str) -> TargetList:
    """The targets of a file, or of standard input for ``-``; a line may be a host alone."""
    if path == "-":
        return parse_targets(sys.stdin, "standard input", bare=True)
    return read_targets(Path(path), bare=True)


def sweep(
    targets: TargetList,
    plan: SweepSettings,
    clock: Clock,
    network: Network,
    *,
    on_start: Callable[[Engine], None] = lambda _engine: None,
) -> SweepResult:
    """Probe every target for `plan.seconds`; NhipError when this host cannot.

    `on_start` is given the engine before it runs, which :meth:`Engine.stop` ends early.
    """
    rounds = math.ceil(plan.seconds / plan.interval_seconds) + 1
    if plan.poisson:
        rounds = 2 * rounds + 20
    group = Group(
        id="sweep",
        targets=targets,
        interval_seconds=plan.interval_seconds,
        poisson=plan.poisson,
        window_seconds=rounds * plan.interval_seconds,
        size_octets=plan.size_octets,
        dscp=plan.dscp,
        dont_fragment=plan.dont_fragment,
        loss_threshold_seconds=plan.loss_threshold_seconds,
    )
    found: list[tuple[int, Record]] = []
    circumstances = Circumstances(
        probe_id="sweep", access=_NOBODY, interface=network.interface, source_address=network.source
    )

    def keep(lane: Lane, windows: Windows) -> None:
        book = lane.addresses
        rows = windows.targets.tolist()
        context = WindowContext(
            group=group,
            ip_version=lane.ip_version,
            targets=[book.target(row) for row in rows],
            addresses=[book.text(row) for row in rows],
            offset_ns=lane.offset_ns,
            clock=clock_state(),
        )
        made = records(windows, context, circumstances, clock.wall_ns())
        found.extend(zip((int(book.positions[row]) for row in rows), made, strict=True))

    engine = Engine(
        [group],
        clock,
        network,
        keep,
        most_probes_per_second=plan.maximum_probes_per_second or promised_probes_per_second(clock),
    )
    try:
        engine.start()
        on_start(engine)
        ask_for_short_slice()
        engine.run(plan.seconds)
        return SweepResult([record for _place, record in sorted(found, key=_place)], engine.readings())
    finally:
        engine.close()


def stop_on_interrupt(engine: Engine) -> None:
    """Have an interrupt end the sending; what was sent is still waited for and shown."""
    signal.signal(signal.SIGINT, lambda *_: engine.stop())


def document(result: SweepResult) -> dict[str, Any]:
    """Plain JSON values: one object a target with what was measured, and the engine's figures."""
    keys = (
        *("target", "address", "outcome", "counters", "loss_ratio", "loss_interval", "loss_pattern"),
        *("loss_threshold_seconds", "round_trip_delay_seconds", "round_trip_delay_quantiles_seconds"),
        *("ipdv_seconds", "pdv_seconds", "self_timing", "timestamp_source", "started_wall_ns", "notes"),
    )
    found: dict[str, Any] = msgspec.to_builtins(
        {
            "targets": [{key: getattr(record, key) for key in keys} for record in result.records],
            "engine": result.readings.as_dict(),
        }
    )
    return found


def table(result: SweepResult, language: Language, *, worst: int) -> str:
    """For a person: the `worst` targets by loss and delay, then everything together."""
    shown = sorted(result.records, key=_badness, reverse=True)[:worst] if worst else list(result.records)
    if len(shown) == len(result.records):
        shown = list(result.records)
    head = [
        _WORDS[key][language]
        for key in ("target", "address", "sent", "received", "loss", "p50", "p99", "note")
    ]
    rows = [head, *(_row(record, language) for record in shown)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(_cell(cell, widths[at], at) for at, cell in enumerate(row)).rstrip() for row in rows]
    if len(shown) < len(result.records):
        lines.append(_WORDS["more"][language].format(shown=len(shown), all=len(result.records)))
    return "\n".join([*lines, "", *_engine_lines(result.readings, language)])


def _row(record: Record, language: Language) -> list[str]:
    delay, counters = record.round_trip_delay_seconds, record.counters
    remarks = [
        f"{_WORDS[name][language]} {count}"
        for name, count in (
            ("late", counters.late),
            ("duplicate", counters.duplicate),
            ("reordered", counters.reordered),
            ("failed", counters.failed),
            ("not_sent", counters.not_sent),
        )
        if count
    ]
    if record.outcome is not Outcome.RECEIVED:
        remarks.insert(0, word(OUTCOME_WORDS, record.outcome, language))
    return [
        record.target.id,
        record.address or NO_DATA,
        str(counters.sent),
        str(counters.received),
        percent(record.loss_ratio, language),
        milliseconds(delay.p50 if delay else None, language),
        milliseconds(delay.p99 if delay else None, language),
        ", ".join(remarks),
    ]


def _engine_lines(readings: EngineReadings, language: Language) -> list[str]:
    cost = readings.cpu_seconds_per_probe
    lines = [
        f"{_WORDS['probes'][language]}: "
        f"{_WORDS['planned'][language]} {number(readings.planned, 0, language)}, "
        f"{_WORDS['sent'][language].lower()} {number(readings.handed_over, 0, language)}, "
        f"{_WORDS['missed'][language]} {number(readings.missed, 0, language)}, "
        f"{_WORDS['received'][language].lower()} {number(readings.received, 0, language)}, "
        f"{_WORDS['lost'][language]} {number(readings.lost, 0, language)}",
        f"{_WORDS['lag'][language]}: p50 {milliseconds(readings.lag_p50_seconds, language)}, "
        f"p99 {milliseconds(readings.lag_p99_seconds, language)}, "
        f"max {milliseconds(readings.lag_max_seconds, language)}",
        f"{_WORDS['cost'][language]}: {number(cost * 1e6 if cost is not None else None, 1, language)} µs; "
        f"{_WORDS['memory'][language]} {number(readings.memory_octets / 1e6, 0, language)} MB",
    ]
    strange = [
        f"{_WORDS[name][language]} {number(count, 0, language)}"
        for name, count in (
            ("foreign", readings.foreign),
            ("forged", readings.forged),
            ("stale", readings.stale),
            ("user_stamps", readings.sent_by_user_stamp + readings.received_by_user_stamp),
            ("drops", readings.buffer_drops),
            ("steps", readings.clock_steps),
            ("refused", sum(readings.refused_by_host.values())),
        )
        if count
    ]
    return [*lines, *([", ".join(strange)] if strange else [])]


def _cell(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column in (0, 1, 7) else cell.rjust(width)


def _badness(record: Record) -> tuple[float, float]:
    delay = record.round_trip_delay_seconds
    answered = record.outcome is Outcome.RECEIVED
    return (record.loss_ratio or 0.0) if answered else 2.0, delay.p99 if delay else math.inf


def _place(pair: tuple[int, Record]) -> int:
    return pair[0]


_WORDS = {
    "target": text("Đích", "Target"),
    "address": text("Địa chỉ", "Address"),
    "sent": text("Gửi", "Sent"),
    "received": text("Nhận", "Received"),
    "loss": text("Mất", "Loss"),
    "p50": text("Trễ p50", "Delay p50"),
    "p99": text("Trễ p99", "Delay p99"),
    "note": text("Ghi chú", "Note"),
    "more": text("({shown} đích xấu nhất trong {all})", "(the worst {shown} of {all} targets)"),
    "late": text("muộn", "late"),
    "duplicate": text("trùng", "duplicate"),
    "reordered": text("sai thứ tự", "reordered"),
    "failed": text("lỗi", "failed"),
    "not_sent": text("không gửi", "not sent"),
    "probes": text("Gói đo", "Probes"),
    "planned": text("dự kiến", "planned"),
    "missed": text("lỡ hẹn", "missed"),
    "lost": text("mất", "lost"),
    "lag": text("Sai lệch giờ gửi", "Off the due time"),
    "cost": text("Bộ xử lý cho mỗi gói", "Processor for each probe"),
    "memory": text("bộ nhớ", "memory"),
    "foreign": text("phản hồi lạ", "foreign replies"),
    "forged": text("phản hồi giả", "forged replies"),
    "stale": text("phản hồi quá muộn", "replies after the end"),
    "user_stamps": text("dấu thời gian của chương trình", "user-space stamps"),
    "drops": text("bộ đệm đầy", "buffer drops"),
    "steps": text("đồng hồ bị chỉnh", "clock steps"),
    "refused": text("máy này không gửi được", "not taken by this host"),
}
