"""Records as a probe would make them, for tests of whatever receives them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from nhip.identifier import uuid7
from nhip.measurement import (
    Access,
    Counters,
    Direction,
    Environment,
    Method,
    Outcome,
    StampSource,
    Summary,
    Target,
    TargetClass,
    Technology,
    TypeP,
)
from nhip.statistics import wilson_interval
from nhip.wire import AgentStatus, Record, Speed, encode_batch, encode_record

SECOND_NS = 1_000_000_000


def record(
    *,
    probe_id: str = "p1",
    operator: str = "alpha",
    province: str = "01",
    technology: Technology = Technology.FIXED,
    environment: Environment = Environment.FIXED,
    kind: str = "icmp",
    target_id: str = "server",
    target_class: TargetClass = TargetClass.DOMESTIC,
    started_wall_ns: int | None = None,
    epoch: str = "none",
    sequence: int = 0,
    delay_seconds: float | None = 0.010,
    received: int = 10,
    lost: int = 0,
    outcome: Outcome = Outcome.RECEIVED,
    **changes: Any,
) -> Record:
    """A valid record of one test; every keyword is a field or one of the usual variations.

    An `outcome` other than received means that nothing was received, whatever `received` says.
    """
    if outcome is not Outcome.RECEIVED:
        received, delay_seconds = 0, None
    failed = 10 if outcome not in (Outcome.RECEIVED, Outcome.LOST, Outcome.NOT_SENT) else 0
    if outcome is Outcome.LOST:
        lost = lost or 10
    started = time.time_ns() if started_wall_ns is None else started_wall_ns
    fields: dict[str, Any] = {
        "schema_version": 1,
        "record_id": uuid7(started),
        "probe_id": probe_id,
        "epoch": epoch,
        "sequence": sequence,
        "kind": kind,
        "method": Method(kind, "1"),
        "software_version": "0.1.0",
        "target": Target(id=target_id, host="198.18.0.2", target_class=target_class),
        "access": Access(
            operator=operator, technology=technology, province=province, environment=environment
        ),
        "type_p": TypeP(protocol=kind, ip_version=4, size_octets=56),
        "outcome": outcome,
        "started_wall_ns": started,
        "duration_ns": SECOND_NS,
        "loss_threshold_seconds": 2.0,
        "counters": Counters(sent=received + lost + failed, received=received, lost=lost, failed=failed),
        "loss_ratio": lost / (received + lost) if received + lost else None,
        "loss_interval": wilson_interval(lost, received + lost),
        "round_trip_delay_seconds": None if delay_seconds is None else around(delay_seconds, received),
        "timestamp_source": StampSource.KERNEL,
        "octets_sent": 560,
        "octets_received": 560,
        "parameters": {"schedule_interval_seconds": 10},
    }
    return Record(**{**fields, **changes})


def around(delay_seconds: float, count: int = 10) -> Summary:
    """A summary whose every location is `delay_seconds`."""
    return Summary(
        unit="seconds",
        count=count,
        min=delay_seconds,
        mean=delay_seconds,
        p50=delay_seconds,
        p95=delay_seconds,
        p99=delay_seconds,
        max=delay_seconds,
    )


def speed(direction: Direction, rates_bits_per_second: Sequence[float]) -> Speed:
    """Whole transfers of those speeds."""
    rates = list(rates_bits_per_second)
    return Speed(
        direction=direction,
        transfers=len(rates),
        octets=1_000_000 * len(rates),
        mean_bits_per_second=sum(rates) / len(rates),
        rates_bits_per_second=rates,
    )


def agent(wall_ns: int | None = None, **changes: Any) -> AgentStatus:
    """What a healthy probe says of itself."""
    return AgentStatus(
        **{
            "software_version": "0.1.0",
            "wall_ns": time.time_ns() if wall_ns is None else wall_ns,
            "mono_ns": 1,
            **changes,
        }
    )


def batch(
    records: Sequence[Record | bytes], *, probe_id: str = "p1", status: AgentStatus | None = None
) -> bytes:
    """The body of one delivery; bytes go in as they are, to stand for records that are none."""
    return encode_batch(
        probe_id, [item if isinstance(item, bytes) else encode_record(item) for item in records], status
    )
