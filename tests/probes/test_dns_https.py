"""dns over HTTPS against HTTP/2 and HTTP/1.1 servers that answer, refuse, mislabel and break off."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import dns.message
import h2.config
import h2.connection
import h2.errors
import h2.events
import pytest

from nhip.measurement import Outcome, Sample, Target
from tests.lab.certificate import Certificate, make_certificate
from tests.lab.peers import closed_port, read_head, tcp_peer
from tests.lab.resolvers import answer_for, measure_dns, notes, outcomes
from tests.lab.tls_server import server_context

SERVER = "resolver.lab.example"
MESSAGE = "application/dns-message"


@dataclass(frozen=True)
class Reply:
    """What the scripted server says to one request; pieces of the body leave one after another."""

    status: int = 200
    content_type: str | None = MESSAGE
    body: Sequence[bytes] = ()
    announced_octets: int | None = None
    broken: str = ""
    """Where it breaks off: ``before`` the head, in the ``middle`` of the body, ``goaway``, ``reset``."""
    leaves: bool = False
    """Closes the connection after this answer."""


@dataclass
class Requests:
    """What the server was asked."""

    heads: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0

    def question(self, index: int) -> dns.message.Message:
        if self.bodies[index]:
            return dns.message.from_wire(self.bodies[index])
        text = parse_qs(urlsplit(self.heads[index][":path"]).query)["dns"][0]
        return dns.message.from_wire(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


Script = Callable[[dns.message.Message], Reply]


def whole(query: dns.message.Message) -> Reply:
    return Reply(body=[answer_for(query).to_wire()])


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"), SERVER, "127.0.0.1")


@contextmanager
def server(certificate: Certificate, script: Script, alpn: str = "h2") -> Iterator[tuple[Target, Requests]]:
    """A DoH server that speaks `alpn` only."""
    context = server_context(certificate, [alpn])
    requests = Requests()

    def serve(plain: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(plain, server_side=True) as sock:
            requests.connections += 1
            (_serve_http2 if alpn == "h2" else _serve_http1)(sock, script, requests)

    with tcp_peer(serve) as port:
        yield Target(id="resolver", host="127.0.0.1", port=port), requests


def _serve_http1(sock: socket.socket, script: Script, requests: Requests) -> None:
    while octets := read_head(sock):
        head, _, body = octets.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        method, path, _version = lines[0].split()
        fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
        while len(body) < int(fields.get("content-length", "0")):
            body += sock.recv(65_536)
        requests.heads.append({":method": method, ":path": path, **fields})
        requests.bodies.append(body)
        reply = script(requests.question(-1))
        if reply.broken == "before":
            return
        length = sum(map(len, reply.body)) if reply.announced_octets is None else reply.announced_octets
        kind = "" if reply.content_type is None else f"Content-Type: {reply.content_type}\r\n"
        close = "Connection: close\r\n" if reply.leaves else ""
        sock.sendall(f"HTTP/1.1 {reply.status} X\r\n{kind}{close}Content-Length: {length}\r\n\r\n".encode())
        for piece in reply.body:
            sock.sendall(piece)
        if reply.broken or reply.leaves:
            return


def _serve_http2(sock: socket.socket, script: Script, requests: Requests) -> None:
    parser = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    parser.initiate_connection()
    sock.sendall(parser.data_to_send())
    bodies: dict[int, bytes] = {}
    while octets := sock.recv(65_536):
        for event in parser.receive_data(octets):
            if isinstance(event, h2.events.RequestReceived):
                requests.heads.append(dict(event.headers))
                bodies[event.stream_id] = b""
            elif isinstance(event, h2.events.DataReceived):
                bodies[event.stream_id] += event.data
            elif isinstance(event, h2.events.StreamEnded):
                requests.bodies.append(bodies[event.stream_id])
                reply = script(requests.question(-1))
                if not _answer_http2(sock, parser, event.stream_id, reply):
                    return
        sock.sendall(parser.data_to_send())


def _answer_http2(
    sock: socket.socket, parser: h2.connection.H2Connection, stream_id: int, reply: Reply
) -> bool:
    if reply.broken == "before":
        return False
    if reply.broken == "goaway":
        parser.close_connection(h2.errors.ErrorCodes.NO_ERROR, last_stream_id=0)
        sock.sendall(parser.data_to_send())
        return False
    if reply.broken == "reset":
        parser.reset_stream(stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
        sock.sendall(parser.data_to_send())
        return True
    fields = [(":status", str(reply.status))]
    if reply.content_type is not None:
        fields.append(("content-type", reply.content_type))
    parser.send_headers(stream_id, fields)
    for piece in reply.body:
        for start in range(0, len(piece), 16_000):
            parser.send_data(stream_id, piece[start : start + 16_000])
            sock.sendall(parser.data_to_send())
    if reply.broken == "middle":
        return False
    parser.end_stream(stream_id)
    if reply.leaves:
        parser.close_connection()
    sock.sendall(parser.data_to_send())
    return not reply.leaves


def measure(target: Target, certificate: Certificate, **settings: object) -> Sample:
    return measure_dns(
        target,
        transport="https",
        ca_file=str(certificate.certificate),
        server_name=SERVER,
        **settings,
    )


each_version = pytest.mark.parametrize("alpn", ["h2", "http/1.1"])


@each_version
@pytest.mark.parametrize("http_method", ["POST", "GET"])
def test_a_question_is_asked_as_rfc_8484_says(certificate: Certificate, alpn: str, http_method: str) -> None:
    with server(certificate, whole, alpn) as (target, requests):
        sample = measure(target, certificate, http_method=http_method, path="/q?x=1")
    assert outcomes(sample) == [Outcome.RECEIVED] * 3
    assert sample.method.name == "dns_https"
    assert sample.facts["http_version"] == ("2" if alpn == "h2" else "1.1")
    assert [phase.name for phase in sample.singletons[0].phases] == ["tcp", "tls", "query"]
    assert requests.connections == 3
    head = requests.heads[0]
    assert head[":method"] == http_method
    assert head["accept"] == MESSAGE
    assert head.get(":authority", head.get("host")) == f"{SERVER}:{target.port}"
    question = requests.question(0)
    assert (question.id, str(question.question[0].name)) == (0, "host.lab.example.")
    if http_method == "POST":
        assert (head[":path"], head["content-type"]) == ("/q?x=1", MESSAGE)
    else:
        assert head[":path"].startswith("/q?x=1&dns=AAAB")
        assert "=" not in head[":path"].partition("dns=")[2]


def test_http1_is_spoken_where_the_server_chooses_nothing(
    certificate: Certificate,
) -> None:
    context = server_context(certificate)  # no ALPN at all

    def serve(plain: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(plain, server_side=True) as sock:
            _serve_http1(sock, whole, Requests())

    with tcp_peer(serve) as port:
        plain = measure(Target(id="resolver", host="127.0.0.1", port=port), certificate, count=1)
    assert outcomes(plain) == [Outcome.RECEIVED]
    assert (plain.facts["http_version"], plain.facts["alpn"]) == ("1.1", "none")


@each_version
def test_a_kept_connection_carries_every_question(certificate: Certificate, alpn: str) -> None:
    with server(certificate, whole, alpn) as (target, requests):
        sample = measure(target, certificate, reuse_connection=True, count=5)
    assert outcomes(sample) == [Outcome.RECEIVED] * 5
    assert requests.connections == 1
    assert notes(sample) == []


@each_version
def test_a_server_that_leaves_after_an_answer_costs_no_question(certificate: Certificate, alpn: str) -> None:
    def leaving(query: dns.message.Message) -> Reply:
        return Reply(body=[answer_for(query).to_wire()], leaves=True)

    with server(certificate, leaving, alpn) as (target, requests):
        sample = measure(target, certificate, reuse_connection=True)
    assert outcomes(sample) == [Outcome.RECEIVED] * 3
    assert requests.connections == 3
    assert notes(sample) == ["the server closed the kept connection 2 times"]


@each_version
@pytest.mark.parametrize(
    ("reply", "outcome", "detail"),
    [
        (Reply(status=404, content_type="text/html", body=[b"no"]), Outcome.REJECTED, "HTTP 404"),
        (Reply(status=503, content_type=None), Outcome.REJECTED, "HTTP 503"),
        (Reply(status=302, content_type=None), Outcome.REJECTED, "HTTP 302"),
        (Reply(content_type="text/html", body=[b"<p>log in</p>"]), Outcome.CORRUPT, "content type text/html"),
        (Reply(content_type=None, body=[b"x"]), Outcome.CORRUPT, "content type missing"),
        (Reply(body=[b"x" * 40]), Outcome.CORRUPT, "answer to another question"),
        (Reply(body=[]), Outcome.CORRUPT, "answer to another question"),
        (Reply(broken="before"), Outcome.RESET, "closed without an answer"),
        (
            Reply(body=[b"x" * 10], announced_octets=50, broken="middle"),
            Outcome.TRUNCATED,
            "closed in the middle of the answer",
        ),
    ],
)
def test_what_is_no_dns_answer_is_called_by_its_name(
    certificate: Certificate, alpn: str, reply: Reply, outcome: Outcome, detail: str
) -> None:
    with server(certificate, lambda _query: reply, alpn) as (target, _requests):
        sample = measure(target, certificate, count=2)
    assert outcomes(sample) == [outcome] * 2
    assert {singleton.detail for singleton in sample.singletons} == {detail}
    assert {singleton.delay_ns for singleton in sample.singletons} == {None}


def test_an_answer_longer_than_any_message_is_corrupt(certificate: Certificate) -> None:
    reply = Reply(body=[bytes(65_536)])
    with server(certificate, lambda _query: reply, "http/1.1") as (target, _requests):
        sample = measure(target, certificate, count=1)
    assert outcomes(sample) == [Outcome.CORRUPT]
    assert sample.singletons[0].detail == "answer longer than 65535 octets"


@pytest.mark.parametrize(
    ("broken", "detail"),
    [("goaway", "closed without an answer"), ("reset", "HTTP/2 stream reset, error 7")],
)
def test_http2_s_own_refusals_are_resets(certificate: Certificate, broken: str, detail: str) -> None:
    with server(certificate, lambda _query: Reply(broken=broken)) as (target, _requests):
        sample = measure(target, certificate, count=2)
    assert outcomes(sample) == [Outcome.RESET] * 2
    assert {singleton.detail for singleton in sample.singletons} == {detail}


@each_version
def test_an_answer_of_65_535_octets_is_read_whole(certificate: Certificate, alpn: str) -> None:
    """More than HTTP/2's first window of 65,535 octets needs updates of it, which three such answers show."""

    def longest(query: dns.message.Message) -> Reply:
        octets = answer_for(query).to_wire()
        return Reply(body=[octets + bytes(60_000 - len(octets)), bytes(5_535)])

    with server(certificate, longest, alpn) as (target, _requests):
        sample = measure(target, certificate)
    assert outcomes(sample) == [Outcome.RECEIVED] * 3


