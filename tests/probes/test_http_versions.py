"""What every version of HTTP owes alike: the rules of the contract suite, which asks HTTP/1.1 alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from nhip.errors import CannotMeasureError
from nhip.measurement import Outcome, Sample, Target
from probes.api import ProbeContext
from probes.http.config import HttpConfig
from probes.http.probe import Http
from probes.network import HostNetwork
from tests.contracts.test_every_probe import check_books, no_socket_left
from tests.lab.certificate import make_certificate
from tests.lab.deaf_network import DeafNetwork, NamelessNetwork
from tests.lab.http2_server import Fields, Http2Visitor, http2_server
from tests.lab.http3_server import http3_server, respond
from tests.lab.http_probe import visit
from tests.lab.peers import closed_port
from tests.lab.stepped_clock import SteppedClock
from tests.lab.tls_server import server_context

VERSIONS = ("http2", "http3", "auto")
each_version = pytest.mark.parametrize("version", VERSIONS)


@dataclass(frozen=True)
class Far:
    """Servers of every version, and the certificate they show."""

    ports: dict[str, int]
    ca_file: str


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    pytest.importorskip("aioquic", reason="aioquic is not installed (extra http3)")
    certificate = make_certificate(tmp_path_factory.mktemp("tls"), "localhost", "127.0.0.1")

    def over_tcp(visitor: Http2Visitor, stream_id: int, fields: Fields) -> None:
        visitor.answer(stream_id, [(":status", "200")], b"hello")

    def over_quic(protocol: Any, stream_id: int, fields: object) -> None:
        respond(protocol, stream_id, [(b":status", b"200")], b"hello")

    with ExitStack() as stack:
        tcp = stack.enter_context(http2_server(over_tcp, server_context(certificate, ["h2"])))
        udp = stack.enter_context(http3_server(over_quic, certificate))
        yield Far({"http2": tcp, "auto": tcp, "http3": udp}, str(certificate.certificate))


def asked(far: Far, version: str, host: str = "127.0.0.1", **settings: object) -> Sample:
    table = {"count": 2, "loss_threshold_seconds": 2.0, "ca_file": far.ca_file, "http_version": version}
    return visit(far.ports[version], host, **table | settings)  # type: ignore[arg-type]


@each_version
def test_a_live_server_is_received_and_no_socket_left(far: Far, version: str) -> None:
    with no_socket_left():
        sample = asked(far, version)
    check_books(sample, "http")
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.RECEIVED}
    assert sample.address == "127.0.0.1"


@each_version
def test_silence_is_lost_and_no_socket_left(far: Far, version: str) -> None:
    with no_socket_left():
        sample = asked(far, version, network=DeafNetwork(), loss_threshold_seconds=0.3)
    check_books(sample, "http")
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.LOST}


@each_version
def test_a_closed_port_is_refused(far: Far, version: str) -> None:
    import socket

    kind = socket.SOCK_DGRAM if version == "http3" else socket.SOCK_STREAM
    with no_socket_left():
        sample = visit(closed_port(kind), http_version=version)
    check_books(sample, "http")
    assert sample.singletons[0].outcome is Outcome.REFUSED


@each_version
def test_a_name_without_address_is_not_resolved(far: Far, version: str) -> None:
    sample = asked(far, version, "host.invalid", network=NamelessNetwork())
    check_books(sample, "http")
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.NOT_RESOLVED}


@each_version
def test_no_route_and_a_dead_line_are_errors_and_no_outcome(far: Far, version: str) -> None:
    with no_socket_left(), pytest.raises(CannotMeasureError, match="no route"):
        asked(far, version, "255.255.255.255")
    with no_socket_left(), pytest.raises(CannotMeasureError, match="absent0"):
        asked(far, version, network=HostNetwork(interface="absent0"))
    with pytest.raises(CannotMeasureError, match="sends IPv4"):
        asked(far, version, "::1", network=HostNetwork(ip_version=4))


@each_version
def test_a_test_cancelled_beforehand_sends_nothing(far: Far, version: str) -> None:
    cancelled = threading.Event()
    cancelled.set()
    sample = asked(far, version, cancelled=cancelled)
    check_books(sample, "http")
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.NOT_SENT}
    assert sample.octets_sent == 0


@each_version
@pytest.mark.parametrize("step_seconds", [-3600.0, 3600.0])
def test_a_step_of_the_wall_clock_moves_no_duration(far: Far, version: str, step_seconds: float) -> None:
    config = HttpConfig(count=2, interval_seconds=0.1, ca_file=far.ca_file, http_version=version)
    clock = SteppedClock(step_seconds=step_seconds, after_readings=4)
    context = ProbeContext(clock=clock, network=HostNetwork())
    sample = Http(config).measure(Target(id="web", host="127.0.0.1", port=far.ports[version]), context)
    check_books(sample, "http")
    for singleton in sample.singletons:
        assert singleton.outcome is Outcome.RECEIVED
        assert all(phase.duration_ns < 1e9 for phase in singleton.phases)
