"""The tls probe: every fate of a handshake, and what is learnt of the server whatever the fate."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nhip.clock import SystemClock
from nhip.config import convert
from nhip.measurement import Outcome, Sample, Target
from probes.api import ProbeContext
from probes.network import HostNetwork, Network
from probes.tls.probe import Tls, TlsConfig
from tests.lab.certificate import Certificate
from tests.lab.certificate_authority import CertificateAuthority
from tests.lab.deaf_network import DeafNetwork
from tests.lab.peers import closed_port, tcp_peer
from tests.lab.tls_server import openssl_server, server_context, tls_peer

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    made = CertificateAuthority(tmp_path_factory.mktemp("authority"))
    made.start()
    return made


@pytest.fixture(scope="module")
def good(authority: CertificateAuthority) -> Certificate:
    return authority.issue("DNS:localhost", "IP:127.0.0.1", "IP:::1", not_after=NOW + timedelta(days=20))


def measure(
    port: int,
    host: str = "127.0.0.1",
    *,
    network: Network | None = None,
    cancelled: threading.Event | None = None,
    **settings: object,
) -> Sample:
    table = {"count": 1, "interval_seconds": 0.1, "loss_threshold_seconds": 3.0}
    config = convert(table | settings, TlsConfig, "test", environment={})
    context = ProbeContext(
        clock=SystemClock(), network=network or HostNetwork(), cancelled=cancelled or threading.Event()
    )
    return Tls(config).measure(Target(id="web", host=host, port=port), context)


def phases(sample: Sample) -> list[str]:
    return [phase.name for phase in sample.singletons[0].phases]


def expiry(sample: Sample) -> float | None:
    found = {statistic.name: statistic for statistic in sample.statistics}
    return found["certificate_expiry_timestamp"].value if "certificate_expiry_timestamp" in found else None


def learnt(sample: Sample) -> dict[str, str]:
    """The facts about the far end's TLS."""
    return {key: value for key, value in sample.facts.items() if key.startswith(("tls_", "cert", "alpn"))}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_good_handshake_is_received_with_what_was_agreed(
    authority: CertificateAuthority, good: Certificate, host: str
) -> None:
    with tls_peer(server_context(good, ["h2", "http/1.1"]), host=host) as port:
        sample = measure(port, host, ca_file=str(authority.root), alpn=["h2"], count=2)
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.RECEIVED}
    assert phases(sample) == ["tcp", "tls"]
    assert sample.facts["tls_version"] == "TLSv1.3"
    assert sample.facts["tls_cipher"].startswith("TLS_AES")
    assert sample.facts["alpn"] == "h2"
    assert sample.facts["certificate_verified"] == "yes"
    assert sample.facts["certificate_subject"] == "CN=localhost"
    assert sample.facts["certificate_issuer"] == "CN=Test Root, O=Nhip Lab"
    assert sample.facts["certificate_names"] == "localhost, 127.0.0.1, ::1"
    assert sample.facts["certificate_name_matches"] == "yes"
    assert sample.facts["certificate_not_after"] == (NOW + timedelta(days=20)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert expiry(sample) == (NOW + timedelta(days=20)).timestamp()
    (statistic,) = (found for found in sample.statistics if found.name == "certificate_expiry_timestamp")
    assert (statistic.unit, statistic.count) == ("seconds", 1)
    assert sample.type_p.ip_version == (6 if ":" in host else 4)
    assert sample.singletons[0].delay_ns is None


def test_a_name_adds_the_dns_phase(authority: CertificateAuthority, good: Certificate) -> None:
    with tls_peer(server_context(good)) as port:
        sample = measure(port, "localhost", ca_file=str(authority.root), network=HostNetwork(ip_version=4))
    assert sample.singletons[0].outcome is Outcome.RECEIVED
    assert phases(sample) == ["dns", "tcp", "tls"]


def test_the_tls_phase_is_the_handshake_and_not_the_connect(
    authority: CertificateAuthority, good: Certificate
) -> None:
    pause = threading.Event()

    def slow(sock: socket.socket) -> None:
        pause.wait(0.2)
        with server_context(good).wrap_socket(sock, server_side=True) as wrapped:
            wrapped.recv(1)

    with tcp_peer(slow) as port:
        (singleton,) = measure(port, ca_file=str(authority.root)).singletons
    tcp, tls = (phase.duration_ns for phase in singleton.phases)
    assert tcp < 0.1e9
    assert 0.2e9 <= tls < 0.3e9


def test_an_expired_certificate_fails_and_still_tells_its_date(authority: CertificateAuthority) -> None:
    ended = NOW - timedelta(days=3)
    expired = authority.issue("IP:127.0.0.1", not_before=NOW - timedelta(days=90), not_after=ended)
    with tls_peer(server_context(expired)) as port:
        sample = measure(port, ca_file=str(authority.root), count=2)
        unchecked = measure(port, verify_certificate=False)
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.TLS_FAILED}
    assert sample.singletons[0].detail == "certificate has expired"
    assert phases(sample) == ["tcp"]
    assert sample.facts["certificate_verified"] == "no: certificate has expired"
    assert sample.facts["tls_version"] == "TLSv1.3"
    assert expiry(sample) == ended.timestamp()
    # The twin: without the check the same server is received.
    assert unchecked.singletons[0].outcome is Outcome.RECEIVED
    assert unchecked.facts["certificate_verified"] == "not checked"
    assert expiry(unchecked) == ended.timestamp()


