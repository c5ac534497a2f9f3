"""A test bound to a modem is answered over that modem or not at all, whatever kind it is."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from nhip.clock import SystemClock
from nhip.config import convert
from nhip.errors import CannotMeasureError
from nhip.lab.namespace import inside, open_tun
from nhip.measurement import Outcome, Sample, Target
from probes.api import ProbeContext
from probes.line.config import LineSection
from probes.line.modem import Bearer, Modem
from probes.line.namespace import Namespace
from probes.network import Address, HostNetwork
from probes.reflector import Reflector
from probes.registry import PROBES
from probes.server import MeasurementServer, ServerConfig
from probes.server.dns_responder import DnsResponder, DnsResponderConfig
from tests.lab.bare_namespace import bare_namespace
from tests.lab.uplinks import DEATHS, MARK, MODEM_V4, MODEM_V6, SERVER_V4, SERVER_V6, Uplinks, two_uplinks

pytestmark = pytest.mark.lab

ICCID = "8984012345678901234"
COMMON = {"count": 2, "interval_seconds": 0.1, "loss_threshold_seconds": 0.3}
SETTINGS: dict[str, dict[str, Any]] = {
    "dns": {"name": "host.lab.example"},
    "file_transfer": {"size_octets": 200_000},
    "http": {"tls": False},
}
each_kind = pytest.mark.parametrize("kind", PROBES.names())
each_version = pytest.mark.parametrize("server", [SERVER_V4, SERVER_V6])


def to_modem(how: str, server: str) -> HostNetwork:
    """A network bound to the modem by one means."""
    return {
        "interface": HostNetwork(interface="modem-b"),
        "source": HostNetwork(source=MODEM_V6 if ":" in server else MODEM_V4),
        "mark": HostNetwork(fwmark=MARK),
        "interface and source": HostNetwork(
            interface="modem-b", source=MODEM_V6 if ":" in server else MODEM_V4
        ),
    }[how]


@pytest.fixture
def silent() -> Iterator[Uplinks]:
    with two_uplinks(answering=False) as uplinks:
        yield uplinks


@dataclass
class Site:
    """Both uplinks with a far end for every kind behind them."""

    uplinks: Uplinks
    ports: dict[str, int | None]

    def check_answered(self, sample: Sample) -> None:
        """Every kind that has a far end here was answered by it; the others were at least refused."""
        expected = Outcome.RECEIVED if sample.kind in self.ports else Outcome.REFUSED
        assert expected in fates(sample), sample.singletons


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    clock = SystemClock()
    hosts = [SERVER_V4, SERVER_V6]
    with two_uplinks(answering=True) as uplinks, contextlib.ExitStack() as stack:
        server = MeasurementServer(ServerConfig(hosts=hosts, port=8862, max_connections_per_client=64), clock)
        responder = DnsResponder(
            DnsResponderConfig(zone="lab.example", ipv4="192.0.2.1", hosts=hosts, port=5353), clock
        )
        reflectors = [Reflector(host, 8622, clock=clock) for host in hosts]
        with inside(uplinks.far):
            for brick in (server, responder, *reflectors):
                brick.start()
                stack.callback(brick.close)
        ports: dict[str, int | None] = {"dns": 5353, "stamp": 8622, "icmp": None}
        ports |= dict.fromkeys(("file_transfer", "http", "tcp_connect"), server.port)
        yield Site(uplinks, ports)


@pytest.fixture
def at_near(site: Site) -> Iterator[Uplinks]:
    """The test stands in `near`, from which the module's fixture has returned."""
    with inside(site.uplinks.near):
        yield site.uplinks


def measure(kind: str, host: str, network: HostNetwork, port: int | None = None, **settings: Any) -> Sample:
    probe_type = PROBES.load(kind)
    table = COMMON | SETTINGS.get(kind, {}) | settings
    probe = probe_type(convert(table, probe_type.Config, "test", environment={}))
    context = ProbeContext(clock=SystemClock(), network=network)
    return probe.measure(Target(id="t", host=host, port=port), context)


def fates(sample: Sample) -> set[Outcome]:
    return {singleton.outcome for singleton in sample.singletons}


