"""The whole way of a measurement on loopback: servers, probes of every kind, collector, Prometheus.

Everything is real: agents with spools measure a measurement server, a reflector and a resolver, deliver to a
collector, and Prometheus finds the collector by its service discovery and scrapes it once a second, as it
does the measurement server's own page. A
forecast is published, one record is put in quarantine and one batch refused, so that every metric of the
catalog has something to say.

The fixture lives as long as the module that uses it, not longer: probes that go on measuring would disturb
tests of time in other modules. Use it from a ``conftest.py``::

    from tests.lab.stack import stack
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from collector.collector_config import CollectorConfig
from collector.keys import Key, new_key
from collector.service import Collector
from dashboards.web.status import render
from nhip.clock import SystemClock
from nhip.config import convert
from nhip.measurement import Direction, OneWaySummary, Statistic
from nhip.wire import LinkForecast, Record
from probes.agent import Agent
from probes.agent_config import AgentConfig
from probes.metrics import MetricsPage, MetricsSection
from probes.reflector import Reflector
from probes.server.config import ServerConfig
from probes.server.dns_responder import DnsResponder, DnsResponderConfig
from probes.server.service import MeasurementServer
from tests.lab.collectors import Client
from tests.lab.peers import closed_port
from tests.lab.prometheus_server import Prometheus, needs_prometheus, running_prometheus
from tests.lab.records import around, batch, record
from tests.lab.status_views import link

SCRAPE_SECONDS = 1
PROBES = (("alpha", "fixed", "01"), ("beta", "4g", "79"))
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Stack:
    """The running parts a test asks."""

    collector: Collector
    prometheus: Prometheus
    read: Client
    server_metrics_port: int
    agent_metrics_port: int


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Everything from probe to Prometheus, measuring."""
    with running_stack(tmp_path_factory.mktemp("stack")) as found:
        yield found


@contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    """Everything from probe to Prometheus; ended with the block, probes first."""
    needs_prometheus()
    clock = SystemClock()
    keys = {operator: new_key() for operator, _, _ in PROBES}
    forecast_key = new_key()
    with ExitStack() as ends:
        reflector = Reflector(HOST, 0, clock=clock)
        server = MeasurementServer(ServerConfig(hosts=[HOST], port=0), clock)
        resolver = DnsResponder(
            DnsResponderConfig(zone="nhip.test", ipv4=HOST, hosts=[HOST], port=0, instance="stack"), clock
        )
        collector = Collector(_collector_config(folder, keys, forecast_key), clock, render)
        for brick in (reflector, server, resolver, collector):
            brick.start()
            ends.enter_context(closing(brick))
        served = (server, reflector, resolver)
        own_page = MetricsPage(
            MetricsSection(listen=f"{HOST}:0"),
            lambda: (found for brick in served for found in brick.readings()),
        )
        own_page.start()
        ends.enter_context(closing(own_page))
        ports = {"stamp": reflector.address[1], "server": server.port, "dns": resolver.addresses[0][1]}
        agent_page = closed_port(socket.SOCK_STREAM)
        for operator, technology, province in PROBES:
            page = agent_page if operator == "alpha" else None  # one engine is enough
            settings = _agent_config(
                folder, collector.port, keys[operator], ports, operator, technology, province, page
            )
            agent = Agent(settings, clock)
            agent.start()
            ends.enter_context(closing(agent))
        _provoke(collector.port, keys["alpha"], forecast_key)
        prometheus = ends.enter_context(
            running_prometheus(
                folder / "prometheus", _prometheus_config(collector.port, own_page.port, agent_page)
            )
        )
        read = ends.enter_context(Client(collector.port, key=None))
        yield Stack(collector, prometheus, read, own_page.port, agent_page)


def _collector_config(folder: Path, keys: dict[str, Key], forecast_key: Key) -> CollectorConfig:
    table = {
        "format": "nhip-collector/1",
        "data_dir": str(folder / "collector"),
        "listen": {"port": 0},
        "limits": {"minimum_free_octets": 0},
        "regulation": "regulations/qcvn34_2022.toml",
        "forecast_key_sha256": forecast_key.sha256,
        "probe": [
            {
                "id": f"{operator}-{technology}",
                "key_sha256": keys[operator].sha256,
                "operator": operator,
                "province": province,
                "technologies": [technology],
            }
            for operator, technology, province in PROBES
        ],
        "declared": [
            {
                "operator": operator,
                "technology": technology,
                "down_bits_per_second": 50e6,
                "up_bits_per_second": 20e6,
            }
            for operator, technology, _ in PROBES
        ],
    }
    return msgspec.convert(table, CollectorConfig)


