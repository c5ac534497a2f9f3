"""HTTP/2: negotiated as asked, every ending of a stream an outcome, and curl as another opinion."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import threading

import h2.errors
import pytest

from nhip.errors import ConfigError
from nhip.measurement import Outcome
from probes.network import HostNetwork
from tests.lab.certificate import Certificate, make_certificate
from tests.lab.deaf_network import DeafNetwork
from tests.lab.http2_server import Fields, Http2Visitor, http2_server
from tests.lab.http_probe import fate, phases, visit
from tests.lab.peers import read_head, tcp_peer
from tests.lab.tls_server import server_context, tls_peer

BODY = bytes(range(256)) * 2_000
OK = [(":status", "200"), ("content-length", str(len(BODY)))]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"), "localhost", "127.0.0.1")


def whole(visitor: Http2Visitor, stream_id: int, fields: Fields) -> None:
    visitor.answer(stream_id, OK, BODY)


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream_id) + payload


def test_http2_over_tls_is_received_with_its_phases_and_version(certificate: Certificate) -> None:
    asked: list[Fields] = []

    def script(visitor: Http2Visitor, stream_id: int, fields: Fields) -> None:
        asked.append(fields)
        whole(visitor, stream_id, fields)

    with http2_server(script, server_context(certificate, ["h2", "http/1.1"])) as port:
        sample = visit(port, http_version="http2", ca_file=str(certificate.certificate), path="/a?b=c")
    assert fate(sample) == (Outcome.RECEIVED, "HTTP 200")
    assert list(phases(sample.singletons[0])) == ["tcp", "tls", "first_byte", "transfer"]
    assert sample.method.name == "http2"
    assert sample.facts["http_version"] == "2"
    assert (sample.facts["alpn"], sample.facts["http_status"]) == ("h2", "200")
    assert sample.facts["certificate_verified"] == "yes"
    assert any(statistic.name == "certificate_expiry_timestamp" for statistic in sample.statistics)
    assert len(BODY) < sample.octets_received < len(BODY) + 2_000
    head = dict(asked[0])
    assert (head[":method"], head[":path"], head[":scheme"]) == ("GET", "/a?b=c", "https")
    assert head[":authority"] == f"127.0.0.1:{port}"


def test_curl_negotiates_the_same_and_counts_the_same_octets(certificate: Certificate) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed (Debian package curl)")
    with http2_server(whole, server_context(certificate, ["h2"])) as port:
        sample = visit(
            port, http_version="auto", ca_file=str(certificate.certificate), body_contains=["\x00\x01\x02"]
        )
        told = subprocess.run(
            [
                *("curl", "--silent", "--show-error", "--http2", "--cacert", str(certificate.certificate)),
                *("--output", "/dev/null", "--write-out", "%{http_version} %{http_code} %{size_download}"),
                f"https://127.0.0.1:{port}/",
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    version, status, size = told.split()
    assert version == sample.facts["http_version"] == "2"
    assert status == sample.facts["http_status"] == "200"
    assert int(size) == len(BODY)
    assert sample.octets_received - int(size) < 2_000  # frames and head, nothing of the body missing


def test_auto_takes_http_1_1_where_the_server_wants_it(certificate: Certificate) -> None:
    def script(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    for offered in (["http/1.1"], []):
        with tls_peer(server_context(certificate, offered), script) as port:
            sample = visit(port, http_version="auto", ca_file=str(certificate.certificate))
        assert fate(sample) == (Outcome.RECEIVED, "HTTP 200")
        assert sample.facts["http_version"] == "1.1"
        assert sample.method.name == "http_auto"


def test_a_server_without_http2_is_rejected_and_not_asked_in_another_version(
    certificate: Certificate,
) -> None:
    with tls_peer(server_context(certificate)) as port:
        sample = visit(port, http_version="http2", ca_file=str(certificate.certificate))
    assert fate(sample) == (Outcome.REJECTED, "the server chose no protocol, not HTTP/2")
    assert sample.octets_sent == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_http2_in_clear_is_spoken_by_prior_knowledge(host: str) -> None:
    with http2_server(whole, host=host) as port:
        sample = visit(port, host, http_version="http2", tls=False)
    assert fate(sample) == (Outcome.RECEIVED, "HTTP 200")
    assert sample.facts["http_version"] == "2"
    assert sample.type_p.ip_version == (6 if ":" in host else 4)


def test_the_first_byte_is_the_answer_s_and_not_that_of_the_settings() -> None:
    pause = threading.Event()

    def slow(visitor: Http2Visitor, stream_id: int, fields: Fields) -> None:
        # The server's settings and an acknowledgement of a ping are long gone by then.
        visitor.connection.ping(b"12345678")
        visitor.flush()
        pause.wait(0.2)
        whole(visitor, stream_id, fields)

    with http2_server(slow) as port:
        (singleton,) = visit(port, http_version="http2", tls=False).singletons
    assert 0.2e9 <= phases(singleton)["first_byte"] < 0.35e9


def test_interim_answers_are_passed_over() -> None:
    def script(visitor: Http2Visitor, stream_id: int, fields: Fields) -> None:
        visitor.connection.send_headers(stream_id, [(":status", "103"), ("link", "</x>")])
        whole(visitor, stream_id, fields)

    with http2_server(script) as port:
        assert fate(visit(port, http_version="http2", tls=False)) == (Outcome.RECEIVED, "HTTP 200")


def test_an_error_status_is_rejected_and_a_redirect_told() -> None:
    def script(visitor: Http2Visitor, stream_id: int, fields: Fields) -> None:
        status = dict(fields)[":path"].removeprefix("/")
        visitor.answer(stream_id, [(":status", status), ("location", "https://other.example/")])

    with http2_server(script) as port:
        assert fate(visit(port, http_version="http2", tls=False, path="/503")) == (
            Outcome.REJECTED,
            "HTTP 503",
        )
        moved = visit(port, http_version="http2", tls=False, path="/302")
    assert fate(moved) == (Outcome.RECEIVED, "HTTP 302 to https://other.example/")


def ending(act: str) -> tuple[Outcome, str]:
    """What the probe says of a server that does `act` once it has the request."""

    def script(visitor: Http2Visitor, stream_id: int, fields: Fields) -> None:
        connection = visitor.connection
        if act == "reset before":
            connection.reset_stream(stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
        elif act == "wants 1.1":
            connection.reset_stream(stream_id, h2.errors.ErrorCodes.HTTP_1_1_REQUIRED)
        elif act == "reset in the body":
            connection.send_headers(stream_id, OK)
            connection.send_data(stream_id, b"x" * 1000)
            connection.reset_stream(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
        elif act == "goaway":
            connection.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, last_stream_id=0)
        elif act == "short":
            connection.send_headers(stream_id, OK)
            connection.send_data(stream_id, b"x" * 1000, end_stream=True)
        elif act == "leaves in the body":
            connection.send_headers(stream_id, OK)
            connection.send_data(stream_id, b"x" * 1000)
        visitor.flush()
        if act.startswith("leaves"):
            visitor.sock.shutdown(socket.SHUT_RDWR)

    with http2_server(script) as port:
        return fate(visit(port, http_version="http2", tls=False))


@pytest.mark.parametrize(
    ("act", "outcome", "detail"),
    [
        ("reset before", Outcome.RESET, "stream reset: REFUSED_STREAM"),
        ("wants 1.1", Outcome.REJECTED, "the server wants HTTP/1.1"),
        ("reset in the body", Outcome.RESET, "stream reset: INTERNAL_ERROR"),
        ("goaway", Outcome.RESET, "GOAWAY ENHANCE_YOUR_CALM"),
        ("short", Outcome.CORRUPT, "body of 1000 octets, announced 512000"),
        ("leaves at once", Outcome.RESET, "closed without an answer"),
        ("leaves in the body", Outcome.TRUNCATED, "closed early"),
    ],
)
def test_every_ending_is_an_outcome(act: str, outcome: Outcome, detail: str) -> None:
    assert ending(act) == (outcome, detail)


SETTINGS = frame(4, 0, 0, b"")


@pytest.mark.parametrize(
    ("octets", "outcome", "detail"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Outcome.CORRUPT, "no HTTP/2 answer"),
        (frame(0, 0, 0, b"data on no stream"), Outcome.CORRUPT, "no HTTP/2 answer"),
        (SETTINGS + frame(1, 5, 1, b"\xff\xff\xff\xff\xff\xff"), Outcome.CORRUPT, "no HTTP/2 answer"),
        (SETTINGS + frame(6, 0, 0, b"12345678") * 80_000, Outcome.CORRUPT, "no end of frames beside"),
        (SETTINGS + frame(7, 0, 0, bytes(8))[:-3], Outcome.RESET, "closed without an answer"),
    ],
)
def test_octets_that_are_no_answer_are_corrupt(octets: bytes, outcome: Outcome, detail: str) -> None:
    def script(sock: socket.socket) -> None:
        sock.recv(65_536)
        sock.sendall(octets)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65_536):
            pass

    with tcp_peer(script) as port:
        found = fate(visit(port, http_version="http2", tls=False))
    assert found[0] is outcome
    assert found[1].startswith(detail)


def test_a_goodbye_that_lets_our_request_finish_does_not_end_it() -> None:
    """h2 alone takes any GOAWAY for the end; servers that serve one request per connection send it first."""

    def script(visitor: Http2Visitor, stream_id: int, fields: Fields) -> None:
        visitor.sock.sendall(frame(7, 0, 0, struct.pack(">II", stream_id, 0)))
        whole(visitor, stream_id, fields)

    with http2_server(script) as port:
        assert fate(visit(port, http_version="http2", tls=False)) == (Outcome.RECEIVED, "HTTP 200")


def test_a_silent_server_is_lost_and_a_dripping_one_truncated_at_the_deadline() -> None:
    pause = threading.Event()

    def silent(visitor: Http2Visitor, stream_id: int, fields: Fields) -> None:
        """Nothing is said."""

    def dripping(visitor: Http2Visitor, stream_id: int, fields: Fields) -> None:
        visitor.connection.send_headers(stream_id, OK)
        while not pause.wait(0.02):
            visitor.connection.send_data(stream_id, b"x")
            visitor.flush()

    with http2_server(silent) as port:
        assert (
            fate(visit(port, http_version="http2", tls=False, loss_threshold_seconds=0.3))[0] is Outcome.LOST
        )
    with http2_server(dripping) as port:
        sample = visit(port, http_version="http2", tls=False, loss_threshold_seconds=0.4)
    assert fate(sample) == (Outcome.TRUNCATED, "timed out")
    assert 0.4e9 <= sample.ended.mono_ns - sample.started.mono_ns < 0.8e9


def test_a_body_above_the_limit_is_not_read_to_its_end() -> None:
    def script(visitor: Http2Visitor, stream_id: int, fields: Fields) -> None:
        visitor.answer(stream_id, [(":status", "200")], bytes(8_000_000))

    with http2_server(script) as port:
        sample = visit(port, http_version="http2", tls=False, max_body_octets=100_000)
    assert fate(sample) == (Outcome.RECEIVED, "HTTP 200, body longer than 100000 octets")
    assert "transfer" not in phases(sample.singletons[0])
    assert sample.octets_received < 1_000_000


def test_cancelling_in_the_answer_ends_the_test_soon() -> None:
    cancelled = threading.Event()
    timer = threading.Timer(0.2, cancelled.set)
    with http2_server(lambda visitor, stream_id, fields: None) as port:
        timer.start()
        sample = visit(
            port, http_version="http2", tls=False, cancelled=cancelled, loss_threshold_seconds=30.0
        )
    timer.join()
    assert fate(sample) == (Outcome.NOT_SENT, "cancelled")
    assert sample.ended.mono_ns - sample.started.mono_ns < 1e9


def test_silence_of_the_network_is_lost() -> None:
    with http2_server(whole) as port:
        sample = visit(
            port, http_version="http2", tls=False, network=DeafNetwork(), loss_threshold_seconds=0.2
        )
    assert fate(sample)[0] is Outcome.LOST


def test_head_has_no_body() -> None:
    def script(visitor: Http2Visitor, stream_id: int, fields: Fields) -> None:
        assert dict(fields)[":method"] == "HEAD"
        visitor.answer(stream_id, OK)

    with http2_server(script) as port:
        assert fate(visit(port, http_version="http2", tls=False, method="HEAD"))[0] is Outcome.RECEIVED


def test_settings_that_exclude_each_other_are_refused() -> None:
    for wrong in (
        {"http_version": "http3", "tls": False},
        {"http_version": "http3", "happy_eyeballs": True},
        {"method": "HEAD", "body_contains": ["x"]},
    ):
        with pytest.raises(ConfigError):
            visit(1, network=HostNetwork(), **wrong)
