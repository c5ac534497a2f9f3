"""The reflector: honest stamps, and nothing in it for whoever forges a source address."""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from nhip.clock import SystemClock
from nhip.errors import CannotMeasureError
from probes.packets import stamp
from probes.reflector import Reflector
from probes.reflector.stamped_socket import Request, StampedSocket
from tests.lab.fake_clock import FakeClock
from tests.lab.reflectors import ESTIMATE, client, request, running, until

Client = socket.socket


@pytest.fixture
def reflector() -> Iterator[Reflector]:
    with running() as found:
        yield found


# Stamps


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_answer_returns_the_request_with_both_times_of_the_reflector(host: str) -> None:
    with running(host) as reflector, client(reflector, host) as sock:
        before = time.time_ns()
        sent = request(7)
        sock.send(sent)
        answer = stamp.unpack_reflector(sock.recv(2000))
        after = time.time_ns()
    asked = stamp.unpack_sender(sent)
    assert (answer.sequence, answer.sender_sequence, answer.session_id) == (0, 7, 5)
    assert answer.sender_sent_wall_ns == asked.sent_wall_ns
    assert answer.sender_error == ESTIMATE
    assert answer.sender_hop_limit == 64
    assert before <= answer.received_wall_ns <= answer.sent_wall_ns <= after


def test_t2_is_never_after_t3(reflector: Reflector) -> None:
    with client(reflector) as sock:
        for sequence in range(500):
            sock.send(request(sequence))
            answer = stamp.unpack_reflector(sock.recv(2000))
            assert answer.received_wall_ns <= answer.sent_wall_ns


def test_t2_is_the_arrival_and_not_when_the_reflector_came_to_it() -> None:
    """Twenty packets wait in the socket before the reflector reads; its kernel knew when each came."""

    class Dozing(SystemClock):
        dozes = 1

        def mono_ns(self) -> int:
            if self.dozes and threading.current_thread().name == "stamp-reflector":
                self.dozes -= 1
                arrived.wait(2)
                threading.Event().wait(0.05)
            return super().mono_ns()

    arrived = threading.Event()
    clock = Dozing()
    clock.dozes = 0
    with running(clock=clock) as reflector, client(reflector) as sock:
        sock.send(request())
        sock.recv(2000)
        clock.dozes = 1
        for sequence in range(20):
            sock.send(request(sequence))
        arrived.set()
        answers = [stamp.unpack_reflector(sock.recv(2000)) for _ in range(20)]
    held_ns = [answer.sent_wall_ns - answer.received_wall_ns for answer in answers]
    assert min(held_ns) > 45e6


def test_the_error_estimate_tells_what_the_kernel_says_of_its_clock(reflector: Reflector) -> None:
    from nhip.clock import clock_state

    with client(reflector) as sock:
        sock.send(request())
        error = stamp.unpack_reflector(sock.recv(2000)).error
    state = clock_state()
    assert error.synchronised == bool(state.synchronised)
    if not state.synchronised:
        assert (error.scale, error.multiplier) == (63, 255)


# Amplification


@pytest.mark.parametrize("octets", [44, 45, 100, 500, 1472, 1473, 4000, 9216])
def test_an_answer_is_exactly_as_long_as_its_request(reflector: Reflector, octets: int) -> None:
    with client(reflector) as sock:
        sent = request(octets=octets)
        sock.send(sent)
        answer = sock.recv(65_536)
    assert len(answer) == octets
    assert answer[48:] == sent[48:]


@pytest.mark.parametrize("octets", [9217, 20_000, 60_000])
def test_an_oversized_request_gets_no_more_than_a_jumbo_frame(reflector: Reflector, octets: int) -> None:
    with client(reflector) as sock:
        sock.send(request(octets=octets))
        assert len(sock.recv(65_536)) == 9216


def test_of_ten_thousand_packets_at_random_no_more_octets_come_out_than_went_in(reflector: Reflector) -> None:
    rng = random.Random(862)
    octets_in = octets_out = packets_out = 0
    with client(reflector) as sock:
        sock.setblocking(False)
        for _ in range(10_000):
            length = rng.choice([0, 1, 40, 41, 44, 48, rng.randrange(1500)])
            octets_in += sock.send(rng.randbytes(length))
            with contextlib.suppress(BlockingIOError):
                while True:
                    octets_out += len(sock.recv(65_536))
                    packets_out += 1
        sock.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            while True:
                octets_out += len(sock.recv(65_536))
                packets_out += 1
    assert packets_out > 100
    assert octets_out / octets_in <= 1.0
    assert packets_out <= 10_000


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"", "malformed"),
        (b"x", "malformed"),
        (bytes(13), "malformed"),
        (bytes(14), "too_short"),
        (bytes(40), "too_short"),
        (b"\xff" * 40, "too_short"),
    ],
)
def test_what_is_too_short_is_counted_and_not_answered(
    reflector: Reflector, octets: bytes, reason: str
) -> None:
    with client(reflector) as sock:
        sock.send(octets)
        sock.send(request(3))
        assert stamp.unpack_reflector(sock.recv(2000)).sender_sequence == 3
    until(lambda: reflector.counters.reflected == 1)
    assert (reflector.counters.received, getattr(reflector.counters, reason)) == (2, 1)


