"""HTTP/3 over a socket of our own: handshake, answer, certificates, losses and every ending."""

from __future__ import annotations

import random
import resource
import socket
import ssl
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nhip.errors import CannotMeasureError
from nhip.measurement import Outcome, Target
from probes.network import Address
from probes.stream import StreamError
from tests.lab.certificate import Certificate
from tests.lab.certificate_authority import CertificateAuthority
from tests.lab.deaf_network import DeafNetwork
from tests.lab.fake_clock import FakeClock
from tests.lab.http3_server import Fields, http3_server, respond
from tests.lab.http_probe import fate, phases, visit
from tests.lab.peers import closed_port, udp_peer

pytest.importorskip("aioquic", reason="aioquic is not installed (extra http3)")

BODY = bytes(range(256)) * 1_000
OK = [(b":status", b"200"), (b"content-length", str(len(BODY)).encode())]
NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    made = CertificateAuthority(tmp_path_factory.mktemp("authority"))
    made.start()
    return made


@pytest.fixture(scope="module")
def good(authority: CertificateAuthority) -> Certificate:
    return authority.issue("DNS:localhost", "IP:127.0.0.1", "IP:::1", not_after=NOW + timedelta(days=20))


def whole(protocol: Any, stream_id: int, fields: Fields) -> None:
    respond(protocol, stream_id, OK, BODY)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_http3_is_received_with_its_phases_and_facts(
    authority: CertificateAuthority, good: Certificate, host: str
) -> None:
    asked: list[Fields] = []

    def script(protocol: Any, stream_id: int, fields: Fields) -> None:
        asked.append(fields)
        whole(protocol, stream_id, fields)

    with http3_server(script, good, host) as port:
        sample = visit(port, host, http_version="http3", ca_file=str(authority.root), path="/a?b=c", count=2)
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.RECEIVED}
    assert list(phases(sample.singletons[0])) == ["quic", "first_byte", "transfer"]
    assert (sample.method.name, sample.type_p.protocol) == ("http3", "udp")
    assert sample.type_p.ip_version == (6 if ":" in host else 4)
    assert (sample.facts["http_version"], sample.facts["alpn"]) == ("3", "h3")
    assert sample.facts["tls_version"] == "TLSv1.3"
    assert sample.facts["tls_cipher"].startswith("TLS_")
    assert sample.facts["certificate_verified"] == "yes"
    assert sample.facts["certificate_names"] == "localhost, 127.0.0.1, ::1"
    (expiry,) = (found for found in sample.statistics if found.name == "certificate_expiry_timestamp")
    assert expiry.value == (NOW + timedelta(days=20)).timestamp()
    assert 2 * len(BODY) < sample.octets_received < 2.5 * len(BODY)
    # An Initial packet is padded to 1 200 octets (RFC 9000 section 14.1); nothing else of ours is large.
    assert 2 * 1_200 <= sample.octets_sent < 40_000
    head = dict(asked[0])
    assert (head[b":method"], head[b":path"]) == (b"GET", b"/a?b=c")


def test_a_name_adds_the_dns_phase_and_is_sent_as_server_name(
    authority: CertificateAuthority, good: Certificate
) -> None:
    from probes.network import HostNetwork

    with http3_server(whole, good) as port:
        sample = visit(
            port,
            "localhost",
            http_version="http3",
            ca_file=str(authority.root),
            network=HostNetwork(ip_version=4),
            body_sha256="0" * 64,
        )
    assert list(phases(sample.singletons[0])) == ["dns", "quic", "first_byte", "transfer"]
    assert fate(sample)[0] is Outcome.CORRUPT
    assert "another hash" in fate(sample)[1]


def test_the_phases_tell_a_slow_server_from_a_slow_handshake(
    authority: CertificateAuthority, good: Certificate
) -> None:
    def slow(protocol: Any, stream_id: int, fields: Fields) -> None:
        def later() -> None:
            whole(protocol, stream_id, fields)
            protocol.transmit()

        protocol._loop.call_later(0.2, later)

    with http3_server(slow, good) as port:
        (singleton,) = visit(port, http_version="http3", ca_file=str(authority.root)).singletons
    assert 0.19e9 <= phases(singleton)["first_byte"] < 0.35e9
    assert phases(singleton)["quic"] < 0.15e9


