"""The /metrics page: out of the catalog, readable by Prometheus' own parser, and impossible to break."""

from __future__ import annotations

import gzip
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from collector.export.readiness import _scores
from collector.service import Collector
from nhip.catalog import CATALOG, MetricKind
from nhip.measurement import (
    Direction,
    DirectionalLoss,
    LossPattern,
    OneWaySummary,
    Outcome,
    SelfTiming,
    Statistic,
)
from nhip.wire import LimitForecast, LinkForecast
from tests.lab import collectors
from tests.lab.collectors import FORECAST_KEY, PROBE, Client
from tests.lab.fake_clock import FakeClock
from tests.lab.records import agent, around, batch, record, speed

ON_THE_SERVERS_PAGE = ("nhip_server_", "nhip_reflector_", "nhip_dns_responder_", "nhip_engine_")
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def collector(tmp_path: Path, clock: FakeClock) -> Iterator[Collector]:
    settings = collectors.config(
        tmp_path,
        declared=[{"operator": "alpha", "technology": "fixed", "down_bits_per_second": 150e6}],
    )
    with collectors.running(settings, clock) as running:
        yield running


@pytest.fixture
def client(collector: Collector) -> Iterator[Client]:
    with Client(collector.port or 0) as client:
        yield client


VOICE_STATISTICS = (
    *("mos", "r_factor", "mouth_to_ear_seconds", "rtp_jitter_seconds"),
    *("jitter_buffer_discard_ratio", "voice_loss_ratio"),
)


FINDINGS = (
    ("certificate_expiry_timestamp", ""),
    ("tcp_connect_ipv4", ""),
    ("tcp_connect_ipv6", ""),
    ("dns_answers", "NXDOMAIN"),
    ("dns_truncated_answers", ""),
    ("dns_server_instances", ""),
    ("reflector_send_lag_seconds", ""),
    ("reflector_clock_offset_seconds", ""),
    ("interface_octets_sent", ""),
    ("interface_octets_received", ""),
    ("directional_reordered_ratio", "up"),
)


def finding(name: str, of: str) -> Statistic:
    return Statistic(name=name, value=7.0, unit="number", count=1, definition="as the test says", of=of)


def voice(name: str, of: str) -> Statistic:
    return Statistic(name=name, value=4.2, unit="score", count=2_000, definition="as the test says", of=of)


def everything(clock: FakeClock) -> bytes:
    """A batch after which every family of the catalog that a probe feeds has a sample."""
    now = clock.wall_ns()
    return batch(
        [
            record(
                started_wall_ns=now,
                lost=1,
                pdv_seconds=around(0.001),
                ipdv_seconds=around(0.002),
                loss_ratio=1 / 11,
                round_trip_delay_quantiles_seconds=[0.01] * 10,
                loss_pattern=LossPattern(
                    periods=1,
                    longest_period_packets=1,
                    mean_period_packets=1.0,
                    shortest_distance_packets=None,
                    median_distance_packets=None,
                ),
                directional_loss=DirectionalLoss(sent=11, lost_up=1, lost_down=0, undetermined=0),
                one_way_delays=[
                    OneWaySummary(direction=direction, delay_seconds=around(0.005), error_seconds=0.0001)
                    for direction in Direction
                ],
                self_timing=SelfTiming(
                    send_lag_seconds=around(0.0001),
                    send_queueing_seconds=around(0.00002),
                    receive_queueing_seconds=around(0.00003),
                    own_error_seconds=around(1e-7),
                    error_share_limit=0.1,
                    doubtful=False,
                ),
            ),
            record(
                started_wall_ns=now,
                kind="voice",
                received=2_000,
                delay_seconds=0.02,
                round_trip_delay_quantiles_seconds=[0.02] * 10,
                statistics=[voice(name, "g711/up") for name in VOICE_STATISTICS]
                + [voice("mos", "codec of nobody/up"), voice("mos", "g711"), voice("odd", "g711/up")],
            ),
            record(
                started_wall_ns=now,
                kind="tls",
                delay_seconds=None,
                facts={"tls_version": "TLSv1.3", "http_version": "a text of the far end's choosing"},
                statistics=[finding(name, of) for name, of in FINDINGS]
                + [finding("dns_answers", "a code of nobody")],
            ),
            record(
                started_wall_ns=now,
                kind="http",
                delay_seconds=None,
                phases_seconds={"dns": 0.01, "tcp": 0.02, "odd": 1.0},
            ),
            record(
                started_wall_ns=now,
                kind="file_transfer",
                delay_seconds=None,
                speeds=[speed(Direction.DOWN, [1e8, 2e8]), speed(Direction.UP, [5e7])],
            ),
            b"{}",
        ],
        status=agent(
            now, spool_oldest_age_seconds=3.0, schedule_lag_seconds_max=0.1, spool_octets=4096, tests_total=77
        ),
    )


