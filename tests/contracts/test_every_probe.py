"""What every probe type owes, whoever wrote it: asked of each name in the registry."""

from __future__ import annotations

import contextlib
import math
import socket
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nhip import statistics, wire
from nhip.clock import Clock, SystemClock
from nhip.config import convert, shipped
from nhip.errors import CannotMeasureError, ConfigError
from nhip.measurement import Access, Outcome, Sample, Target, Technology
from probes.api import Probe, ProbeContext
from probes.network import HostNetwork, Network
from probes.reflector import Reflector
from probes.registry import PROBES
from probes.server import MeasurementServer, ServerConfig
from probes.server.dns_responder import DnsResponder, DnsResponderConfig
from tests.lab.deaf_network import DeafNetwork, NamelessNetwork
from tests.lab.echo_service import echo_service
from tests.lab.peers import closed_port
from tests.lab.stepped_clock import SteppedClock
from tests.lab.tls_server import tls_far_end

KINDS = PROBES.names()
COMMON = {"count": 3, "interval_seconds": 0.1, "loss_threshold_seconds": 0.4}
SETTINGS: dict[str, dict[str, Any]] = {
    "dns": {"name": "host.lab.example"},
    "file_transfer": {"size_octets": 200_000},
    "http": {"tls": False},
    "tls": {"verify_certificate": False},
}
# These have no port that could be closed.
WITHOUT_PORT = {"icmp"}
DATAGRAM_KINDS = {"dns", "stamp", "udp_echo", "voice"}

each_kind = pytest.mark.parametrize("kind", KINDS)


def probe_of(kind: str, **settings: Any) -> Probe:
    """A probe with quick settings."""
    probe_type = PROBES.load(kind)
    table = COMMON | SETTINGS.get(kind, {}) | settings
    return probe_type(convert(table, probe_type.Config, "test", environment={}))


def context_of(
    network: Network | None = None, clock: Clock | None = None, cancelled: threading.Event | None = None
) -> ProbeContext:
    return ProbeContext(
        clock=clock or SystemClock(),
        network=network or HostNetwork(),
        cancelled=cancelled or threading.Event(),
    )


def target_of(port: int | None, host: str = "127.0.0.1") -> Target:
    return Target(id="target", host=host, port=port)


def check_books(sample: Sample, kind: str) -> None:
    """Every sample, however it came about, adds up, is finite, and survives its envelope."""
    assert sample.kind == kind
    assert sample.singletons
    counters = statistics.count(sample.singletons)
    assert counters.sent == counters.received + counters.lost + counters.failed
    assert counters.sent + counters.not_sent + counters.duplicate == len(sample.singletons)
    assert sample.ended.mono_ns >= sample.started.mono_ns
    for singleton in sample.singletons:
        assert (singleton.delay_ns is None) == (singleton.delay_source is None)
        if singleton.delay_ns is not None:
            assert singleton.outcome is Outcome.RECEIVED
            assert singleton.delay_ns >= 0
        assert all(phase.duration_ns >= 0 for phase in singleton.phases)
    record = wire.record(
        sample,
        probe_id="probe-1",
        access=Access(operator="alpha", technology=Technology.FIXED, province="01"),
        wall_ns=time.time_ns(),
        keep_singletons=True,
    )
    assert wire.decode_record(wire.encode_record(record)) == record
    assert all(math.isfinite(number) for number in numbers_in(msgspec.to_builtins(record)))


def numbers_in(value: object) -> Iterator[float]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from numbers_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from numbers_in(inner)
    elif isinstance(value, int | float):
        yield value


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextlib.contextmanager
def no_socket_left() -> Iterator[None]:
    before = open_descriptors()
    yield
    # A thread still waiting for a name server may hold one for a moment.
    deadline = time.monotonic() + 2
    while open_descriptors() > before and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert open_descriptors() <= before


@dataclass
class Site:
    """A far end for every kind."""

    server: MeasurementServer
    responder: DnsResponder
    reflector: Reflector
    echo_port: int
    tls_port: int | None

    def port(self, kind: str) -> int | None:
        if kind == "tls" and self.tls_port is None:
            pytest.skip("openssl is not installed (Debian package openssl)")
        return {
            "dns": self.responder.addresses[0][1],
            "file_transfer": self.server.port,
            "http": self.server.port,
            "icmp": None,
            "stamp": self.reflector.address[1],
            "tcp_connect": self.server.port,
            "tls": self.tls_port,
            "udp_echo": self.echo_port,
            "voice": self.reflector.address[1],
        }.get(kind)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with echo_service() as echo_port, tls_far_end(tmp_path_factory.mktemp("tls")) as tls_port:
        yield from _site(SystemClock(), echo_port, tls_port)


