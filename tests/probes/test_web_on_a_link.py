"""The phases of a visit over a link of known delay, held against the protocol's arithmetic and curl."""

from __future__ import annotations

import shutil
import socket
import ssl
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nhip.clock import SystemClock
from nhip.lab.effects import Effects
from nhip.lab.namespace import inside
from nhip.measurement import Outcome, Sample, StampSource, Target
from probes.api import ProbeContext
from probes.network import HostNetwork
from probes.tcp_connect import TcpConnect, TcpConnectConfig
from probes.tls.probe import Tls, TlsConfig
from tests.lab.certificate import Certificate, make_certificate
from tests.lab.http2_server import Fields, Http2Visitor, http2_server
from tests.lab.http3_server import http3_server, respond
from tests.lab.http_probe import phases, visit
from tests.lab.network import LabLink, lab_link, lab_of
from tests.lab.peers import read_head
from tests.lab.tls_server import server_context, tls_peer

__all__ = ["lab_link", "lab_of"]

pytestmark = pytest.mark.lab

DELAY_SECONDS = 0.02
ROUND_TRIP_SECONDS = 2 * DELAY_SECONDS
# What the two ends themselves compute in a handshake or an answer, on a machine that is busy otherwise.
COMPUTING_SECONDS = 0.03


def asked_by_a_plain_client(address: str, port: int, certificate: Certificate, *, nodelay: bool) -> float:
    """Seconds from request to answer of a client that may keep Nagle's algorithm."""
    context = ssl.create_default_context(cafile=str(certificate.certificate))
    context.set_alpn_protocols(["http/1.1"])
    with (
        socket.create_connection((address, port)) as plain,
        context.wrap_socket(plain, server_hostname=address) as sock,
    ):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(nodelay))
        begun = time.monotonic()
        sock.sendall(b"GET / HTTP/1.1\r\nHost: far\r\n\r\n")
        sock.recv(1)
        return time.monotonic() - begun


def over_tcp(visitor: Http2Visitor, stream_id: int, fields: Fields) -> None:
    visitor.answer(stream_id, [(":status", "200")], b"hello")


def over_quic(protocol: Any, stream_id: int, fields: object) -> None:
    respond(protocol, stream_id, [(b":status", b"200")], b"hello")


def medians(sample: Sample) -> dict[str, float]:
    """Seconds of each phase; every attempt must have been received."""
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.RECEIVED}
    found = [phases(singleton) for singleton in sample.singletons]
    return {name: statistics.median(one[name] for one in found) / 1e9 for name in found[0]}


def answered_after(sample: Sample) -> float:
    """Median seconds from the hand-over of a request until its answer was read, as this program saw it."""
    return (
        statistics.median(
            (singleton.host_received_mono_ns or 0) - (singleton.host_sent_mono_ns or 0)
            for singleton in sample.singletons
        )
        / 1e9
    )


def curl(address: str, port: int, certificate: Certificate, count: int) -> dict[str, float]:
    """The same phases as curl has them, medians in seconds."""
    wanted = ("time_connect", "time_appconnect", "time_pretransfer", "time_starttransfer")
    rows = []
    for _ in range(count):
        told = subprocess.run(
            [
                *("curl", "--silent", "--show-error", "--http2", "--cacert", str(certificate.certificate)),
                *("--output", "/dev/null", "--write-out", " ".join(f"%{{{name}}}" for name in wanted)),
                f"https://{address}:{port}/",
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        rows.append([float(word) for word in told.split()])
    connect, app_connect, pre_transfer, start_transfer = (
        statistics.median(row) for row in zip(*rows, strict=True)
    )
    return {"tcp": connect, "tls": app_connect - connect, "first_byte": start_transfer - pre_transfer}


@dataclass(frozen=True)
class Site:
    """Servers of each version at the far end of the link; tests run inside `near`."""

    address: str
    certificate: Certificate
    http1_port: int
    http2_port: int
    http3_port: int

    def visit(self, version: str, port: int) -> Sample:
        return visit(
            port, self.address, http_version=version, count=15, ca_file=str(self.certificate.certificate)
        )


def http1_page(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    read_head(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


@pytest.fixture
def site(lab_link: LabLink, tmp_path: Path) -> Iterator[Site]:
    lab = lab_link(up=Effects(delay_seconds=DELAY_SECONDS), down=Effects(delay_seconds=DELAY_SECONDS))
    address = lab.address("far")
    certificate = make_certificate(tmp_path, "far.example", address)
    far = partial(inside, f"{lab.name}-far")
    with ExitStack() as stack:
        with far():
            http1 = stack.enter_context(tls_peer(server_context(certificate), http1_page, address))
            http2 = stack.enter_context(http2_server(over_tcp, server_context(certificate, ["h2"]), address))
        http3 = stack.enter_context(http3_server(over_quic, certificate, address, where=far))
        with inside(f"{lab.name}-near"):
            yield Site(address, certificate, http1, http2, http3)


def test_each_phase_is_the_round_trips_its_protocol_takes(site: Site) -> None:
    context = ProbeContext(clock=SystemClock(), network=HostNetwork())
    target = Target(id="far", host=site.address, port=site.http2_port)
    config = TlsConfig(count=15, interval_seconds=0.1, ca_file=str(site.certificate.certificate))
    found = {
        "http1": medians(site.visit("http1", site.http1_port)),
        "http2": medians(site.visit("http2", site.http2_port)),
        "http3": medians(site.visit("http3", site.http3_port)),
        "tls": medians(Tls(config).measure(target, context)),
    }
    connects = TcpConnect(TcpConnectConfig(count=15, interval_seconds=0.1)).measure(target, context)
    delays = [(singleton.delay_ns or 0) / 1e9 for singleton in connects.singletons]
    assert connects.timestamp_source is StampSource.KERNEL
    assert statistics.median(delays) == pytest.approx(ROUND_TRIP_SECONDS, abs=0.003)
    # One round trip each: TCP, TLS 1.3 (RFC 8446 section 2), the request, QUIC's both together (RFC 9001).
    for kind, names in {
        "http1": ("tcp", "tls", "first_byte"),
        "http2": ("tcp", "tls", "first_byte"),
        "http3": ("quic", "first_byte"),
        "tls": ("tcp", "tls"),
    }.items():
        for name in names:
            seconds = found[kind][name]
            assert ROUND_TRIP_SECONDS <= seconds < ROUND_TRIP_SECONDS + COMPUTING_SECONDS, (kind, name, found)


def test_curl_finds_the_same_times(site: Site) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed (Debian package curl)")
    other = curl(site.address, site.http2_port, site.certificate, 15)
    ours = medians(site.visit("http2", site.http2_port))
    for name in ("tcp", "tls", "first_byte"):
        assert ours[name] == pytest.approx(other[name], abs=0.01), (name, ours, other)


def test_no_request_waits_for_an_acknowledgement_of_the_handshake(site: Site) -> None:
    for version, port in (("http1", site.http1_port), ("http2", site.http2_port)):
        assert answered_after(site.visit(version, port)) < ROUND_TRIP_SECONDS + COMPUTING_SECONDS
    # The twin: a client that keeps Nagle's algorithm waits for one round trip more.
    keeping, sending = (
        asked_by_a_plain_client(site.address, site.http1_port, site.certificate, nodelay=nodelay)
        for nodelay in (False, True)
    )
    assert sending < ROUND_TRIP_SECONDS + COMPUTING_SECONDS
    assert keeping > 1.8 * ROUND_TRIP_SECONDS