def forecast(clock: FakeClock) -> bytes:
    limits = [
        LimitForecast(
            rule_id="peak90",
            statistic="p95",
            limit_ratio=0.9,
            verdict="crosses",
            median_date="2027-03-01",
            probability_before_lead_time=0.4,
            lead_time_days=90,
        ),
        LimitForecast(rule_id="mean80", statistic="mean", verdict="never"),
        LimitForecast(rule_id="unknown", statistic="mean", verdict="no_capacity"),
    ]
    link = LinkForecast(
        link_id="hn-hcm",
        series_id="s",
        produced_by="ets",
        made_at_wall_ns=clock.wall_ns(),
        unit="bit/s",
        step_seconds=3600,
        provenance="simulated",
        capacity_bits_per_second=1e10,
        limits=limits,
    )
    return msgspec.json.encode([link])


def samples(client: Client) -> Samples:
    text = client.get("/metrics").body.decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    matching = [
        number
        for (sample, of), number in found.items()
        if sample == name and labels.items() <= dict(of).items()
    ]
    assert len(matching) <= 1, matching
    return matching[0] if matching else None


def test_every_family_is_in_the_catalog_with_its_labels_and_kind(client: Client, clock: FakeClock) -> None:
    client.post(everything(clock))
    client.post(b"no batch")
    with Client(client.port, FORECAST_KEY) as publisher:
        publisher.request("POST", "/api/v1/forecasts", forecast(clock), {"Content-Type": "application/json"})
    text = client.get("/metrics").body.decode()
    seen = set()
    for family in text_string_to_metric_families(text):
        name = family.name + "_total" if family.type == "counter" else family.name
        metric = CATALOG[name]
        seen.add(name)
        assert (family.type, family.documentation) == (metric.kind.value, metric.help_en)
        assert family.samples
        for sample in family.samples:
            extra = {"le"} if sample.name.endswith("_bucket") else set()
            assert set(sample.labels) - extra == set(metric.labels)
            assert sample.timestamp is None
    assert "_created" not in text
    assert seen == {name for name in CATALOG if not name.startswith(ON_THE_SERVERS_PAGE)}


def test_the_values_are_those_of_the_records(client: Client, clock: FakeClock) -> None:
    client.post(everything(clock))
    found = samples(client)
    assert value(found, "nhip_probe_success", kind="icmp") == 1
    assert value(found, "nhip_probe_last_round_trip_delay_seconds", kind="icmp") == 0.01
    assert value(found, "nhip_probe_last_loss_ratio", kind="icmp") == pytest.approx(1 / 11)
    assert value(found, "nhip_probe_last_phase_seconds", phase="tcp") == 0.02
    assert value(found, "nhip_probe_last_phase_seconds", phase="odd") is None
    assert value(found, "nhip_probe_last_speed_bits_per_second", direction="down") == 1.5e8
    assert value(found, "nhip_probe_declared_speed_bits_per_second", direction="down") == 1.5e8
    assert value(found, "nhip_probe_declared_speed_bits_per_second", direction="up") is None
    assert value(found, "nhip_probe_packets_lost_total", kind="icmp") == 1
    assert value(found, "nhip_probe_packets_received_total", kind="icmp") == 10
    assert value(found, "nhip_probe_packets_failed_total", kind="icmp") == 0
    assert value(found, "nhip_agent_spool_bytes") == 4096
    assert value(found, "nhip_agent_tests_total") == 77
    assert value(found, "nhip_probe_round_trip_delay_seconds_bucket", kind="icmp", le="0.01") == 1
    assert value(found, "nhip_probe_round_trip_delay_seconds_bucket", kind="icmp", le="0.005") == 0
    assert value(found, "nhip_agent_spool_oldest_age_seconds") == 3.0
    assert value(found, "nhip_collector_records_quarantined_total", reason="malformed") == 1
    assert value(found, "nhip_collector_records_stored_total") == 5
    assert value(found, "nhip_collector_batches_total") == 1


def test_a_forecast_shows_dates_as_seconds_and_only_what_exists(client: Client, clock: FakeClock) -> None:
    with Client(client.port, FORECAST_KEY) as publisher:
        publisher.request("POST", "/api/v1/forecasts", forecast(clock), {"Content-Type": "application/json"})
    found = samples(client)
    assert value(found, "nhip_link_forecast_limit_timestamp_seconds", rule="peak90") == 1803859200
    assert value(found, "nhip_link_forecast_limit_timestamp_seconds", rule="mean80") is None
    assert value(found, "nhip_link_forecast_lead_time_seconds", rule="peak90") == 90 * 86_400
    assert value(found, "nhip_link_over_limit", rule="mean80") == 0
    assert value(found, "nhip_link_over_limit", rule="unknown") is None
    assert value(found, "nhip_link_capacity_bits_per_second", provenance="simulated") == 1e10


