"""The stamp probe against our reflector and against one written by hand from the packet layout."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nhip import statistics
from nhip.clock import SystemClock
from nhip.measurement import Outcome, Sample, StampSource, Target
from probes.api import ProbeContext
from probes.network import HostNetwork
from probes.reflector import Reflector
from probes.stamp.probe import Stamp, StampConfig
from tests.lab.peers import closed_port, udp_peer

MS = 1_000_000
NTP_EPOCH = 2_208_988_800
Peer = tuple[str, int]


def measure(
    port: int,
    host: str = "127.0.0.1",
    *,
    count: int = 3,
    interval_seconds: float = 0.01,
    size_octets: int | None = None,
    loss_threshold_seconds: float = 0.3,
    dscp: int = 0,
    **settings: Any,
) -> Sample:
    config = StampConfig(
        count=count,
        interval_seconds=interval_seconds,
        size_octets=size_octets,
        loss_threshold_seconds=loss_threshold_seconds,
        dscp=dscp,
        **settings,
    )
    context = ProbeContext(clock=SystemClock(), network=HostNetwork())
    return Stamp(config).measure(Target(id="target", host=host, port=port), context)


def outcomes(sample: Sample) -> list[Outcome]:
    return [singleton.outcome for singleton in sample.singletons]


def ntp(wall_ns: int) -> bytes:
    """64 bits by whole numbers, another way than the code under test."""
    return struct.pack("!II", wall_ns // 10**9 + NTP_EPOCH, (wall_ns % 10**9) * 2**32 // 10**9)


def handmade_answer(
    request: bytes, received_ns: int, sent_ns: int, *, estimate: bytes = b"\x80\x01"
) -> bytes:
    """RFC 8762 figure 5, octet by octet; the SSID stays zero, as before RFC 8972."""
    return (
        request[0:4]
        + ntp(sent_ns)
        + estimate
        + b"\0\0"
        + ntp(received_ns)
        + request[0:4]
        + request[4:12]
        + request[12:14]
        + b"\0\0"
        + b"\x40\0\0\0"
        + request[44:]
    )


@contextlib.contextmanager
def handmade_reflector(
    change: Callable[[bytes], bytes] = lambda answer: answer,
    *,
    hold_seconds: float = 0.0,
    step_seconds: float = 0.0,
    estimate: bytes = b"\x80\x01",
) -> Iterator[int]:
    def reflect(sock: socket.socket, request: bytes, peer: Peer) -> None:
        received_ns = time.time_ns()
        if hold_seconds:
            threading.Event().wait(hold_seconds)
        sent_ns = time.time_ns() + round(step_seconds * 1e9)
        sock.sendto(change(handmade_answer(request, received_ns, sent_ns, estimate=estimate)), peer)

    with udp_peer(reflect) as port:
        yield port


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("size_octets", [44, 100, 1400])
def test_our_own_reflector_is_received(host: str, size_octets: int) -> None:
    reflector = Reflector(host, 0, clock=SystemClock())
    reflector.start()
    try:
        sample = measure(reflector.address[1], host, count=10, size_octets=size_octets)
    finally:
        reflector.close()
    assert outcomes(sample) == [Outcome.RECEIVED] * 10
    assert sample.timestamp_source is StampSource.KERNEL
    assert sample.octets_sent == sample.octets_received == 10 * size_octets
    assert (sample.type_p.protocol, sample.type_p.size_octets) == ("udp", size_octets)
    assert all(0 < (singleton.delay_ns or 0) < 50 * MS for singleton in sample.singletons)
    assert reflector.counters.reflected == 10


@pytest.mark.parametrize("size_octets", [44, 200])
def test_a_reflector_written_by_hand_is_received(size_octets: int) -> None:
    with handmade_reflector() as port:
        sample = measure(port, count=10, size_octets=size_octets)
    assert outcomes(sample) == [Outcome.RECEIVED] * 10


def test_what_the_reflector_held_is_not_in_the_delay() -> None:
    with handmade_reflector(hold_seconds=0.05) as port:
        sample = measure(port, count=5, interval_seconds=0.1, loss_threshold_seconds=1)
    assert outcomes(sample) == [Outcome.RECEIVED] * 5
    for singleton in sample.singletons:
        assert singleton.sent is not None
        assert singleton.received is not None
        assert singleton.delay_ns is not None
        assert 0 <= singleton.delay_ns < 20 * MS
        # The twin: T4 - T1 alone holds all of it.
        assert singleton.received.mono_ns - singleton.sent.mono_ns >= 50 * MS


def test_a_reflector_whose_clock_is_stepped_while_it_holds_gives_no_delay() -> None:
    with handmade_reflector(step_seconds=3600) as port:
        sample = measure(port)
    assert outcomes(sample) == [Outcome.RECEIVED] * 3
    assert statistics.delays_seconds(sample.singletons) == []
    assert statistics.summary(statistics.delays_seconds(sample.singletons), "seconds") is None


def test_a_reflector_whose_clock_goes_back_gives_no_negative_holding_time() -> None:
    with handmade_reflector(step_seconds=-3600) as port:
        sample = measure(port)
    assert all(0 <= (singleton.delay_ns or 0) < 50 * MS for singleton in sample.singletons)


CHANGES: dict[str, tuple[Callable[[bytes], bytes], Outcome]] = {
    "longer than the request": (lambda answer: answer + b"\0", Outcome.CORRUPT),
    "other padding": (lambda answer: answer[:-1] + bytes([answer[-1] ^ 1]), Outcome.CORRUPT),
    "padding cut short": (lambda answer: answer[:59], Outcome.CORRUPT),
    "an error estimate of zero": (lambda answer: answer[:12] + b"\0\0" + answer[14:], Outcome.CORRUPT),
    "another T1": (lambda answer: answer[:28] + bytes(8) + answer[36:], Outcome.LOST),
    "another sequence number": (lambda answer: answer[:24] + b"\xff" * 4 + answer[28:], Outcome.LOST),
    "too short to be STAMP": (lambda answer: answer[:43], Outcome.CORRUPT),
    "too short to say whose it is": (lambda answer: answer[:37], Outcome.LOST),
    "other extensions": (lambda answer: answer[:44] + bytes.fromhex("00c80004") * 4, Outcome.CORRUPT),
    "nothing": (lambda answer: b"", Outcome.LOST),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_answer_that_is_not_whole_is_never_received(name: str) -> None:
    change, expected = CHANGES[name]
    with handmade_reflector(change) as port:
        sample = measure(port, size_octets=60, loss_threshold_seconds=0.15)
    assert outcomes(sample) == [expected] * 3
    assert statistics.delays_seconds(sample.singletons) == []


def test_a_replayed_answer_is_a_duplicate() -> None:
    def twice(sock: socket.socket, request: bytes, peer: Peer) -> None:
        answer = handmade_answer(request, time.time_ns(), time.time_ns())
        sock.sendto(answer, peer)
        sock.sendto(answer, peer)

    with udp_peer(twice) as port:
        counters = statistics.count(measure(port, count=5, interval_seconds=0.03).singletons)
    assert (counters.received, counters.duplicate) == (5, 5)


def test_nobody_listening_is_refused() -> None:
    sample = measure(closed_port(socket.SOCK_DGRAM))
    assert outcomes(sample) == [Outcome.REFUSED] * 3


def test_requests_carry_the_layout_of_the_rfc_and_rise_by_one() -> None:
    seen: list[bytes] = []

    def keep(sock: socket.socket, request: bytes, peer: Peer) -> None:
        seen.append(request)
        sock.sendto(handmade_answer(request, time.time_ns(), time.time_ns()), peer)

    with udp_peer(keep) as port:
        measure(port, count=4, size_octets=44)
    assert [len(octets) for octets in seen] == [44] * 4
    assert [struct.unpack("!I", octets[:4])[0] for octets in seen] == [0, 1, 2, 3]
    for octets in seen:
        seconds = struct.unpack("!I", octets[4:8])[0] - NTP_EPOCH
        assert abs(seconds - time.time()) < 60
        assert octets[13] != 0, "multiplier 0 is invalid"
        assert octets[14:16] != b"\0\0"
        assert octets[16:44] == bytes(28)
    assert len({octets[14:16] for octets in seen}) == 1


def test_packets_are_marked_with_the_code_point() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ears:
        ears.bind(("127.0.0.1", 0))
        ears.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        ears.settimeout(2)
        sample = measure(ears.getsockname()[1], count=1, dscp=46, loss_threshold_seconds=0.05)
        _data, ancillary, _flags, _address = ears.recvmsg(100, 100)
    assert ancillary[0][2][0] == 46 << 2
    assert sample.type_p.dscp == 46


def test_the_port_is_862_unless_given() -> None:
    config = StampConfig(count=1, loss_threshold_seconds=0.05)
    context = ProbeContext(clock=SystemClock(), network=HostNetwork())
    sample = Stamp(config).measure(Target(id="t", host="127.0.0.1"), context)
    assert sample.type_p.destination_port == 862