def _site(clock: Clock, echo_port: int, tls_port: int | None) -> Iterator[Site]:
    found = Site(
        MeasurementServer(ServerConfig(hosts=["127.0.0.1"], port=0, max_connections_per_client=64), clock),
        DnsResponder(
            DnsResponderConfig(zone="lab.example", ipv4="192.0.2.1", hosts=["127.0.0.1"], port=0), clock
        ),
        Reflector("127.0.0.1", 0, clock=clock),
        echo_port,
        tls_port,
    )
    bricks = (found.server, found.responder, found.reflector)
    for brick in bricks:
        brick.start()
    yield found
    for brick in bricks:
        brick.close()


@pytest.fixture(autouse=True)
def quiet_site(site: Site) -> None:
    """The far end has closed what earlier tests left, or its descriptors would be counted as the probe's."""
    deadline = time.monotonic() + 5
    while site.server.account().active_connections and time.monotonic() < deadline:
        threading.Event().wait(0.005)


@pytest.fixture(autouse=True)
def icmp_allowed(request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params.get("kind") == "icmp":
        try:
            HostNetwork().icmp(socket.AF_INET)[0].close()
        except CannotMeasureError as error:
            pytest.skip(str(error))


@each_kind
def test_the_module_docstring_is_a_manual_page(kind: str) -> None:
    probe_type = PROBES.load(kind)
    page = sys.modules[probe_type.__module__].__doc__ or ""
    assert len(page) > 300
    missing = [key for key in probe_type.Config.__struct_fields__ if f"``{key}``" not in page]
    assert not missing, f"settings without a word about them: {missing}"
    assert probe_type.__doc__
    assert probe_type.kind == kind
    assert probe_type.method.name
    assert isinstance(probe_type.exclusive, bool)
    assert probe_type.has_port is (kind not in WITHOUT_PORT)


@each_kind
def test_an_example_of_the_kind_is_in_the_shipped_configuration(kind: str) -> None:
    tasks = tomllib.loads(shipped("probe.toml").read_text(encoding="utf-8"))["task"]
    examples = [task for task in tasks if task["kind"] == kind]
    assert examples, f"add a [[task]] of kind {kind!r} to configs/probe.toml"
    for task in examples:
        convert(task.get("settings", {}), PROBES.load(kind).Config, "probe.toml", environment={})


@each_kind
def test_a_misspelt_setting_is_refused_with_the_nearest_valid_one(kind: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        convert({"cuont": 3}, PROBES.load(kind).Config, "file.toml", environment={})
    assert "file.toml:cuont" in str(refusal.value)
    assert "'count'" in str(refusal.value)


@each_kind
@pytest.mark.parametrize("value", [0, -1, "three", 1.5, True])
def test_a_count_that_is_none_is_refused_by_key_and_value(kind: str, value: object) -> None:
    with pytest.raises(ConfigError, match=r"file\.toml:count"):
        convert({"count": value}, PROBES.load(kind).Config, "file.toml", environment={})


@each_kind
def test_the_defaults_are_a_configuration(kind: str) -> None:
    probe_type = PROBES.load(kind)
    assert probe_type(probe_type.Config())


@each_kind
def test_a_live_target_is_received(kind: str, site: Site) -> None:
    with no_socket_left():
        sample = probe_of(kind).measure(target_of(site.port(kind)), context_of())
    check_books(sample, kind)
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.RECEIVED}
    assert sample.address == "127.0.0.1"


@pytest.mark.parametrize("kind", [kind for kind in PROBES if kind not in WITHOUT_PORT])
def test_a_closed_port_is_refused(kind: str) -> None:
    port = closed_port(socket.SOCK_DGRAM if kind in DATAGRAM_KINDS else socket.SOCK_STREAM)
    with no_socket_left():
        sample = probe_of(kind).measure(target_of(port), context_of())
    check_books(sample, kind)
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.REFUSED}


@each_kind
def test_silence_is_loss(kind: str, site: Site) -> None:
    with no_socket_left():
        sample = probe_of(kind).measure(target_of(site.port(kind)), context_of(DeafNetwork()))
    check_books(sample, kind)
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.LOST}
    assert statistics.loss_ratio(statistics.count(sample.singletons)) == 1.0
    assert not statistics.delays_seconds(sample.singletons)


