"""Stamps of departure and arrival: the kernel's when it can be trusted, marked as ours when it cannot."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from nhip.clock import SystemClock
from nhip.measurement import StampSource
from probes.clock_bridge import ClockBridge
from probes.error_queue import QueuedError, report_errors
from probes.timestamping import SO_TIMESTAMPING, SO_TIMESTAMPNS, Datagram, Departure, PacketClock
from tests.lab.peers import closed_port

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


def receive_all(packet_clock: PacketClock, sock: socket.socket) -> list[Datagram]:
    found = []
    while True:
        try:
            found.append(packet_clock.receive(sock, 100))
        except BlockingIOError:
            return found


def test_the_stamp_is_when_the_packet_came_and_not_when_it_was_read(sock: socket.socket) -> None:
    clock = SystemClock()
    packet_clock = PacketClock(clock)
    packet_clock.enable(sock)
    before = clock.mono_ns()
    send(sock)
    after = clock.mono_ns()
    doze(0.05)
    (datagram,) = receive_all(packet_clock, sock)
    assert datagram.stamp.source is StampSource.KERNEL
    assert before - 0.2 * MS <= datagram.stamp.mono_ns <= after + 0.2 * MS
    assert clock.mono_ns() - datagram.stamp.mono_ns >= 49 * MS
    assert abs(clock.wall_ns() - clock.mono_ns() - (datagram.stamp.wall_ns - datagram.stamp.mono_ns)) < MS


def test_without_the_option_the_stamp_is_the_reader_s_and_says_so(sock: socket.socket) -> None:
    """The twin: this is the error that the kernel's stamp takes away."""
    clock = SystemClock()
    packet_clock = PacketClock(clock)
    before = clock.mono_ns()
    send(sock)
    doze(0.05)
    (datagram,) = receive_all(packet_clock, sock)
    assert datagram.stamp.source is StampSource.USER
    assert datagram.stamp.mono_ns - before >= 49 * MS


def test_the_hop_limit_comes_with_the_packet(sock: socket.socket) -> None:
    packet_clock = PacketClock(SystemClock())
    packet_clock.enable(sock)
    with socket.socket(sock.family, socket.SOCK_DGRAM) as sender:
        if sock.family is socket.AF_INET:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 37)
        else:
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 37)
        sender.sendto(b"x", sock.getsockname())
    (datagram,) = receive_all(packet_clock, sock)
    assert datagram.hop_limit == 37


@pytest.mark.parametrize("step_ns", [HOUR, -HOUR, 20 * MS, -20 * MS])
def test_packets_that_waited_while_the_clock_was_stepped_are_not_moved(
    sock: socket.socket, step_ns: int
) -> None:
    clock = MovableClock()
    packet_clock = PacketClock(clock)
    packet_clock.enable(sock)
    before = clock.mono_ns()
    for _ in range(3):
        send(sock)
    # What the kernel stamped before the step now differs from the wall clock by the step.
    clock.offset_ns = step_ns
    datagrams = receive_all(packet_clock, sock)
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
    packet_clock = PacketClock(clock)
    packet_clock.enable(sock)
    clock.offset_ns = 0
    send(sock)
    (first,) = receive_all(packet_clock, sock)
    assert first.stamp.source is StampSource.USER
    doze(0.005)
    send(sock)
    (second,) = receive_all(packet_clock, sock)
    assert second.stamp.source is StampSource.KERNEL
    assert 0 <= clock.mono_ns() - second.stamp.mono_ns < 1000 * MS


class SlewedClock(SystemClock):
    """Both clocks are steered alike, which is how Linux slews; here by far more than it would."""

    slewed_ns = 0

    def wall_ns(self) -> int:
        return super().wall_ns() + self.slewed_ns

    def mono_ns(self) -> int:
        return super().mono_ns() + self.slewed_ns


def test_slewing_is_no_step() -> None:
    clock = SlewedClock()
    bridge = ClockBridge(clock)
    for _ in range(100):
        clock.slewed_ns += MS
        bridge.look()
    assert bridge.steps == 0


