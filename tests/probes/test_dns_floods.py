"""dns against resolvers that never stop sending: every test ends, keeps little, and says what it left out."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import dns.flags
import dns.message
import pytest

from nhip.clock import SystemClock
from nhip.measurement import Outcome, Target
from probes.network import Address
from probes.stamped_stream import StampedSocket, StampedStream
from probes.stream import StreamError
from tests.lab.peers import tcp_peer, udp_peer
from tests.lab.resolvers import answer_for, framed, measure_dns, notes, outcomes, read_question

# A process of its own, so that it sends faster than the one under test reads. It ends by itself after 30 s.
FLOOD = """
import socket, sys, time
sock = socket.socket(fileno=int(sys.argv[1]))
question, peer = sock.recvfrom(4096)
answer = bytearray(question)
answer[2] |= 0x80
octets = bytes(answer) if sys.argv[2] == "copies" else bytes(12)
end = time.monotonic() + 30
while time.monotonic() < end:
    try:
        sock.sendto(octets, peer)
    except OSError:
        pass
"""


@contextmanager
def flood(kind: str) -> Iterator[tuple[Target, subprocess.Popen[bytes]]]:
    """A resolver that sends ``copies`` of its answer without end, or ``junk``, from its first question on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        command = [sys.executable, "-S", "-c", FLOOD, str(sock.fileno()), kind]
        with subprocess.Popen(command, pass_fds=[sock.fileno()]) as process:
            try:
                yield Target(id="resolver", host="127.0.0.1", port=sock.getsockname()[1]), process
            finally:
                process.kill()


def left_out(found: list[str]) -> int:
    """How many duplicates the notes say were counted only."""
    for note in found:
        if told := re.fullmatch(r"(\d+) further duplicates counted and not read", note):
            return int(told[1])
    return 0


# Datagrams


def test_a_flood_of_copies_ends_with_the_plan_and_keeps_16() -> None:
    with flood("copies") as (target, flooding):
        sample = measure_dns(target, count=2, interval_seconds=0.5, loss_threshold_seconds=0.5)
        assert flooding.poll() is None, "the test only ended with the flood"
    fates = Counter((one.sequence, one.outcome) for one in sample.singletons)
    assert fates[0, Outcome.RECEIVED] == 1
    assert fates[0, Outcome.DUPLICATE] == 16
    assert fates[1, Outcome.LOST] == 1
    assert left_out(notes(sample)) > 100


def test_a_flood_of_strangers_ends_with_the_threshold() -> None:
    with flood("junk") as (target, flooding):
        sample = measure_dns(target, count=1, loss_threshold_seconds=0.3)
        assert flooding.poll() is None, "the test only ended with the flood"
    assert outcomes(sample) == [Outcome.LOST]
    assert re.fullmatch(r"\d+ foreign answers ignored", notes(sample)[0])


@pytest.mark.parametrize("kind", ["copies", "junk"])
def test_a_flood_hides_no_stop_signal(kind: str) -> None:
    cancelled = threading.Event()
    stop = threading.Timer(0.5, cancelled.set)
    with flood(kind) as (target, flooding):
        stop.start()
        sample = measure_dns(
            target, count=2, interval_seconds=60.0, loss_threshold_seconds=60.0, cancelled=cancelled
        )
        assert flooding.poll() is None, "the test only ended with the flood"
        stop.join()
    assert outcomes(sample)[-1] is Outcome.NOT_SENT


def test_16_duplicates_of_a_question_are_kept_and_further_ones_counted() -> None:
    def forty(sock: socket.socket, data: bytes, peer: tuple[str, int]) -> None:
        for _ in range(41):
            sock.sendto(answer_for(dns.message.from_wire(data)).to_wire(), peer)

    with udp_peer(forty) as port:
        target = Target(id="resolver", host="127.0.0.1", port=port)
        sample = measure_dns(target, count=2, interval_seconds=0.3)
    fates = Counter((one.sequence, one.outcome) for one in sample.singletons)
    assert (fates[0, Outcome.RECEIVED], fates[0, Outcome.DUPLICATE]) == (1, 16)
    assert left_out(notes(sample)) >= 24


# Connections


@contextmanager
def repeating(copies: int | None) -> Iterator[int]:
    """A server whose first answer comes so many times more, without end for `None`."""

    def serve(sock: socket.socket) -> None:
        first = read_question(sock)
        assert first is not None
        answer = framed(answer_for(first).to_wire())
        sock.sendall(answer)
        second = read_question(sock)
        if second is None:
            return
        if copies is None:
            with contextlib.suppress(OSError):
                while True:
                    sock.sendall(answer * 1000)
        sock.sendall(answer * (copies or 0) + framed(answer_for(second).to_wire()))
        sock.recv(1)

    with tcp_peer(serve) as port:
        yield port


@pytest.mark.parametrize(("copies", "fate"), [(16, Outcome.RECEIVED), (None, Outcome.CORRUPT)])
def test_repeated_answers_without_end_are_corrupt_and_16_are_not(copies: int | None, fate: Outcome) -> None:
    with repeating(copies) as port:
        sample = measure_dns(
            Target(id="resolver", host="127.0.0.1", port=port),
            transport="tcp",
            reuse_connection=True,
            count=2,
            loss_threshold_seconds=5.0,
        )
    fates = Counter((one.sequence, one.outcome) for one in sample.singletons)
    assert fates[1, fate] == 1
    assert fates[0, Outcome.DUPLICATE] == (16 if copies else 17)
    details = {one.detail for one in sample.singletons if one.outcome is Outcome.CORRUPT}
    assert details == (set() if copies else {"no end of repeated answers"})


