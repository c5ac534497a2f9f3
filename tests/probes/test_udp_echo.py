"""udp_echo: services that return datagrams, change them, double them, hold them and are not there."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable

import pytest

from nhip import statistics
from nhip.clock import SystemClock
from nhip.config import convert
from nhip.errors import ConfigError
from nhip.measurement import Outcome, Sample, StampSource, Target
from probes.api import ProbeContext
from probes.network import HostNetwork, Network
from probes.udp_echo import UdpEcho, UdpEchoConfig
from tests.lab.deaf_network import DeafNetwork, NamelessNetwork
from tests.lab.echo_service import echo_service
from tests.lab.peers import closed_port, udp_peer

MS = 1_000_000
Peer = tuple[str, int]
Script = Callable[[socket.socket, bytes, Peer], None]


def measure(
    port: int | None, host: str = "127.0.0.1", *, network: Network | None = None, **settings: object
) -> Sample:
    table = {"count": 3, "interval_seconds": 0.02, "loss_threshold_seconds": 0.3}
    config = convert(table | settings, UdpEchoConfig, "test", environment={})
    context = ProbeContext(clock=SystemClock(), network=network or HostNetwork())
    return UdpEcho(config).measure(Target(id="echo", host=host, port=port), context)


def against(script: Script, **settings: object) -> Sample:
    with udp_peer(script) as port:
        return measure(port, **settings)


def outcomes(sample: Sample) -> list[Outcome]:
    return [singleton.outcome for singleton in sample.singletons]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_comes_back_whole_is_received_with_the_kernel_s_stamps(host: str) -> None:
    with echo_service(host) as port:
        sample = measure(port, host)
    assert outcomes(sample) == [Outcome.RECEIVED] * 3
    assert sample.timestamp_source is StampSource.KERNEL
    assert all(0 < (one.delay_ns or 0) < 50 * MS for one in sample.singletons)
    assert (sample.type_p.protocol, sample.type_p.size_octets) == ("udp", 64)
    assert sample.type_p.ip_version == (6 if ":" in host else 4)
    assert sample.octets_sent == sample.octets_received == 3 * 64


@pytest.mark.parametrize("size_octets", [16, 17, 1400, 60_000])
def test_every_size_is_sent_and_checked_to_its_last_octet(size_octets: int) -> None:
    seen: list[bytes] = []

    def keep(sock: socket.socket, data: bytes, peer: Peer) -> None:
        seen.append(data)
        sock.sendto(data, peer)

    sample = against(keep, size_octets=size_octets)
    assert outcomes(sample) == [Outcome.RECEIVED] * 3
    assert {len(data) for data in seen} == {size_octets}
    assert len({data[:8] for data in seen}) == 1
    assert [int.from_bytes(data[8:12], "big") for data in seen] == [0, 1, 2]


@pytest.mark.parametrize("place", [8, 11, 12, 15, 16, 40, 63])
def test_an_octet_changed_anywhere_behind_the_token_is_corrupt(place: int) -> None:
    def change(sock: socket.socket, data: bytes, peer: Peer) -> None:
        damaged = bytearray(data)
        damaged[place] ^= 0x80
        sock.sendto(damaged, peer)

    assert outcomes(against(change)) == [Outcome.CORRUPT] * 3


def test_a_number_changed_on_the_way_settles_the_request_that_was_sent() -> None:
    """Its digest tells whose answer it is, though the number in it is another request's."""

    def renumber(sock: socket.socket, data: bytes, peer: Peer) -> None:
        if data[11] == 1:
            data = data[:11] + b"\0" + data[12:]
        sock.sendto(data, peer)

    sample = against(renumber)
    assert outcomes(sample) == [Outcome.RECEIVED, Outcome.CORRUPT, Outcome.RECEIVED]


@pytest.mark.parametrize("length", [16, 63, 65, 200])
def test_another_length_is_corrupt(length: int) -> None:
    def resize(sock: socket.socket, data: bytes, peer: Peer) -> None:
        sock.sendto(data[:length] + bytes(max(length - len(data), 0)), peer)

    assert outcomes(against(resize)) == [Outcome.CORRUPT] * 3


@pytest.mark.parametrize("answer", [b"", b"x", b"a service that greets" * 3])
def test_what_does_not_carry_the_token_is_no_answer(answer: bytes) -> None:
    def greet(sock: socket.socket, _data: bytes, peer: Peer) -> None:
        sock.sendto(answer, peer)

    assert outcomes(against(greet)) == [Outcome.LOST] * 3


def test_an_answer_from_another_address_is_foreign() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.2", 0))
        sample = against(lambda _sock, data, peer: other.sendto(data, peer) and None)
    assert outcomes(sample) == [Outcome.LOST] * 3
    assert "3 foreign answers ignored" in sample.notes


def test_a_second_copy_is_a_duplicate() -> None:
    def twice(sock: socket.socket, data: bytes, peer: Peer) -> None:
        sock.sendto(data, peer)
        sock.sendto(data, peer)

    counters = statistics.count(against(twice).singletons)
    assert (counters.sent, counters.received, counters.duplicate) == (3, 3, 3)


def test_an_answer_after_the_threshold_is_late_and_lost() -> None:
    held: list[tuple[bytes, Peer]] = []

    def hold_back(sock: socket.socket, data: bytes, peer: Peer) -> None:
        # Each request but the first lets the one before it be answered: 0.15 s late by construction.
        held.append((data, peer))
        if len(held) > 1:
            sock.sendto(*held[-2])

    sample = against(hold_back, interval_seconds=0.15, loss_threshold_seconds=0.1)
    assert outcomes(sample)[:2] == [Outcome.LATE] * 2
    assert statistics.count(sample.singletons).lost == 3


def test_which_datagram_was_lost_is_kept() -> None:
    numbered = itertools.count()

    def every_second(sock: socket.socket, data: bytes, peer: Peer) -> None:
        if next(numbered) % 2 == 0:
            sock.sendto(data, peer)

    sample = against(every_second, count=6)
    assert outcomes(sample) == [Outcome.RECEIVED, Outcome.LOST] * 3


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_closed_port_is_refused_without_waiting(host: str) -> None:
    sample = measure(closed_port(socket.SOCK_DGRAM, host), host, loss_threshold_seconds=30.0)
    assert outcomes(sample) == [Outcome.REFUSED] * 3
    assert sample.ended.mono_ns - sample.started.mono_ns < 5e9


def test_silence_is_loss_and_a_name_without_address_is_not() -> None:
    with echo_service() as port:
        assert outcomes(measure(port, network=DeafNetwork())) == [Outcome.LOST] * 3
    nameless = measure(None, "host.invalid", network=NamelessNetwork())
    assert outcomes(nameless) == [Outcome.NOT_RESOLVED] * 3
    assert nameless.type_p.destination_port == 7


def test_the_probe_answers_nothing_so_no_loop_can_begin() -> None:
    """A service that asks back, as another echo service would, hears only what was planned."""
    heard: list[bytes] = []
    enough = threading.Event()

    def ask_back(sock: socket.socket, data: bytes, peer: Peer) -> None:
        heard.append(data)
        sock.sendto(data, peer)
        sock.sendto(b"and you?", peer)
        if len(heard) > 3:
            enough.set()

    sample = against(ask_back)
    assert outcomes(sample) == [Outcome.RECEIVED] * 3
    assert len(heard) == 3
    assert not enough.is_set()


def test_a_size_too_small_for_the_header_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"file\.toml:size_octets"):
        convert({"size_octets": 15}, UdpEchoConfig, "file.toml", environment={})
