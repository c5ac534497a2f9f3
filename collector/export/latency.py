"""What the last test of a series tells of delay, loss and the probe's own timing, for Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from nhip.measurement import Direction, Summary
from nhip.statistics import DELAY_PROBABILITIES, duplicate_ratio, reordered_ratio
from nhip.wire import Record

_PERCENTILES = {"p50": "50", "p95": "95", "p99": "99", "p999": "99.9"}


class Families(Protocol):
    """What takes the samples; one without a value is left out."""

    def add(self, name: str, labels: Sequence[str], value: float | None) -> None:
        """One sample of the family `name`."""


def add_latency(families: Families, labels: Sequence[str], record: Record) -> None:
    """Every sample that `record` has a number for."""
    _add_percentiles(families, "nhip_probe_last_pdv_percentile_seconds", labels, record.pdv_seconds)
    _add_percentiles(families, "nhip_probe_last_ipdv_percentile_seconds", labels, record.ipdv_seconds)
    quantiles = record.round_trip_delay_quantiles_seconds
    if quantiles is not None:
        for probability, seconds in zip(DELAY_PROBABILITIES, quantiles, strict=True):
            families.add(
                "nhip_probe_last_round_trip_delay_percentile_seconds",
                (*labels, f"{probability * 100:g}"),
                seconds,
            )
    for one_way in record.one_way_delays:
        direction = (*labels, one_way.direction.value)
        families.add("nhip_probe_last_one_way_delay_seconds", direction, one_way.delay_seconds.p50)
        families.add("nhip_probe_last_one_way_error_seconds", direction, one_way.error_seconds)
    where = record.directional_loss
    if where is not None:
        name = "nhip_probe_last_directional_lost_packets"
        families.add(name, (*labels, Direction.UP.value), where.lost_up)
        families.add(name, (*labels, Direction.DOWN.value), where.lost_down)
    if record.loss_pattern is not None:
        longest = record.loss_pattern.longest_period_packets
        families.add("nhip_probe_last_longest_loss_period_packets", labels, longest)
    families.add("nhip_probe_last_reordered_ratio", labels, reordered_ratio(record.counters))
    families.add("nhip_probe_last_duplicate_ratio", labels, duplicate_ratio(record.counters))
    _add_self_timing(families, labels, record)


def _add_self_timing(families: Families, labels: Sequence[str], record: Record) -> None:
    timing = record.self_timing
    if timing is None:
        return
    families.add("nhip_probe_last_timestamp_source_info", (*labels, record.timestamp_source.value), 1)
    families.add("nhip_probe_last_send_lag_seconds", labels, _p99(timing.send_lag_seconds))
    queueing = "nhip_probe_last_queueing_seconds"
    families.add(queueing, (*labels, Direction.UP.value), _p99(timing.send_queueing_seconds))
    families.add(queueing, (*labels, Direction.DOWN.value), _p99(timing.receive_queueing_seconds))
    families.add("nhip_probe_last_own_error_seconds", labels, _p99(timing.own_error_seconds))
    if record.round_trip_delay_seconds is not None:
        families.add("nhip_probe_last_delay_doubtful", labels, float(timing.doubtful))


def _add_percentiles(families: Families, name: str, labels: Sequence[str], summary: Summary | None) -> None:
    if summary is not None:
        for point, percentile in _PERCENTILES.items():
            families.add(name, (*labels, percentile), getattr(summary, point))


def _p99(summary: Summary | None) -> float | None:
    return None if summary is None else summary.p99