def statistic(sample: Sample, name: str) -> float:
    (found,) = [statistic for statistic in sample.statistics if statistic.name == name]
    assert found.value is not None
    assert found.unit == "octets"
    assert found.definition
    return found.value


# A modem that is not there


@each_kind
@each_version
@pytest.mark.parametrize("death", DEATHS)
def test_a_dead_modem_is_no_measurement_and_nothing_leaves_by_the_default_route(
    kind: str, server: str, death: str, silent: Uplinks
) -> None:
    silent.kill(death)
    before = silent.packets_sent()
    with pytest.raises(CannotMeasureError) as failure:
        measure(kind, server, HostNetwork(interface="modem-b"))
    assert failure.value.remedy
    assert silent.packets_sent() == before


@each_kind
@each_version
@pytest.mark.parametrize("how", ["source", "mark"])
@pytest.mark.parametrize("death", DEATHS)
def test_a_source_or_mark_whose_table_lost_its_route_falls_not_through_to_the_default_route(
    kind: str, server: str, how: str, death: str, silent: Uplinks
) -> None:
    silent.kill(death)
    before = silent.packets_sent()
    with pytest.raises(CannotMeasureError) as failure:
        measure(kind, server, to_modem(how, server))
    assert failure.value.remedy
    assert silent.packets_sent() == before


@each_kind
@each_version
def test_unbound_the_same_test_leaves_by_the_default_route(kind: str, server: str, silent: Uplinks) -> None:
    """The twin: the counter that must stand still above does move."""
    silent.kill("switched off")
    before = silent.packets_sent()
    sample = measure(kind, server, HostNetwork())
    assert silent.packets_sent() > before
    assert sample.facts["way_interface"] == "eth-a"


@each_kind
@pytest.mark.parametrize("death", DEATHS)
def test_a_modem_that_dies_during_the_test_is_no_measurement(kind: str, death: str, silent: Uplinks) -> None:
    before = silent.packets_sent()
    with meanwhile(lambda: silent.kill(death), 0.1), pytest.raises(CannotMeasureError):
        measure(kind, SERVER_V4, HostNetwork(interface="modem-b"), loss_threshold_seconds=0.6)
    assert silent.packets_sent() == before


@dataclass
class Reconnecting:
    """A modem that has dialled again each time it is asked; its interface stays up all the while."""

    attempts: int = 0

    def modems(self) -> tuple[Modem, ...]:
        self.attempts += 1
        bearer = Bearer(path="/B/0", connected=True, interface="modem-b", attempts=self.attempts)
        return (Modem(path="/M/0", state="connected", iccid=ICCID, bearers=(bearer,)),)


@each_kind
def test_losses_while_the_modem_dialled_again_are_not_the_network_s(kind: str, silent: Uplinks) -> None:
    modems = Reconnecting()
    with pytest.raises(CannotMeasureError, match=f"SIM {ICCID} was connected anew during the test"):
        measure(kind, SERVER_V4, LineSection(iccid=ICCID).network(modems))
    assert modems.attempts == 2
    # The twin: of the interface alone nothing can be seen.
    assert fates(measure(kind, SERVER_V4, HostNetwork(interface="modem-b"))) == {Outcome.LOST}


@contextlib.contextmanager
def meanwhile(act: Callable[[], None], after_seconds: float) -> Iterator[None]:
    """`act` happens after a while, from another thread."""
    timer = threading.Timer(after_seconds, act)
    timer.start()
    try:
        yield
    finally:
        timer.join()


# A name with addresses of both IP versions


class DualStack(HostNetwork):
    """Every name has an IPv6 and an IPv4 address, in the order that the default route would have them."""

    def resolve_all(self, host: str, port: int, *, timeout_seconds: float) -> tuple[Address, ...]:
        both = (Address(socket.AF_INET6, (SERVER_V6, port, 0, 0)), Address(socket.AF_INET, (SERVER_V4, port)))
        return tuple(address for address in both if self.ip_version in (None, address.ip_version))


def without_ipv6(uplinks: Uplinks, interface: str) -> None:
    uplinks.ip("-6", "route", "flush", "dev", interface)


