"""Happy Eyeballs (RFC 8305): who wins, after how long, and what is told of the other one."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from nhip.clock import SystemClock
from nhip.config import convert
from nhip.errors import CannotMeasureError
from nhip.measurement import Outcome, Sample, Singleton, StampSource, Target
from probes.api import ProbeContext
from probes.dialling import alternating
from probes.network import Address, HostNetwork, Network, Way
from probes.tcp_connect import TcpConnect, TcpConnectConfig
from tests.lab.http_probe import visit
from tests.lab.peers import read_head, tcp_peer
from tests.lab.two_families import V4, V6, TwoFamilies, listeners


def measure(port: int, network: Network, cancelled: threading.Event | None = None, **more: object) -> Sample:
    table = {"count": 1, "interval_seconds": 0.05, "happy_eyeballs": True, "loss_threshold_seconds": 2.0}
    config = convert(table | more, TcpConnectConfig, "test", environment={})
    context = ProbeContext(clock=SystemClock(), network=network, cancelled=cancelled or threading.Event())
    return TcpConnect(config).measure(Target(id="t", host="name.example", port=port), context)


def phases(singleton: Singleton) -> dict[str, int]:
    return {phase.name: phase.duration_ns for phase in singleton.phases}


def connect_times(sample: Sample) -> dict[str, tuple[float | None, int]]:
    return {
        statistic.name: (statistic.value, statistic.count)
        for statistic in sample.statistics
        if statistic.name.startswith("tcp_connect_")
    }


def told(sample: Sample) -> dict[str, str]:
    return {key: value for key, value in sample.facts.items() if key.startswith("happy_eyeballs")}


@pytest.mark.parametrize(("order", "winner"), [((V6, V4), "ipv6"), ((V4, V6), "ipv4")])
def test_the_favourite_wins_where_both_answer_and_both_have_their_time(
    order: tuple[socket.AddressFamily, ...], winner: str
) -> None:
    with listeners(V4, V6) as port:
        network = TwoFamilies(order)
        sample = measure(port, network, count=3)
    assert told(sample) == {"happy_eyeballs": winner}
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.RECEIVED}
    assert {singleton.delay_source for singleton in sample.singletons} == {StampSource.KERNEL}
    assert sample.type_p.ip_version == int(winner[-1])
    assert sample.address == {"ipv6": "::1", "ipv4": "127.0.0.1"}[winner]
    times = connect_times(sample)
    loser = {"ipv6": "ipv4", "ipv4": "ipv6"}[winner]
    assert times[f"tcp_connect_{winner}"][1] == 3
    # The loser was never tried in a race; one connection after the last attempt found out.
    assert times[f"tcp_connect_{loser}"][1] == 1
    assert all(value is not None and 0 < value < 0.05 for value, _count in times.values())
    assert len(network.opened) == 4
    assert phases(sample.singletons[0])["happy_eyeballs"] == 0


@pytest.mark.parametrize("delay_seconds", [0.1, 0.25])
def test_behind_a_black_hole_the_other_family_wins_after_the_delay(delay_seconds: float) -> None:
    with listeners(V4, V6) as port:
        sample = measure(port, TwoFamilies(deaf=(V6,)), happy_eyeballs_delay_seconds=delay_seconds, count=2)
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.RECEIVED}
    for singleton in sample.singletons:
        found = phases(singleton)
        assert list(found) == ["happy_eyeballs", "tcp"]
        assert delay_seconds <= found["happy_eyeballs"] / 1e9 < delay_seconds + 0.05
        assert found["tcp"] < 0.05e9
    assert told(sample)["happy_eyeballs"] == "ipv4"
    assert told(sample)["happy_eyeballs_ipv6"].startswith("no answer within ")
    assert list(connect_times(sample)) == ["tcp_connect_ipv4"]
    assert sample.type_p.ip_version == 4


def test_without_the_race_the_black_hole_is_lost() -> None:
    """The twin: what a client without Happy Eyeballs sees of the same network."""
    with listeners(V4, V6) as port:
        sample = measure(port, TwoFamilies(deaf=(V6,)), happy_eyeballs=False, loss_threshold_seconds=0.3)
    assert sample.singletons[0].outcome is Outcome.LOST
    assert told(sample) == {}
    assert sample.type_p.ip_version == 6


def test_a_refusal_gives_the_other_family_its_turn_at_once() -> None:
    with listeners(V4) as port:
        sample = measure(port, TwoFamilies(), happy_eyeballs_delay_seconds=1.0)
    (singleton,) = sample.singletons
    assert singleton.outcome is Outcome.RECEIVED
    assert phases(singleton)["happy_eyeballs"] < 0.1e9
    assert told(sample) == {"happy_eyeballs": "ipv4", "happy_eyeballs_ipv6": "ECONNREFUSED"}


def test_where_nobody_connects_the_fate_is_the_favourite_s() -> None:
    with listeners(V4) as port:
        pass
    refused = measure(port, TwoFamilies())
    assert (refused.singletons[0].outcome, refused.singletons[0].detail) == (Outcome.REFUSED, "ECONNREFUSED")
    assert told(refused)["happy_eyeballs"] == "none connected"
    with listeners(V4, V6) as port:
        silent = measure(port, TwoFamilies(deaf=(V4, V6)), loss_threshold_seconds=0.5)
    assert silent.singletons[0].outcome is Outcome.LOST
    assert told(silent)["happy_eyeballs_ipv6"] == "timed out"


def test_one_family_alone_is_no_race() -> None:
    with listeners(V4) as port:
        sample = measure(port, TwoFamilies((V4,)))
    assert told(sample) == {"happy_eyeballs": "ipv4"}
    assert list(connect_times(sample)) == ["tcp_connect_ipv4"]


class NoIpv6(TwoFamilies):
    """This host has no route for IPv6."""

    def way(self, address: Address) -> Way | None:
        if address.family is V6:
            raise CannotMeasureError("this host has no route to ::1", remedy="ip -6 route")
        return super().way(address)


def test_a_host_without_ipv6_measures_by_ipv4_and_says_so() -> None:
    with listeners(V4, V6) as port:
        sample = measure(port, NoIpv6())
        assert sample.singletons[0].outcome is Outcome.RECEIVED
        assert told(sample) == {"happy_eyeballs": "ipv4", "happy_eyeballs_ipv6": "no route on this host"}
        with pytest.raises(CannotMeasureError, match="no route"):
            measure(port, NoIpv6((V6,)))


def test_without_a_race_the_first_address_with_a_way_is_taken() -> None:
    """A dual-stack name on a line without IPv6, while the resolver's route has it."""
    with listeners(V4, V6) as port:
        sample = measure(port, NoIpv6(), happy_eyeballs=False)
        assert sample.singletons[0].outcome is Outcome.RECEIVED
        assert (sample.address, sample.type_p.ip_version) == ("127.0.0.1", 4)
        with pytest.raises(CannotMeasureError, match="no route"):
            measure(port, NoIpv6((V6,)), happy_eyeballs=False)