def test_a_twamp_request_is_answered_with_no_more_than_it_has(reflector: Reflector) -> None:
    """RFC 5357: the packet ends after the error estimate, and its padding may be anything."""
    head = request(4)[:14]
    with client(reflector) as sock:
        for number, padding in enumerate([bytes(27), b"\xa5" * 27, b"\xa5" * 30, bytes(86), b"\x5a" * 400]):
            sock.send(head + padding)
            answer = sock.recv(2000)
            found = stamp.unpack_reflector(answer, shortest=41)
            assert len(answer) == 14 + len(padding)
            assert (found.sequence, found.sender_sequence, found.session_id) == (number, 4, 0)
            assert answer[44:] == padding[30:]
            assert found.sender_hop_limit == 64
    assert reflector.sessions == 1


def test_an_answer_sent_back_is_not_answered_again(reflector: Reflector) -> None:
    with client(reflector) as sock:
        sock.send(request(1))
        answer = sock.recv(2000)
        sock.send(answer)
        sock.send(request(2))
        assert stamp.unpack_reflector(sock.recv(2000)).sender_sequence == 2
    until(lambda: reflector.counters.reflected == 2)
    assert (reflector.counters.already_reflected, reflector.counters.reflected) == (1, 2)


def test_one_forged_packet_does_not_go_between_two_reflectors_for_ever() -> None:
    if os.geteuid() != 0:
        pytest.skip("forging a source address needs root")
    with running() as first, running() as second:
        forged = request()
        udp = struct.pack("!HHHH", first.address[1], second.address[1], 8 + len(forged), 0) + forged
        header = struct.pack(
            "!BBHHHBBH4s4s",
            *(0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0),
            *(socket.inet_aton("127.0.0.1"), socket.inet_aton("127.0.0.1")),
        )
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as forger:
            forger.sendto(header + udp, ("127.0.0.1", 0))
        until(lambda: first.counters.already_reflected == 1 and second.counters.reflected == 1)
        threading.Event().wait(0.1)
        assert (second.counters.reflected, first.counters.reflected) == (1, 0)
        assert first.counters.received + second.counters.received == 2
    # The twin: an answer has all that an unguarded reflector needs to answer it.
    answer = stamp.reflect(forged, received_wall_ns=1, hop_limit=64, error=ESTIMATE)
    assert stamp.reflect(bytes(answer), received_wall_ns=2, hop_limit=64, error=ESTIMATE)


@pytest.mark.parametrize("port", [1, 19, 53, 123, 862, 1023])
def test_a_well_known_source_port_is_not_answered(reflector: Reflector, port: int) -> None:
    with contextlib.ExitStack() as stack:
        try:
            sock = stack.enter_context(client(reflector, port=port))
        except PermissionError:
            pytest.skip("binding a port below 1024 needs root")
        except OSError as error:
            pytest.skip(f"port {port} is taken: {error.strerror}")
        sock.settimeout(0.1)
        sock.send(request())
        with pytest.raises(TimeoutError):
            sock.recv(2000)
    assert (reflector.counters.refused_port, reflector.counters.reflected) == (1, 0)


# Limits


def answered(sock: Client, packets: int) -> int:
    """How many of `packets` sent at once come back."""
    for sequence in range(packets):
        sock.send(request(sequence))
    sock.settimeout(0.2)
    found = 0
    with contextlib.suppress(TimeoutError):
        while True:
            sock.recv(2000)
            found += 1
    return found


def test_one_client_s_flood_is_cut_and_another_client_does_not_feel_it() -> None:
    clock = FakeClock()
    with (
        running(clock=clock, packets_per_second=10) as reflector,
        client(reflector, "127.0.0.2") as greedy,
        client(reflector, "127.0.0.3") as modest,
    ):
        assert answered(greedy, 40) == 10
        assert reflector.counters.rate_limited == 30
        assert answered(modest, 5) == 5
        clock.advance(0.5)
        assert answered(greedy, 40) == 5
        clock.advance(3600)
        assert answered(greedy, 40) == 10, "silence earns no more than one second's worth"
        assert answered(modest, 5) == 5


