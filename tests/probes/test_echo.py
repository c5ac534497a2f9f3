"""The books of an echo stream, first by themselves, then on a socket with peers that do as told."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nhip import statistics
from nhip.clock import SystemClock
from nhip.errors import CannotMeasureError
from nhip.measurement import Outcome, Singleton, Stamp, StampSource
from probes.api import ProbeContext
from probes.echo import EchoProtocol, Exchange, exchange
from probes.interrupt_moderation import interrupt_moderation_ns, longest_wait_ns
from probes.ledger import Answer, Dispatch, Ledger
from probes.network import Address, HostNetwork
from probes.timestamping import Datagram
from tests.lab.deaf_network import DeafNetwork
from tests.lab.peers import closed_port, udp_peer

MS = 1_000_000
Peer = tuple[str, int]


def stamp(milliseconds: float, source: StampSource = StampSource.KERNEL) -> Stamp:
    return Stamp(round(milliseconds * MS), round(milliseconds * MS), source)


def ledger(*sent_ms: float, threshold_ms: float = 100, sent_by: StampSource = StampSource.USER) -> Ledger:
    found = Ledger(round(threshold_ms * MS))
    for sequence, milliseconds in enumerate(sent_ms):
        found.sent(sequence, Dispatch(stamp(milliseconds, sent_by)))
    return found


def fates(singletons: tuple[Singleton, ...]) -> list[tuple[int, Outcome]]:
    return [(singleton.sequence, singleton.outcome) for singleton in singletons]


# The ledger


def test_an_answer_in_time_is_received_with_its_delay_and_level() -> None:
    books = ledger(0)
    books.answered(Answer(0), stamp(12.5))
    (singleton,) = books.close()
    assert (singleton.outcome, singleton.delay_ns) == (Outcome.RECEIVED, 12_500_000)
    assert singleton.delay_source is StampSource.USER  # the worse of the two ends
    assert (singleton.sent, singleton.received) == (stamp(0, StampSource.USER), stamp(12.5))


def test_the_delay_runs_from_wire_to_wire_and_host_times_stay_beside_it() -> None:
    books = Ledger(100 * MS)
    books.sent(0, Dispatch(stamp(0, StampSource.USER), lag_ns=3 * MS))
    books.answered(Answer(0), stamp(12), host_mono_ns=19 * MS)
    books.departed(0, stamp(2))  # told after the answer, as a slow driver does
    (singleton,) = books.close(uncertainty_ns=100)
    assert (singleton.delay_ns, singleton.delay_source) == (10 * MS, StampSource.KERNEL)
    assert (singleton.sent, singleton.received) == (stamp(2), stamp(12))
    assert (singleton.host_sent_mono_ns, singleton.host_received_mono_ns) == (0, 19 * MS)
    assert singleton.send_lag_ns == 3 * MS
    assert singleton.own_error_ns == 2 * 5_000 + 200


def test_an_arrival_stamped_in_user_space_owns_up_to_the_lateness_seen_and_a_departure_to_nothing() -> None:
    books = Ledger(100 * MS)
    for sequence, lag_ms in ((0, 3), (1, 7), (2, 1)):
        books.sent(sequence, Dispatch(stamp(0, StampSource.USER), lag_ns=lag_ms * MS))
    books.departed(0, stamp(1))
    books.departed(1, stamp(1))
    books.answered(Answer(0), stamp(12, StampSource.USER))
    books.answered(Answer(1), stamp(12))
    books.answered(Answer(2), stamp(12))
    by_user, by_kernel, unknown = books.close(uncertainty_ns=100, moderation_ns=50_000)
    assert by_user.own_error_ns == 5_000 + 7 * MS + 200 + 50_000
    assert by_kernel.own_error_ns == 5_000 + 5_000 + 200 + 50_000
    assert unknown.own_error_ns is None  # a queue may have held it after it was handed over


def test_what_a_card_waits_before_it_tells_is_read_as_its_driver_says() -> None:
    words = [0x0E, 30, *[0] * 21]
    assert longest_wait_ns(struct.pack("@23I", *words)) == 30_000
    words[10], words[18] = 1, 250
    assert longest_wait_ns(struct.pack("@23I", *words)) == 250_000
    assert interrupt_moderation_ns("lo") == 0
    assert interrupt_moderation_ns("absent0") == 0


def test_a_card_s_stamps_beat_the_kernel_s_and_another_card_s_are_not_believed() -> None:
    books = Ledger(100 * MS)
    for sequence, received_by_card in ((0, 5_009 * MS), (1, 900_000 * MS)):
        books.sent(sequence, Dispatch(stamp(0, StampSource.USER), lag_ns=0))
        books.departed(sequence, stamp(1), hardware_ns=5_000 * MS)
        books.answered(Answer(sequence), stamp(11), hardware_ns=received_by_card)
    by_card, by_kernel = books.close()
    assert (by_card.delay_ns, by_card.delay_source, by_card.own_error_ns) == (9 * MS, StampSource.HARDWARE, 0)
    assert (by_kernel.delay_ns, by_kernel.delay_source) == (10 * MS, StampSource.KERNEL)
    assert by_kernel.own_error_ns == 2 * 5_000  # and not the card's, which was not believed


def test_a_departure_before_the_hand_over_is_another_packet_s() -> None:
    books = ledger(10)
    books.departed(0, stamp(2))
    books.answered(Answer(0), stamp(22))
    (singleton,) = books.close()
    assert (singleton.delay_ns, singleton.delay_source) == (12 * MS, StampSource.USER)


def test_an_answer_at_the_threshold_is_in_time_and_one_after_it_is_late() -> None:
    books = ledger(0, 0)
    books.answered(Answer(0), stamp(100))
    books.answered(Answer(1), stamp(100.000001))
    in_time, late = books.close()
    assert (in_time.outcome, in_time.delay_ns) == (Outcome.RECEIVED, 100 * MS)
    assert (late.outcome, late.delay_ns, late.delay_source) == (Outcome.LATE, None, None)


def test_silence_is_lost() -> None:
    assert fates(ledger(0, 1).close()) == [(0, Outcome.LOST), (1, Outcome.LOST)]


def test_a_second_answer_is_a_duplicate_and_changes_nothing() -> None:
    books = ledger(0)
    books.answered(Answer(0), stamp(10))
    books.answered(Answer(0), stamp(11))
    books.answered(Answer(0), stamp(99))
    first, *others = books.close()
    assert (first.outcome, first.delay_ns) == (Outcome.RECEIVED, 10 * MS)
    assert [singleton.outcome for singleton in others] == [Outcome.DUPLICATE] * 2
    assert [singleton.delay_ns for singleton in others] == [None, None]


def test_a_second_answer_to_a_late_one_is_a_duplicate() -> None:
    books = ledger(0)
    books.answered(Answer(0), stamp(150))
    books.answered(Answer(0), stamp(151))
    assert fates(books.close()) == [(0, Outcome.LATE), (0, Outcome.DUPLICATE)]


def test_a_changed_answer_is_corrupt_and_has_no_delay() -> None:
    books = ledger(0)
    books.answered(Answer(0, intact=False), stamp(10))
    (singleton,) = books.close()
    assert (singleton.outcome, singleton.delay_ns) == (Outcome.CORRUPT, None)


def test_a_whole_answer_after_a_changed_one_counts() -> None:
    books = ledger(0)
    books.answered(Answer(0, intact=False), stamp(10))
    books.answered(Answer(0), stamp(11))
    assert fates(books.close()) == [(0, Outcome.RECEIVED)]


def test_an_answer_to_what_was_never_sent_is_foreign() -> None:
    books = ledger(0)
    books.answered(Answer(7), stamp(10))
    assert books.foreign == 1
    assert fates(books.close()) == [(0, Outcome.LOST)]


def test_an_error_that_quotes_a_request_settles_it_and_the_first_word_stands() -> None:
    books = ledger(0)
    books.failed(0, Outcome.REFUSED, "ICMP type 3 code 3")
    books.failed(0, Outcome.UNREACHABLE, "ICMP type 3 code 1")
    (singleton,) = books.close()
    assert (singleton.outcome, singleton.detail) == (Outcome.REFUSED, "ICMP type 3 code 3")
    assert books.open() == 0


def test_a_request_that_did_not_leave_is_not_sent_and_never_lost() -> None:
    books = ledger()
    books.failed(0, Outcome.NOT_SENT, "EAGAIN")
    (singleton,) = books.close()
    assert (singleton.outcome, singleton.sent) == (Outcome.NOT_SENT, None)
    assert statistics.loss_ratio(statistics.count(books.close())) is None


def test_the_far_end_s_holding_time_is_no_delay_of_the_network() -> None:
    books = ledger(0)
    books.answered(Answer(0, turnaround_ns=50 * MS), stamp(62))
    (singleton,) = books.close()
    assert singleton.delay_ns == 12 * MS


def test_a_holding_time_longer_than_the_round_trip_leaves_the_delay_undefined() -> None:
    """A far end whose clock was stepped must not make a delay of zero."""
    books = ledger(0)
    books.answered(Answer(0, turnaround_ns=3_600_000 * MS), stamp(12))
    (singleton,) = books.close()
    assert (singleton.outcome, singleton.delay_ns, singleton.delay_source) == (Outcome.RECEIVED, None, None)
    assert statistics.delays_seconds([singleton]) == []


def test_a_cancelled_stream_calls_lost_only_what_had_its_whole_threshold() -> None:
    books = ledger(0, 200, 250, threshold_ms=100)
    for sequence in books.without_fate(5, stamp(310).mono_ns):
        books.failed(sequence, Outcome.NOT_SENT, "cancelled")
    assert fates(books.close()) == [
        (0, Outcome.LOST),
        (1, Outcome.LOST),
        (2, Outcome.NOT_SENT),
        (3, Outcome.NOT_SENT),
        (4, Outcome.NOT_SENT),
    ]


events = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 250), st.booleans(), st.integers(0, 40)), max_size=60
)


@given(events=events, count=st.integers(0, 10))
def test_whatever_arrives_each_request_has_one_fate(
    events: list[tuple[int, int, bool, int]], count: int
) -> None:
    books = ledger(*range(count))
    for sequence, at_ms, intact, held_ms in events:
        books.answered(Answer(sequence, turnaround_ns=held_ms * MS, intact=intact), stamp(at_ms + 20))
    found = books.close()
    own = [singleton for singleton in found if singleton.outcome is not Outcome.DUPLICATE]
    assert [singleton.sequence for singleton in own] == list(range(count))
    counters = statistics.count(found)
    assert counters.received <= counters.sent == count
    assert all(singleton.delay_ns is None or 0 <= singleton.delay_ns <= 100 * MS for singleton in found)
    assert [singleton.sequence for singleton in found] == sorted(one.sequence for one in found)


# The exchange


class Numbers(EchoProtocol):
    """The simplest protocol there is: a request is its number as text; ``corrupt`` after it is damage."""

    def __init__(self, padding: int = 0) -> None:
        self.padding = padding

    def request(self, sequence: int, sent: Stamp) -> bytes:
        return str(sequence).encode() + b" " * self.padding

    def answer(self, datagram: Datagram) -> Answer | None:
        number, *rest = datagram.data.split() or [b""]
        return Answer(int(number), intact=rest != [b"corrupt"]) if number.isdigit() else None

    def quoted(self, octets: bytes) -> int | None:
        return int(octets) if octets.strip().isdigit() else None


def play(
    port: int,
    *,
    count: int = 3,
    interval_ms: int = 10,
    loss_threshold_seconds: float = 0.3,
    host: str = "127.0.0.1",
    protocol: EchoProtocol | None = None,
    sock: socket.socket | None = None,
    cancelled: threading.Event | None = None,
) -> Exchange:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    context = ProbeContext(
        clock=SystemClock(), network=HostNetwork(), cancelled=cancelled or threading.Event()
    )
    with sock or HostNetwork().udp(family) as used:
        return exchange(
            used,
            Address(family, (host, port)),
            protocol or Numbers(),
            offsets_ns=[sequence * interval_ms * MS for sequence in range(count)],
            loss_threshold_seconds=loss_threshold_seconds,
            context=context,
        )


def outcomes(result: Exchange) -> list[Outcome]:
    return [singleton.outcome for singleton in result.singletons]


def echo(sock: socket.socket, data: bytes, peer: Peer) -> None:
    sock.sendto(data, peer)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_every_request_answered_is_received_by_kernel_stamp(host: str) -> None:
    with udp_peer(echo, host) as port:
        result = play(port, host=host, count=20)
    assert outcomes(result) == [Outcome.RECEIVED] * 20
    assert {singleton.delay_source for singleton in result.singletons} == {StampSource.KERNEL}
    assert all(0 < (singleton.delay_ns or 0) < 100 * MS for singleton in result.singletons)
    assert result.octets_sent == result.octets_received == 10 * 1 + 10 * 2
    assert result.foreign == 0


def test_a_stream_ends_soon_after_its_last_answer_and_not_at_the_threshold() -> None:
    begun = time.monotonic()
    with udp_peer(echo) as port:
        play(port, count=2, loss_threshold_seconds=20)
    assert time.monotonic() - begun < 5


def test_duplicates_are_heard_and_told_apart() -> None:
    def twice(sock: socket.socket, data: bytes, peer: Peer) -> None:
        sock.sendto(data, peer)
        sock.sendto(data, peer)

    with udp_peer(twice) as port:
        result = play(port, count=5)
    counters = statistics.count(result.singletons)
    assert (counters.sent, counters.received) == (5, 5)
    assert counters.duplicate == 5


def test_an_answer_after_the_threshold_counts_as_lost_and_is_told_as_late() -> None:
    def late(sock: socket.socket, data: bytes, peer: Peer) -> None:
        threading.Event().wait(0.12)
        sock.sendto(data, peer)

    with udp_peer(late) as port:
        # The last request keeps the socket open long enough to hear the first answer.
        result = play(port, count=2, interval_ms=100, loss_threshold_seconds=0.1)
    counters = statistics.count(result.singletons)
    assert result.singletons[0].outcome is Outcome.LATE
    assert result.singletons[0].delay_ns is None
    assert (counters.received, counters.lost) == (0, 2)


def test_every_second_answer_missing_is_half_lost() -> None:
    def odd_only(sock: socket.socket, data: bytes, peer: Peer) -> None:
        if int(data) % 2:
            sock.sendto(data, peer)

    with udp_peer(odd_only) as port:
        result = play(port, count=10, loss_threshold_seconds=0.2)
    assert outcomes(result) == [Outcome.LOST, Outcome.RECEIVED] * 5
    assert statistics.ipdv_seconds(result.singletons) == []


def test_answers_from_another_address_are_ignored_and_counted() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.2", 0))

        def from_elsewhere(_sock: socket.socket, data: bytes, peer: Peer) -> None:
            other.sendto(data, peer)

        with udp_peer(from_elsewhere) as port:
            result = play(port, count=3, loss_threshold_seconds=0.2)
    assert outcomes(result) == [Outcome.LOST] * 3
    assert result.foreign == 3
    assert result.octets_received == 0


def test_garbage_among_the_answers_harms_nothing() -> None:
    def noisy(sock: socket.socket, data: bytes, peer: Peer) -> None:
        for noise in (b"", b"\xff" * 1400, b"not a number", b"99", b"-1"):
            sock.sendto(noise, peer)
        sock.sendto(data, peer)

    with udp_peer(noisy) as port:
        result = play(port, count=5)
    assert outcomes(result) == [Outcome.RECEIVED] * 5
    assert result.foreign == 5  # the answers to a request 99 that was never sent


def test_a_changed_answer_is_corrupt() -> None:
    with udp_peer(lambda sock, data, peer: sock.sendto(data + b" corrupt", peer) and None) as port:
        result = play(port, count=2)
    assert outcomes(result) == [Outcome.CORRUPT] * 2


def test_answers_in_another_order_are_reordered() -> None:
    kept: list[bytes] = []

    def backwards(sock: socket.socket, data: bytes, peer: Peer) -> None:
        kept.append(data)
        if len(kept) == 4:
            for held in reversed(kept):
                sock.sendto(held, peer)

    with udp_peer(backwards) as port:
        result = play(port, count=4)
    counters = statistics.count(result.singletons)
    assert (counters.received, counters.reordered) == (4, 3)


@pytest.mark.parametrize(
    ("host", "detail"), [("127.0.0.1", "ICMP type 3 code 3"), ("::1", "ICMP type 1 code 4")]
)
def test_a_closed_port_refuses_each_request_by_its_own_number(host: str, detail: str) -> None:
    result = play(closed_port(socket.SOCK_DGRAM, host), host=host, count=4)
    assert outcomes(result) == [Outcome.REFUSED] * 4
    assert {singleton.detail for singleton in result.singletons} == {detail}
    assert all(singleton.sent for singleton in result.singletons)
    assert statistics.loss_ratio(statistics.count(result.singletons)) is None


def test_a_request_too_large_to_send_is_not_sent() -> None:
    result = play(closed_port(socket.SOCK_DGRAM), count=2, protocol=Numbers(padding=70_000))
    assert outcomes(result) == [Outcome.NOT_SENT] * 2
    assert {singleton.detail for singleton in result.singletons} == {"EMSGSIZE"}
    assert result.octets_sent == 0


def test_silence_is_lost_one_threshold_after_the_last_request() -> None:
    begun = time.monotonic()
    result = play(
        closed_port(socket.SOCK_DGRAM), sock=DeafNetwork().udp(socket.AF_INET), count=3, interval_ms=20,
        host="127.0.0.1", protocol=Mute(),
    )  # fmt: skip
    elapsed = time.monotonic() - begun
    assert outcomes(result) == [Outcome.LOST] * 3
    assert 0.34 <= elapsed < 1.5


class Mute(Numbers):
    """ICMP errors quote nothing of it, as if no router told."""

    def quoted(self, octets: bytes) -> int | None:
        return None


def test_cancelling_in_the_middle_loses_nothing() -> None:
    cancelled = threading.Event()
    calls: list[bytes] = []

    def then_cancel(sock: socket.socket, data: bytes, peer: Peer) -> None:
        sock.sendto(data, peer)
        calls.append(data)
        if len(calls) == 3:
            cancelled.set()

    with udp_peer(then_cancel) as port:
        result = play(port, count=100, loss_threshold_seconds=30, cancelled=cancelled)
    counters = statistics.count(result.singletons)
    assert counters.lost == 0
    assert counters.received + counters.not_sent == 100
    assert 2 <= counters.received <= 6


def test_requests_leave_when_they_are_due() -> None:
    with udp_peer(echo) as port:
        result = play(port, count=20, interval_ms=20)
    sent = [singleton.sent.mono_ns for singleton in result.singletons if singleton.sent]
    late_ms = [(at - sent[0]) / MS - 20 * sequence for sequence, at in enumerate(sent)]
    assert min(late_ms) > -2
    assert sorted(late_ms)[10] < 5


class SleepyClock(SystemClock):
    """A host that is suspended for a minute between the first look and the second."""

    looks = 0

    def suspended_ns(self) -> int:
        self.looks += 1
        return 0 if self.looks == 1 else 60_000 * MS


def test_losses_of_a_host_that_was_suspended_are_its_own() -> None:
    for clock, raises in ((SleepyClock(), True), (SystemClock(), False)):
        context = ProbeContext(clock=clock, network=HostNetwork())
        expected = (
            pytest.raises(CannotMeasureError, match=r"suspended for 60\.0 s")
            if raises
            else contextlib.nullcontext()
        )
        with DeafNetwork().udp(socket.AF_INET) as sock, expected:
            exchange(
                sock,
                Address(socket.AF_INET, ("127.0.0.1", closed_port(socket.SOCK_DGRAM))),
                Mute(),
                offsets_ns=[0],
                loss_threshold_seconds=0.05,
                context=context,
            )


def test_packets_that_found_the_buffer_full_are_no_loss_of_the_network() -> None:
    """A socket whose buffer holds a handful, not read while a hundred answers come."""

    def many(sock: socket.socket, data: bytes, peer: Peer) -> None:
        for _ in range(600):
            sock.sendto(b"0", peer)

    class Small(socket.socket):
        def setsockopt(self, *arguments: object) -> None:  # type: ignore[override]
            if arguments[1] not in (socket.SO_RCVBUF, 33):
                super().setsockopt(*arguments)  # type: ignore[arg-type]

    class LateReader(SystemClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(max(seconds, 0.05))

    with udp_peer(many) as port, Small(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        socket.socket.setsockopt(sock, socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        sock.setblocking(False)
        with pytest.raises(CannotMeasureError, match="receive buffer was full"):
            exchange(
                sock,
                Address(socket.AF_INET, ("127.0.0.1", port)),
                Numbers(),
                offsets_ns=[0, MS // 2],  # the second has no answer of its own
                loss_threshold_seconds=0.2,
                context=ProbeContext(clock=LateReader(), network=HostNetwork()),
            )


def test_answers_that_waited_while_this_host_slept_over_the_end_count() -> None:
    class OverSleeper(SystemClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds + 0.03)

    with udp_peer(echo) as port, HostNetwork().udp(socket.AF_INET) as sock:
        result = exchange(
            sock,
            Address(socket.AF_INET, ("127.0.0.1", port)),
            Numbers(),
            offsets_ns=[sequence * 40 * MS for sequence in range(10)],
            loss_threshold_seconds=0.0009,
            context=ProbeContext(clock=OverSleeper(), network=HostNetwork()),
        )
    assert Outcome.LOST not in outcomes(result)


def test_a_flood_of_copies_is_counted_and_not_kept() -> None:
    books = ledger(0)
    books.most_duplicates = 3
    for _ in range(10):
        books.answered(Answer(0), stamp(1))
    assert len(books.close()) == 4
    assert books.duplicates_left_out == 6


class StallingClock(SystemClock):
    """A host that stands still for 60 ms, once, in the middle of a stream."""

    def __init__(self) -> None:
        self.stalled = False

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if seconds < 0.001 and not self.stalled:
            self.stalled = True
            super().sleep(0.06)


def test_a_stall_is_not_made_up_for_in_a_burst_and_every_packet_tells_its_lateness() -> None:
    context = ProbeContext(clock=StallingClock(), network=HostNetwork())
    with udp_peer(echo) as port, HostNetwork().udp(socket.AF_INET) as sock:
        result = exchange(
            sock,
            Address(socket.AF_INET, ("127.0.0.1", port)),
            Numbers(),
            offsets_ns=[sequence * 10 * MS for sequence in range(12)],
            loss_threshold_seconds=1.0,
            context=context,
        )
    assert outcomes(result) == [Outcome.RECEIVED] * 12
    sent = [singleton.host_sent_mono_ns or 0 for singleton in result.singletons]
    gaps_ms = [(after - before) / MS for before, after in pairwise(sent)]
    assert min(gaps_ms) > 3  # six packets at once would be a burst
    lags_ms = [(singleton.send_lag_ns or 0) / MS for singleton in result.singletons]
    assert max(lags_ms) > 45
    assert 45 * MS < result.held_back_ns < 500 * MS


def test_each_packet_says_who_stamped_it_and_how_far_it_may_be_wrong() -> None:
    with udp_peer(echo) as port:
        result = play(port, count=20, interval_ms=2)
    for singleton in result.singletons:
        assert singleton.sent is not None
        assert singleton.received is not None
        assert singleton.sent.source is singleton.received.source is StampSource.KERNEL
        assert singleton.host_sent_mono_ns is not None
        assert singleton.host_received_mono_ns is not None
        assert singleton.sent.mono_ns >= singleton.host_sent_mono_ns - MS // 20
        assert singleton.host_received_mono_ns >= singleton.received.mono_ns
        assert 0 <= (singleton.own_error_ns or 0) < MS // 10
        assert singleton.send_lag_ns is not None


def test_a_thousand_requests_in_a_second_all_have_their_answer() -> None:
    with udp_peer(echo) as port:
        result = play(port, count=1000, interval_ms=1, loss_threshold_seconds=5)
    counters = statistics.count(result.singletons)
    assert (counters.sent, counters.received, counters.duplicate) == (1000, 1000, 0)