@each_kind
@pytest.mark.parametrize(("line", "bound"), [("modem-b", {"interface": "modem-b"}), ("eth-a", {})])
def test_a_line_with_ipv4_alone_is_measured_over_ipv4_whatever_the_default_route_prefers(
    kind: str, line: str, bound: dict[str, str], silent: Uplinks
) -> None:
    without_ipv6(silent, line)
    if not bound:
        without_ipv6(silent, "modem-b")
    sample = measure(kind, "dual.example", DualStack(**bound))  # type: ignore[arg-type]
    assert sample.address == SERVER_V4
    assert sample.facts["way_interface"] == line
    (note,) = [note for note in sample.notes if note.startswith("not measured")]
    assert note.startswith(f"not measured: {SERVER_V6} (this host has no route to {SERVER_V6}")


@each_kind
def test_a_line_with_neither_version_is_no_measurement_of_either(kind: str, silent: Uplinks) -> None:
    silent.kill("no route")
    before = silent.packets_sent()
    with pytest.raises(CannotMeasureError, match=f"no route to {SERVER_V6} by interface modem-b") as failure:
        measure(kind, "dual.example", DualStack(interface="modem-b"))
    assert "ip_version = 4" in failure.value.remedy
    assert silent.packets_sent() == before
    with pytest.raises(CannotMeasureError, match=f"no route to {SERVER_V4} by interface modem-b"):
        measure(kind, "dual.example", DualStack(interface="modem-b", ip_version=4))


# A modem that works


@each_kind
@each_version
@pytest.mark.parametrize("how", ["interface", "source", "mark", "interface and source"])
def test_a_bound_test_is_in_the_counters_of_its_line(
    kind: str, server: str, how: str, site: Site, at_near: Uplinks
) -> None:
    before = at_near.packets_sent()
    sample = measure(kind, server, to_modem(how, server), site.ports.get(kind))
    site.check_answered(sample)
    assert sample.facts["way_interface"] == "modem-b"
    assert statistic(sample, "interface_octets_sent") >= max(sample.octets_sent, 40)
    assert statistic(sample, "interface_octets_received") >= max(sample.octets_received, 40)
    assert at_near.packets_sent() == before
    assert sample.parameters.get("fwmark") == (MARK if how == "mark" else None)


def test_the_octets_of_an_echo_test_are_exact(at_near: Uplinks) -> None:
    sample = measure("icmp", SERVER_V4, HostNetwork(interface="modem-b"), count=5, size_octets=100)
    # 100 octets of payload, 8 of ICMP, 20 of IP, 14 of Ethernet.
    assert statistic(sample, "interface_octets_sent") == 5 * 142
    assert statistic(sample, "interface_octets_received") == 5 * 142


@each_kind
def test_a_line_in_another_namespace_is_measured_from_outside(kind: str, site: Site) -> None:
    before = site.uplinks.packets_sent("modem-b")
    network = HostNetwork(interface="modem-b", namespace=Namespace(site.uplinks.near))
    sample = measure(kind, SERVER_V4, network, site.ports.get(kind))
    site.check_answered(sample)
    assert sample.parameters["network_namespace"] == site.uplinks.near
    assert sample.facts["way_interface"] == "modem-b"
    assert site.uplinks.packets_sent("modem-b") > before


@each_kind
def test_a_dead_line_in_another_namespace_is_no_measurement(kind: str, silent: Uplinks) -> None:
    silent.kill("no carrier")
    silent.ip("link", "set", "eth-a", "down")
    with pytest.raises(CannotMeasureError, match="no carrier") as failure:
        measure(kind, SERVER_V4, HostNetwork(namespace=Namespace(silent.near)))
    assert failure.value.remedy


# The proof by counters


class LooseNetwork(HostNetwork):
    """Says that it is bound, looks at the way as if it were, and hands out sockets that are not."""

    def tcp(self, family: socket.AddressFamily) -> socket.socket:
        return HostNetwork().tcp(family)

    def udp(self, family: socket.AddressFamily) -> socket.socket:
        return HostNetwork().udp(family)

    def icmp(self, family: socket.AddressFamily) -> tuple[socket.socket, bool]:
        return HostNetwork().icmp(family)


