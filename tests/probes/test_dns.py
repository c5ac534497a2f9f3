"""dns over UDP against resolvers that answer, lie, repeat themselves and come late."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from nhip import statistics
from nhip.clock import SystemClock
from nhip.config import convert
from nhip.measurement import Outcome, Sample, StampSource, Target
from probes.api import ProbeContext
from probes.dns.config import DnsConfig
from probes.dns.probe import Dns
from probes.line.netlink import LineCount
from probes.network import HostNetwork, Way
from tests.lab.peers import closed_port, udp_peer
from tests.lab.resolvers import notes

Peer = tuple[str, int]
Script = Callable[[socket.socket, dns.message.Message, Peer], None]


def answer_for(query: dns.message.Message, address: str = "192.0.2.1") -> dns.message.Message:
    answer = dns.message.make_response(query)
    answer.answer.append(dns.rrset.from_text(query.question[0].name, 0, "IN", "A", address))
    return answer


def reply(sock: socket.socket, query: dns.message.Message, peer: Peer) -> None:
    sock.sendto(answer_for(query).to_wire(), peer)


@contextmanager
def resolver(script: Script, host: str = "127.0.0.1") -> Iterator[Target]:
    def decode(sock: socket.socket, data: bytes, peer: Peer) -> None:
        script(sock, dns.message.from_wire(data), peer)

    with udp_peer(decode, host) as port:
        yield Target(id="resolver", host=host, port=port)


def measure(target: Target, **settings: object) -> Sample:
    table = {"count": 3, "interval_seconds": 0.05, "loss_threshold_seconds": 0.3, "name": "host.lab.example"}
    config = convert(table | settings, DnsConfig, "test", environment={})
    return Dns(config).measure(target, ProbeContext(clock=SystemClock(), network=HostNetwork()))


def outcomes(sample: Sample) -> list[Outcome]:
    return [singleton.outcome for singleton in sample.singletons]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_whole_answer_has_a_delay_stamped_by_the_kernel(host: str) -> None:
    with resolver(reply, host) as target:
        sample = measure(target)
    assert outcomes(sample) == [Outcome.RECEIVED] * 3
    assert sample.timestamp_source is StampSource.KERNEL
    assert all(singleton.delay_ns for singleton in sample.singletons)
    assert 0 < min(singleton.delay_ns or 0 for singleton in sample.singletons) < 0.1e9
    assert sample.type_p.ip_version == (6 if ":" in host else 4)
    # Header, question, an A record of 16, and the OPT record of 11 with an empty NSID option of 4.
    assert sample.octets_sent == 3 * sample.type_p.size_octets == 3 * (34 + 11 + 4)
    assert sample.octets_received == 3 * (34 + 16 + 11)
    assert notes(sample) == []
    assert sample.method.name == "dns_udp"


def test_both_ends_of_a_delay_are_the_kernel_s_and_the_host_s_own_times_stand_beside_them() -> None:
    with resolver(reply) as target:
        sample = measure(target, count=5)
    for singleton in sample.singletons:
        assert singleton.sent and singleton.received and singleton.delay_ns is not None
        assert singleton.sent.source is singleton.received.source is StampSource.KERNEL
        assert singleton.delay_ns == singleton.received.mono_ns - singleton.sent.mono_ns
        assert singleton.host_sent_mono_ns and singleton.host_received_mono_ns
        assert singleton.host_sent_mono_ns <= singleton.sent.mono_ns + 50_000
        assert singleton.received.mono_ns <= singleton.host_received_mono_ns + 50_000
    errors = sorted(one.own_error_ns for one in sample.singletons if one.own_error_ns is not None)
    assert len(errors) == 5
    assert errors[2] < 0.05e6


def test_opening_a_question_s_socket_makes_the_question_no_later() -> None:
    """Switching stamps on takes 5 ms each time, which must be over when the question is due."""
    with resolver(reply) as target:
        sample = measure(target, count=20, interval_seconds=0.02)
    lags = sorted(singleton.send_lag_ns or 0 for singleton in sample.singletons)
    assert lags[len(lags) // 4] < 2e6


def test_ids_and_source_ports_differ_between_questions() -> None:
    seen: list[tuple[int, int]] = []

    def script(sock: socket.socket, query: dns.message.Message, peer: Peer) -> None:
        seen.append((query.id, peer[1]))
        reply(sock, query, peer)

    with resolver(script) as target:
        measure(target, count=20, interval_seconds=0.01)
    assert len({number for number, _port in seen}) >= 19
    assert len({port for _number, port in seen}) >= 15


def wrong_id(query: dns.message.Message) -> dns.message.Message:
    answer = answer_for(query)
    answer.id ^= 1
    return answer


def wrong_name(query: dns.message.Message) -> dns.message.Message:
    other = dns.message.make_query("other.lab.example", "A", id=query.id)
    return answer_for(other)


def wrong_type(query: dns.message.Message) -> dns.message.Message:
    return dns.message.make_response(dns.message.make_query("host.lab.example", "AAAA", id=query.id))


def no_answer_bit(query: dns.message.Message) -> dns.message.Message:
    answer = answer_for(query)
    answer.flags &= ~dns.flags.QR
    return answer


@pytest.mark.parametrize("lie", [wrong_id, wrong_name, wrong_type, no_answer_bit])
def test_a_lie_before_the_answer_is_ignored_and_counted(
    lie: Callable[[dns.message.Message], dns.message.Message],
) -> None:
    def script(sock: socket.socket, query: dns.message.Message, peer: Peer) -> None:
        sock.sendto(lie(query).to_wire(), peer)
        reply(sock, query, peer)

    with resolver(script) as target:
        sample = measure(target)
    assert outcomes(sample) == [Outcome.RECEIVED] * 3
    assert notes(sample) == ["3 foreign answers ignored"]


@pytest.mark.parametrize("lie", [wrong_id, wrong_name, wrong_type, no_answer_bit])
def test_a_lie_alone_is_a_loss(lie: Callable[[dns.message.Message], dns.message.Message]) -> None:
    with resolver(lambda sock, query, peer: sock.sendto(lie(query).to_wire(), peer)) as target:
        sample = measure(target, count=1)
    assert outcomes(sample) == [Outcome.LOST]
    assert notes(sample) == ["1 foreign answers ignored"]


def test_an_answer_from_another_address_is_foreign() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.2", 0))

        def script(_sock: socket.socket, query: dns.message.Message, peer: Peer) -> None:
            other.sendto(answer_for(query).to_wire(), peer)

        with resolver(script) as target:
            sample = measure(target, count=2)
    assert outcomes(sample) == [Outcome.LOST] * 2
    assert notes(sample) == ["2 foreign answers ignored"]


@pytest.mark.parametrize("rcode", ["SERVFAIL", "NXDOMAIN", "REFUSED", "FORMERR"])
def test_an_error_code_is_a_rejection_that_names_it(rcode: str) -> None:
    def script(sock: socket.socket, query: dns.message.Message, peer: Peer) -> None:
        answer = dns.message.make_response(query)
        answer.set_rcode(dns.rcode.from_text(rcode))
        sock.sendto(answer.to_wire(), peer)

    with resolver(script) as target:
        sample = measure(target, count=2)
    assert outcomes(sample) == [Outcome.REJECTED] * 2
    assert {singleton.detail for singleton in sample.singletons} == {rcode}
    assert statistics.loss_ratio(statistics.count(sample.singletons)) is None


def test_a_second_answer_is_a_duplicate_and_not_received_again() -> None:
    def script(sock: socket.socket, query: dns.message.Message, peer: Peer) -> None:
        reply(sock, query, peer)
        reply(sock, query, peer)

    with resolver(script) as target:
        sample = measure(target)
    counters = statistics.count(sample.singletons)
    assert (counters.sent, counters.received, counters.duplicate, counters.lost) == (3, 3, 3, 0)


def test_an_answer_after_the_threshold_is_late_and_counts_as_lost() -> None:
    held: list[tuple[dns.message.Message, Peer]] = []

    def script(sock: socket.socket, query: dns.message.Message, peer: Peer) -> None:
        # Each question but the first lets the one before it be answered: 0.15 s late by construction.
        held.append((query, peer))
        if len(held) > 1:
            reply(sock, *held[-2])

    with resolver(script) as target:
        sample = measure(target, count=3, interval_seconds=0.15, loss_threshold_seconds=0.1)
    assert outcomes(sample) == [Outcome.LATE, Outcome.LATE, Outcome.LOST]
    assert all(singleton.delay_ns is None for singleton in sample.singletons)
    late = sample.singletons[0]
    assert late.sent and late.received and late.received.mono_ns - late.sent.mono_ns > 0.1e9
    counters = statistics.count(sample.singletons)
    assert (counters.sent, counters.received, counters.lost, counters.late) == (3, 0, 3, 2)


def test_every_second_question_unanswered_is_half_the_loss_and_keeps_which() -> None:
    numbers = iter(range(100))

    def script(sock: socket.socket, query: dns.message.Message, peer: Peer) -> None:
        if next(numbers) % 2 == 0:
            reply(sock, query, peer)

    with resolver(script) as target:
        sample = measure(target, count=10, interval_seconds=0.02)
    assert outcomes(sample) == [Outcome.RECEIVED, Outcome.LOST] * 5
    assert statistics.loss_ratio(statistics.count(sample.singletons)) == 0.5


def test_a_truncated_answer_is_received_and_marked() -> None:
    def script(sock: socket.socket, query: dns.message.Message, peer: Peer) -> None:
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.TC
        sock.sendto(answer.to_wire(), peer)

    with resolver(script) as target:
        sample = measure(target, count=1)
    assert outcomes(sample) == [Outcome.RECEIVED]
    assert sample.singletons[0].detail == "truncated"
    numbers = {one.name: one.value for one in sample.statistics}
    assert numbers["dns_truncated_answers"] == 1
    assert sample.singletons[0].phases == ()


def test_octets_that_are_no_message_are_corrupt() -> None:
    with resolver(
        lambda sock, query, peer: sock.sendto(query.id.to_bytes(2, "big") + b"\xff" * 30, peer)
    ) as target:
        sample = measure(target, count=1)
    assert outcomes(sample) == [Outcome.CORRUPT]


@pytest.mark.parametrize("octets", [b"", b"x", b"\0" * 12])
def test_octets_with_another_id_are_foreign(octets: bytes) -> None:
    def script(sock: socket.socket, query: dns.message.Message, peer: Peer) -> None:
        sock.sendto((query.id ^ 0xFFFF).to_bytes(2, "big")[: len(octets)] + octets[2:], peer)

    with resolver(script) as target:
        sample = measure(target, count=1)
    assert outcomes(sample) == [Outcome.LOST]
    assert notes(sample) == ["1 foreign answers ignored"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_closed_port_is_refused_at_once(host: str) -> None:
    port = closed_port(socket.SOCK_DGRAM, host)
    sample = measure(Target(id="resolver", host=host, port=port), loss_threshold_seconds=30.0)
    assert outcomes(sample) == [Outcome.REFUSED] * 3
    assert sample.ended.mono_ns - sample.started.mono_ns < 5e9


class LetterKeeper:
    """A resolver that notes the names it is asked and may flatten their capitals in the answer."""

    def __init__(self, *, flatten: bool) -> None:
        self.flatten = flatten
        self.names: list[str] = []

    def __call__(self, sock: socket.socket, query: dns.message.Message, peer: Peer) -> None:
        name = str(query.question[0].name)
        self.names.append(name)
        if self.flatten:
            query = dns.message.make_query(name.lower(), "A", id=query.id)
        reply(sock, query, peer)


def test_mixed_case_sends_random_capitals_and_takes_their_echo() -> None:
    keeper = LetterKeeper(flatten=False)
    with resolver(keeper) as target:
        sample = measure(target, mixed_case=True, count=5)
    assert outcomes(sample) == [Outcome.RECEIVED] * 5
    assert len(set(keeper.names)) > 1
    assert {name.lower() for name in keeper.names} == {"host.lab.example."}


def test_mixed_case_refuses_an_answer_in_small_letters_which_is_otherwise_taken() -> None:
    with resolver(LetterKeeper(flatten=True)) as target:
        strict = measure(target, mixed_case=True, count=2)
        lenient = measure(target, name="HOST.lab.example", count=2)
    assert outcomes(strict) == [Outcome.LOST] * 2
    assert outcomes(lenient) == [Outcome.RECEIVED] * 2


def test_cancelling_in_the_middle_keeps_what_was_measured() -> None:
    cancelled = threading.Event()
    asked = iter(range(100))

    def script(sock: socket.socket, query: dns.message.Message, peer: Peer) -> None:
        reply(sock, query, peer)
        if next(asked) == 1:
            cancelled.set()

    with resolver(script) as target:
        config = DnsConfig(count=50, interval_seconds=0.2)
        context = ProbeContext(clock=SystemClock(), network=HostNetwork(), cancelled=cancelled)
        sample = Dns(config).measure(target, context)
    assert outcomes(sample)[0] is Outcome.RECEIVED
    assert outcomes(sample)[-1] is Outcome.NOT_SENT
    assert len(sample.singletons) == 50
    assert statistics.count(sample.singletons).lost == 0


class StuckCounters(HostNetwork):
    """A network whose interface counters never move, so that the end of a test waits for them."""

    def count(self, way: Way) -> LineCount | None:
        return way.count


class HurriedClock(SystemClock):
    """Jumps ahead where somebody waits for interface counters, instead of waiting."""

    def __init__(self) -> None:
        self.jumped_ns = 0

    def mono_ns(self) -> int:
        return super().mono_ns() + self.jumped_ns

    def sleep(self, seconds: float) -> None:
        if seconds == 0.05:
            self.jumped_ns += 3_000_000_000
        else:
            super().sleep(seconds)


def test_the_wait_for_interface_counters_goes_by_the_test_s_own_clock() -> None:
    clock = HurriedClock()
    with resolver(reply) as target:
        sample = Dns(DnsConfig(count=1)).measure(target, ProbeContext(clock=clock, network=StuckCounters()))
    assert outcomes(sample) == [Outcome.RECEIVED]
    assert clock.jumped_ns > 0
