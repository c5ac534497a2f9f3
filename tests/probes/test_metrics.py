"""The own metrics page: what the catalog promises, on loopback, of the agent and of the server."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from nhip import wire
from nhip.catalog import CATALOG, PROBE
from nhip.clock import SystemClock
from nhip.config import convert
from nhip.errors import ConfigError
from nhip.measurement import Target, Technology
from probes.agent_config import AccessSection
from probes.agent_metrics import agent_readings
from probes.api import ProbeContext
from probes.file_transfer import FileTransfer, FileTransferConfig
from probes.metrics import MetricsPage, MetricsSection, Reading, families
from probes.network import HostNetwork
from probes.reflector import Reflector
from probes.server import MeasurementServer, ServerConfig
from probes.server.dns_responder import DnsResponder, DnsResponderConfig
from tests.lab.records import agent

LOOPBACK = MetricsSection(listen="127.0.0.1:0")


@contextmanager
def page_of(*readings: Reading) -> Iterator[MetricsPage]:
    page = MetricsPage(LOOPBACK, lambda: readings)
    page.start()
    try:
        yield page
    finally:
        page.close()


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_page_holds_the_readings_with_the_catalog_s_help_and_no_created_series() -> None:
    with page_of(Reading("nhip_server_transfers_total", 3, ("down",))) as page:
        text = scrape(page.port)
    assert f"# HELP nhip_server_transfers_total {CATALOG['nhip_server_transfers_total'].help_en}" in text
    assert values(text) == {("nhip_server_transfers_total", (("direction", "down"),)): 3}
    assert "_created" not in text
    assert "python_info" not in text


def test_what_has_no_value_is_left_out_and_never_zero() -> None:
    with page_of(Reading("nhip_agent_spool_oldest_age_seconds", None, ("p", "o", "01", "4g"))) as page:
        assert "nhip_agent" not in scrape(page.port)


@pytest.mark.parametrize("reading", [Reading("nhip_nothing", 1), Reading("nhip_server_transfers_total", 1)])
def test_what_the_catalog_does_not_know_is_refused(reading: Reading) -> None:
    with pytest.raises(AssertionError, match="not in the catalog"):
        list(families([reading]))


def test_an_agent_shows_all_its_metrics_but_the_clock_that_only_the_collector_sees() -> None:
    access = AccessSection(operator="alpha", technology=Technology.MOBILE_4G, province="01")
    status = agent(
        spool_records=7, spool_octets=2100, spool_oldest_age_seconds=60.5, tests_total=9,
        schedule_lag_seconds_max=0.25,
    )  # fmt: skip
    readings = list(agent_readings("hn-01", access, status))
    promised = {name for name in CATALOG if name.startswith("nhip_agent_")}
    assert {reading.name for reading in readings} == promised - {"nhip_agent_clock_offset_seconds"}
    with page_of(*readings) as page:
        found = values(scrape(page.port))
    labels = tuple(sorted(zip(PROBE, ("hn-01", "alpha", "01", "4g"), strict=True)))
    assert found[("nhip_agent_spool_records", labels)] == 7
    assert found[("nhip_agent_spool_bytes", labels)] == 2100
    assert found[("nhip_agent_spool_oldest_age_seconds", labels)] == 60.5
    assert found[("nhip_agent_tests_total", labels)] == 9
    assert found[("nhip_agent_schedule_lag_seconds", labels)] == 0.25
    assert isinstance(status, wire.AgentStatus)


def test_the_server_s_numbers_move_with_what_it_did() -> None:
    clock = SystemClock()
    server = MeasurementServer(ServerConfig(hosts=["127.0.0.1"], port=0, max_transfers=1), clock)
    reflector = Reflector("127.0.0.1", 0, clock=clock)
    responder = DnsResponder(
        DnsResponderConfig(zone="lab.example", ipv4="192.0.2.1", hosts=["127.0.0.1"], port=0), clock
    )
    bricks = (server, reflector, responder)
    for brick in bricks:
        brick.start()
    try:
        config = convert({"size_octets": 50_000, "count": 1}, FileTransferConfig, "t", environment={})
        FileTransfer(config).measure(
            Target(id="t", host="127.0.0.1", port=server.port),
            ProbeContext(clock=clock, network=HostNetwork()),
        )
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.sendto(bytes(44), reflector.address)
            sock.recv(100)
            sock.sendto(b"short", reflector.address)
            sock.sendto(b"no question", responder.addresses[0])
        deadline = time.monotonic() + 5
        while not (reflector.counters.malformed and responder.dropped_total) and time.monotonic() < deadline:
            threading.Event().wait(0.005)
        readings = [reading for brick in bricks for reading in brick.readings()]
    finally:
        for brick in bricks:
            brick.close()
    assert {reading.name for reading in readings} == {
        name
        for name in CATALOG
        if name.startswith(("nhip_server_", "nhip_reflector_", "nhip_dns_responder_"))
    }
    by_name = {(reading.name, *reading.labels): reading.value for reading in readings}
    assert by_name[("nhip_reflector_packets_refused_total", "malformed")] == 1
    assert by_name[("nhip_dns_responder_questions_total",)] == 1
    assert by_name[("nhip_server_transfers_total", "down")] == 1
    assert by_name[("nhip_server_transfers_total", "up")] == 1
    assert by_name[("nhip_server_payload_bytes_total", "down")] == 50_000
    assert by_name[("nhip_server_payload_bytes_total", "up")] == 50_000
    assert by_name[("nhip_server_transfers_refused_total",)] == 0
    assert by_name[("nhip_reflector_packets_received_total",)] == 2
    assert by_name[("nhip_reflector_packets_reflected_total",)] == 1
    assert by_name[("nhip_dns_responder_answers_total",)] == 0


def test_a_port_that_is_taken_is_an_error_with_a_remedy() -> None:
    with page_of() as page:
        second = MetricsPage(MetricsSection(listen=f"127.0.0.1:{page.port}"), list)
        with pytest.raises(ConfigError, match=r"metrics\.listen") as raised:
            second.start()
        second.close()
    assert raised.value.remedy


def test_a_page_is_gone_after_close_and_close_works_twice() -> None:
    with page_of() as page:
        port = page.port
    page.close()
    assert page.port == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


_SERVER = """
import logging, sys
from probes.metrics import MetricsSection
from probes.server import ServerConfig, run
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
run(ServerConfig(hosts=["127.0.0.1"], port=0), metrics=MetricsSection(listen="127.0.0.1:0"))
"""


def test_a_server_says_what_it_offers_serves_its_page_and_says_that_it_stopped() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        found = re.search(r"metrics on port (\d+)", first)
        assert found, first
        assert "server started: file transfer on 127.0.0.1 port" in first
        assert "8 transfers and 128 connections at once" in first
        assert 'nhip_server_transfers_total{direction="down"} 0.0' in scrape(int(found[1]))
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=15)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert rest.strip().endswith("server stopped")
