"""What the agent's metrics page shows of the engine. Without numpy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from probes.metrics import Reading

_PLAIN = {
    "targets": "targets",
    "capacity_probes_per_second": "most_probes_per_second",
    "probes_planned_total": "planned",
    "probes_sent_total": "handed_over",
    "probes_missed_total": "missed",
    "probes_in_flight": "in_flight",
    "delays_undefined_total": "without_delay",
    "clock_steps_total": "clock_steps",
    "address_changes_total": "address_changes",
    "packets_dropped_total": "buffer_drops",
    "windows_dropped_total": "windows_dropped",
    "cpu_seconds_total": "cpu_seconds",
    "memory_bytes": "memory_octets",
}
_STRAYS = ("foreign", "forged", "stale")
_USER_STAMPS = {"sent": "sent_by_user_stamp", "received": "received_by_user_stamp"}
_LAGS = {"50": "lag_p50_seconds", "99": "lag_p99_seconds", "100": "lag_max_seconds"}


def engine_readings(
    labels: tuple[str, ...], readings: Mapping[str, Any], *, restarts: int
) -> Iterator[Reading]:
    """The catalog's ``nhip_engine_*`` from what the engine last said; only the restarts before it did."""
    yield Reading("nhip_engine_restarts_total", restarts, labels)
    for name, key in _PLAIN.items():
        yield Reading(f"nhip_engine_{name}", readings.get(key), labels)
    for kind in _STRAYS:
        yield Reading("nhip_engine_stray_replies_total", readings.get(kind), (*labels, kind))
    for direction, key in _USER_STAMPS.items():
        yield Reading("nhip_engine_stamps_without_kernel_total", readings.get(key), (*labels, direction))
    for percentile, key in _LAGS.items():
        yield Reading("nhip_engine_send_lag_seconds", readings.get(key), (*labels, percentile))
    refused: Mapping[str, int] = {"EPERM": 0, "ENOBUFS": 0} | (readings.get("refused_by_host") or {})
    for reason, count in sorted(refused.items()):
        yield Reading("nhip_engine_probes_withheld_total", count, (*labels, reason.lower()))