def test_certificates_are_checked_unless_the_task_says_otherwise(
    authority: CertificateAuthority, good: Certificate
) -> None:
    with http3_server(whole, good) as port:
        untrusted = visit(port, http_version="http3")
        other = visit(port, http_version="http3", ca_file=str(authority.root), server_name="other.example")
        unchecked = visit(port, http_version="http3", verify_certificate=False)
    assert fate(untrusted) == (Outcome.TLS_FAILED, "unable to get local issuer certificate")
    assert untrusted.facts["certificate_verified"] == "no: unable to get local issuer certificate"
    assert untrusted.facts["certificate_subject"] == "CN=localhost"
    assert fate(other)[0] is Outcome.TLS_FAILED
    assert "other.example" in fate(other)[1]
    assert other.facts["certificate_name_matches"] == "no"
    assert fate(unchecked) == (Outcome.RECEIVED, "HTTP 200")
    assert unchecked.facts["certificate_verified"] == "not checked"


def test_an_expired_certificate_fails_at_once_and_still_tells_its_date(
    authority: CertificateAuthority,
) -> None:
    ended = NOW - timedelta(days=3)
    expired = authority.issue("IP:127.0.0.1", not_before=NOW - timedelta(days=90), not_after=ended)
    with http3_server(whole, expired) as port:
        sample = visit(port, http_version="http3", ca_file=str(authority.root))
    assert fate(sample) == (Outcome.TLS_FAILED, "Certificate is no longer valid")
    (expiry,) = (found for found in sample.statistics if found.name == "certificate_expiry_timestamp")
    assert expiry.value == ended.timestamp()
    # The library would tell only after three probe timeouts, about a second.
    assert sample.ended.mono_ns - sample.started.mono_ns < 0.5e9


def test_a_server_without_h3_fails_the_handshake(authority: CertificateAuthority, good: Certificate) -> None:
    with http3_server(whole, good, alpn=("hq-interop",)) as port:
        sample = visit(port, http_version="http3", ca_file=str(authority.root))
    assert fate(sample)[0] is Outcome.TLS_FAILED
    assert "ALPN" in fate(sample)[1]


def test_a_closed_port_is_refused() -> None:
    sample = visit(closed_port(socket.SOCK_DGRAM), http_version="http3", verify_certificate=False)
    assert fate(sample) == (Outcome.REFUSED, "ECONNREFUSED")


def test_silence_is_lost_at_the_deadline_and_little_was_sent(good: Certificate) -> None:
    with http3_server(whole, good) as port:
        sample = visit(
            port,
            http_version="http3",
            verify_certificate=False,
            network=DeafNetwork(),
            loss_threshold_seconds=1.0,
        )
    assert fate(sample) == (Outcome.LOST, "timed out")
    assert 1.0e9 <= sample.ended.mono_ns - sample.started.mono_ns < 1.5e9
    # Two padded packets at each probe timeout, and those double.
    assert sample.octets_sent <= 8 * 1_280


def test_a_peer_that_answers_nonsense_is_lost_and_not_believed() -> None:
    def nonsense(sock: socket.socket, data: bytes, peer: tuple[str, int]) -> None:
        sock.sendto(random.Random(1).randbytes(1_200), peer)
        sock.sendto(b"HTTP/1.1 400 Bad Request\r\n\r\n", peer)
        sock.sendto(b"", peer)

    with udp_peer(nonsense) as port:
        sample = visit(port, http_version="http3", verify_certificate=False, loss_threshold_seconds=0.5)
    assert fate(sample) == (Outcome.LOST, "timed out")


def test_an_unknown_version_is_rejected() -> None:
    def other_version(sock: socket.socket, data: bytes, peer: tuple[str, int]) -> None:
        """Version negotiation (RFC 9000 section 17.2.1) that offers only a version nobody speaks."""
        destination = data[6 : 6 + data[5]]
        at = 6 + data[5]
        source = data[at + 1 : at + 1 + data[at]]
        packet = bytes([0x80]) + bytes(4) + bytes([len(source)]) + source
        packet += bytes([len(destination)]) + destination + bytes.fromhex("fa1a2a3a")
        sock.sendto(packet, peer)

    with udp_peer(other_version) as port:
        sample = visit(port, http_version="http3", verify_certificate=False)
    assert fate(sample) == (Outcome.REJECTED, "no common version of QUIC")