def test_the_counters_add_up(reflector: Reflector) -> None:
    with client(reflector) as sock:
        for octets in (request(1), b"short", request(2)):
            sock.send(octets)
        for _ in range(2):
            sock.recv(2000)
    until(lambda: reflector.counters.reflected == 2)
    counters = reflector.counters
    assert counters.received == counters.reflected + counters.malformed == 3


# Life


def test_the_constructor_opens_nothing_and_close_always_works() -> None:
    from pathlib import Path

    before = len(list(Path("/proc/self/fd").iterdir()))
    reflector = Reflector("127.0.0.1", 0, clock=SystemClock())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    with pytest.raises(CannotMeasureError, match="not started"):
        _ = reflector.address
    reflector.close()
    reflector.start()
    reflector.close()
    reflector.close()
    reflector.start()
    reflector.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_close_returns_while_packets_keep_coming() -> None:
    stop = threading.Event()
    with running() as reflector, client(reflector) as sock:

        def flood() -> None:
            packet = b"x"
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    sock.send(packet)

        thread = threading.Thread(target=flood)
        thread.start()
        until(lambda: reflector.counters.received > 100)
        begun = time.monotonic()
        reflector.close()
        took = time.monotonic() - begun
        stop.set()
        thread.join()
    assert took < 2


def test_a_port_that_is_taken_is_an_error_with_a_remedy(reflector: Reflector) -> None:
    second = Reflector("127.0.0.1", reflector.address[1], clock=SystemClock())
    with pytest.raises(CannotMeasureError, match=r"cannot bind 127\.0\.0\.1") as raised:
        second.start()
    assert "another port" in raised.value.remedy
    second.close()


def test_a_client_that_is_gone_does_not_stop_the_reflector(reflector: Reflector) -> None:
    with client(reflector) as sock:
        sock.send(request())
    for sequence in range(5):
        with client(reflector) as sock:
            sock.send(request(sequence))
            assert stamp.unpack_reflector(sock.recv(2000)).sender_sequence == sequence


# Faults of our own


class FaultyClock(FakeClock):
    """Raises when asked for the time, so many times."""

    def __init__(self, faults: list[Exception]) -> None:
        super().__init__(wall_ns=time.time_ns())
        self._faults = faults

    def mono_ns(self) -> int:
        if self._faults:
            raise self._faults.pop(0)
        return super().mono_ns()


def test_a_packet_that_meets_a_fault_of_ours_does_not_silence_the_reflector(
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults: list[Exception] = [ValueError("one"), ValueError("two"), struct.error("three")]
    with running(clock=FaultyClock(faults)) as reflector, client(reflector) as sock:
        for sequence in range(4):
            sock.send(request(sequence))
        assert stamp.unpack_reflector(sock.recv(2000)).sender_sequence == 3
        until(lambda: reflector.counters.reflected == 1)
        counters = reflector.counters
        assert (counters.received, counters.internal_errors) == (4, 3)
        readings = {reading.name: reading.value for reading in reflector.readings()}
        assert readings["nhip_reflector_internal_errors_total"] == 3
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError, struct.error]


# The error queue


def closed_peer(host: str) -> tuple[str, int]:
    """An address where nobody listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        return host, int(sock.getsockname()[1])


def test_whatever_is_in_the_error_queue_is_taken_out_though_no_departure_was_asked_for() -> None:
    """An ICMP error that somebody asked the kernel to keep would else wake every poll, for ever."""
    found = StampedSocket("127.0.0.1", 0, SystemClock())
    found.open()
    try:
        found.sock.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
        poll = select.poll()
        poll.register(found.sock, select.POLLIN)
        for _ in range(3):
            with contextlib.suppress(OSError):
                found.sock.sendto(b"x", closed_peer("127.0.0.1"))
            until(lambda: bool(poll.poll(0)))
            # The twin: until it is taken out, poll returns at once each time.
            assert all(ready & select.POLLERR for _ in range(10) for _fd, ready in poll.poll(0))
            assert list(found.departures()) == []
            with contextlib.suppress(OSError):
                found.receive(100)
            assert poll.poll(0) == []
    finally:
        found.close()


def test_departures_are_told_once_each_whatever_came_between() -> None:
    found = StampedSocket("127.0.0.1", 0, SystemClock())
    found.open()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            to = Request(b"", peer.getsockname(), 0, False)
            told: list[int] = []
            for number in range(5):
                assert found.send(b"x", to, traffic_class=0, departure=True) == number
                assert found.send(b"x", to, traffic_class=0, departure=False) is None

                def all_told(sent: int = number + 1) -> bool:
                    told.extend(number for number, _left_ns in found.departures())
                    return len(told) == sent

                until(all_told)
                assert list(found.departures()) == []
            assert told == list(range(5))
    finally:
        found.close()
