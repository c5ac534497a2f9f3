"""Whose times the delays of dns are: the kernel's, however late this process gets to read."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dns.message
import pytest

from nhip.lab.namespace import inside
from nhip.measurement import Outcome, Sample, StampSource, Target
from tests.lab.bare_namespace import bare_namespace
from tests.lab.certificate import Certificate, make_certificate
from tests.lab.peers import tcp_peer, udp_peer
from tests.lab.resolvers import answer_for, framed, measure_dns, outcomes, read_exactly
from tests.lab.tls_server import server_context

MS = 1_000_000
SERVER = "resolver.lab.example"
DOZE_MS = 150
THRESHOLD_MS = 120
"""Between an answer's coming and its being read."""

# Calls made through PyDLL keep the interpreter's lock: no other thread of this process runs meanwhile.
_LOCKED = ctypes.PyDLL(None, use_errno=True)


def send_and_doze(
    sock: socket.socket, octets: bytes, peer: tuple[str, int] | None = None, *, doze_first: bool = False
) -> None:
    """Send, and keep this whole process from running for 150 ms: the answer waits in the kernel, unread.

    With `doze_first` the process does not run either, and the answer leaves at the end of that.
    """
    where = struct.pack("=H", socket.AF_INET)
    if peer is not None:
        where += struct.pack("!H4s8x", peer[1], socket.inet_aton(peer[0]))
    to = (where, len(where)) if peer else (None, 0)
    # Let the probe come to its waiting, which is where it is to be held.
    threading.Event().wait(0.005)
    # Between two calls the interpreter would let another thread in that has waited longer than this.
    usual_seconds = sys.getswitchinterval()
    sys.setswitchinterval(10)
    try:
        if doze_first:
            _LOCKED.usleep(DOZE_MS * 1000)
        sent = _LOCKED.sendto(sock.fileno(), octets, len(octets), 0, *to)
        if not doze_first:
            _LOCKED.usleep(DOZE_MS * 1000)
    finally:
        sys.setswitchinterval(usual_seconds)
    assert sent == len(octets), os.strerror(ctypes.get_errno())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"), SERVER, "127.0.0.1")