@pytest.mark.parametrize(
    ("act", "outcome", "detail"),
    [
        ("status 404", Outcome.REJECTED, "HTTP 404"),
        ("reset", Outcome.RESET, "stream reset: 0x102"),
        ("wants 1.1", Outcome.REJECTED, "the server wants HTTP/1.1"),
        ("close", Outcome.RESET, "QUIC error 0x107: too much"),
        ("garbage", Outcome.CORRUPT, "no HTTP/3 answer"),
        ("short", Outcome.CORRUPT, "body of another length than announced"),
        ("close in the body", Outcome.RESET, "QUIC error 0x102: gone"),
        ("empty", Outcome.RESET, "closed without an answer"),
        ("no status", Outcome.CORRUPT, "no HTTP/3 answer"),
    ],
)
def test_every_ending_is_an_outcome(
    authority: CertificateAuthority, good: Certificate, act: str, outcome: Outcome, detail: str
) -> None:
    def script(protocol: Any, stream_id: int, fields: Fields) -> None:
        quic = protocol._quic
        if act == "status 404":
            respond(protocol, stream_id, [(b":status", b"404")])
        elif act == "reset":
            quic.reset_stream(stream_id, 0x102)
        elif act == "wants 1.1":
            quic.reset_stream(stream_id, 0x110)
        elif act == "close":
            quic.close(error_code=0x107, reason_phrase="too much")
        elif act == "garbage":
            quic.send_stream_data(stream_id, b"\x00\x05hello" + b"\xff" * 20, end_stream=True)
        elif act == "short":
            protocol.http.send_headers(stream_id, OK)
            protocol.http.send_data(stream_id, b"x" * 100, end_stream=True)
        elif act == "close in the body":
            protocol.http.send_headers(stream_id, OK)
            protocol.http.send_data(stream_id, b"x" * 100, end_stream=False)
            protocol.transmit()
            quic.close(error_code=0x102, reason_phrase="gone")
        elif act == "empty":
            quic.send_stream_data(stream_id, b"", end_stream=True)
        elif act == "no status":
            protocol.http.send_headers(stream_id, [(b"server", b"x")], end_stream=True)

    with http3_server(script, good) as port:
        assert fate(visit(port, http_version="http3", ca_file=str(authority.root))) == (outcome, detail)


def integer(number: int, prefix_bits: int, first: int) -> bytes:
    """A prefixed integer (RFC 7541 section 5.1)."""
    most = (1 << prefix_bits) - 1
    if number < most:
        return bytes([first | number])
    octets, rest = [first | most], number - most
    while rest >= 128:
        octets.append(rest % 128 + 128)
        rest //= 128
    return bytes([*octets, rest])


# On the encoder stream: a table of 4 096 octets, and in it one field of 3 900 (RFC 9204 section 4.3).
BIG_FIELD = integer(4_096, 5, 0x20) + integer(1, 5, 0x40) + b"a" + integer(3_900, 7, 0) + b"x" * 3_900


def status_and(field: bytes, times: int, *, inserted: int = 0) -> bytes:
    """A head of `:status: 200` and many equal fields, each one octet (RFC 9204 section 4.5)."""
    return bytes([inserted, 0, 0xD9]) + field * times


def send_head(protocol: Any, stream_id: int, block: bytes) -> None:
    from aioquic.buffer import encode_uint_var

    frame = encode_uint_var(0x1) + encode_uint_var(len(block)) + block
    protocol._quic.send_stream_data(stream_id, frame, end_stream=True)


def test_a_head_of_references_to_one_big_field_is_never_unpacked(
    authority: CertificateAuthority, good: Certificate
) -> None:
    def script(protocol: Any, stream_id: int, fields: Fields) -> None:
        protocol._quic.send_stream_data(protocol.http._local_encoder_stream_id, BIG_FIELD)
        send_head(protocol, stream_id, status_and(b"\x80", 200_000, inserted=2))

    before_kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with http3_server(script, good) as port:
        sample = visit(port, http_version="http3", ca_file=str(authority.root))
    assert fate(sample)[0] is Outcome.CORRUPT
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kilobytes < 100_000