@each_kind
def test_packets_that_left_by_another_way_are_found_out_by_the_counters(
    kind: str, site: Site, at_near: Uplinks
) -> None:
    before = at_near.packets_sent()
    with pytest.raises(CannotMeasureError, match="left by interface modem-b: this host") as failure:
        measure(kind, SERVER_V4, LooseNetwork(interface="modem-b"), site.ports.get(kind))
    assert "ip route get 203.0.113.1 oif modem-b" in failure.value.remedy
    assert at_near.packets_sent() > before


def test_traffic_of_others_on_the_line_is_noted(at_near: Uplinks) -> None:
    network = HostNetwork(interface="modem-b")
    alone = measure("icmp", SERVER_V4, network)
    assert not any("other traffic" in note for note in alone.notes)

    def crowd() -> None:
        with inside(at_near.near), network.udp(socket.AF_INET) as sock:
            for _ in range(50):
                sock.sendto(bytes(1400), (SERVER_V4, 9))

    with meanwhile(crowd, 0.05):
        crowded = measure("icmp", SERVER_V4, network, interval_seconds=0.4)
    (note,) = [note for note in crowded.notes if "other traffic" in note]
    assert note.startswith("other traffic on modem-b during the test: about ")
    assert 70_000 < int(note.split()[-2]) < 200_000
    assert fates(crowded) == {Outcome.RECEIVED}


# What a binding must mean


def test_a_mark_that_no_rule_knows_is_no_binding(silent: Uplinks) -> None:
    before = silent.packets_sent()
    with pytest.raises(CannotMeasureError, match="no rule of this host routes mark 0x9"):
        measure("icmp", SERVER_V4, HostNetwork(fwmark=9))
    assert silent.packets_sent() == before


def test_a_source_that_no_rule_routes_by_its_own_line_is_no_binding(silent: Uplinks) -> None:
    silent.ip("rule", "del", "from", MODEM_V4)
    before = silent.packets_sent()
    with pytest.raises(CannotMeasureError, match=r"would leave by eth-a: 198\.51\.100\.1 is an address of"):
        measure("icmp", SERVER_V4, HostNetwork(source=MODEM_V4))
    assert silent.packets_sent() == before


@each_version
def test_beside_an_interface_a_source_needs_no_rule(server: str, site: Site, at_near: Uplinks) -> None:
    source = MODEM_V6 if ":" in server else MODEM_V4
    version = "-6" if ":" in server else "-4"
    at_near.ip(version, "rule", "del", "from", source)
    try:
        sample = measure("icmp", server, HostNetwork(interface="modem-b", source=source))
    finally:
        at_near.ip(version, "rule", "add", "from", source, "lookup", "100")
    assert fates(sample) == {Outcome.RECEIVED}
    assert sample.facts["way_interface"] == "modem-b"


def test_a_line_with_one_far_end_needs_no_route() -> None:
    """A raw IP modem or PPP: whatever leaves by it arrives at the network, and the counters show it."""
    # Without IPv6 nothing leaves a fresh interface by itself.
    settings = {"ipv4__ping_group_range": "0 2147483647", "ipv6__conf__default__disable_ipv6": "1"}
    with bare_namespace(**settings) as name:
        tun = open_tun(name, "ppp7")
        try:
            for command in ("link set ppp7 up", f"address add {MODEM_V4}/32 dev ppp7"):
                subprocess.run(["ip", "-n", name, *command.split()], check=True)
            os.set_blocking(tun, True)
            heard: list[int] = []
            reader = threading.Thread(target=lambda: heard.extend(len(os.read(tun, 2000)) for _ in range(2)))
            reader.start()
            network = HostNetwork(interface="ppp7", namespace=Namespace(name))
            sample = measure("icmp", SERVER_V4, network, size_octets=100)
            reader.join()
            assert heard == [128, 128]  # 100 octets of payload, 8 of ICMP, 20 of IP
        finally:
            os.close(tun)
    assert fates(sample) == {Outcome.LOST}
    assert statistic(sample, "interface_octets_sent") == 2 * 128


def test_a_target_on_this_host_is_never_reached_over_a_line(silent: Uplinks) -> None:
    with pytest.raises(CannotMeasureError, match="would leave by lo: an address of this host"):
        measure("tcp_connect", MODEM_V4, HostNetwork(interface="modem-b"), port=1)