def test_a_forecast_of_long_ago_shows_only_capacity_and_date(client: Client, clock: FakeClock) -> None:
    with Client(client.port, FORECAST_KEY) as publisher:
        publisher.request("POST", "/api/v1/forecasts", forecast(clock), {"Content-Type": "application/json"})
    clock.advance(7 * 86_400)
    assert value(samples(client), "nhip_link_forecast_limit_probability", rule="peak90") == 0.4
    clock.advance(1)
    names = {name for name, _labels in samples(client) if name.startswith("nhip_link_")}
    assert names == {"nhip_link_capacity_bits_per_second", "nhip_link_forecast_made_timestamp_seconds"}


def test_every_configured_access_is_there_before_its_first_word(tmp_path: Path, clock: FakeClock) -> None:
    probe = {**PROBE, "technologies": ["4g", "5g"]}
    with (
        collectors.running(collectors.config(tmp_path, probe=[probe]), clock) as collector,
        Client(collector.port or 0) as client,
    ):
        found = samples(client)
    for technology in ("4g", "5g"):
        assert value(found, "nhip_probe_configured", probe="p1", technology=technology) == 1
    assert value(found, "nhip_probe_last_seen_timestamp_seconds") is None


def test_evictions_and_failing_pages_are_counted(
    client: Client, collector: Collector, clock: FakeClock
) -> None:
    def broken(records: object) -> None:
        raise ZeroDivisionError

    bad = [b'{"n":%d}' % number for number in range(1003)]
    client.post(batch([record(started_wall_ns=clock.wall_ns()), *bad]))
    collector.ingest._observer = broken  # type: ignore[assignment]
    client.post(batch([record(started_wall_ns=clock.wall_ns())]))
    found = samples(client)
    assert value(found, "nhip_collector_quarantine_evicted_total") == 3
    assert value(found, "nhip_collector_observer_failures_total") == 1


def test_what_does_not_exist_has_no_sample(client: Client, clock: FakeClock) -> None:
    lost = record(
        started_wall_ns=clock.wall_ns(), received=0, lost=10, outcome=Outcome.LOST, delay_seconds=None
    )
    client.post(batch([lost]))
    found = samples(client)
    assert value(found, "nhip_probe_success") == 0
    assert value(found, "nhip_probe_last_round_trip_delay_seconds") is None
    assert value(found, "nhip_probe_last_loss_ratio") == 1
    assert value(found, "nhip_probe_round_trip_delay_seconds_count") is None
    assert value(found, "nhip_probe_test_failures_total") == 1


def test_a_test_that_was_never_sent_is_neither_success_nor_failure(client: Client, clock: FakeClock) -> None:
    unsent = record(started_wall_ns=clock.wall_ns(), received=0, outcome=Outcome.NOT_SENT, delay_seconds=None)
    client.post(batch([unsent]))
    found = samples(client)
    assert value(found, "nhip_probe_success") is None
    assert value(found, "nhip_probe_test_failures_total") == 0
    assert value(found, "nhip_probe_tests_total") == 1


def test_results_vanish_when_they_are_overdue_and_counters_stay(client: Client, clock: FakeClock) -> None:
    client.post(batch([record(started_wall_ns=clock.wall_ns())], status=agent(clock.wall_ns())))
    clock.advance(31)
    found = samples(client)
    assert value(found, "nhip_probe_success") is None
    assert value(found, "nhip_collector_series") == 0
    assert value(found, "nhip_probe_tests_total") == 1
    clock.advance(200)
    found = samples(client)
    assert value(found, "nhip_agent_spool_records") is None
    assert value(found, "nhip_probe_info") is None
    assert value(found, "nhip_probe_last_seen_timestamp_seconds") is not None


def test_no_sender_can_break_the_page(client: Client, clock: FakeClock) -> None:
    good = batch([record(started_wall_ns=clock.wall_ns())]).decode()
    for old, new in (
        ('"server"', '"\\ud800"'),
        ('"server"', '"a\\"} 1\\nnhip_fake 1\\n#"'),
        ('"0.1.0"', '"\\u2028"'),
        ('"kind":"icmp"', '"kind":"icmp\\n"'),
        ('"alpha"', '"beta"'),
        ('"name":"icmp"', '"name":"<script>"'),
    ):
        hostile = good.replace(old, new)
        assert hostile != good
        assert client.post(hostile.encode()).status == (409 if new == '"beta"' else 200)
    page = client.get("/metrics")
    assert page.status == 200
    families = {family.name for family in text_string_to_metric_families(page.body.decode())}
    assert "nhip_fake" not in families
    assert value(samples(client), "nhip_collector_series") == 0