def test_a_certificate_that_is_not_valid_yet_fails(authority: CertificateAuthority) -> None:
    early = authority.issue(
        "IP:127.0.0.1", not_before=NOW + timedelta(days=3), not_after=NOW + timedelta(days=9)
    )
    with tls_peer(server_context(early)) as port:
        sample = measure(port, ca_file=str(authority.root))
    assert sample.singletons[0].outcome is Outcome.TLS_FAILED
    assert sample.singletons[0].detail == "certificate is not yet valid"


def test_a_failed_check_looks_once_more_and_never_twice(
    authority: CertificateAuthority, good: Certificate
) -> None:
    handshakes: list[str | None] = []
    with tls_peer(server_context(good), lambda sock: handshakes.append(sock.version())) as port:
        sample = measure(port, count=3)
    assert [singleton.detail for singleton in sample.singletons] == [
        "unable to get local issuer certificate"
    ] * 3
    # A TLS 1.3 client breaks off after the server thinks it is done; only the look stays to the end.
    assert sample.facts["certificate_name_matches"] == "yes"
    assert len(handshakes) <= 4


def test_the_look_comes_after_the_last_attempt_and_holds_none_back(good: Certificate) -> None:
    context, connections = server_context(good), itertools.count()

    def silent_to_the_fourth(sock: socket.socket) -> None:
        if next(connections) < 3:
            with contextlib.suppress(ssl.SSLError), context.wrap_socket(sock, server_side=True) as wrapped:
                wrapped.recv(1)
        else:
            sock.recv(65_536)
            sock.recv(1)

    with tcp_peer(silent_to_the_fourth) as port:
        sample = measure(port, count=3, loss_threshold_seconds=1.5)
    sent_ns = [singleton.sent.mono_ns for singleton in sample.singletons if singleton.sent]
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.TLS_FAILED}
    # Within an attempt the look at a silent server would take 1.5 s.
    assert sent_ns[2] - sent_ns[0] < 1.5e9
    assert sample.ended.mono_ns - sent_ns[2] >= 1.5e9


def test_another_name_fails_and_the_names_are_told(
    authority: CertificateAuthority, good: Certificate
) -> None:
    with tls_peer(server_context(good)) as port:
        sample = measure(port, ca_file=str(authority.root), server_name="other.example")
        unchecked = measure(port, server_name="other.example", verify_certificate=False)
    assert sample.singletons[0].outcome is Outcome.TLS_FAILED
    assert "other.example" in sample.singletons[0].detail
    assert sample.facts["certificate_name_matches"] == "no"
    assert sample.facts["certificate_names"] == "localhost, 127.0.0.1, ::1"
    assert unchecked.singletons[0].outcome is Outcome.RECEIVED
    assert unchecked.facts["certificate_name_matches"] == "no"


def test_a_version_that_is_too_old_fails_and_is_told(good: Certificate) -> None:
    with openssl_server(good, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0") as port:
        sample = measure(port, verify_certificate=False)
    assert sample.singletons[0].outcome is Outcome.TLS_FAILED
    assert "version" in sample.singletons[0].detail.lower()
    assert sample.facts["tls_version"] == "TLSv1.1"
    assert expiry(sample) is not None


def test_the_minimum_version_is_the_task_s_choice(authority: CertificateAuthority, good: Certificate) -> None:
    old = server_context(good)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with tls_peer(old) as port:
        accepted = measure(port, ca_file=str(authority.root))
        refused = measure(port, ca_file=str(authority.root), minimum_version="TLSv1.3")
    assert accepted.singletons[0].outcome is Outcome.RECEIVED
    assert accepted.facts["tls_version"] == "TLSv1.2"
    assert refused.singletons[0].outcome is Outcome.TLS_FAILED
    assert refused.facts["tls_version"] == "TLSv1.2"


def test_openssl_s_server_agrees_on_what_was_negotiated(
    authority: CertificateAuthority, good: Certificate
) -> None:
    suite = ("-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256", "-alpn", "h2")
    with openssl_server(good, *suite) as port:
        sample = measure(port, ca_file=str(authority.root), alpn=["http/1.1", "h2"])
    assert sample.singletons[0].outcome is Outcome.RECEIVED
    assert sample.facts["tls_cipher"] == "TLS_CHACHA20_POLY1305_SHA256"
    assert (sample.facts["tls_version"], sample.facts["alpn"]) == ("TLSv1.3", "h2")


def test_no_common_protocol_of_alpn_is_a_failure_that_says_so(good: Certificate) -> None:
    with openssl_server(good, "-alpn", "h2") as port:
        sample = measure(port, verify_certificate=False, alpn=["http/1.1"])
    assert sample.singletons[0].outcome is Outcome.TLS_FAILED
    assert "ALPN" in sample.singletons[0].detail


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no TLS spoken there (WRONG_VERSION_NUMBER)"),
        (b"", "closed during the handshake (UNEXPECTED_EOF_WHILE_READING)"),
        (b"\x15\x03\x03\x00\x02\x02\x28", "SSLV3_ALERT_HANDSHAKE_FAILURE"),
    ],
)
def test_a_port_without_tls_fails_and_says_so(answer: bytes, detail: str) -> None:
    with tcp_peer(lambda sock: (sock.recv(65_536), sock.sendall(answer))) as port:
        sample = measure(port)
    assert sample.singletons[0].outcome is Outcome.TLS_FAILED
    assert sample.singletons[0].detail == detail
    assert learnt(sample) == {"certificate_verified": f"no: {detail}"}


