"""dns over TCP and TLS against servers that stop, drip, repeat themselves and show any certificate."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.flags
import dns.message
import dns.rrset
import pytest

from nhip import statistics
from nhip.config import convert
from nhip.measurement import Outcome, Sample, StampSource, Target
from probes.api import ProbeContext
from probes.dns.config import DnsConfig
from probes.dns.probe import Dns
from probes.network import HostNetwork
from tests.lab.certificate import Certificate, make_certificate
from tests.lab.deaf_network import DeafNetwork
from tests.lab.peers import closed_port, tcp_peer, udp_peer
from tests.lab.resolvers import NAME, answer_for, framed, measure_dns, notes, outcomes, read_question
from tests.lab.stepped_clock import SteppedClock
from tests.lab.tls_server import server_context

MS = 1_000_000
SERVER = "resolver.lab.example"
Script = Callable[[socket.socket, dns.message.Message], bool]
"""Answers one question; True when the connection stays open for the next."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"), SERVER, "127.0.0.1")


def reply(sock: socket.socket, query: dns.message.Message) -> bool:
    sock.sendall(framed(answer_for(query).to_wire()))
    return True


@contextmanager
def server(script: Script, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[Target]:
    """A name server on connections; with `tls` it speaks TLS."""

    def serve(plain: socket.socket) -> None:
        sock: socket.socket = plain
        if tls is not None:
            try:
                sock = tls.wrap_socket(plain, server_side=True)
            except (ssl.SSLError, OSError):
                return  # a client that refuses the certificate breaks off
        with sock:
            while (query := read_question(sock)) is not None and script(sock, query):
                pass

    with tcp_peer(serve, host) as port:
        yield Target(id="resolver", host=host, port=port)


def by_tcp(target: Target, **settings: object) -> Sample:
    return measure_dns(target, transport="tcp", **settings)


def numbers(sample: Sample, name: str) -> dict[str, float | None]:
    return {one.of: one.value for one in sample.statistics if one.name == name}


# Answers


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_answer_has_a_delay_and_connecting_is_a_phase_of_its_own(host: str) -> None:
    with server(reply, host=host) as target:
        sample = by_tcp(target)
    assert outcomes(sample) == [Outcome.RECEIVED] * 3
    assert (sample.method.name, sample.type_p.protocol, sample.type_p.size_octets) == ("dns_tcp", "tcp", None)
    assert sample.type_p.ip_version == (6 if ":" in host else 4)
    for singleton in sample.singletons:
        assert [phase.name for phase in singleton.phases] == ["tcp", "query"]
        assert singleton.sent and singleton.received and singleton.delay_ns is not None
        assert singleton.delay_ns == singleton.received.mono_ns - singleton.sent.mono_ns
        assert singleton.phases[1].duration_ns == singleton.delay_ns
        assert singleton.delay_ns > 0
        assert singleton.delay_source is StampSource.KERNEL
    assert min(singleton.delay_ns or 0 for singleton in sample.singletons) < 100 * MS
    errors = [one.own_error_ns for one in sample.singletons if one.own_error_ns is not None]
    assert len(errors) == 3
    assert min(errors) < 0.05 * MS
    assert sample.octets_sent == 3 * (2 + 49)
    assert sample.octets_received == 3 * (2 + 61)
    assert numbers(sample, "dns_connections") == {"": 3}


def test_connecting_is_no_part_of_the_delay(certificate: Certificate) -> None:
    """The server takes 60 ms before it shakes hands, and answers at once."""
    tls = server_context(certificate)

    def slow_to_shake_hands(plain: socket.socket) -> None:
        threading.Event().wait(0.06)
        with tls.wrap_socket(plain, server_side=True) as sock:
            query = read_question(sock)
            assert query is not None
            reply(sock, query)

    with tcp_peer(slow_to_shake_hands) as port:
        target = Target(id="resolver", host="127.0.0.1", port=port)
        sample = measure_dns(target, transport="tls", ca_file=str(certificate.certificate), count=2)
    assert outcomes(sample) == [Outcome.RECEIVED] * 2
    for singleton in sample.singletons:
        spans = {phase.name: phase.duration_ns for phase in singleton.phases}
        assert spans["tls"] > 55 * MS
    assert min(singleton.delay_ns or 0 for singleton in sample.singletons) < 50 * MS


def test_an_answer_of_65_535_octets_is_read_whole() -> None:
    def longest(sock: socket.socket, query: dns.message.Message) -> bool:
        octets = answer_for(query).to_wire()
        sock.sendall(framed(octets + bytes(65_535 - len(octets))))
        return True

    with server(longest) as target:
        sample = by_tcp(target)
    assert outcomes(sample) == [Outcome.RECEIVED] * 3
    assert numbers(sample, "dns_answer_octets") == {"": 65_535}
    assert sample.octets_received == 3 * 65_537


def test_an_answer_in_single_octets_is_put_together() -> None:
    def piecemeal(sock: socket.socket, query: dns.message.Message) -> bool:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in framed(answer_for(query).to_wire()):
            sock.sendall(bytes([octet]))
        return True

    with server(piecemeal) as target:
        assert outcomes(by_tcp(target)) == [Outcome.RECEIVED] * 3


def test_every_instance_that_answered_is_listed() -> None:
    names = itertools.cycle([b"hn-1", b"hn-2", b"\xff"])

    def instances(sock: socket.socket, query: dns.message.Message) -> bool:
        sock.sendall(framed(answer_for(query, instance=next(names)).to_wire()))
        return True

    with server(instances) as target:
        sample = by_tcp(target, count=6, interval_seconds=0.01)
    assert sample.facts["nsid"] == "hn-1, hn-2, 0xff"
    assert sample.facts["rcode"] == "NOERROR"
    assert numbers(sample, "dns_server_instances") == {"": 3}
    assert numbers(sample, "dns_answers") == {"NOERROR": 6}


# Failures


def test_a_closed_port_is_refused() -> None:
    sample = by_tcp(Target(id="resolver", host="127.0.0.1", port=closed_port(socket.SOCK_STREAM)))
    assert outcomes(sample) == [Outcome.REFUSED] * 3
    assert {singleton.detail for singleton in sample.singletons} == {"ECONNREFUSED"}
    assert {singleton.delay_ns for singleton in sample.singletons} == {None}


def test_a_server_that_closes_without_an_answer_is_a_reset() -> None:
    with server(lambda _sock, _query: False) as target:
        sample = by_tcp(target)
    assert outcomes(sample) == [Outcome.RESET] * 3
    assert {singleton.detail for singleton in sample.singletons} == {"closed without an answer"}


def test_a_server_that_closes_in_the_middle_is_truncated_and_says_where() -> None:
    def half(sock: socket.socket, query: dns.message.Message) -> bool:
        sock.sendall(framed(answer_for(query).to_wire())[:22])
        return False

    with server(half) as target:
        sample = by_tcp(target)
    assert outcomes(sample) == [Outcome.TRUNCATED] * 3
    assert {singleton.detail for singleton in sample.singletons} == {"closed after 20 of 61 octets"}


def test_a_drip_beyond_the_threshold_is_lost_however_steady() -> None:
    stop = threading.Event()
    dripped: list[int] = []

    def drip(sock: socket.socket, query: dns.message.Message) -> bool:
        for octet in framed(answer_for(query).to_wire()):
            sock.sendall(bytes([octet]))
            dripped.append(octet)
            if stop.wait(0.05):
                break
        return False

    with server(drip) as target:
        begun = time.monotonic()
        sample = by_tcp(target, count=1, loss_threshold_seconds=0.4)
        took = time.monotonic() - begun
        stop.set()
    assert outcomes(sample) == [Outcome.LOST]
    assert sample.singletons[0].detail.startswith("timed out after ")
    assert took >= 0.4
    assert len(dripped) < 63, "it was waited for the last octet"
    assert statistics.loss_ratio(statistics.count(sample.singletons)) == 1.0


def test_a_silent_server_is_lost_and_the_plan_moves_back_without_a_burst() -> None:
    release = threading.Event()

    def silent(_sock: socket.socket, _query: dns.message.Message) -> bool:
        release.wait(5)
        return False

    with server(silent) as target:
        sample = by_tcp(target, count=3, interval_seconds=0.05, loss_threshold_seconds=0.2)
        release.set()
    assert outcomes(sample) == [Outcome.LOST] * 3
    starts = [one.host_sent_mono_ns or 0 for one in sample.singletons]
    assert all(later - earlier >= 200 * MS for earlier, later in itertools.pairwise(starts))
    assert any("the plan was moved back" in note for note in sample.notes)
    # Waiting for an answer is no lateness of this host: counted as such it would be 150 ms each time.
    assert min(one.send_lag_ns or 0 for one in sample.singletons[1:]) < 50 * MS


def other_id(query: dns.message.Message) -> bytes:
    answer = answer_for(query)
    answer.id ^= 1
    return answer.to_wire()


def other_question(query: dns.message.Message) -> bytes:
    return answer_for(dns.message.make_query("other.lab.example", "A", id=query.id)).to_wire()


@pytest.mark.parametrize(
    ("lie", "detail"),
    [
        (other_id, "answer to another question"),
        (other_question, "answer to another question"),
        (lambda query: query.to_wire(), "answer to another question"),
        (lambda query: query.id.to_bytes(2, "big") + b"\xff" * 30, "malformed"),
        (lambda query: b"", "answer to another question"),
        (lambda query: b"x" * 11, "answer to another question"),
    ],
)
def test_a_lie_on_a_connection_is_the_server_s_own_and_corrupt(
    lie: Callable[[dns.message.Message], bytes], detail: str
) -> None:
    def lying(sock: socket.socket, query: dns.message.Message) -> bool:
        sock.sendall(framed(lie(query)))
        return True

    with server(lying) as target:
        sample = by_tcp(target, count=2)
    assert outcomes(sample) == [Outcome.CORRUPT] * 2
    assert {singleton.detail for singleton in sample.singletons} == {detail}


def test_cancelling_ends_a_wait_and_calls_it_not_sent() -> None:
    cancelled = threading.Event()
    release = threading.Event()

    def silent(_sock: socket.socket, _query: dns.message.Message) -> bool:
        cancelled.set()
        release.wait(5)
        return False

    with server(silent) as target:
        begun = time.monotonic()
        sample = by_tcp(target, count=3, loss_threshold_seconds=30.0, cancelled=cancelled)
        took = time.monotonic() - begun
        release.set()
    assert took < 2
    assert outcomes(sample) == [Outcome.NOT_SENT] * 3


@pytest.mark.parametrize("transport", ["tcp", "tls", "https"])
def test_a_black_hole_is_loss_over_every_transport(transport: str) -> None:
    with server(reply) as target:
        sample = measure_dns(
            target, transport=transport, network=DeafNetwork(), count=2, loss_threshold_seconds=0.2
        )
    assert outcomes(sample) == [Outcome.LOST] * 2


@pytest.mark.parametrize("transport", ["tcp", "tls", "https"])
def test_every_connection_is_closed_whatever_became_of_it(transport: str) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with server(lambda _sock, _query: False) as target:
        measure_dns(target, transport=transport, count=1, loss_threshold_seconds=0.2)
        before = descriptors()
        measure_dns(target, transport=transport, count=8, interval_seconds=0.01, loss_threshold_seconds=0.2)
        deadline = time.monotonic() + 2
        while descriptors() > before and time.monotonic() < deadline:
            threading.Event().wait(0.01)  # the scripted server lets go a moment later
        assert descriptors() <= before


# Kept connections


def test_a_kept_connection_carries_every_question_and_first_and_later_ones_are_told_apart() -> None:
    with server(reply) as target:
        sample = by_tcp(target, count=4, reuse_connection=True)
    assert outcomes(sample) == [Outcome.RECEIVED] * 4
    assert [[phase.name for phase in singleton.phases] for singleton in sample.singletons] == [
        ["tcp", "query"],
        ["query"],
        ["query"],
        ["query"],
    ]
    assert numbers(sample, "dns_connections") == {"": 1}
    counts = {one.of: one.count for one in sample.statistics if one.name == "dns_query_seconds"}
    assert counts == {"first": 1, "reused": 3}


def test_without_it_every_question_has_its_own_connection() -> None:
    with server(reply) as target:
        sample = by_tcp(target, count=4)
    assert numbers(sample, "dns_connections") == {"": 4}
    assert numbers(sample, "dns_query_seconds") == {}


def test_a_connection_closed_by_the_server_in_between_is_opened_anew_and_noted() -> None:
    def one_each(sock: socket.socket, query: dns.message.Message) -> bool:
        reply(sock, query)
        return False

    with server(one_each) as target:
        sample = by_tcp(target, count=3, reuse_connection=True)
    assert outcomes(sample) == [Outcome.RECEIVED] * 3
    assert notes(sample) == ["the server closed the kept connection 2 times"]
    assert all([phase.name for phase in one.phases] == ["tcp", "query"] for one in sample.singletons)


def test_a_second_answer_on_a_kept_connection_is_a_duplicate_of_the_question_it_answers() -> None:
    def twice(sock: socket.socket, query: dns.message.Message) -> bool:
        sock.sendall(framed(answer_for(query).to_wire()) * 2)
        return True

    with server(twice) as target:
        sample = by_tcp(target, count=3, reuse_connection=True)
    assert [(one.sequence, one.outcome) for one in sample.singletons] == [
        (0, Outcome.RECEIVED),
        (0, Outcome.DUPLICATE),
        (1, Outcome.RECEIVED),
        (1, Outcome.DUPLICATE),
        (2, Outcome.RECEIVED),
    ]


def test_after_a_lost_answer_the_next_question_has_a_new_connection() -> None:
    release = threading.Event()
    numbered = itertools.count()

    def silent_once(sock: socket.socket, query: dns.message.Message) -> bool:
        if next(numbered) == 1:
            release.wait(5)
            return False
        return reply(sock, query)

    with server(silent_once) as target:
        sample = by_tcp(target, count=3, reuse_connection=True, loss_threshold_seconds=0.2)
        release.set()
    assert outcomes(sample) == [Outcome.RECEIVED, Outcome.LOST, Outcome.RECEIVED]
    assert numbers(sample, "dns_connections") == {"": 2}


# TLS


def test_a_verified_server_is_received_and_described(certificate: Certificate) -> None:
    with server(reply, server_context(certificate, ["dot"])) as target:
        sample = measure_dns(
            target, transport="tls", ca_file=str(certificate.certificate), server_name=SERVER, padding=True
        )
    assert outcomes(sample) == [Outcome.RECEIVED] * 3
    assert sample.method.name == "dns_tls"
    assert [phase.name for phase in sample.singletons[0].phases] == ["tcp", "tls", "query"]
    assert sample.facts["tls_version"] == "TLSv1.3"
    assert sample.facts["alpn"] == "dot"
    assert sample.facts["certificate_verified"] == "yes"
    assert sample.octets_sent == 3 * (2 + 128)
    (expiry,) = numbers(sample, "certificate_expiry_timestamp").values()
    assert expiry is not None
    assert 0 < expiry - time.time() < 86_400 + 60


@pytest.mark.parametrize("transport", ["tls", "https"])
def test_a_stranger_s_certificate_fails_and_is_taken_only_when_told_so(
    certificate: Certificate, transport: str
) -> None:
    with server(reply, server_context(certificate)) as target:
        strict = measure_dns(target, transport=transport, count=2)
        other_name = measure_dns(
            target,
            transport=transport,
            count=1,
            ca_file=str(certificate.certificate),
            server_name="other.lab.example",
        )
        lax = measure_dns(target, transport="tls", count=2, verify_certificate=False)
    assert outcomes(strict) == [Outcome.TLS_FAILED] * 2
    assert "certificate" in strict.singletons[0].detail
    assert strict.facts["certificate_subject"] == f"CN={SERVER}"
    assert outcomes(other_name) == [Outcome.TLS_FAILED]
    assert outcomes(lax) == [Outcome.RECEIVED] * 2
    assert lax.facts["certificate_verified"] == "not checked"


def test_a_server_without_tls_is_a_failed_handshake() -> None:
    def plain(sock: socket.socket) -> None:
        sock.recv(1024)
        sock.sendall(b"\0\2no TLS here")

    with tcp_peer(plain) as port:
        sample = measure_dns(Target(id="resolver", host="127.0.0.1", port=port), transport="tls", count=1)
    assert outcomes(sample) == [Outcome.TLS_FAILED]


def test_a_wall_clock_that_steps_moves_no_delay() -> None:
    config = convert(
        {"transport": "tcp", "name": NAME, "count": 3, "interval_seconds": 0.05},
        DnsConfig,
        "t",
        environment={},
    )
    for after in (2, 7):
        clock = SteppedClock(step_seconds=-3600.0, after_readings=after)
        with server(reply) as target:
            sample = Dns(config).measure(target, ProbeContext(clock=clock, network=HostNetwork()))
        assert outcomes(sample) == [Outcome.RECEIVED] * 3
        assert all(0 < (one.delay_ns or 0) < 1000 * MS for one in sample.singletons)


# Nagle's algorithm


class Watched(HostNetwork):
    """Keeps a second hand on every connection, to see how it was set up."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[socket.socket] = []

    def tcp(self, family: socket.AddressFamily) -> socket.socket:
        sock = super().tcp(family)
        self.kept.append(sock.dup())
        return sock


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_a_question_never_waits_until_the_handshake_is_acknowledged(
    certificate: Certificate, transport: str
) -> None:
    """Nagle's algorithm would hold it back for as long as the server delays that, 40 ms on Linux."""
    network = Watched()
    with server(reply, server_context(certificate) if transport == "tls" else None) as target:
        trust = {"ca_file": str(certificate.certificate)} if transport == "tls" else {}
        sample = measure_dns(target, network=network, transport=transport, count=1, **trust)
        option = [sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for sock in network.kept]
        for sock in network.kept:
            sock.close()
    assert outcomes(sample) == [Outcome.RECEIVED]
    assert option == [1]
    # The twin: as the network hands a socket out, the algorithm is on.
    with HostNetwork().tcp(socket.AF_INET) as plain:
        assert plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0


# Truncated datagrams


@contextmanager
def both(tcp: Script | None) -> Iterator[Target]:
    """A resolver that truncates every datagram, and answers on connections of the same port as `tcp` says."""

    def truncate(sock: socket.socket, data: bytes, peer: tuple[str, int]) -> None:
        answer = dns.message.make_response(dns.message.from_wire(data))
        answer.flags |= dns.flags.TC
        sock.sendto(answer.to_wire(), peer)

    with udp_peer(truncate) as port:
        if tcp is None:
            yield Target(id="resolver", host="127.0.0.1", port=port)
            return
        listener = socket.create_server(("127.0.0.1", port))
        stop = threading.Event()

        def serve() -> None:
            listener.settimeout(0.05)
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    sock, _peer = listener.accept()
                    with sock:
                        query = read_question(sock)
                        if query is not None:
                            tcp(sock, query)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield Target(id="resolver", host="127.0.0.1", port=port)
        finally:
            stop.set()
            thread.join(5)
            listener.close()


def test_a_truncated_answer_is_asked_again_over_tcp_in_phases_of_its_own() -> None:
    with both(reply) as target:
        sample = measure_dns(target, retry_truncated=True)
    assert outcomes(sample) == [Outcome.RECEIVED] * 3
    for singleton in sample.singletons:
        assert singleton.detail == "truncated, over TCP: received"
        assert [phase.name for phase in singleton.phases] == ["retry_tcp", "retry_query"]
        # The delay stays that of the datagrams, as over UDP everywhere else.
        assert singleton.delay_source is StampSource.KERNEL
        assert singleton.sent and singleton.received
        assert singleton.delay_ns == singleton.received.mono_ns - singleton.sent.mono_ns
    assert numbers(sample, "dns_truncated_answers") == {"": 3}


def test_without_the_setting_nothing_is_asked_again() -> None:
    asked: list[object] = []

    def note(sock: socket.socket, query: dns.message.Message) -> bool:
        asked.append(query)
        return reply(sock, query)

    with both(note) as target:
        sample = measure_dns(target)
    assert {singleton.detail for singleton in sample.singletons} == {"truncated"}
    assert not asked


def test_a_retry_that_fails_is_the_outcome() -> None:
    with both(None) as target:
        sample = measure_dns(target, retry_truncated=True)
    assert outcomes(sample) == [Outcome.REFUSED] * 3
    assert {one.detail for one in sample.singletons} == {"truncated, over TCP: ECONNREFUSED"}
    assert {one.delay_ns for one in sample.singletons} == {None}


def test_a_slow_retry_makes_no_other_question_late() -> None:
    release = threading.Event()

    def slow(_sock: socket.socket, _query: dns.message.Message) -> bool:
        release.wait(0.3)
        return False

    with both(slow) as target:
        sample = measure_dns(target, retry_truncated=True, count=4, interval_seconds=0.05)
        release.set()
    lags = sorted(one.send_lag_ns or 0 for one in sample.singletons)
    assert lags[len(lags) // 2] < 40 * MS
    sent = [one.sent.mono_ns for one in sample.singletons if one.sent]
    # One after the other they would have taken 900 ms.
    assert sent[3] - sent[0] < 600 * MS
