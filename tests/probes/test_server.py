"""The measurement server against ordinary, greedy, slow and broken clients, and the DNS responder."""

from __future__ import annotations

import json
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import pytest

from nhip.clock import SystemClock
from nhip.config import convert
from nhip.errors import ConfigError
from nhip.measurement import Direction, Outcome, Target
from probes.api import ProbeContext
from probes.file_transfer import FileTransfer, FileTransferConfig
from probes.network import HostNetwork
from probes.server import MeasurementServer, ServerConfig
from probes.server.admission import Admission, client_of
from probes.server.dns_responder import DnsResponder, DnsResponderConfig, answer_to
from tests.lab.certificate import make_certificate
from tests.lab.peers import read_head
from tests.lab.stall import watching_stall


@contextmanager
def serving(**settings: object) -> Iterator[MeasurementServer]:
    table: dict[str, object] = {"hosts": ["127.0.0.1"], "port": 0} | settings
    server = MeasurementServer(convert(table, ServerConfig, "test", environment={}), SystemClock())
    server.start()
    try:
        yield server
    finally:
        server.close()


def connect(server: MeasurementServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def ask(server: MeasurementServer, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, fields and body of the answer to one request."""
    with connect(server) as sock:
        sock.sendall(request)
        return answer_of(sock)


def answer_of(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    head, _, body = read_head(sock).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines[1:])
    while len(body) < int(fields["content-length"]):
        part = sock.recv(65_536)
        if not part:
            break
        body += part
    return int(lines[0].split()[1]), fields, body


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def eventually(server: MeasurementServer, name: str, value: int) -> None:
    """Wait until the account says so; the server's thread may be a moment behind."""
    deadline = time.monotonic() + 5
    while getattr(server.account(), name) != value and time.monotonic() < deadline:
        threading.Event().wait(0.005)
    assert getattr(server.account(), name) == value


def seconds_until_closed(sock: socket.socket) -> float:
    begun = time.monotonic()
    try:
        while sock.recv(65_536):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - begun


def test_a_download_is_exactly_the_octets_asked_for_and_cannot_be_compressed() -> None:
    with serving() as server:
        status, fields, body = ask(server, get("/v1/file?octets=300001"))
        eventually(server, "octets_sent_total", 300_001)
    assert status == 200
    assert len(body) == 300_001
    assert len(zlib.compress(body, 9)) > len(body) > len(zlib.compress(bytes(300_001), 9))
    assert fields["nhip-format"] == "nhip-file/1"
    assert fields["cache-control"] == "no-store, no-transform"
    assert "content-encoding" not in fields


def test_an_upload_is_answered_with_the_octets_and_time_of_the_receiver() -> None:
    with serving() as server, connect(server) as sock:
        begun = time.monotonic_ns()
        sock.sendall(b"POST /v1/file HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n" + bytes(20_000))
        threading.Event().wait(0.2)
        sock.sendall(bytes(30_000))
        status, _fields, body = answer_of(sock)
        elapsed = time.monotonic_ns() - begun
        eventually(server, "octets_received_total", 50_000)
    assert status == 200
    receipt = json.loads(body)
    assert receipt["octets"] == 50_000
    # The server reads the first octets a moment after this end wrote them.
    assert 0.15e9 <= receipt["duration_ns"] <= elapsed


def test_a_client_that_waits_for_100_continue_gets_it() -> None:
    with serving() as server, connect(server) as sock:
        sock.sendall(
            b"POST /v1/file HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        assert read_head(sock).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"abc")
        assert answer_of(sock)[0] == 200


def test_health_and_status_say_what_is_going_on() -> None:
    with serving(max_transfers=3) as server:
        assert ask(server, get("/"))[::2] == (200, b"ok\n")
        ask(server, get("/v1/file?octets=1000"))
        eventually(server, "active_transfers", 0)
        status, fields, body = ask(server, get("/v1/status"))
    account = json.loads(body)
    assert (status, fields["content-type"]) == (200, "application/json")
    assert account["max_transfers"] == 3
    assert account["transfers_total"] == 1
    assert account["octets_sent_total"] == 1000


@pytest.mark.parametrize(
    ("request_octets", "status"),
    [
        (get("/v1/file?octets=0"), 413),
        (get("/v1/file?octets=1000001"), 413),
        (get("/v1/file?octets=99999999999999999999999"), 400),
        (get("/v1/file?octets=-1"), 400),
        (get("/v1/file?octets=1e6"), 400),
        (get("/v1/file"), 400),
        (get("/etc/passwd"), 404),
        (get("/v1/file/../../etc/passwd"), 404),
        (b"PUT /v1/file HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", 405),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", 405),
        (b"POST /v1/file HTTP/1.1\r\nHost: x\r\nContent-Length: 1000001\r\n\r\n", 413),
        (b"POST /v1/file HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST /v1/file HTTP/1.1\r\nHost: x\r\n\r\n", 411),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01 not http \r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", 431),
    ],
)
def test_what_is_out_of_bounds_is_refused_with_its_status(request_octets: bytes, status: int) -> None:
    with serving(max_octets=1_000_000) as server:
        assert ask(server, request_octets)[0] == status
        assert server.account().transfers_total == 0


def test_one_transfer_too_many_is_told_busy_and_is_no_fault_of_the_network() -> None:
    with serving(max_transfers=1, retry_after_seconds=7) as server, connect(server) as first:
        first.sendall(b"POST /v1/file HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        eventually(server, "active_transfers", 1)
        status, fields, _body = ask(server, get("/v1/file?octets=10"))
        assert (status, fields["retry-after"]) == (503, "7")
        context = ProbeContext(clock=SystemClock(), network=HostNetwork())
        sample = FileTransfer(FileTransferConfig(size_octets=40_000_000, interval_seconds=0)).measure(
            Target(id="server", host="127.0.0.1", port=server.port), context
        )
        assert [singleton.outcome for singleton in sample.singletons] == [Outcome.BUSY] * 2
        assert server.account().refused_total == 3
        first.sendall(bytes(10))
        assert answer_of(first)[0] == 200
        eventually(server, "active_transfers", 0)
        assert ask(server, get("/v1/file?octets=10"))[0] == 200


def test_one_client_cannot_take_every_connection() -> None:
    with serving(max_connections_per_client=2) as server, connect(server), connect(server):
        eventually(server, "active_connections", 2)
        assert ask(server, get("/"))[0] == 429


def test_a_full_server_says_so() -> None:
    with serving(max_connections=2) as server, ExitStack() as clients:
        for _ in range(2):
            clients.enter_context(connect(server))
        eventually(server, "active_connections", 2)
        status, fields, body = ask(server, get("/"))
        assert (status, fields["retry-after"], body) == (503, "15", b"busy\n")
        clients.close()
        eventually(server, "active_connections", 0)
        assert ask(server, get("/"))[0] == 200


def test_a_head_that_never_ends_meets_its_deadline() -> None:
    """Slow loris: an octet now and then renews no deadline, and others are served meanwhile."""
    with watching_stall() as stall, serving(head_seconds=0.4) as server, connect(server) as sock:
        begun = time.monotonic()
        sock.settimeout(0.05)
        closed = False
        while not closed and time.monotonic() - begun < 5:
            try:
                sock.sendall(b"G")
                closed = sock.recv(1) == b""
            except TimeoutError:
                pass
            except OSError:
                closed = True
            assert ask(server, get("/"))[0] == 200
        assert closed
        assert 0.35 < time.monotonic() - begun < 1.5 + stall.seconds
        eventually(server, "active_connections", 0)


def test_without_the_deadlines_both_would_hold_their_places() -> None:
    """The twin of the tests around it: the same two clients, and patience instead of deadlines."""
    with (
        serving(head_seconds=60.0, stall_seconds=60.0) as server,
        connect(server) as loris,
        connect(server) as half,
    ):
        half.sendall(b"POST /v1/file HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
        begun = time.monotonic()
        while time.monotonic() - begun < 1.5:
            loris.sendall(b"G")
            threading.Event().wait(0.05)
        assert server.account().active_connections == 2
        assert server.account().active_transfers == 1


def test_an_upload_that_stops_half_way_is_ended_and_counted_as_broken() -> None:
    with watching_stall() as stall, serving(stall_seconds=0.3) as server, connect(server) as sock:
        sock.sendall(b"POST /v1/file HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
        assert 0.25 < seconds_until_closed(sock) < 1.5 + stall.seconds
        eventually(server, "active_transfers", 0)
        assert server.account().transfers_broken_total == 1


def test_an_upload_whose_client_left_frees_its_place_at_once() -> None:
    with serving(stall_seconds=30.0) as server:
        with connect(server) as sock:
            sock.sendall(b"POST /v1/file HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
            eventually(server, "active_transfers", 1)
        eventually(server, "active_connections", 0)
        assert server.account().transfers_broken_total == 1


def test_a_client_that_drips_meets_the_deadline_of_the_whole_transfer() -> None:
    with (
        watching_stall() as stall,
        serving(stall_seconds=5.0, transfer_seconds=0.5) as server,
        connect(server) as sock,
    ):
        sock.sendall(b"POST /v1/file HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        begun = time.monotonic()
        try:
            while time.monotonic() - begun < 5:
                sock.sendall(b"x")
                threading.Event().wait(0.02)
        except OSError:
            pass
        assert 0.4 < time.monotonic() - begun < 2.0 + stall.seconds
        eventually(server, "active_transfers", 0)


def test_a_client_that_does_not_read_is_ended() -> None:
    with serving(stall_seconds=0.3) as server, connect(server) as sock:
        sock.sendall(get("/v1/file?octets=1000000000"))
        eventually(server, "active_transfers", 1)
        eventually(server, "active_connections", 0)
        assert server.account().transfers_broken_total == 1


def test_both_versions_of_ip_are_served_at_one_port() -> None:
    with serving(hosts=[]) as server:
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, server.port), timeout=5) as sock:
                sock.sendall(get("/"))
                assert answer_of(sock)[0] == 200


def test_files_go_both_ways_under_tls(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "localhost", "127.0.0.1")
    config = FileTransferConfig(
        tls=True, ca_file=str(certificate.certificate), size_octets=3_000_000, interval_seconds=0
    )
    context = ProbeContext(clock=SystemClock(), network=HostNetwork())
    with serving(certificate_file=str(certificate.certificate), key_file=str(certificate.key)) as server:
        target = Target(id="server", host="127.0.0.1", port=server.port)
        sample = FileTransfer(config).measure(target, context)
        untrusting = FileTransfer(FileTransferConfig(tls=True, size_octets=1)).measure(target, context)
    assert [singleton.outcome for singleton in sample.singletons] == [Outcome.RECEIVED] * 2
    assert all("tls" in {phase.name for phase in singleton.phases} for singleton in sample.singletons)
    assert {singleton.outcome for singleton in untrusting.singletons} == {Outcome.TLS_FAILED}


def test_closing_ends_every_connection_thread_and_socket() -> None:
    before = {thread.name for thread in threading.enumerate()}
    with serving() as server:
        client = connect(server)
        client.sendall(get("/v1/file?octets=1000000000"))
        eventually(server, "active_transfers", 1)
        port = server.port
    with client:
        assert seconds_until_closed(client) < 2
    assert {thread.name for thread in threading.enumerate()} <= before
    server.close()
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=1):
        pass


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hosts": ["192.0.2.77"]}, "cannot listen on 192.0.2.77"),
        ({"congestion_control": "no-such-cc"}, "congestion_control"),
        ({"certificate_file": "/absent.pem", "key_file": "/absent.pem"}, "certificate_file"),
        ({"certificate_file": "/absent.pem"}, "key_file: is missing"),
    ],
)
def test_what_the_server_cannot_use_is_said_at_the_start(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message), serving(**settings):
        pass


def test_a_port_in_use_is_said_at_the_start() -> None:
    with (
        serving() as server,
        pytest.raises(ConfigError, match="cannot listen") as failure,
        serving(port=server.port),
    ):
        pass
    assert failure.value.remedy


class HeldClock(SystemClock):
    """A monotonic clock that stands where it was put."""

    def __init__(self) -> None:
        self.at_ns = 1_000_000_000_000

    def mono_ns(self) -> int:
        return self.at_ns


def test_the_throughput_is_that_of_the_last_ten_whole_seconds() -> None:
    clock = HeldClock()
    admission = Admission(clock=clock, max_transfers=1, max_connections=1, max_connections_per_client=1)
    for _ in range(20):
        admission.moved(Direction.DOWN, 1_000_000)
        clock.at_ns += 1_000_000_000
    assert admission.account().sent_bits_per_second == 8_000_000
    assert admission.account().received_bits_per_second == 0
    assert admission.account().octets_sent_total == 20_000_000
    clock.at_ns += 60_000_000_000
    assert admission.account().sent_bits_per_second == 0


def test_a_client_is_an_address_or_an_ipv6_network_of_64_bits() -> None:
    assert client_of("::ffff:192.0.2.1") == client_of("192.0.2.1") == "192.0.2.1"
    assert client_of("2001:db8::1") == client_of("2001:db8::2") != client_of("2001:db8:0:1::1")
    assert client_of("fe80::1%eth0") == "fe80::/64"


RESPONDER = DnsResponderConfig(zone="lab.example", ipv4="192.0.2.1", ipv6="2001:db8::1", port=0)
ZONE = dns.name.from_text("lab.example")


def answered(name: str, kind: str, config: DnsResponderConfig = RESPONDER) -> dns.message.Message:
    query = dns.message.make_query(name, kind)
    octets = answer_to(query.to_wire(), ZONE, config)
    assert octets is not None
    answer = dns.message.from_wire(octets)
    assert query.is_response(answer)
    return answer


def test_every_name_below_the_zone_has_the_one_address() -> None:
    for name in ("lab.example", "a.lab.example", "A.b.Lab.Example"):
        assert str(answered(name, "A").answer[0][0]) == "192.0.2.1"
        assert str(answered(name, "AAAA").answer[0][0]) == "2001:db8::1"
        assert answered(name, "A").flags & dns.flags.AA
        assert answered(name, "A").question[0].name.labels == dns.name.from_text(name).labels


def test_other_types_are_empty_and_other_zones_refused() -> None:
    assert not answered("a.lab.example", "TXT").answer
    assert answered("a.lab.example", "ANY").rcode() == dns.rcode.NOERROR
    assert answered("example.com", "A").rcode() == dns.rcode.REFUSED
    assert answered("notlab.example", "A").rcode() == dns.rcode.REFUSED
    assert not answered("a.lab.example", "A", DnsResponderConfig(zone="lab.example")).answer


def test_an_answer_adds_one_record_to_the_question_and_nothing_else() -> None:
    query = dns.message.make_query("a.lab.example", "AAAA")
    octets = answer_to(query.to_wire(), ZONE, RESPONDER)
    assert octets is not None
    assert len(octets) == len(query.to_wire()) + 12 + 16
    refused = dns.message.make_query("example.com", "ANY", use_edns=True, payload=4096)
    octets = answer_to(refused.to_wire(), ZONE, RESPONDER)
    assert octets is not None
    assert len(octets) <= len(refused.to_wire())


def test_what_is_no_question_is_not_answered() -> None:
    query = dns.message.make_query("a.lab.example", "A")
    response = dns.message.make_response(query)
    two = dns.message.make_query("a.lab.example", "A")
    two.question.append(dns.message.make_query("b.lab.example", "A").question[0])
    for octets in (b"", b"x", bytes(12), response.to_wire(), two.to_wire(), query.to_wire()[:-3]):
        assert answer_to(octets, ZONE, RESPONDER) is None


def test_another_opcode_is_not_implemented() -> None:
    notify = dns.message.make_query("a.lab.example", "SOA")
    notify.set_opcode(dns.opcode.NOTIFY)
    octets = answer_to(notify.to_wire(), ZONE, RESPONDER)
    assert octets is not None
    assert dns.message.from_wire(octets).rcode() == dns.rcode.NOTIMP


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1"])
def test_the_answer_comes_from_the_address_that_was_asked(host: str) -> None:
    responder = DnsResponder(RESPONDER, SystemClock())
    responder.start()
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.sendto(
                dns.message.make_query("a.lab.example", "A").to_wire(), (host, responder.addresses[0][1])
            )
            _octets, peer = sock.recvfrom(512)
        assert peer[0] == host
    finally:
        responder.close()
    assert responder.answered_total == 1


def test_one_client_gets_no_more_answers_than_its_cap() -> None:
    config = DnsResponderConfig(
        zone="lab.example", ipv4="192.0.2.1", hosts=["127.0.0.1"], port=0, answers_per_second_per_client=5
    )
    responder = DnsResponder(config, HeldClock())
    responder.start()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(50):
                sock.sendto(dns.message.make_query("a.lab.example", "A").to_wire(), responder.addresses[0])
            deadline = time.monotonic() + 5
            while responder.answered_total + responder.limited_total < 50 and time.monotonic() < deadline:
                threading.Event().wait(0.005)
    finally:
        responder.close()
    assert (responder.answered_total, responder.limited_total) == (5, 45)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"zone": "lab.example", "ipv4": "2001:db8::1"}, "ipv4"),
        ({"zone": "lab.example", "ipv6": "nonsense"}, "ipv6"),
        ({"zone": "two words"}, "zone"),
        ({}, "zone"),
    ],
)
def test_a_responder_that_cannot_work_is_refused_by_key(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"file.toml:{message}"):
        convert(settings, DnsResponderConfig, "file.toml", environment={})
