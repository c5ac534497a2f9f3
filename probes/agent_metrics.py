"""What an agent's own metrics page shows: the numbers that also go to the collector with each batch."""

from __future__ import annotations

from collections.abc import Iterator

from nhip.wire import AgentStatus
from probes.agent_config import AccessSection
from probes.metrics import Reading


def probe_labels(probe_id: str, access: AccessSection) -> tuple[str, str, str, str]:
    """The values of the catalog's PROBE labels."""
    return probe_id, access.operator, access.province, access.technology.value


def agent_readings(probe_id: str, access: AccessSection, status: AgentStatus) -> Iterator[Reading]:
    """The catalog's ``nhip_agent_*``; all but the clock's offset, which only the collector can tell."""
    labels = probe_labels(probe_id, access)
    for name, value in (
        ("spool_records", status.spool_records),
        ("spool_bytes", status.spool_octets),
        ("spool_oldest_age_seconds", status.spool_oldest_age_seconds),
        ("spool_dropped_total", status.spool_dropped_total),
        ("tests_total", status.tests_total),
        ("tests_missed_total", status.tests_missed_total),
        ("tests_failed_to_run_total", status.tests_failed_to_run_total),
        ("ship_failures_total", status.ship_failures_total),
        ("schedule_lag_seconds", status.schedule_lag_seconds_max),
    ):
        yield Reading(f"nhip_agent_{name}", value, labels)