@each_version
def test_octets_that_are_no_http_are_corrupt(certificate: Certificate, alpn: str) -> None:
    context = server_context(certificate, [alpn])

    def serve(plain: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(plain, server_side=True) as sock:
            sock.recv(65_536)
            sock.sendall(b"\xff\xfe no HTTP here " * 20 + b"\r\n\r\n")
            sock.recv(65_536)

    with tcp_peer(serve) as port:
        sample = measure(Target(id="resolver", host="127.0.0.1", port=port), certificate, count=1)
    assert outcomes(sample) == [Outcome.CORRUPT]
    assert sample.singletons[0].detail.startswith("no HTTP")


@each_version
def test_an_error_code_inside_a_good_http_answer_is_a_rejection(certificate: Certificate, alpn: str) -> None:
    def failing(query: dns.message.Message) -> Reply:
        answer = dns.message.make_response(query)
        answer.set_rcode(2)
        return Reply(body=[answer.to_wire()])

    with server(certificate, failing, alpn) as (target, _requests):
        sample = measure(target, certificate, count=2)
    assert outcomes(sample) == [Outcome.REJECTED] * 2
    assert sample.facts["rcode"] == "SERVFAIL"


def test_a_closed_port_is_refused(certificate: Certificate) -> None:
    target = Target(id="resolver", host="127.0.0.1", port=closed_port(socket.SOCK_STREAM))
    assert outcomes(measure(target, certificate)) == [Outcome.REFUSED] * 3