def test_a_peer_that_resets_in_the_handshake_is_a_reset() -> None:
    def script(sock: socket.socket) -> None:
        sock.recv(10)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with tcp_peer(script) as port:
        sample = measure(port)
    assert sample.singletons[0].outcome is Outcome.RESET


def test_a_handshake_without_end_is_lost_at_the_deadline() -> None:
    with tcp_peer(lambda sock: sock.recv(65_536) and sock.recv(1)) as port:
        sample = measure(port, loss_threshold_seconds=0.3)
    (singleton,) = sample.singletons
    assert (singleton.outcome, singleton.detail) == (Outcome.LOST, "timed out")
    assert phases(sample) == ["tcp"]
    assert sample.ended.mono_ns - sample.started.mono_ns < 0.6e9


def test_a_handshake_that_drips_cannot_outlast_the_deadline() -> None:
    pause = threading.Event()

    def drip(sock: socket.socket) -> None:
        sock.recv(65_536)
        sock.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 384 octets, announced
        while not pause.wait(0.02):
            sock.sendall(b"\0")

    with tcp_peer(drip) as port:
        sample = measure(port, loss_threshold_seconds=0.4)
    assert sample.singletons[0].outcome is Outcome.LOST
    assert 0.4e9 <= sample.ended.mono_ns - sample.started.mono_ns < 0.8e9


def test_a_flood_that_is_no_handshake_cannot_outlast_the_deadline() -> None:
    """Octets that always wait must not keep this end from looking at its deadline."""
    hello_requests = b"\x16\x03\x03\x00\x04\0\0\0\0" * 20_000

    def flood(sock: socket.socket) -> None:
        sock.recv(65_536)
        begun = time.monotonic()
        while time.monotonic() - begun < 6:
            sock.sendall(hello_requests)

    with tcp_peer(flood) as port:
        sample = measure(port, loss_threshold_seconds=0.5)
    assert sample.singletons[0].outcome in (Outcome.LOST, Outcome.TLS_FAILED)
    assert sample.ended.mono_ns - sample.started.mono_ns < 4e9


def test_a_closed_port_is_refused_and_silence_is_lost(good: Certificate) -> None:
    assert measure(closed_port(socket.SOCK_STREAM)).singletons[0].outcome is Outcome.REFUSED
    with tls_peer(server_context(good)) as port:
        silent = measure(port, network=DeafNetwork(), loss_threshold_seconds=0.2)
    assert silent.singletons[0].outcome is Outcome.LOST
    assert learnt(silent) == {}


def test_cancelling_in_the_handshake_ends_the_test_soon() -> None:
    cancelled = threading.Event()
    timer = threading.Timer(0.2, cancelled.set)
    with tcp_peer(lambda sock: sock.recv(65_536) and sock.recv(1)) as port:
        timer.start()
        sample = measure(port, cancelled=cancelled, loss_threshold_seconds=30.0, count=2)
    timer.join()
    assert [singleton.outcome for singleton in sample.singletons] == [Outcome.NOT_SENT] * 2
    assert sample.ended.mono_ns - sample.started.mono_ns < 1e9


def test_a_chain_by_an_intermediate_unknown_here_fails(tmp_path: Path, good: Certificate) -> None:
    other = CertificateAuthority(tmp_path)
    other.start()
    with tls_peer(server_context(good)) as port:
        sample = measure(port, ca_file=str(other.root))
    assert sample.singletons[0].outcome is Outcome.TLS_FAILED
    assert sample.facts["certificate_issuer"] == "CN=Test Root, O=Nhip Lab"
