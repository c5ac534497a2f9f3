"""The http probe against servers that answer, break off, stall and speak no HTTP."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nhip import statistics
from nhip.clock import SystemClock
from nhip.config import convert
from nhip.errors import CannotMeasureError
from nhip.measurement import Outcome, Sample, Singleton, Target
from probes.api import ProbeContext
from probes.http.config import HttpConfig
from probes.http.http1 import host_field
from probes.http.probe import Http
from probes.network import HostNetwork
from probes.server import MeasurementServer, ServerConfig
from probes.stream import Stream
from tests.lab.certificate import Certificate, make_certificate
from tests.lab.peers import read_head, tcp_peer


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"), "localhost", "127.0.0.1")


def measure(port: int, host: str = "127.0.0.1", **settings: object) -> Sample:
    table = {"count": 1, "interval_seconds": 0.1, "loss_threshold_seconds": 5.0, "tls": False}
    config = convert(table | settings, HttpConfig, "test", environment={})
    context = ProbeContext(clock=SystemClock(), network=HostNetwork(ip_version=4))
    return Http(config).measure(Target(id="web", host=host, port=port), context)


def attempt_at(answer: bytes, **settings: object) -> Singleton:
    """The one attempt at a server that reads the request and sends `answer`."""

    def script(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(answer)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)

    with tcp_peer(script) as port:
        (singleton,) = measure(port, **settings).singletons
    return singleton


def phases(singleton: Singleton) -> dict[str, int]:
    return {phase.name: phase.duration_ns for phase in singleton.phases}


WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def test_a_whole_answer_has_its_phases_and_no_delay_because_the_server_thinks_too() -> None:
    singleton = attempt_at(WHOLE)
    assert singleton.outcome is Outcome.RECEIVED
    assert singleton.detail == "HTTP 200"
    found = phases(singleton)
    assert list(found) == ["tcp", "first_byte", "transfer"]
    assert singleton.delay_ns is None
    assert singleton.sent and singleton.received
    assert singleton.received.mono_ns - singleton.sent.mono_ns == found["first_byte"]


def test_a_name_adds_the_dns_phase() -> None:
    with tcp_peer(lambda sock: (read_head(sock), sock.sendall(WHOLE))) as port:
        (singleton,) = measure(port, "localhost").singletons
    assert list(phases(singleton)) == ["dns", "tcp", "first_byte", "transfer"]


def test_the_phases_tell_a_slow_server_from_a_slow_body() -> None:
    pause = threading.Event()

    def script(sock: socket.socket) -> None:
        read_head(sock)
        pause.wait(0.2)
        sock.sendall(WHOLE[:-2])
        pause.wait(0.1)
        sock.sendall(WHOLE[-2:])

    with tcp_peer(script) as port:
        (singleton,) = measure(port).singletons
    found = phases(singleton)
    assert 0.2e9 <= found["first_byte"] < 0.3e9
    assert 0.1e9 <= found["transfer"] < 0.2e9


@pytest.mark.parametrize(
    ("answer", "outcome", "detail"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Outcome.REJECTED, "HTTP 404"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", Outcome.REJECTED, "HTTP 503"),
        # Nor is a measurement server asked for a page: its "busy" says nothing of the page.
        (
            b"HTTP/1.1 503 Busy\r\nnhip-format: nhip-file/1\r\nContent-Length: 0\r\n\r\n",
            Outcome.REJECTED,
            "HTTP 503",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", Outcome.TRUNCATED, "closed early"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Enc", Outcome.TRUNCATED, "closed early"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
            Outcome.TRUNCATED,
            "closed early",
        ),
        (b"", Outcome.RESET, "closed without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Outcome.CORRUPT, "no HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Outcome.CORRUPT, "no HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, Outcome.CORRUPT, "no HTTP answer"),
    ],
)
def test_what_the_server_did_is_the_outcome(answer: bytes, outcome: Outcome, detail: str) -> None:
    singleton = attempt_at(answer)
    assert (singleton.outcome, singleton.detail) == (outcome, detail)
    assert singleton.delay_ns is None


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + WHOLE,
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ],
)
def test_every_framing_of_a_body_is_read_to_its_end(answer: bytes) -> None:
    singleton = attempt_at(answer)
    assert singleton.outcome is Outcome.RECEIVED
    assert "transfer" in phases(singleton)


def test_a_redirect_is_received_and_reported_and_never_followed() -> None:
    answer = b"HTTP/1.1 302 Found\r\nLocation: http://portal.example/login\r\nContent-Length: 0\r\n\r\n"
    assert attempt_at(answer).outcome is Outcome.RECEIVED
    assert attempt_at(answer).detail == "HTTP 302 to http://portal.example/login"
    assert attempt_at(answer, expected_status=[200]).outcome is Outcome.REJECTED


def test_an_expected_error_status_is_received() -> None:
    singleton = attempt_at(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", expected_status=[401])
    assert singleton.outcome is Outcome.RECEIVED


def test_a_body_above_the_limit_is_not_read_to_its_end() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + bytes(3_000_000)
    with tcp_peer(lambda sock: (read_head(sock), sock.sendall(answer))) as port:
        sample = measure(port, max_body_octets=100_000)
    (singleton,) = sample.singletons
    assert singleton.outcome is Outcome.RECEIVED
    assert "longer than 100000 octets" in singleton.detail
    assert "transfer" not in phases(singleton)
    assert sample.octets_received < 1_000_000


def test_a_server_that_drips_cannot_outlast_the_deadline() -> None:
    pause = threading.Event()

    def drip(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not pause.wait(0.02):
            sock.sendall(b"x")

    with tcp_peer(drip) as port:
        sample = measure(port, loss_threshold_seconds=0.4)
    (singleton,) = sample.singletons
    assert (singleton.outcome, singleton.detail) == (Outcome.TRUNCATED, "timed out")
    assert 0.4e9 <= sample.ended.mono_ns - sample.started.mono_ns < 1.0e9


def test_a_server_that_says_nothing_is_lost() -> None:
    with tcp_peer(lambda sock: sock.recv(65_536) and sock.recv(1)) as port:
        sample = measure(port, loss_threshold_seconds=0.3)
    assert sample.singletons[0].outcome is Outcome.LOST
    assert statistics.loss_ratio(statistics.count(sample.singletons)) == 1.0


def test_a_reset_in_the_body_is_a_reset() -> None:
    def script(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhello")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with tcp_peer(script) as port:
        (singleton,) = measure(port).singletons
    assert (singleton.outcome, singleton.detail) == (Outcome.RESET, "ECONNRESET")


@contextmanager
def tls_server(certificate: Certificate) -> Iterator[int]:
    config = ServerConfig(
        hosts=["127.0.0.1"],
        port=0,
        certificate_file=str(certificate.certificate),
        key_file=str(certificate.key),
    )
    server = MeasurementServer(config, SystemClock())
    server.start()
    try:
        yield server.port
    finally:
        server.close()


def test_a_trusted_certificate_is_received_with_its_tls_phase(certificate: Certificate) -> None:
    with tls_server(certificate) as port:
        for host in ("localhost", "127.0.0.1"):
            (singleton,) = measure(port, host, tls=True, ca_file=str(certificate.certificate)).singletons
            assert singleton.outcome is Outcome.RECEIVED
            assert phases(singleton)["tls"] > 0


def test_certificates_are_checked_unless_the_task_says_otherwise(certificate: Certificate) -> None:
    with tls_server(certificate) as port:
        (untrusted,) = measure(port, tls=True).singletons
        (other_name,) = measure(
            port, tls=True, server_name="other.example", ca_file=str(certificate.certificate)
        ).singletons
        (unchecked,) = measure(port, tls=True, verify_certificate=False).singletons
    assert (untrusted.outcome, untrusted.detail) == (Outcome.TLS_FAILED, "self-signed certificate")
    assert other_name.outcome is Outcome.TLS_FAILED
    assert "other.example" in other_name.detail
    assert unchecked.outcome is Outcome.RECEIVED


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_a_peer_without_tls_fails_the_handshake(greeting: bytes) -> None:
    with tcp_peer(lambda sock: (sock.recv(65_536), sock.sendall(greeting))) as port:
        (singleton,) = measure(port, tls=True).singletons
    assert singleton.outcome is Outcome.TLS_FAILED
    assert singleton.detail


def test_a_handshake_without_end_meets_the_deadline() -> None:
    with tcp_peer(lambda sock: sock.recv(65_536) and sock.recv(1)) as port:
        sample = measure(port, tls=True, loss_threshold_seconds=0.3)
    assert sample.singletons[0].outcome is Outcome.LOST
    assert sample.ended.mono_ns - sample.started.mono_ns < 1e9


def test_a_ca_file_that_cannot_be_read_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(CannotMeasureError, match="ca_file"):
        measure(1, tls=True, ca_file=str(tmp_path / "absent.pem"))
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(CannotMeasureError, match="ca_file"):
        measure(1, tls=True, ca_file=str(tmp_path / "empty.pem"))


def test_the_octets_of_both_ways_are_counted() -> None:
    heard: list[bytes] = []

    def script(sock: socket.socket) -> None:
        heard.append(read_head(sock))
        sock.sendall(WHOLE)

    with tcp_peer(script) as port:
        sample = measure(port, path="/status?full=1")
    assert sample.octets_received == len(WHOLE)
    assert sample.octets_sent == len(heard[0])
    assert heard[0].startswith(b"GET /status?full=1 HTTP/1.1\r\n")
    assert f"host: 127.0.0.1:{port}".encode() in heard[0].lower()


def test_the_host_field_brackets_ipv6_and_leaves_out_the_implied_port() -> None:
    assert host_field("2001:db8::1", 8443, 443) == "[2001:db8::1]:8443"
    assert host_field("2001:db8::1", 443, 443) == "[2001:db8::1]"
    assert host_field("example.vn", 443, 443) == "example.vn"
    assert host_field("192.0.2.1", 80, 443) == "192.0.2.1:80"


def test_the_context_checks_certificates_by_default() -> None:
    from probes.tls.context import client_context

    assert client_context(None).verify_mode is ssl.CERT_REQUIRED
    assert client_context(None).check_hostname


def test_no_connection_of_a_probe_holds_small_requests_back() -> None:
    with socket.socket() as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
        stream = Stream(sock, clock=SystemClock(), deadline_ns=0, cancelled=threading.Event())
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        stream.close()