def test_the_page_comes_compressed_when_asked_for(client: Client) -> None:
    reply = client.get("/metrics", {"Accept-Encoding": "gzip"})
    assert reply.headers["content-encoding"] == "gzip"
    assert gzip.decompress(reply.body).startswith(b"# HELP nhip_")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")


def test_a_page_of_many_series_is_made_in_time(tmp_path: Path, clock: FakeClock) -> None:
    """A scrape of 250,000 lines must end within Prometheus' ten seconds."""
    limits = {"series_per_probe": 5000, "queue_batches_per_probe": 100, "minimum_free_octets": 0}
    with (
        collectors.running(collectors.config(tmp_path, limits=limits), clock) as collector,
        Client(collector.port or 0) as client,
    ):
        now = clock.wall_ns()
        for first in range(0, 5000, 1000):
            made = [record(started_wall_ns=now, target_id=f"t{n}") for n in range(first, first + 1000)]
            assert client.post(batch(made)).status == 200
        started = time.monotonic()
        page = client.get("/metrics").body
        seconds = time.monotonic() - started
    lines = page.count(b"\n")
    assert lines > 150_000
    assert seconds / lines < 10 / 250_000


@pytest.mark.servers
def test_promtool_has_nothing_to_say_but_that_speeds_are_in_bits(client: Client, clock: FakeClock) -> None:
    client.post(everything(clock))
    try:
        checked = subprocess.run(
            ["promtool", "check", "metrics"],
            input=client.get("/metrics").body,
            capture_output=True,
            timeout=60,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    said = [line for line in checked.stderr.splitlines() if b'instead of "bits"' not in line]
    assert said == []  # speeds are in bits per second here as everywhere in telecommunications


def test_every_histogram_of_the_catalog_is_one_here(client: Client, clock: FakeClock) -> None:
    client.post(everything(clock))
    found = samples(client)
    for name, metric in CATALOG.items():
        if metric.kind is MetricKind.HISTOGRAM:
            buckets = [
                number
                for (sample, of), number in found.items()
                if sample == f"{name}_bucket" and dict(of).get("kind", "icmp") == "icmp"
            ]
            assert buckets and buckets == sorted(buckets)


def test_a_codec_or_direction_nobody_knows_makes_no_series(client: Client, clock: FakeClock) -> None:
    client.post(everything(clock))
    shown = [dict(labels) for name, labels in samples(client) if name == "nhip_probe_last_mean_opinion_score"]
    assert [(labels["codec"], labels["direction"]) for labels in shown] == [("g711", "up")]


def test_texts_a_far_end_chose_never_become_labels(client: Client, clock: FakeClock) -> None:
    client.post(everything(clock))
    found = [(name, dict(labels)) for name, labels in samples(client)]
    agreed = [labels for name, labels in found if name == "nhip_probe_last_tls_info"]
    assert [(labels["tls_version"], labels["http_version"]) for labels in agreed] == [("TLSv1.3", "")]
    codes = [labels["rcode"] for name, labels in found if name == "nhip_probe_last_dns_answers"]
    assert codes == ["NXDOMAIN"]


def test_readiness_is_shown_where_every_part_was_measured_and_absent_elsewhere(
    client: Client, clock: FakeClock
) -> None:
    now = clock.wall_ns()
    quick = [0.01] * 10
    few = record(started_wall_ns=now, kind="icmp", round_trip_delay_quantiles_seconds=quick)
    many = record(started_wall_ns=now, kind="stamp", received=2_000, round_trip_delay_quantiles_seconds=quick)
    client.post(batch([few, many]))
    without_speed = readiness(client)
    assert ("stamp", "meetings") not in without_speed  # nobody measured the speed it needs
    fast = record(
        started_wall_ns=now,
        kind="file_transfer",
        delay_seconds=None,
        speeds=[speed(Direction.DOWN, [1e8]), speed(Direction.UP, [5e7])],
    )
    client.post(batch([fast]))
    with_speed = readiness(client)
    assert with_speed["stamp", "meetings"] == 100
    assert not [key for key in with_speed if key[0] == "icmp"]  # ten packets know no 95th percentile


def readiness(client: Client) -> dict[tuple[str, str], float]:
    return {
        (dict(labels)["kind"], dict(labels)["service"]): value
        for (name, labels), value in samples(client).items()
        if name == "nhip_probe_last_service_readiness_score"
    }


def test_quantiles_that_fall_take_the_page_from_nobody(client: Client, clock: FakeClock) -> None:
    """Such a record is refused at the door; one that were let in would only lose its own scores."""
    assert _scores(record(round_trip_delay_quantiles_seconds=[0.01] * 9 + [0.001]), (None, None)) == []
    client.post(everything(clock))
    assert readiness(client)
