"""A dead line of this host is never packet loss: what is looked at before a test and after a loss."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nhip.clock import SystemClock
from nhip.config import convert
from nhip.errors import CannotMeasureError
from nhip.lab.namespace import inside
from nhip.measurement import Outcome, Sample, Target
from probes.api import ProbeContext
from probes.line import netlink
from probes.network import Address, HostNetwork, Way
from probes.registry import PROBES
from tests.lab.bare_namespace import bare_namespace
from tests.lab.deaf_network import DeafNetwork

OPEN = "0 2147483647"
SETTINGS: dict[str, dict[str, Any]] = {"file_transfer": {"size_octets": 1000, "direction": "down"}}
each_kind = pytest.mark.parametrize("kind", PROBES.names())


class BlindNetwork(HostNetwork):
    """The same network without the look at the line: the twin that shows what the look is for."""

    def way(self, address: Address) -> Way | None:
        return None


class ChangingNetwork(DeafNetwork):
    """Nothing arrives, because its line was lost; it came back after the first look."""

    looks = 0

    def way(self, address: Address) -> Way | None:
        self.looks += 1
        return Way("line0", 7, 2 if self.looks > 1 else 0)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def line() -> Iterator[None]:
    """The test runs in a namespace whose line0 leads to line1, where nobody answers."""
    with bare_namespace(ipv4__ping_group_range=OPEN) as name, inside(name):
        ip("link", "add", "line0", "type", "veth", "peer", "name", "line1")
        ip("address", "add", "192.0.2.1/24", "dev", "line0")
        ip("link", "set", "line0", "up")
        ip("link", "set", "line1", "up")
        ip("route", "add", "default", "via", "192.0.2.9")
        # A neighbour that is known but does not answer: packets leave, nothing comes back.
        ip("neighbour", "add", "192.0.2.9", "lladdr", "02:00:00:00:00:09", "dev", "line0", "nud", "permanent")
        yield


def measure(kind: str, network: HostNetwork, **settings: Any) -> Sample:
    probe_type = PROBES.load(kind)
    table = {"count": 2, "interval_seconds": 0.1, "loss_threshold_seconds": 0.3}
    table |= SETTINGS.get(kind, {}) | settings
    probe = probe_type(convert(table, probe_type.Config, "test", environment={}))
    return probe.measure(Target(id="t", host="192.0.2.9"), ProbeContext(clock=SystemClock(), network=network))


def fates(sample: Sample) -> set[Outcome]:
    return {singleton.outcome for singleton in sample.singletons}


@contextlib.contextmanager
def meanwhile(act: Callable[[], None], after_seconds: float) -> Iterator[None]:
    """`act` happens after a while, from another thread."""
    timer = threading.Timer(after_seconds, act)
    timer.start()
    try:
        yield
    finally:
        timer.join()


@pytest.mark.lab
@each_kind
@pytest.mark.parametrize("bound", ["line0", None])
def test_a_line_without_carrier_is_no_measurement(kind: str, bound: str | None, line: None) -> None:
    ip("link", "set", "line1", "down")
    with pytest.raises(CannotMeasureError, match="interface line0 has no carrier") as raised:
        measure(kind, HostNetwork(interface=bound))
    assert raised.value.remedy


@pytest.mark.lab
@each_kind
def test_without_the_look_the_same_dead_line_is_called_loss(kind: str, line: None) -> None:
    """The twin: what the test above guards against does happen."""
    ip("link", "set", "line1", "down")
    sample = measure(kind, BlindNetwork(interface="line0"))
    assert fates(sample) <= {Outcome.LOST, Outcome.UNREACHABLE}


@pytest.mark.lab
@each_kind
def test_a_line_that_is_switched_off_is_no_measurement(kind: str, line: None) -> None:
    ip("link", "set", "line0", "down")
    with pytest.raises(CannotMeasureError, match="interface line0 is down") as raised:
        measure(kind, HostNetwork(interface="line0"))
    assert "ip link set line0 up" in raised.value.remedy
    with pytest.raises(CannotMeasureError, match="no route to"):
        measure(kind, HostNetwork())


@pytest.mark.lab
@each_kind
def test_silence_behind_a_good_line_is_the_network_s_loss(kind: str, line: None) -> None:
    assert fates(measure(kind, HostNetwork(interface="line0"))) == {Outcome.LOST}


@pytest.mark.lab
@each_kind
@pytest.mark.parametrize("end", ["line1", "line0"])
def test_a_line_that_dies_during_the_test_is_no_loss(kind: str, end: str, line: None) -> None:
    name = namespace_name()
    with (
        meanwhile(lambda: ip("-n", name, "link", "set", end, "down"), 0.1),
        pytest.raises(CannotMeasureError, match=r"line0|192\.0\.2\.9|interface"),
    ):
        measure(kind, HostNetwork(interface="line0"), loss_threshold_seconds=0.6)


@pytest.mark.lab
@each_kind
def test_a_line_that_was_away_for_a_moment_is_no_loss(kind: str, line: None) -> None:
    name = namespace_name()

    def blink() -> None:
        ip("-n", name, "link", "set", "line1", "down")
        ip("-n", name, "link", "set", "line1", "up")

    with meanwhile(blink, 0.1), pytest.raises(CannotMeasureError, match="interface line0"):
        measure(kind, HostNetwork(interface="line0"), loss_threshold_seconds=0.8)


def namespace_name() -> str:
    """Of the namespace this thread stands in."""
    done = subprocess.run(["ip", "netns", "identify"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@each_kind
def test_a_loss_while_the_line_changed_is_no_measurement(kind: str) -> None:
    probe_type = PROBES.load(kind)
    table = {"count": 1, "loss_threshold_seconds": 0.2} | SETTINGS.get(kind, {})
    probe = probe_type(convert(table, probe_type.Config, "test", environment={}))
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind(server.getsockname())
        target = Target(id="t", host="127.0.0.1", port=server.getsockname()[1])
        with pytest.raises(CannotMeasureError, match="interface line0 lost its line during the test"):
            probe.measure(target, ProbeContext(clock=SystemClock(), network=ChangingNetwork()))


@pytest.mark.lab
@pytest.mark.parametrize(
    "content", ["nameserver 192.0.2.53\n", "nameserver 127.0.0.53\n", "# none\n", "nameserver\n", None]
)
def test_a_name_behind_a_dead_line_is_no_measurement(content: str | None, line: None, tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    if content is not None:
        file.write_text(content)
    network = HostNetwork(resolver_file=file)
    # Behind a good line a name that nobody resolves is a result.
    assert network.resolve("host.invalid", 80, timeout_seconds=0.1) is None
    ip("link", "set", "line1", "down")
    with pytest.raises(CannotMeasureError, match="no name can be resolved: interface line0 has no carrier"):
        network.resolve("host.invalid", 80, timeout_seconds=0.1)
    with pytest.raises(CannotMeasureError, match="interface line0 has no carrier"):
        HostNetwork(interface="line0", resolver_file=file).resolve("host.invalid", 80, timeout_seconds=0.1)


# What the kernel says


def test_the_loopback_interface_is_up_and_has_its_line() -> None:
    found = netlink.link("lo")
    assert found is not None
    assert (found.name, found.up, found.carrier) == ("lo", True, True)
    assert netlink.link(found.index) == found
    assert netlink.link("absent0") is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3"])
def test_this_host_s_own_addresses_are_reached_over_loopback(host: str) -> None:
    loopback = netlink.link("lo")
    assert loopback is not None
    for source in (None, "127.0.0.1"):
        route = netlink.route(host, source=source)
        assert route is not None
        assert route.local
        assert route.interface_index == loopback.index


@pytest.mark.parametrize("host", ["255.255.255.255", "224.0.0.1"])
def test_what_is_no_single_host_has_no_route(host: str) -> None:
    assert netlink.route(host) is None


@pytest.mark.lab
@pytest.mark.parametrize("kind", ["unreachable", "prohibit", "blackhole"])
@pytest.mark.parametrize(
    ("prefix", "host"), [("198.51.100.0/24", "198.51.100.1"), ("2001:db8::/32", "2001:db8::1")]
)
def test_a_route_that_leads_nowhere_is_none(kind: str, prefix: str, host: str, line: None) -> None:
    ip("-6" if ":" in prefix else "-4", "route", "add", kind, prefix)
    assert netlink.route(host) is None
