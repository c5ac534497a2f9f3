"""What no honest record can say: numbers outside their range and counts that contradict each other.

The types of a record say what a number is; this says what it may be. A probe with a fault, or one that
lies, must not be able to make a counter run backwards or put a median below its minimum.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from statistics import fmean as mean
from typing import TYPE_CHECKING

from nhip.measurement import Counters, Outcome, Singleton, Stamp, Summary
from nhip.statistics import wilson_interval

if TYPE_CHECKING:
    from nhip.wire import Record

_LARGEST_COUNT = 2**53
_LARGEST_NS = 2**63 - 1
_LONGEST_SECONDS = 1e7
# Sums of floating point numbers end within this share of the exact one.
_ROUNDING = 1e-9
_COUNTS = tuple(field.name for field in dataclasses.fields(Counters))
_SUMMARY_NUMBERS = tuple(field.name for field in dataclasses.fields(Summary) if field.type == "float")


def contradictions(record: Record) -> Iterator[str]:
    """Each thing in `record` that cannot be, as ``key: what is wrong``; nothing for an honest record."""
    yield from _of_counters(record.counters)
    yield from _of_outcome(record)
    yield from _of_ratio(record)
    yield from _of_speeds(record)
    for key in ("round_trip_delay_seconds", "ipdv_seconds", "pdv_seconds"):
        summary: Summary | None = getattr(record, key)
        if summary is not None:
            yield from _of_summary(key, summary, record.counters)
    type_p, clock = record.type_p, record.clock
    yield from _outside("type_p.size_octets", type_p.size_octets, 65_535)
    yield from _outside("type_p.dscp", type_p.dscp, 63)
    yield from _outside("type_p.destination_port", type_p.destination_port, 65_535)
    yield from _outside("target.port", record.target.port, 65_535)
    yield from _outside("clock.estimated_error_ns", clock.estimated_error_ns, _LARGEST_COUNT)
    yield from _outside("clock.maximum_error_ns", clock.maximum_error_ns, _LARGEST_COUNT)
    for position, singleton in enumerate(record.singletons or ()):
        yield from _of_singleton(f"singletons[{position}]", singleton)


def numbers_without_value(record: Record) -> Iterator[str]:
    """The keys whose number is NaN or infinite, for which JSON has no word."""
    for key in ("round_trip_delay_seconds", "ipdv_seconds", "pdv_seconds"):
        summary: Summary | None = getattr(record, key)
        if summary is not None:
            yield from _not_finite(key, {name: getattr(summary, name) for name in _SUMMARY_NUMBERS})
    yield from _not_finite("parameters", record.parameters)
    yield from _not_finite("phases_seconds", record.phases_seconds)
    low, high = record.loss_interval or (None, None)
    alone = {"loss_ratio": record.loss_ratio, "loss_interval[0]": low, "loss_interval[1]": high}
    yield from _not_finite("", alone | {"loss_threshold_seconds": record.loss_threshold_seconds})
    for speed in record.speeds:
        rates = {str(position): rate for position, rate in enumerate(speed.rates_bits_per_second)}
        yield from _not_finite("speeds", {"mean_bits_per_second": speed.mean_bits_per_second, **rates})


def _of_counters(counters: Counters) -> Iterator[str]:
    for name in _COUNTS:
        yield from _outside(f"counters.{name}", getattr(counters, name), _LARGEST_COUNT)
    if counters.sent != counters.received + counters.lost + counters.failed:
        yield "counters.sent: is not received + lost + failed"
    if counters.late > counters.lost:
        yield "counters.late: is more than lost, of which it is part"
    if counters.busy > counters.failed:
        yield "counters.busy: is more than failed, of which it is part"
    if counters.reordered > counters.received:
        yield "counters.reordered: is more than received"


def _of_ratio(record: Record) -> Iterator[str]:
    """The ratio and its interval follow from the counters and are not taken on trust."""
    counters = record.counters
    trials = counters.lost + counters.received
    ratio, interval = record.loss_ratio, record.loss_interval
    if (ratio is None) != (trials == 0) or (interval is None) != (trials == 0):
        yield "loss_ratio: is there without a packet that could tell, or missing where one could"
    if trials and ratio is not None and abs(ratio - counters.lost / trials) > _ROUNDING:
        yield "loss_ratio: is not lost ÷ (lost + received)"
    expected = wilson_interval(counters.lost, trials)
    if interval and expected and any(abs(a - b) > _ROUNDING for a, b in zip(interval, expected, strict=True)):
        yield "loss_interval: is not the Wilson interval of lost and received"


def _of_outcome(record: Record) -> Iterator[str]:
    if (record.outcome is Outcome.RECEIVED) != (record.counters.received > 0):
        yield "outcome: does not agree with counters.received"
    if record.record_id.version != 7:
        yield f"record_id: is a UUID of version {record.record_id.version}, not 7"


def _of_speeds(record: Record) -> Iterator[str]:
    directions = [speed.direction for speed in record.speeds]
    if len(set(directions)) < len(directions):
        yield "speeds: one direction stands there twice"
    if sum(speed.transfers for speed in record.speeds) > record.counters.received:
        yield "speeds: more transfers than were received"
    for position, speed in enumerate(record.speeds):
        rates = speed.rates_bits_per_second
        if not rates or len(rates) != speed.transfers:
            yield f"speeds[{position}]: {len(rates)} rates of {speed.transfers} transfers"
        elif abs(mean(rates) - speed.mean_bits_per_second) > _ROUNDING * max(rates):
            yield f"speeds[{position}].mean_bits_per_second: is not the mean of its rates"


def _of_summary(key: str, summary: Summary, counters: Counters) -> Iterator[str]:
    if summary.min < 0 or summary.max > _LONGEST_SECONDS:
        yield f"{key}: lies outside 0 to {_LONGEST_SECONDS:.0f} seconds"
    ordered = (summary.min, summary.p50, summary.p95, summary.p99, summary.max)
    slack = _ROUNDING * abs(summary.max)
    if any(low > high + slack for low, high in pairwise(ordered)):
        yield f"{key}: its quantiles are not in order"
    if not summary.min - slack <= summary.mean <= summary.max + slack:
        yield f"{key}.mean: lies outside minimum and maximum"
    if not 1 <= summary.count <= counters.received:
        yield f"{key}.count: {summary.count} values of {counters.received} received"


def _of_singleton(key: str, singleton: Singleton) -> Iterator[str]:
    yield from _outside(f"{key}.sequence", singleton.sequence, _LARGEST_COUNT)
    yield from _outside(f"{key}.delay_ns", singleton.delay_ns, _LARGEST_COUNT)
    for name, stamp in (("sent", singleton.sent), ("received", singleton.received)):
        if isinstance(stamp, Stamp):
            yield from _outside(f"{key}.{name}.wall_ns", stamp.wall_ns, _LARGEST_NS)
            yield from _outside(f"{key}.{name}.mono_ns", stamp.mono_ns, _LARGEST_NS)
    if singleton.transfer is not None:
        yield from _outside(f"{key}.transfer.octets", singleton.transfer.octets, _LARGEST_COUNT)
        yield from _outside(f"{key}.transfer.duration_ns", singleton.transfer.duration_ns, _LARGEST_COUNT)
    for phase in singleton.phases:
        yield from _outside(f"{key}.phases.{phase.name}", phase.duration_ns, _LARGEST_COUNT)


def _outside(key: str, value: int | None, largest: int) -> Iterator[str]:
    if value is not None and not 0 <= value <= largest:
        yield f"{key}: lies outside 0 to {largest}"


def _not_finite(key: str, values: Mapping[str, object]) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{key}.{name}" if key else name
