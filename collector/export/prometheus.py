"""The ``/metrics`` page: the current state in Prometheus' text format, every name out of nhip/catalog.py.

Each scrape is made from the state alone and changes nothing. Operator, province and technology come from the
collector's own list of probes; what comes from a record is a closed word or a checked name. A result that has
expired is absent, which is what makes Prometheus call the series stale.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector as Source

from collector.collector_config import CollectorConfig, ProbeEntry, declared_bits_per_second
from collector.export.findings import add_findings
from collector.export.latency import add_latency
from collector.export.readiness import Readiness
from collector.forecast_check import date_seconds
from collector.ingest import IngestCounters
from collector.state import ProbeState, Series, SeriesKey, Snapshot, answered, is_silent
from collector.store.api import StoreCounts
from nhip import __version__
from nhip.catalog import CATALOG, COMMIT_BUCKETS_SECONDS, DELAY_BUCKETS_SECONDS, MetricKind
from nhip.clock import Clock
from nhip.measurement import Direction, Technology
from nhip.wire import LinkForecast

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Sequence[str]


class Exporter(Source):
    """Renders ``/metrics``; everything it shows is handed in as something to ask."""

    def __init__(
        self,
        config: CollectorConfig,
        snapshot: Callable[[], Snapshot],
        counters: Callable[[], IngestCounters],
        store_counts: Callable[[], StoreCounts],
        forecasts: Callable[[], Sequence[LinkForecast]],
        clock: Clock,
    ) -> None:
        self._config = config
        self._snapshot = snapshot
        self._counters = counters
        self._store_counts = store_counts
        self._forecasts = forecasts
        self._clock = clock
        self._readiness = Readiness()

    def page(self, *, compressed: bool = False) -> bytes:
        """The page as Prometheus reads it."""
        text = generate_latest(self)
        return gzip.compress(text, 1) if compressed else text

    def collect(self) -> Iterator[Family]:
        """Every family that has a sample now; the interface prometheus_client asks for."""
        families = _Families()
        snapshot = self._snapshot()
        entries = {probe.entry.id: probe.entry for probe in snapshot.probes}
        for series in snapshot.known_series:
            _add_counters(families, _series_labels(entries[series.key.probe_id], series.key), series)
        for series in snapshot.series:
            _add_results(families, _series_labels(entries[series.key.probe_id], series.key), series)
        self._readiness.add(
            families,
            snapshot,
            lambda series: _series_labels(entries[series.key.probe_id], series.key),
        )
        for probe in snapshot.probes:
            self._add_configured(families, probe.entry)
            _add_probe(families, probe, silent=is_silent(probe, snapshot, self._config.status))
        self._add_own(families, snapshot)
        oldest_wall_ns = self._clock.wall_ns() - round(self._config.status.forecast_days * 86_400e9)
        for forecast in self._forecasts():
            _add_link(families, forecast)
            if forecast.made_at_wall_ns >= oldest_wall_ns:
                _add_limits(families, forecast)
        return iter(families)

    def _add_configured(self, families: _Families, probe: ProbeEntry) -> None:
        for technology in probe.technologies:
            families.add("nhip_probe_configured", _probe_labels(probe, technology), 1)
            for direction in Direction:
                speed = declared_bits_per_second(self._config, probe, technology, direction)
                labels = (*_probe_labels(probe, technology), direction)
                families.add("nhip_probe_declared_speed_bits_per_second", labels, speed)

    def _add_own(self, families: _Families, snapshot: Snapshot) -> None:
        counters, stored = self._counters(), self._store_counts()
        families.add("nhip_collector_batches_total", (), counters.batches)
        families.add("nhip_collector_records_stored_total", (), counters.stored)
        families.add("nhip_collector_records_duplicate_total", (), counters.duplicate)
        families.add("nhip_collector_observer_failures_total", (), counters.observer_failures)
        families.add("nhip_collector_quarantine_evicted_total", (), stored.quarantine_evicted)
        families.add("nhip_collector_journal_records", (), stored.journal_records)
        families.add("nhip_collector_archive_failures_total", (), stored.archive_failures)
        families.add("nhip_collector_series", (), len(snapshot.series))
        families.add("nhip_collector_series_refused_total", (), snapshot.series_refused)
        families.add("nhip_collector_info", (__version__,), 1)
        for reason, count in sorted(counters.refused.items()):
            families.add("nhip_collector_batches_refused_total", (reason,), count)
        for reason, count in sorted(counters.quarantined.items()):
            families.add("nhip_collector_records_quarantined_total", (reason,), count)
        families.add_histogram(
            "nhip_collector_commit_seconds",
            (),
            COMMIT_BUCKETS_SECONDS,
            counters.commit_buckets,
            counters.commit_seconds_sum,
        )


class _Families:
    """Metric families by name, each made from its line in the catalog when its first sample comes."""

    def __init__(self) -> None:
        self._found: dict[str, Family] = {}

    def __iter__(self) -> Iterator[Family]:
        return iter([self._found[name] for name in CATALOG if name in self._found])

    def add(self, name: str, labels: Labels, value: float | None) -> None:
        """One sample; nothing when there is no value, for no data is never zero."""
        if value is None:
            return
        family = self._family(name, labels)
        assert isinstance(family, GaugeMetricFamily | CounterMetricFamily)  # noqa: S101 - catalog says so
        family.add_metric(labels, value)

    def add_histogram(
        self, name: str, labels: Labels, edges: Sequence[float], counts: Sequence[int], total: float
    ) -> None:
        """One histogram from the counts between its edges, the last count being above them all."""
        family = self._family(name, labels)
        assert isinstance(family, HistogramMetricFamily)  # noqa: S101 - catalog says so
        buckets, below = [], 0
        for edge, count in zip((*map(repr, edges), "+Inf"), counts, strict=True):
            below += count
            buckets.append((edge, float(below)))
        family.add_metric(labels, buckets, total)

    def _family(self, name: str, labels: Labels) -> Family:
        metric = CATALOG[name]
        if len(labels) != len(metric.labels):
            raise ValueError(f"{name} has the labels {metric.labels}, not {len(labels)} of them")
        family = self._found.get(name)
        if family is None:
            family = self._found[name] = _MAKERS[metric.kind](name, metric.help_en, labels=metric.labels)
        return family


_MAKERS: dict[MetricKind, Callable[..., Family]] = {
    MetricKind.COUNTER: CounterMetricFamily,
    MetricKind.GAUGE: GaugeMetricFamily,
    MetricKind.HISTOGRAM: HistogramMetricFamily,
}


def _probe_labels(probe: ProbeEntry, technology: Technology) -> tuple[str, ...]:
    return probe.id, probe.operator, probe.province, technology


def _series_labels(probe: ProbeEntry, key: SeriesKey) -> tuple[str, ...]:
    return (*_probe_labels(probe, key.technology), key.kind, key.target_id, key.target_class)


def _add_results(families: _Families, labels: Labels, series: Series) -> None:
    record = series.last
    success = answered(record)
    families.add("nhip_probe_success", labels, None if success is None else float(success))
    families.add("nhip_probe_last_run_timestamp_seconds", labels, record.started_wall_ns / 1e9)
    if record.round_trip_delay_seconds is not None:
        families.add("nhip_probe_last_round_trip_delay_seconds", labels, record.round_trip_delay_seconds.p50)
    if record.pdv_seconds is not None:
        families.add("nhip_probe_last_pdv_seconds", labels, record.pdv_seconds.p95)
    families.add("nhip_probe_last_loss_ratio", labels, record.loss_ratio)
    add_latency(families, labels, record)
    add_findings(families, labels, record)
    for phase in PHASES:
        families.add("nhip_probe_last_phase_seconds", (*labels, phase), record.phases_seconds.get(phase))
    for speed in record.speeds:
        families.add(
            "nhip_probe_last_speed_bits_per_second", (*labels, speed.direction), speed.mean_bits_per_second
        )


PHASES = (
    *("dns", "happy_eyeballs", "redirects", "tcp", "tls", "quic", "first_byte", "transfer"),
    *("query", "retry_tcp", "retry_query"),
)
"""The phases shown; a closed list, since a label a probe may choose freely is a flood."""


def _add_counters(families: _Families, labels: Labels, series: Series) -> None:
    families.add("nhip_probe_tests_total", labels, series.tests)
    families.add("nhip_probe_test_failures_total", labels, series.failures)
    families.add("nhip_probe_packets_sent_total", labels, series.packets_sent)
    families.add("nhip_probe_packets_received_total", labels, series.packets_received)
    families.add("nhip_probe_packets_failed_total", labels, series.packets_failed)
    families.add("nhip_probe_packets_lost_total", labels, series.packets_lost)
    families.add("nhip_probe_packets_duplicate_total", labels, series.packets_duplicate)
    families.add("nhip_probe_packets_reordered_total", labels, series.packets_reordered)
    families.add("nhip_probe_volume_bytes_total", labels, series.volume_octets)
    if any(series.delay_buckets):
        families.add_histogram(
            "nhip_probe_round_trip_delay_seconds",
            labels,
            DELAY_BUCKETS_SECONDS,
            series.delay_buckets,
            series.delay_sum_seconds,
        )


def _add_probe(families: _Families, probe: ProbeState, *, silent: bool) -> None:
    entry = probe.entry
    labels = _probe_labels(entry, entry.technologies[0])
    if probe.last_seen_wall_ns is not None:
        families.add("nhip_probe_last_seen_timestamp_seconds", labels, probe.last_seen_wall_ns / 1e9)
    if silent:
        return
    if probe.software_version is not None:
        families.add("nhip_probe_info", (*labels, entry.environment, probe.software_version), 1)
    families.add("nhip_agent_clock_offset_seconds", labels, probe.clock_offset_seconds)
    agent = probe.agent
    if agent is None:
        return
    families.add("nhip_agent_spool_records", labels, agent.spool_records)
    families.add("nhip_agent_spool_bytes", labels, agent.spool_octets)
    families.add("nhip_agent_spool_oldest_age_seconds", labels, agent.spool_oldest_age_seconds)
    families.add("nhip_agent_spool_dropped_total", labels, agent.spool_dropped_total)
    families.add("nhip_agent_tests_total", labels, agent.tests_total)
    families.add("nhip_agent_tests_missed_total", labels, agent.tests_missed_total)
    families.add("nhip_agent_tests_failed_to_run_total", labels, agent.tests_failed_to_run_total)
    families.add("nhip_agent_ship_failures_total", labels, agent.ship_failures_total)
    families.add("nhip_agent_schedule_lag_seconds", labels, agent.schedule_lag_seconds_max)


def _add_link(families: _Families, forecast: LinkForecast) -> None:
    link = (forecast.link_id, forecast.provenance)
    families.add("nhip_link_capacity_bits_per_second", link, forecast.capacity_bits_per_second)
    families.add("nhip_link_forecast_made_timestamp_seconds", link, forecast.made_at_wall_ns / 1e9)


def _add_limits(families: _Families, forecast: LinkForecast) -> None:
    link = (forecast.link_id, forecast.provenance)
    shown: set[str] = set()
    for limit in forecast.limits:
        if limit.rule_id in shown:
            continue
        shown.add(limit.rule_id)
        rule = (*link, limit.rule_id)
        crossing = None if limit.median_date is None else date_seconds(limit.median_date)
        families.add("nhip_link_forecast_limit_timestamp_seconds", rule, crossing)
        families.add("nhip_link_forecast_limit_probability", rule, limit.probability_before_lead_time)
        lead_days = limit.lead_time_days
        families.add(
            "nhip_link_forecast_lead_time_seconds", rule, None if lead_days is None else lead_days * 86_400
        )
        if limit.verdict != "no_capacity":
            families.add("nhip_link_over_limit", rule, float(limit.verdict == "already_over"))