@pytest.mark.parametrize("step_ns", [MS // 10, -MS // 10])
def test_a_step_of_a_tenth_of_a_millisecond_is_noticed(step_ns: int) -> None:
    clock = MovableClock()
    bridge = ClockBridge(clock)
    made_before = clock.wall_ns()
    clock.offset_ns = step_ns
    now_ns = bridge.look()
    assert bridge.steps == 1
    assert bridge.mono_ns(made_before, now_ns) is None


def test_two_readings_torn_apart_by_the_scheduler_are_no_step() -> None:
    clock = TornClock()
    bridge = ClockBridge(clock)
    for _ in range(20):
        clock.tear_next = True
        bridge.look()
    assert bridge.steps == 0
    assert bridge.uncertainty_ns < 0.05 * MS


class TornClock(SystemClock):
    """A host that loses the processor for 20 ms between the two clocks of one reading, when told."""

    tear_next = False
    lost_ns = 0

    def wall_ns(self) -> int:
        if self.tear_next:
            self.tear_next = False
            self.lost_ns += 20 * MS
        return super().wall_ns() + self.lost_ns

    def mono_ns(self) -> int:
        return super().mono_ns() + self.lost_ns


def test_nothing_there_is_said_as_the_socket_says_it(sock: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        PacketClock(SystemClock()).receive(sock, 100)


class NotYetStamping:
    """A socket of a host where stamping is not switched on yet: the kernel fills in when it is read."""

    def recvmsg(self, _size: int, _ancillary: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        stamp = struct.pack("@ll", seconds, nanoseconds)
        return b"x", [(socket.SOL_SOCKET, 35, stamp)], 0, ("127.0.0.1", 1)


def test_a_stamp_the_kernel_made_while_it_was_read_is_not_called_the_kernel_s() -> None:
    datagram = PacketClock(SystemClock()).receive(NotYetStamping(), 100)  # type: ignore[arg-type]
    assert datagram.stamp.source is StampSource.USER


# Departures


def test_the_kernel_tells_when_each_datagram_left_by_its_number(sock: socket.socket) -> None:
    clock = SystemClock()
    packet_clock = PacketClock(clock)
    packet_clock.enable(sock)
    handed_over = []
    for _ in range(5):
        before_ns = clock.mono_ns()
        number = packet_clock.send(sock, b"x", sock.getsockname())
        handed_over.append((number, before_ns, clock.mono_ns()))
    departures = packet_clock.queued(sock)
    assert len(departures) == 5
    for departure, (number, before_ns, after_ns) in zip(departures, handed_over, strict=True):
        assert isinstance(departure, Departure)
        assert departure.number == number
        assert departure.stamp is not None
        assert departure.stamp.source is StampSource.KERNEL
        assert before_ns - 0.05 * MS <= departure.stamp.mono_ns <= after_ns + 0.05 * MS


def test_a_datagram_the_kernel_refused_does_not_shift_the_numbers_of_later_ones(sock: socket.socket) -> None:
    packet_clock = PacketClock(SystemClock())
    packet_clock.enable(sock)
    first = packet_clock.send(sock, b"x", sock.getsockname())
    assert [departure.number for departure in only_departures(packet_clock, sock)] == [first]
    with pytest.raises(OSError, match="too long"):
        packet_clock.send(sock, b"x" * 70_000, sock.getsockname())
    second = packet_clock.send(sock, b"x", sock.getsockname())
    third = packet_clock.send(sock, b"x", sock.getsockname())
    assert [departure.number for departure in only_departures(packet_clock, sock)] == [second, third]


def test_departures_and_icmp_errors_come_out_of_one_queue(sock: socket.socket) -> None:
    port = closed_port(socket.SOCK_DGRAM, sock.getsockname()[0])
    packet_clock = PacketClock(SystemClock())
    packet_clock.enable(sock)
    report_errors(sock)
    packet_clock.send(sock, b"hello", (sock.getsockname()[0], port))
    departures, errors = [], []
    for message in packet_clock.queued(sock):
        (errors if isinstance(message, QueuedError) else departures).append(message)
    assert len(departures) == len(errors) == 1
    assert isinstance(errors[0], QueuedError)
    assert errors[0].quoted == b"hello"


def test_a_departure_before_a_step_of_the_wall_clock_has_no_stamp(sock: socket.socket) -> None:
    clock = MovableClock()
    packet_clock = PacketClock(clock)
    packet_clock.enable(sock)
    packet_clock.send(sock, b"x", sock.getsockname())
    clock.offset_ns = -HOUR
    (departure,) = only_departures(packet_clock, sock)
    assert departure.stamp is None


def only_departures(packet_clock: PacketClock, sock: socket.socket) -> list[Departure]:
    messages = packet_clock.queued(sock)
    assert all(isinstance(message, Departure) for message in messages)
    return [message for message in messages if isinstance(message, Departure)]


# What there is when the best is refused


class Refusing(socket.socket):
    """A socket of a kernel that knows only some of the options."""

    refused: frozenset[int] = frozenset()

    def setsockopt(self, level: int, option: int, *value: object) -> None:  # type: ignore[override]
        if level == socket.SOL_SOCKET and option in self.refused:
            raise OSError(92, "Protocol not available")
        super().setsockopt(level, option, *value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("refused", "arrival", "departures"),
    [
        ({SO_TIMESTAMPING}, StampSource.KERNEL, 0),
        ({SO_TIMESTAMPING, SO_TIMESTAMPNS}, StampSource.USER, 0),
        (set(), StampSource.KERNEL, 1),
    ],
)
def test_each_level_that_is_refused_leaves_the_next(
    refused: set[int], arrival: StampSource, departures: int
) -> None:
    with Refusing(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.refused = frozenset(refused)
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        packet_clock = PacketClock(SystemClock())
        packet_clock.enable(sock)
        packet_clock.send(sock, b"x", sock.getsockname())
        doze(0.002)
        (datagram,) = receive_all(packet_clock, sock)
        assert datagram.stamp.source is arrival
        assert len(only_departures(packet_clock, sock)) == departures


class WithCard:
    """A socket behind a card that stamps: the messages are those of linux/errqueue.h, by hand."""

    def __init__(self) -> None:
        self._errors = [self._message(1_000, 5_000), self._message(0, 5_000)]

    def recvmsg(
        self, _size: int, _ancillary: int, flags: int = 0
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
        if not flags:
            return b"x", [(socket.SOL_SOCKET, 37, self._times(1_000, 7_000))], 0, ("127.0.0.1", 1)
        if not self._errors:
            raise BlockingIOError
        return b"", self._errors.pop(), 0, None

    def _message(self, kernel_age_ns: int, card_ns: int) -> list[tuple[int, int, bytes]]:
        extended = struct.pack("@IBBBxII", 42, 4, 0, 0, 0, 0)
        return [
            (socket.SOL_SOCKET, 37, self._times(kernel_age_ns, card_ns)),
            (socket.IPPROTO_IP, 11, extended),
        ]

    @staticmethod
    def _times(kernel_age_ns: int, card_ns: int) -> bytes:
        kernel = divmod(time.time_ns() - kernel_age_ns, 1_000_000_000) if kernel_age_ns else (0, 0)
        return struct.pack("@llllll", *kernel, 0, 0, *divmod(card_ns, 1_000_000_000))

    def sendto(self, _octets: bytes, _address: object) -> None:
        """It leaves at once."""


def test_a_card_s_stamps_are_read_beside_the_kernel_s() -> None:
    sock: socket.socket = WithCard()  # type: ignore[assignment]
    packet_clock = PacketClock(SystemClock())
    packet_clock.send(sock, b"x", ("127.0.0.1", 1))
    by_card, by_both = packet_clock.queued(sock)
    assert isinstance(by_card, Departure)
    assert isinstance(by_both, Departure)
    assert (by_card.stamp, by_card.hardware_ns) == (None, 5_000)
    assert by_both.hardware_ns == 5_000
    assert by_both.stamp is None or by_both.stamp.source is StampSource.KERNEL
    assert packet_clock.receive(sock, 100).hardware_ns == 7_000