@each_kind
def test_a_name_without_address_is_not_resolved(kind: str) -> None:
    with no_socket_left():
        sample = probe_of(kind).measure(target_of(None, "host.invalid"), context_of(NamelessNetwork()))
    check_books(sample, kind)
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.NOT_RESOLVED}
    assert sample.address is None


@each_kind
def test_no_route_is_an_error_with_a_remedy_and_not_the_network_s_fault(kind: str) -> None:
    # The kernel refuses the limited broadcast address itself; no packet leaves this host.
    with no_socket_left(), pytest.raises(CannotMeasureError, match="no route") as failure:
        probe_of(kind).measure(target_of(None, "255.255.255.255"), context_of())
    assert "ip route get 255.255.255.255" in failure.value.remedy


@each_kind
def test_an_address_of_another_version_is_this_host_s_choice_and_no_failed_look_up(kind: str) -> None:
    with no_socket_left(), pytest.raises(CannotMeasureError, match="IPv6 address, and this test sends IPv4"):
        probe_of(kind).measure(target_of(None, "::1"), context_of(HostNetwork(ip_version=4)))


@each_kind
def test_a_bound_test_of_a_name_says_whose_resolver_was_asked(kind: str, site: Site) -> None:
    bound = HostNetwork(source="127.0.0.1")
    named = probe_of(kind).measure(target_of(site.port(kind), "localhost"), context_of(bound))
    note = "name resolved by this host's resolver, not from 127.0.0.1"
    assert note in named.notes
    check_books(named, kind)
    for network, host in ((bound, "127.0.0.1"), (HostNetwork(ip_version=4), "localhost")):
        sample = probe_of(kind).measure(target_of(site.port(kind), host), context_of(network))
        assert note not in sample.notes


@each_kind
def test_a_test_cancelled_beforehand_sends_nothing(kind: str, site: Site) -> None:
    cancelled = threading.Event()
    cancelled.set()
    sample = probe_of(kind).measure(target_of(site.port(kind)), context_of(cancelled=cancelled))
    check_books(sample, kind)
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.NOT_SENT}
    assert statistics.loss_ratio(statistics.count(sample.singletons)) is None
    assert sample.octets_sent == 0


@each_kind
def test_cancelling_ends_a_test_soon(kind: str, site: Site) -> None:
    cancelled = threading.Event()
    timer = threading.Timer(0.3, cancelled.set)
    begun = time.monotonic()
    timer.start()
    with no_socket_left():
        sample = probe_of(kind, loss_threshold_seconds=30.0, interval_seconds=1.0).measure(
            target_of(site.port(kind)), context_of(DeafNetwork(), cancelled=cancelled)
        )
    assert time.monotonic() - begun < 5
    timer.join()
    check_books(sample, kind)
    assert sample.singletons[-1].outcome is Outcome.NOT_SENT


@each_kind
@pytest.mark.parametrize("step_seconds", [-3600.0, 3600.0, 0.05])
@pytest.mark.parametrize("after_readings", [2, 9])
def test_a_step_of_the_wall_clock_moves_no_duration(
    kind: str, site: Site, step_seconds: float, after_readings: int
) -> None:
    clock = SteppedClock(step_seconds=step_seconds, after_readings=after_readings)
    sample = probe_of(kind, interval_seconds=0.1).measure(target_of(site.port(kind)), context_of(clock=clock))
    check_books(sample, kind)
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.RECEIVED}
    for singleton in sample.singletons:
        if singleton.delay_ns is not None:
            assert singleton.delay_ns < 0.05e9
        if singleton.transfer is not None:
            assert 0 < singleton.transfer.duration_ns < 0.4e9


@each_kind
def test_an_interface_that_is_gone_is_an_error_with_a_remedy(kind: str, site: Site) -> None:
    with no_socket_left(), pytest.raises(CannotMeasureError) as failure:
        probe_of(kind).measure(target_of(site.port(kind)), context_of(HostNetwork(interface="absent0")))
    assert failure.value.remedy


@each_kind
def test_what_is_no_name_never_reaches_the_resolver(kind: str) -> None:
    with no_socket_left(), pytest.raises(CannotMeasureError, match="neither a name nor an address"):
        probe_of(kind).measure(target_of(None, "two words; rm"), context_of())
