"""What no honest record can say: numbers outside their range and counts that contradict each other.

The types of a record say what a number is; this says what it may be. A probe with a fault, or one that
lies, must not be able to make a counter run backwards or put a median below its minimum.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from statistics import fmean as mean
from typing import TYPE_CHECKING

from nhip.measurement import Counters, Outcome, Singleton, Stamp, Statistic, Summary
from nhip.statistics import DELAY_PROBABILITIES, wilson_interval

if TYPE_CHECKING:
    from nhip.wire import Record

_LARGEST_COUNT = 2**53
_LARGEST_NS = 2**63 - 1
_LONGEST_SECONDS = 1e7
# Sums of floating point numbers end within this share of the exact one.
_ROUNDING = 1e-9
_COUNTS = tuple(field.name for field in dataclasses.fields(Counters))
_SUMMARY_NUMBERS = tuple(
    field.name for field in dataclasses.fields(Summary) if str(field.type).startswith("float")
)
_STATISTIC_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_LONGEST_TEXT = 500
_LARGEST_NUMBER = 1e15


def contradictions(record: Record) -> Iterator[str]:
    """Each thing in `record` that cannot be, as ``key: what is wrong``; nothing for an honest record."""
    yield from _of_counters(record.counters)
    yield from _of_outcome(record)
    yield from _of_ratio(record)
    yield from _of_speeds(record)
    for key in ("round_trip_delay_seconds", "ipdv_seconds", "pdv_seconds"):
        summary: Summary | None = getattr(record, key)
        if summary is not None:
            yield from _of_summary(key, summary, record.counters.received)
    yield from _of_quantiles(record)
    yield from _of_loss_pattern(record)
    yield from _of_directions(record)
    yield from _of_self_timing(record)
    yield from _of_statistics(record)
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
    for one_way in record.one_way_delays:
        values = {name: getattr(one_way.delay_seconds, name) for name in _SUMMARY_NUMBERS}
        yield from _not_finite("one_way_delays", values | {"error_seconds": one_way.error_seconds})
    for name, summary in _timings(record):
        yield from _not_finite(name, {number: getattr(summary, number) for number in _SUMMARY_NUMBERS})
    for statistic in record.statistics:
        yield from _not_finite(f"statistics.{statistic.name}", {"value": statistic.value})
    if record.loss_pattern is not None:
        yield from _not_finite("loss_pattern", dataclasses.asdict(record.loss_pattern))
    quantiles = record.round_trip_delay_quantiles_seconds or ()
    yield from _not_finite(
        "round_trip_delay_quantiles_seconds",
        {str(position): value for position, value in enumerate(quantiles)},
    )
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


def _of_summary(key: str, summary: Summary, most: int, *, lowest_seconds: float = 0.0) -> Iterator[str]:
    if summary.min < lowest_seconds or summary.max > _LONGEST_SECONDS:
        yield f"{key}: lies outside {lowest_seconds:g} to {_LONGEST_SECONDS:.0f} seconds"
    p999 = summary.max if summary.p999 is None else summary.p999
    ordered = (summary.min, summary.p50, summary.p95, summary.p99, p999, summary.max)
    slack = _ROUNDING * abs(summary.max)
    if any(low > high + slack for low, high in pairwise(ordered)):
        yield f"{key}: its quantiles are not in order"
    if not summary.min - slack <= summary.mean <= summary.max + slack:
        yield f"{key}.mean: lies outside minimum and maximum"
    if not 1 <= summary.count <= most:
        yield f"{key}.count: {summary.count} values of {most} packets"


def _of_quantiles(record: Record) -> Iterator[str]:
    key = "round_trip_delay_quantiles_seconds"
    quantiles, delay = record.round_trip_delay_quantiles_seconds, record.round_trip_delay_seconds
    if quantiles is None:
        return
    if len(quantiles) != len(DELAY_PROBABILITIES):
        yield f"{key}: {len(quantiles)} values of {len(DELAY_PROBABILITIES)}"
    elif delay is None:
        yield f"{key}: are there without a delay"
    else:
        slack = _ROUNDING * abs(delay.max)
        if any(low > high for low, high in pairwise(quantiles)):
            yield f"{key}: are not in order"
        at = dict(zip(DELAY_PROBABILITIES, quantiles, strict=True))
        told = {0.0: delay.min, 0.5: delay.p50, 0.95: delay.p95, 0.99: delay.p99, 1.0: delay.max}
        if any(abs(at[probability] - value) > slack for probability, value in told.items()):
            yield f"{key}: do not agree with round_trip_delay_seconds"


def _of_loss_pattern(record: Record) -> Iterator[str]:
    pattern, lost = record.loss_pattern, record.counters.lost
    if pattern is None:
        return
    if not 0 <= pattern.periods <= lost or (pattern.periods == 0) != (lost == 0):
        yield f"loss_pattern.periods: {pattern.periods} periods of {lost} lost packets"
    if not 0 <= pattern.longest_period_packets <= lost:
        yield f"loss_pattern.longest_period_packets: is more than the {lost} lost"
    if (pattern.mean_period_packets is None) != (pattern.periods == 0):
        yield "loss_pattern.mean_period_packets: is there without a period, or missing"
    elif abs((pattern.mean_period_packets or 0.0) * pattern.periods - lost) > _ROUNDING * max(lost, 1):
        yield "loss_pattern.mean_period_packets: is not lost ÷ periods"
    for name in ("shortest_distance_packets", "median_distance_packets"):
        value = getattr(pattern, name)
        if (value is None) != (lost < 2) or (value is not None and value < 1):
            yield f"loss_pattern.{name}: cannot be of {lost} lost packets"


def _of_directions(record: Record) -> Iterator[str]:
    found, counters = record.directional_loss, record.counters
    if found is not None:
        parts = (found.lost_up, found.lost_down, found.undetermined)
        if min(found.sent, *parts) < 0 or found.sent > counters.sent:
            yield "directional_loss: its counts cannot be"
        # An answer that came late is lost by the threshold, and yet in no direction.
        if not counters.lost - counters.late <= sum(parts) <= counters.lost:
            yield "directional_loss: its parts are not what was lost"
    directions = [one_way.direction for one_way in record.one_way_delays]
    if len(set(directions)) < len(directions):
        yield "one_way_delays: one direction stands there twice"
    for one_way in record.one_way_delays:
        key = f"one_way_delays.{one_way.direction}"
        if not 0 < one_way.error_seconds <= _LONGEST_SECONDS:
            yield f"{key}.error_seconds: is no error of two clocks"
            continue
        lowest = -one_way.error_seconds
        yield from _of_summary(key, one_way.delay_seconds, counters.received, lowest_seconds=lowest)


def _of_self_timing(record: Record) -> Iterator[str]:
    timing = record.self_timing
    if timing is None:
        return
    most = record.counters.sent + record.counters.not_sent
    for name, summary in _timings(record):
        yield from _of_summary(name, summary, most)
    if not 0 < timing.error_share_limit <= 1:
        yield "self_timing.error_share_limit: is no share"


def _timings(record: Record) -> Iterator[tuple[str, Summary]]:
    if record.self_timing is not None:
        for field in dataclasses.fields(record.self_timing):
            value = getattr(record.self_timing, field.name)
            if isinstance(value, Summary):
                yield f"self_timing.{field.name}", value


def _of_statistics(record: Record) -> Iterator[str]:
    seen = set()
    for position, statistic in enumerate(record.statistics):
        key = f"statistics[{position}]"
        if not _STATISTIC_NAME.fullmatch(statistic.name):
            yield f"{key}.name: is no identifier"
        if not statistic.definition:
            yield f"{key}.definition: is missing"
        if max(len(statistic.definition), len(statistic.unit), len(statistic.of)) > _LONGEST_TEXT:
            yield f"{key}: a text is longer than {_LONGEST_TEXT}"
        lowest, highest = _range_of(statistic)
        if statistic.value is not None and not lowest <= statistic.value <= highest:
            yield f"{key}.value: lies outside {lowest:g} to {highest:g}"
        yield from _outside(f"{key}.count", statistic.count, _LARGEST_COUNT)
        if (statistic.name, statistic.of) in seen:
            yield f"{key}: {statistic.name} {statistic.of} stands there twice"
        seen.add((statistic.name, statistic.of))


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


def _range_of(statistic: Statistic) -> tuple[float, float]:
    """Between what a number of that name and unit can lie; MOS by ITU-T G.107 Annex B."""
    if statistic.name == "mos":
        return 1.0, 4.5
    if statistic.unit == "ratio":
        return 0.0, 1.0
    return -_LARGEST_NUMBER, _LARGEST_NUMBER


def _outside(key: str, value: int | None, largest: int) -> Iterator[str]:
    if value is not None and not 0 <= value <= largest:
        yield f"{key}: lies outside 0 to {largest}"


def _not_finite(key: str, values: Mapping[str, object]) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{key}.{name}" if key else name