def test_the_same_head_fills_memory_where_a_table_is_offered() -> None:
    """The twin: 2 000 octets of the head above, read by the library as it comes."""
    import pylsqpack

    decoder = pylsqpack.Decoder(4_096, 16)
    decoder.feed_encoder(BIG_FIELD)
    _told, fields = decoder.feed_header(0, status_and(b"\x80", 2_000, inserted=2))
    assert sum(len(value) for _name, value in fields) > 7_000_000
    refusing = pylsqpack.Decoder(0, 0)
    with pytest.raises(pylsqpack.EncoderStreamError):
        refusing.feed_encoder(BIG_FIELD)


@pytest.mark.parametrize(
    ("times", "received"),
    # `accept-ranges: bytes` out of the static table: 50 octets each, as RFC 9114 section 4.2.2 counts.
    [(1_000, True), (2_000, False), (70_000, False)],
)
def test_a_head_is_read_up_to_a_bound_packed_and_unpacked(
    authority: CertificateAuthority, good: Certificate, times: int, received: bool
) -> None:
    def script(protocol: Any, stream_id: int, fields: Fields) -> None:
        send_head(protocol, stream_id, status_and(b"\xe0", times))

    with http3_server(script, good) as port:
        sample = visit(port, http_version="http3", ca_file=str(authority.root))
    whole_head = (Outcome.RECEIVED, "HTTP 200")
    too_long = (Outcome.CORRUPT, "heads of more than 65536 octets")
    assert fate(sample) == (whole_head if received else too_long)


def test_interim_heads_count_towards_the_same_bound(
    authority: CertificateAuthority, good: Certificate
) -> None:
    def script(protocol: Any, stream_id: int, fields: Fields) -> None:
        for number in range(80):
            protocol.http.send_headers(
                stream_id, [(b":status", b"103"), (b"link", b"~%d" % number * 500)], end_stream=False
            )
        respond(protocol, stream_id, [(b":status", b"200")])

    with http3_server(script, good) as port:
        sample = visit(port, http_version="http3", ca_file=str(authority.root))
    assert fate(sample) == (Outcome.CORRUPT, "heads of more than 65536 octets")


def test_a_library_that_offers_a_table_all_the_same_is_not_used() -> None:
    from aioquic.h3.connection import Setting
    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.connection import QuicConnection

    from probes.http.http3 import BoundedConnection

    class OfAnotherRelease(BoundedConnection):
        def _get_local_settings(self) -> dict[int, int]:
            return {Setting.QPACK_MAX_TABLE_CAPACITY: 4_096}

    def connection() -> QuicConnection:
        made = QuicConnection(configuration=QuicConfiguration(is_client=True))
        made.connect(("127.0.0.1", 1), now=0.0)
        return made

    settings = BoundedConnection(connection()).sent_settings or {}
    assert settings[Setting.QPACK_MAX_TABLE_CAPACITY] == settings[Setting.QPACK_BLOCKED_STREAMS] == 0
    assert settings[0x06] == 65_536  # SETTINGS_MAX_FIELD_SECTION_SIZE
    with pytest.raises(CannotMeasureError, match="release of aioquic"):
        OfAnotherRelease(connection())


def test_reading_datagrams_ends_at_the_deadline_however_many_wait() -> None:
    """A datagram may hold thousands of frames, so the deadline is looked at before each."""
    from probes.http.quic import QuicChannel

    class Slow(FakeClock):
        """Each datagram costs a second."""

        def mono_ns(self) -> int:
            self.advance(0.1)
            return super().mono_ns()

    clock = Slow()
    here, there = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
    with here, there:
        for sock in (here, there):
            sock.bind(("127.0.0.1", 0))
        here.setblocking(False)
        there.connect(here.getsockname())
        here.connect(there.getsockname())
        channel = QuicChannel(
            here,
            clock=clock,
            deadline_ns=clock.mono_ns() + 5_000_000_000,
            cancelled=threading.Event(),
            server_name="localhost",
            alpn=["h3"],
            verify=False,
        )
        for _ in range(60):
            there.send(bytes(100))
        with pytest.raises(StreamError, match="timed out"):
            channel.connect(Address(socket.AF_INET, there.getsockname()))
        assert 0 < channel.octets_received < 60 * 100