def test_the_other_version_is_tried_after_the_last_attempt_and_holds_none_back() -> None:
    with listeners(V4, V6) as port:
        network = TwoFamilies((V4, V6), deaf=(V6,))
        sample = measure(port, network, count=3, interval_seconds=0.1, loss_threshold_seconds=1.5)
    sent_ns = [singleton.sent.mono_ns for singleton in sample.singletons if singleton.sent]
    assert network.opened == [V4, V4, V4, V6]
    # One attempt that waits for the other version would take 1.5 s.
    assert sent_ns[2] - sent_ns[0] < 1.5e9
    assert sample.ended.mono_ns - sent_ns[2] >= 1.5e9
    assert told(sample) == {"happy_eyeballs": "ipv4", "happy_eyeballs_ipv6": "timed out"}


def test_cancelling_ends_a_race_soon_and_closes_every_socket() -> None:
    cancelled = threading.Event()
    before = len(list(Path("/proc/self/fd").iterdir()))
    with listeners(V4, V6) as port:
        timer = threading.Timer(0.2, cancelled.set)
        timer.start()
        sample = measure(
            port,
            TwoFamilies(deaf=(V4, V6)),
            cancelled,
            loss_threshold_seconds=30.0,
            happy_eyeballs_delay_seconds=0.05,
        )
        timer.join()
    assert sample.singletons[0].outcome is Outcome.NOT_SENT
    assert sample.ended.mono_ns - sample.started.mono_ns < 1e9
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_families_take_turns_and_the_resolver_s_favourite_begins() -> None:
    def of(text: str) -> Address:
        return Address(V6 if ":" in text else V4, (text, 80))

    mixed = [of(text) for text in ("::1", "::2", "::3", "127.0.0.1", "127.0.0.2")]
    assert [address.host for address in alternating(mixed)] == [
        *("::1", "127.0.0.1", "::2", "127.0.0.2", "::3")
    ]
    assert alternating([]) == ()
    assert [address.host for address in alternating(mixed[3:])] == ["127.0.0.1", "127.0.0.2"]


class ManyAddresses(TwoFamilies):
    def resolve_all(self, host: str, port: int, *, timeout_seconds: float) -> tuple[Address, ...]:
        return tuple(Address(V4, (f"127.0.1.{number}", port)) for number in range(1, 100))


def test_a_name_with_very_many_addresses_is_not_stormed() -> None:
    network = ManyAddresses()
    with listeners(V4) as port:
        sample = measure(port, network)
    assert sample.singletons[0].outcome is Outcome.REFUSED
    assert len(network.opened) == 6


def test_http_races_too_and_asks_over_the_winner() -> None:
    def page(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    with tcp_peer(page) as port:
        sample = visit(port, "name.example", tls=False, happy_eyeballs=True, network=TwoFamilies(), count=2)
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.RECEIVED}
    assert list(phases(sample.singletons[0])) == ["dns", "happy_eyeballs", "tcp", "first_byte", "transfer"]
    assert told(sample)["happy_eyeballs"] == "ipv4"
    assert sample.address == "127.0.0.1"
    assert connect_times(sample)["tcp_connect_ipv4"][1] == 2


def test_a_literal_address_is_measured_as_it_stands() -> None:
    with listeners(V4) as port:
        config = convert({"count": 1, "happy_eyeballs": True}, TcpConnectConfig, "test", environment={})
        context = ProbeContext(clock=SystemClock(), network=HostNetwork())
        sample = TcpConnect(config).measure(Target(id="t", host="127.0.0.1", port=port), context)
    assert told(sample) == {"happy_eyeballs": "ipv4"}
