"""Receive stamps: the kernel's when it can be trusted, marked as ours when it cannot."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from nhip.clock import SystemClock
from nhip.measurement import StampSource
from probes.timestamping import Datagram, ReceiveClock

MS = 1_000_000
HOUR = 3_600 * 1000 * MS


class MovableClock(SystemClock):
    """The clocks of this host, whose wall time a test sets."""

    offset_ns = 0

    def wall_ns(self) -> int:
        return super().wall_ns() + self.offset_ns


@pytest.fixture(params=["127.0.0.1", "::1"])
def sock(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as bound:
        bound.bind((request.param, 0))
        bound.setblocking(False)
        yield bound


def send(sock: socket.socket, data: bytes = b"x") -> None:
    with socket.socket(sock.family, socket.SOCK_DGRAM) as sender:
        sender.sendto(data, sock.getsockname())


def doze(seconds: float) -> None:
    """The reader is scheduled away."""
    threading.Event().wait(seconds)


def receive_all(receive_clock: ReceiveClock, sock: socket.socket) -> list[Datagram]:
    found = []
    while True:
        try:
            found.append(receive_clock.receive(sock, 100))
        except BlockingIOError:
            return found


def test_the_stamp_is_when_the_packet_came_and_not_when_it_was_read(sock: socket.socket) -> None:
    clock = SystemClock()
    receive_clock = ReceiveClock(clock)
    receive_clock.enable(sock)
    before = clock.mono_ns()
    send(sock)
    after = clock.mono_ns()
    doze(0.05)
    (datagram,) = receive_all(receive_clock, sock)
    assert datagram.stamp.source is StampSource.KERNEL
    assert before - 0.2 * MS <= datagram.stamp.mono_ns <= after + 0.2 * MS
    assert clock.mono_ns() - datagram.stamp.mono_ns >= 49 * MS
    assert abs(clock.wall_ns() - clock.mono_ns() - (datagram.stamp.wall_ns - datagram.stamp.mono_ns)) < MS


def test_without_the_option_the_stamp_is_the_reader_s_and_says_so(sock: socket.socket) -> None:
    """The twin: this is the error that the kernel's stamp takes away."""
    clock = SystemClock()
    receive_clock = ReceiveClock(clock)
    before = clock.mono_ns()
    send(sock)
    doze(0.05)
    (datagram,) = receive_all(receive_clock, sock)
    assert datagram.stamp.source is StampSource.USER
    assert datagram.stamp.mono_ns - before >= 49 * MS


def test_the_hop_limit_comes_with_the_packet(sock: socket.socket) -> None:
    receive_clock = ReceiveClock(SystemClock())
    receive_clock.enable(sock)
    with socket.socket(sock.family, socket.SOCK_DGRAM) as sender:
        if sock.family is socket.AF_INET:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 37)
        else:
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 37)
        sender.sendto(b"x", sock.getsockname())
    (datagram,) = receive_all(receive_clock, sock)
    assert datagram.hop_limit == 37


@pytest.mark.parametrize("step_ns", [HOUR, -HOUR, 20 * MS, -20 * MS])
def test_packets_that_waited_while_the_clock_was_stepped_are_not_moved(
    sock: socket.socket, step_ns: int
) -> None:
    clock = MovableClock()
    receive_clock = ReceiveClock(clock)
    receive_clock.enable(sock)
    before = clock.mono_ns()
    for _ in range(3):
        send(sock)
    # What the kernel stamped before the step now differs from the wall clock by the step.
    clock.offset_ns = step_ns
    datagrams = receive_all(receive_clock, sock)
    after = clock.mono_ns()
    assert len(datagrams) == 3
    for datagram in datagrams:
        assert datagram.stamp.source is StampSource.USER
        assert before <= datagram.stamp.mono_ns <= after
        assert abs(datagram.stamp.wall_ns - clock.wall_ns()) < 1000 * MS


def test_carrying_a_stamp_over_a_step_would_be_wrong_by_the_step(sock: socket.socket) -> None:
    """The twin: an hour too early, which as a delay would be negative."""
    clock = MovableClock()
    sock.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
    before = clock.mono_ns()
    send(sock)
    _data, ancillary, _flags, _address = sock.recvmsg(100, 100)
    seconds, nanoseconds = (int.from_bytes(ancillary[0][2][at : at + 8], "little") for at in (0, 8))
    clock.offset_ns = HOUR
    difference_after_step = clock.wall_ns() - clock.mono_ns()
    carried = seconds * 1_000_000_000 + nanoseconds - difference_after_step
    assert carried - before < -HOUR + 1000 * MS


def test_kernel_stamps_are_used_again_once_the_clock_is_steady(sock: socket.socket) -> None:
    clock = MovableClock()
    clock.offset_ns = HOUR
    receive_clock = ReceiveClock(clock)
    receive_clock.enable(sock)
    clock.offset_ns = 0
    send(sock)
    (first,) = receive_all(receive_clock, sock)
    assert first.stamp.source is StampSource.USER
    doze(0.005)
    send(sock)
    (second,) = receive_all(receive_clock, sock)
    assert second.stamp.source is StampSource.KERNEL
    assert 0 <= clock.mono_ns() - second.stamp.mono_ns < 1000 * MS


def test_slewing_is_no_step(sock: socket.socket) -> None:
    clock = MovableClock()
    receive_clock = ReceiveClock(clock)
    receive_clock.enable(sock)
    for _ in range(5):
        clock.offset_ns += MS // 10
        doze(0.002)
        send(sock)
        (datagram,) = receive_all(receive_clock, sock)
        assert datagram.stamp.source is StampSource.KERNEL


def test_nothing_there_is_said_as_the_socket_says_it(sock: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        ReceiveClock(SystemClock()).receive(sock, 100)


class NotYetStamping:
    """A socket of a host where stamping is not switched on yet: the kernel fills in when it is read."""

    def recvmsg(self, _size: int, _ancillary: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        stamp = struct.pack("@ll", seconds, nanoseconds)
        return b"x", [(socket.SOL_SOCKET, 35, stamp)], 0, ("127.0.0.1", 1)


def test_a_stamp_the_kernel_made_while_it_was_read_is_not_called_the_kernel_s() -> None:
    datagram = ReceiveClock(SystemClock()).receive(NotYetStamping(), 100)  # type: ignore[arg-type]
    assert datagram.stamp.source is StampSource.USER