def test_a_whole_answer_followed_by_a_goodbye_is_received(
    authority: CertificateAuthority, good: Certificate
) -> None:
    def script(protocol: Any, stream_id: int, fields: Fields) -> None:
        respond(protocol, stream_id, [(b":status", b"200")], b"x" * 500)
        protocol.transmit()
        protocol._quic.close(error_code=0x100)

    with http3_server(script, good) as port:
        sample = visit(port, http_version="http3", ca_file=str(authority.root))
    assert fate(sample) == (Outcome.RECEIVED, "HTTP 200")


def test_a_body_above_the_limit_is_not_read_to_its_end(
    authority: CertificateAuthority, good: Certificate
) -> None:
    with http3_server(
        lambda protocol, stream_id, fields: respond(protocol, stream_id, OK[:1], bytes(4_000_000)), good
    ) as port:
        sample = visit(port, http_version="http3", ca_file=str(authority.root), max_body_octets=100_000)
    assert fate(sample) == (Outcome.RECEIVED, "HTTP 200, body longer than 100000 octets")
    assert sample.octets_received < 1_000_000


def test_a_silent_server_is_lost_and_cancelling_ends_soon(
    authority: CertificateAuthority, good: Certificate
) -> None:
    cancelled = threading.Event()
    timer = threading.Timer(0.3, cancelled.set)
    with http3_server(lambda protocol, stream_id, fields: None, good) as port:
        quiet = visit(port, http_version="http3", ca_file=str(authority.root), loss_threshold_seconds=0.4)
        timer.start()
        stopped = visit(
            port,
            http_version="http3",
            ca_file=str(authority.root),
            loss_threshold_seconds=30.0,
            cancelled=cancelled,
        )
    timer.join()
    assert fate(quiet) == (Outcome.LOST, "timed out")
    assert list(phases(quiet.singletons[0])) == ["quic"]
    assert fate(stopped) == (Outcome.NOT_SENT, "cancelled")
    assert stopped.ended.mono_ns - stopped.started.mono_ns < 1e9


def test_a_host_s_own_certificates_are_trusted_and_not_a_list_of_the_library_s() -> None:
    from probes.http.quic import _configuration

    configuration = _configuration("www.example.vn", ["h3"], None, verify=True)
    paths = ssl.get_default_verify_paths()
    assert configuration.verify_mode is ssl.CERT_REQUIRED
    if paths.cafile or paths.capath:
        assert (configuration.cafile or configuration.capath) in (paths.cafile, paths.capath)


def test_without_the_extra_the_answer_names_it() -> None:
    program = (
        "import sys; sys.modules['aioquic'] = None\n"
        "from tests.lab.http_probe import visit\n"
        "from nhip.errors import CannotMeasureError\n"
        "try: visit(443, http_version='http3')\n"
        "except CannotMeasureError as error: print(error)\n"
    )
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert "HTTP/3 needs the module 'aioquic'" in told
    assert "pip install 'nhip[http3]'" in told


def test_an_interface_that_is_absent_is_no_measurement() -> None:
    from probes.network import HostNetwork

    with pytest.raises(CannotMeasureError, match="absent0"):
        visit(443, http_version="http3", network=HostNetwork(interface="absent0"))


def test_the_socket_is_the_network_s_own_so_that_it_is_bound(
    authority: CertificateAuthority, good: Certificate
) -> None:
    from probes.network import HostNetwork

    seen: list[str] = []

    class Watched(HostNetwork):
        def udp(self, family: socket.AddressFamily) -> socket.socket:
            sock = super().udp(family)
            seen.append(sock.getsockname()[0])
            return sock

    with http3_server(whole, good) as port:
        sample = visit(
            port, http_version="http3", ca_file=str(authority.root), network=Watched(source="127.0.0.1")
        )
    assert fate(sample)[0] is Outcome.RECEIVED
    assert seen == ["127.0.0.1"]
    assert sample.target == Target(id="web", host="127.0.0.1", port=port)
