"""What ``nhip measure`` tells programs of one sample: a JSON document and an exit code."""

from __future__ import annotations

from typing import Any

import msgspec

from nhip import statistics, wire
from nhip.measurement import Outcome, Sample

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
        "round_trip_delay_seconds": statistics.summary(
            statistics.delays_seconds(sample.singletons), "seconds"
        ),
        "ipdv_seconds": statistics.summary(differences, "seconds"),
        "pdv_seconds": statistics.summary(statistics.pdv_seconds(sample.singletons), "seconds"),
        "round_trip_delay_quantiles_seconds": statistics.delay_quantiles_seconds(sample.singletons),
        "reordered_ratio": statistics.reordered_ratio(counters),
        "duplicate_ratio": statistics.duplicate_ratio(counters),
        "loss_pattern": statistics.loss_pattern(sample.singletons),
        "directional_loss": sample.directional_loss,
        "one_way_delays": statistics.one_way_delays(sample.singletons),
        "self_timing": statistics.self_timing(sample.singletons),
        "statistics": list(sample.statistics),
        "facts": dict(sample.facts),
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
