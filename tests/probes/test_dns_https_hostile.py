"""dns over HTTPS against servers that leave, misstate their status and never come to the point."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dns.message
import h2.config
import h2.connection
import h2.events
import pytest

from nhip.measurement import Outcome, Sample, Target
from tests.lab.certificate import Certificate, make_certificate
from tests.lab.peers import read_head, tcp_peer
from tests.lab.resolvers import answer_for, measure_dns, notes, outcomes
from tests.lab.tls_server import server_context

SERVER = "resolver.lab.example"
FIELDS = [("content-type", "application/dns-message")]
PING = struct.pack(">HBBBI", 0, 8, 6, 0, 0) + b"12345678"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"), SERVER, "127.0.0.1")


class Asked:
    """One request that has come whole, and ways to answer it."""

    def __init__(self, sock: socket.socket, parser: h2.connection.H2Connection, stream_id: int, body: bytes):
        self.sock = sock
        self.parser = parser
        self.stream_id = stream_id
        self.answer = answer_for(dns.message.from_wire(body)).to_wire()

    def head(self, status: str) -> None:
        self.parser.send_headers(self.stream_id, [(":status", status), *FIELDS])
        self.flush()

    def body(self) -> None:
        self.parser.send_data(self.stream_id, self.answer, end_stream=True)
        self.flush()

    def goaway(self, last_stream_id: int) -> None:
        """By hand: h2 would end its own connection too."""
        self.sock.sendall(struct.pack(">HBBBIII", 0, 8, 7, 0, 0, last_stream_id, 0))

    def flush(self) -> None:
        self.sock.sendall(self.parser.data_to_send())


@contextmanager
def http2(certificate: Certificate, script: Callable[[Asked], None]) -> Iterator[tuple[Target, list[int]]]:
    """An HTTP/2 server that answers each request as `script` does; with the stream number of each."""
    context = server_context(certificate, ["h2"])
    config = h2.config.H2Configuration(
        client_side=False, validate_outbound_headers=False, normalize_outbound_headers=False
    )
    streams: list[int] = []

    def serve(plain: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError, OSError), context.wrap_socket(plain, server_side=True) as sock:
            parser = h2.connection.H2Connection(config)
            parser.initiate_connection()
            sock.sendall(parser.data_to_send())
            body = b""
            while octets := sock.recv(65_536):
                for event in parser.receive_data(octets):
                    if isinstance(event, h2.events.DataReceived):
                        body += event.data or b""
                    elif isinstance(event, h2.events.StreamEnded):
                        streams.append(event.stream_id or 0)
                        script(Asked(sock, parser, event.stream_id or 0, body))
                        body = b""
                sock.sendall(parser.data_to_send())

    with tcp_peer(serve) as port:
        yield Target(id="resolver", host="127.0.0.1", port=port), streams


@contextmanager
def http1(certificate: Certificate, interim: int | None) -> Iterator[Target]:
    """An HTTP/1.1 server that says so often "100 Continue" before its answer, for `None` without end."""
    context = server_context(certificate, ["http/1.1"])

    def serve(plain: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError, OSError), context.wrap_socket(plain, server_side=True) as sock:
            octets = read_head(sock)
            while len(body := octets.partition(b"\r\n\r\n")[2]) < 49:
                octets += sock.recv(65_536)
            while interim is None:
                sock.sendall(INTERIM * 1000)
            answer = answer_for(dns.message.from_wire(body)).to_wire()
            sock.sendall(
                INTERIM * interim
                + b"HTTP/1.1 200 OK\r\nContent-Type: application/dns-message\r\n"
                + f"Content-Length: {len(answer)}\r\n\r\n".encode()
                + answer
            )

    with tcp_peer(serve) as port:
        yield Target(id="resolver", host="127.0.0.1", port=port)


def measure(target: Target, certificate: Certificate, **settings: object) -> Sample:
    return measure_dns(
        target,
        transport="https",
        ca_file=str(certificate.certificate),
        server_name=SERVER,
        **({"count": 1, "loss_threshold_seconds": 10.0} | settings),
    )


def fate(sample: Sample) -> tuple[Outcome, str]:
    (singleton,) = sample.singletons
    return singleton.outcome, singleton.detail


# Status


@pytest.mark.parametrize("status", ["abc", "2 0", "-200", "20", "²00", ""])
def test_a_status_that_is_no_number_is_corrupt(certificate: Certificate, status: str) -> None:
    def script(asked: Asked) -> None:
        asked.head(status)
        asked.body()

    with http2(certificate, script) as (target, _streams):
        outcome, _detail = fate(measure(target, certificate))
    assert outcome is Outcome.CORRUPT


# Leaving


def test_a_server_that_lets_the_question_finish_and_leaves_has_answered(certificate: Certificate) -> None:
    def script(asked: Asked) -> None:
        asked.goaway(asked.stream_id)
        asked.head("200")
        asked.body()

    with http2(certificate, script) as (target, _streams):
        assert fate(measure(target, certificate)) == (Outcome.RECEIVED, "")


def test_its_twin_that_does_not_let_it_finish_is_a_reset(certificate: Certificate) -> None:
    with http2(certificate, lambda asked: asked.goaway(0)) as (target, _streams):
        assert fate(measure(target, certificate)) == (Outcome.RESET, "closed without an answer")


def test_no_question_is_lost_on_a_connection_whose_server_has_said_no_further_ones(
    certificate: Certificate,
) -> None:
    """The server keeps its end open and ignores what comes after its goodbye."""

    def script(asked: Asked) -> None:
        if asked.stream_id > 1:
            return
        asked.goaway(asked.stream_id)
        asked.head("200")
        asked.body()

    with http2(certificate, script) as (target, streams):
        sample = measure(target, certificate, count=3, reuse_connection=True, loss_threshold_seconds=2.0)
    assert outcomes(sample) == [Outcome.RECEIVED] * 3
    assert streams == [1, 1, 1]
    assert notes(sample) == ["the server closed the kept connection 2 times"]


# No end


def test_interim_answers_without_end_are_corrupt_and_16_are_not(certificate: Certificate) -> None:
    with http1(certificate, 16) as target:
        assert fate(measure(target, certificate)) == (Outcome.RECEIVED, "")
    with http1(certificate, None) as target:
        assert fate(measure(target, certificate)) == (Outcome.CORRUPT, "no end of interim answers")


@pytest.mark.parametrize(
    ("heads", "expected"),
    [(16, (Outcome.RECEIVED, "")), (17, (Outcome.CORRUPT, "no end of interim answers"))],
)
def test_the_same_over_http2(certificate: Certificate, heads: int, expected: tuple[Outcome, str]) -> None:
    def script(asked: Asked) -> None:
        for _ in range(heads):
            asked.head("103")
        asked.head("200")
        asked.body()

    with http2(certificate, script) as (target, _streams):
        assert fate(measure(target, certificate)) == expected


def test_frames_without_end_are_corrupt(certificate: Certificate) -> None:
    def script(asked: Asked) -> None:
        # Somebody must take the acknowledgements, or the flood would stop by itself.
        taker = threading.Thread(target=take, args=(asked.sock,), daemon=True)
        taker.start()
        with contextlib.suppress(OSError):
            while True:
                asked.sock.sendall(PING * 3000)
        taker.join(5)

    def take(sock: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while sock.recv(65_536):
                pass

    with http2(certificate, script) as (target, _streams):
        sample = measure(target, certificate)
    assert fate(sample) == (Outcome.CORRUPT, "no end of octets beside the answer")
    assert sample.octets_received < 3 * 1_048_576


def test_many_answers_on_one_connection_are_no_flood(certificate: Certificate) -> None:
    """What stands beside an answer is counted anew for each: here 150 kB each, 1.5 MB in all."""

    def script(asked: Asked) -> None:
        asked.sock.sendall(PING * 8_900)
        asked.head("200")
        asked.body()

    with http2(certificate, script) as (target, _streams):
        sample = measure(target, certificate, count=10, reuse_connection=True, interval_seconds=0.01)
    assert outcomes(sample) == [Outcome.RECEIVED] * 10