class Secret:
    """The server's end of TLS on memory buffers, so that it can choose how its octets leave."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._turn()
            else:
                self._sock.sendall(self._outgoing.read())
                return

    def read(self) -> bytes:
        while True:
            try:
                return self._tls.read(65_536)
            except ssl.SSLWantReadError:
                self._turn()

    def sealed(self, octets: bytes) -> bytes:
        self._tls.write(octets)
        return self._outgoing.read()

    def _turn(self) -> None:
        self._sock.sendall(self._outgoing.read())
        if not (octets := self._sock.recv(65_536)):
            raise ConnectionResetError
        self._incoming.write(octets)


@contextmanager
def dozing(transport: str, certificate: Certificate, *, doze_first: bool = False) -> Iterator[Target]:
    """A resolver that answers at once and then keeps this process from reading its answer."""
    context = server_context(certificate)

    def by_datagram(sock: socket.socket, data: bytes, peer: tuple[str, int]) -> None:
        answer = answer_for(dns.message.from_wire(data)).to_wire()
        send_and_doze(sock, answer, peer, doze_first=doze_first)

    def by_stream(sock: socket.socket) -> None:
        # Nagle's algorithm at this end would hold the answer until the session tickets are acknowledged.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        secret = Secret(sock, context) if transport == "tls" else None
        if secret:
            secret.shake_hands()
            data = secret.read()[2:]
        else:
            data = read_exactly(sock, int.from_bytes(read_exactly(sock, 2), "big"))
        answer = framed(answer_for(dns.message.from_wire(data)).to_wire())
        send_and_doze(sock, secret.sealed(answer) if secret else answer, doze_first=doze_first)
        # Closing now would join the end of the connection to the unread answer, and the kernel keeps one
        # time for both: that of the latter.
        sock.recv(1)

    with udp_peer(by_datagram) if transport == "udp" else tcp_peer(by_stream) as port:
        yield Target(id="resolver", host="127.0.0.1", port=port)


def measure(
    target: Target, transport: str, certificate: Certificate, *, loss_threshold_seconds: float = 1.0
) -> Sample:
    settings = {"ca_file": str(certificate.certificate), "server_name": SERVER} if transport == "tls" else {}
    return measure_dns(
        target,
        transport=transport,
        count=3,
        interval_seconds=0.3,
        loss_threshold_seconds=loss_threshold_seconds,
        **settings,
    )


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_a_process_that_reads_late_lengthens_no_delay(transport: str, certificate: Certificate) -> None:
    with dozing(transport, certificate) as target:
        sample = measure(target, transport, certificate)
    assert outcomes(sample) == [Outcome.RECEIVED] * 3
    for singleton in sample.singletons:
        assert singleton.delay_ns is not None
        assert singleton.delay_source is StampSource.KERNEL
        # What this process itself saw holds the time it did not run; the delay holds none of it, however late
        # a busy machine let the server answer.
        assert singleton.host_sent_mono_ns
        assert singleton.host_received_mono_ns
        seen_ns = singleton.host_received_mono_ns - singleton.host_sent_mono_ns
        assert seen_ns >= DOZE_MS * MS
        assert singleton.delay_ns <= seen_ns - DOZE_MS * MS + MS


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_an_answer_that_came_in_time_and_was_read_after_the_threshold_is_received(
    transport: str, certificate: Certificate
) -> None:
    with dozing(transport, certificate) as target:
        sample = measure(target, transport, certificate, loss_threshold_seconds=THRESHOLD_MS / 1000)
    assert outcomes(sample) == [Outcome.RECEIVED] * 3
    for singleton in sample.singletons:
        assert singleton.host_sent_mono_ns
        assert singleton.host_received_mono_ns
        assert singleton.host_received_mono_ns - singleton.host_sent_mono_ns > THRESHOLD_MS * MS


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_its_twin_that_came_too_late_is_late_though_it_was_read_at_the_same_time(
    transport: str, certificate: Certificate
) -> None:
    with dozing(transport, certificate, doze_first=True) as target:
        sample = measure(target, transport, certificate, loss_threshold_seconds=THRESHOLD_MS / 1000)
    assert outcomes(sample) == [Outcome.LATE] * 3
    assert {singleton.delay_ns for singleton in sample.singletons} == {None}


def test_the_phases_of_connecting_are_this_program_s_own_times(certificate: Certificate) -> None:
    with dozing("tls", certificate) as target:
        sample = measure(target, "tls", certificate)
    for singleton in sample.singletons:
        spans = {phase.name: phase.duration_ns for phase in singleton.phases}
        assert spans["query"] == singleton.delay_ns
        assert spans["tls"] > spans["tcp"] > 0


@pytest.mark.lab
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_delay_is_that_between_question_and_answer_on_the_wire(
    transport: str, certificate: Certificate
) -> None:
    """A capture of the same packets is the other opinion; every answer is read late."""
    with (
        bare_namespace() as namespace,
        inside(namespace),
        contextlib.closing(_capture_on_loopback()) as capture,
        dozing(transport, certificate) as target,
    ):
        sample = measure(target, transport, certificate)
        captured = _round_trips(capture, target.port or 0)
    assert len(captured) == 3
    errors_ns = sorted(
        abs((singleton.delay_ns or 0) - on_wire_ns)
        for singleton, on_wire_ns in zip(sample.singletons, captured, strict=True)
    )
    # The kernel takes its two stamps of a packet one after the other, and may be interrupted in between.
    assert errors_ns[len(errors_ns) // 2] < 0.1 * MS


_EVERY_PROTOCOL = 0x0003  # ETH_P_ALL: the only one that also sees what leaves


def _capture_on_loopback() -> socket.socket:
    capture = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_EVERY_PROTOCOL))
    capture.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
    capture.bind(("lo", _EVERY_PROTOCOL))
    capture.setblocking(False)
    return capture


def _round_trips(capture: socket.socket, port: int) -> list[int]:
    """Nanoseconds from the first octets sent to `port` to the first that came back, for each source port."""
    asked: dict[int, int] = {}
    took: dict[int, int] = {}
    while True:
        try:
            packet, ancillary, _flags, address = capture.recvmsg(256, 128)
        except BlockingIOError:
            return list(took.values())
        header = (packet[0] & 0x0F) * 4
        if address[1] != 0x0800 or packet[9] not in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
            continue
        source, destination = struct.unpack_from("!HH", packet, header)
        transport = 8 if packet[9] == socket.IPPROTO_UDP else (packet[header + 12] >> 4) * 4
        if struct.unpack_from("!H", packet, 2)[0] == header + transport:
            continue  # no octets in it
        seconds, nanoseconds = struct.unpack("@ll", ancillary[0][2])
        now_ns = seconds * 1_000_000_000 + nanoseconds
        outgoing = address[2] == socket.PACKET_OUTGOING
        if destination == port and outgoing:
            asked.setdefault(source, now_ns)
        elif source == port and not outgoing and destination in asked:
            took.setdefault(destination, now_ns - asked[destination])