@contextmanager
def endless() -> Iterator[StampedStream]:
    """A connection whose far end never stops sending; its deadline has passed."""

    def serve(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock.sendall(bytes(65_536))

    with tcp_peer(serve) as port:
        clock = SystemClock()
        plain = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        stream = StampedStream(
            plain, clock=clock, deadline_ns=clock.mono_ns() + 5_000_000_000, cancelled=threading.Event()
        )
        with stream:
            stream.connect(Address(socket.AF_INET, ("127.0.0.1", port)))
            stream.deadline_ns = clock.mono_ns()
            yield stream


def drained(stream: StampedStream, enough: int) -> int:
    """Octets taken after the deadline: up to `enough`, or until nothing more is given for a while."""
    taken, view = 0, memoryview(bytearray(65_536))
    end = time.monotonic() + 2
    while taken < enough and time.monotonic() < end:
        with contextlib.suppress(StreamError):
            taken += stream.receive_into(view)
    return taken


def test_after_a_deadline_no_more_is_taken_than_the_longest_answer() -> None:
    with endless() as stream:
        assert drained(stream, 65_538) == 65_537
        # The next deadline has its own.
        stream.deadline_ns += 1
        assert drained(stream, 65_537) == 65_537


def test_a_send_that_finds_no_room_leaves_nothing_that_would_wake_the_wait_for_it() -> None:
    """Stamps of what left before wait in the error queue, and poll reports them whatever it is asked for."""
    release = threading.Event()
    with tcp_peer(lambda _sock: bool(release.wait(20)) and None) as port:
        plain = socket.create_connection(("127.0.0.1", port))
        with contextlib.closing(StampedSocket(plain, SystemClock())) as sock:
            sock.enable()
            poll = select.poll()
            poll.register(sock, select.POLLOUT)
            for _ in range(100_000):
                try:
                    socket.socket.send(sock, bytes(65_536))  # the twin: the plain call reads no stamps
                except BlockingIOError:
                    if not any(events & select.POLLOUT for _, events in poll.poll(0)):
                        break
            assert poll.poll(0)[0][1] & select.POLLERR
            with pytest.raises(BlockingIOError):
                sock.send(bytes(65_536))
            assert poll.poll(0) == []
        release.set()


# Retries


@contextmanager
def truncating(script: object) -> Iterator[tuple[Target, list[float]]]:
    """A resolver that truncates every datagram; `script` has the connections to the same port."""
    asked: list[float] = []

    def truncate(sock: socket.socket, data: bytes, peer: tuple[str, int]) -> None:
        answer = dns.message.make_response(dns.message.from_wire(data))
        answer.flags |= dns.flags.TC
        sock.sendto(answer.to_wire(), peer)

    def serve(sock: socket.socket) -> None:
        query = read_question(sock)
        if query is not None:
            asked.append(time.monotonic())
            script(sock, query)  # type: ignore[operator]

    with tcp_peer(serve) as port, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", port))
        sock.settimeout(0.05)
        stop = threading.Event()

        def listen() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    data, peer = sock.recvfrom(4096)
                    truncate(sock, data, peer)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield Target(id="resolver", host="127.0.0.1", port=port), asked
        finally:
            stop.set()
            thread.join(5)


def test_retries_to_a_silent_server_end_two_thresholds_after_the_last_question() -> None:
    release = threading.Event()
    with truncating(lambda _sock, _query: release.wait(20)) as (target, _asked):
        sample = measure_dns(
            target, retry_truncated=True, count=100, interval_seconds=0.01, loss_threshold_seconds=0.5
        )
        release.set()
    last = max(one.sent.mono_ns for one in sample.singletons if one.sent)
    # One after the other, eight at a time, they would have taken 6.25 s.
    assert sample.ended.mono_ns - last < 3e9
    details = Counter(one.detail for one in sample.singletons)
    assert details["truncated, over TCP: timed out"] >= 8
    assert details["truncated, not retried"] >= 8
    left = {one.outcome for one in sample.singletons if one.detail == "truncated, not retried"}
    assert left == {Outcome.RECEIVED}


def test_a_test_makes_no_more_than_100_retries() -> None:
    def answer(sock: socket.socket, query: dns.message.Message) -> None:
        sock.sendall(framed(answer_for(query).to_wire()))

    with truncating(answer) as (target, asked):
        sample = measure_dns(
            target, retry_truncated=True, count=120, interval_seconds=0.01, loss_threshold_seconds=5.0
        )
    assert outcomes(sample) == [Outcome.RECEIVED] * 120
    assert len(asked) == 100
    details = Counter(one.detail for one in sample.singletons)
    assert details == {"truncated, over TCP: received": 100, "truncated, not retried": 20}


def test_a_retry_that_is_cancelled_leaves_the_datagram_s_answer() -> None:
    cancelled = threading.Event()
    release = threading.Event()

    def cancel(_sock: socket.socket, _query: dns.message.Message) -> None:
        cancelled.set()
        release.wait(20)

    with truncating(cancel) as (target, _asked):
        sample = measure_dns(
            target, retry_truncated=True, count=1, loss_threshold_seconds=30.0, cancelled=cancelled
        )
        release.set()
    assert [(one.outcome, one.detail) for one in sample.singletons] == [
        (Outcome.RECEIVED, "truncated, not retried")
    ]