def _agent_config(
    folder: Path,
    collector_port: int,
    key: Key,
    ports: dict[str, int],
    operator: str,
    technology: str,
    province: str,
    page: int | None,
) -> AgentConfig:
    short = {"count": 3, "interval_seconds": 0.1}
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "icmp": ("ping", short),
        "stamp": ("stamp", short),
        "tcp_connect": ("server", short),
        "dns": ("dns", {**short, "name": "www.nhip.test"}),
        "http": ("server", {**short, "tls": False, "expected_status": [200]}),
        "file_transfer": ("server", {"size_octets": 200_000}),
        "voice": ("stamp", {"count": 120, "interval_seconds": 0.01}),
    }
    probe_id = f"{operator}-{technology}"
    table: dict[str, Any] = {
        "format": "nhip-probe/1",
        "probe_id": probe_id,
        "access": {"operator": operator, "technology": technology, "province": province},
        "collector": {
            "url": f"http://{HOST}:{collector_port}",
            "key": key.secret,
            "interval_seconds": 1.0,
        },
        "spool": {"path": str(folder / f"{probe_id}.sqlite")},
        "target": [
            {"id": "ping", "host": HOST},
            *({"id": name, "host": HOST, "port": port} for name, port in ports.items()),
        ],
        "task": [
            {
                "kind": kind,
                "target": target,
                "interval_seconds": 2 if kind in ("file_transfer", "voice") else 1,
                "arrival": "fixed",
                "start_at_once": True,
                "settings": settings,
            }
            for kind, (target, settings) in kinds.items()
        ],
    }
    if page is not None:
        table["metrics"] = {"listen": f"{HOST}:{page}"}
        table["icmp_group"] = [
            {
                "id": "many",
                "targets": [{"id": f"host-{number}", "host": f"127.0.1.{number}"} for number in range(1, 9)],
                "interval_seconds": 0.5,
                "window_seconds": 2,
            }
        ]
    return convert(table, AgentConfig, probe_id, environment={})


def _provoke(port: int, key: Key, forecast_key: Key) -> None:
    """Publish a forecast; send a record nobody can read, and a batch nobody may send."""
    with Client(port, key=key) as probe:
        records = [b'{"kind": 1}', _what_this_host_cannot_measure()]
        assert probe.post(batch(records, probe_id="alpha-fixed")).status == 200
    with Client(port, key=new_key()) as stranger:
        assert stranger.post(batch([record()])).status in (401, 403)
    with Client(port, key=forecast_key) as publisher:
        answer = publisher.request(
            "POST",
            "/api/v1/forecasts",
            msgspec.json.encode(_forecasts()),
            {"Content-Type": "application/json"},
        )
        assert answer.status == 200, answer.body


def _what_this_host_cannot_measure() -> Record:
    """A record with all that takes synchronised clocks, a TLS service, both IP versions or much time."""
    numbers = {
        "certificate_expiry_timestamp": 2e9,
        "tcp_connect_ipv4": 0.01,
        "tcp_connect_ipv6": 0.02,
    }
    return record(
        probe_id="alpha-fixed",
        kind="tls",
        target_id="elsewhere",
        started_wall_ns=time.time_ns(),
        received=2_000,
        round_trip_delay_quantiles_seconds=[0.01] * 10,
        one_way_delays=[
            OneWaySummary(direction=direction, delay_seconds=around(0.005), error_seconds=0.0001)
            for direction in Direction
        ],
        facts={"tls_version": "TLSv1.3"},
        statistics=[
            Statistic(name=name, value=value, unit="seconds", count=1, definition="by hand")
            for name, value in numbers.items()
        ],
        parameters={"schedule_interval_seconds": 600},
    )


def _forecasts() -> list[LinkForecast]:
    made_at = time.time_ns()
    return [
        msgspec.structs.replace(found, made_at_wall_ns=made_at)
        for found in (
            link("quoc-te", 0.62, 0.003, provenance="simulated", crosses_in_days=74),
            link("ix-ha-noi", 0.41, 0.0004, provenance="measured"),
            link("alpha-beta", 0.95, 0.0, provenance="measured", over=True),
        )
    ]


def _prometheus_config(collector_port: int, server_metrics_port: int, agent_metrics_port: int) -> str:
    return f"""
global:
  scrape_interval: {SCRAPE_SECONDS}s
  scrape_timeout: {SCRAPE_SECONDS}s
scrape_configs:
  - job_name: nhip
    http_sd_configs:
      - url: http://{HOST}:{collector_port}/api/sd
        refresh_interval: 5s
  - job_name: nhip-server
    static_configs:
      - targets: ["{HOST}:{server_metrics_port}"]
  - job_name: nhip-agent
    static_configs:
      - targets: ["{HOST}:{agent_metrics_port}"]
"""
