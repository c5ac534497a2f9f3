"""Delays against reflectors that tell more than T3, and against such as lie."""

from __future__ import annotations

import statistics
import threading

import pytest

from nhip.clock import SystemClock
from nhip.measurement import ClockState, Direction, Outcome, Sample, Singleton, Stamp, StampSource, Target
from probes.api import ProbeContext
from probes.network import HostNetwork
from probes.packets.stamp import ErrorEstimate
from probes.stamp.corrections import corrected
from probes.stamp.heard import Heard, OwnEnd, Reply
from probes.stamp.own_clock import OwnClock
from probes.stamp.probe import Stamp as StampProbe
from probes.stamp.probe import StampConfig
from tests.lab.reflectors import running
from tests.lab.scripted_reflector import Script, own_count, ptp, scripted

MS = 1_000_000
WALL_NS = 1_795_521_600 * 1_000_000_000


def measure(port: int, *, host: str = "127.0.0.1", **settings: object) -> Sample:
    config = StampConfig(
        **{"count": 10, "interval_seconds": 0.005, "loss_threshold_seconds": 0.3} | settings  # type: ignore[arg-type]
    )
    context = ProbeContext(clock=SystemClock(), network=HostNetwork())
    return StampProbe(config).measure(Target(id="target", host=host, port=port), context)


def delays_ns(sample: Sample) -> list[int]:
    return [singleton.delay_ns for singleton in sample.singletons if singleton.delay_ns is not None]


def number_of(sample: Sample, name: str) -> float | None:
    (found,) = [statistic for statistic in sample.statistics if statistic.name == name]
    return found.value


# Follow-ups


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_true_departures_make_the_delay_smaller_by_what_the_reflector_took_to_send(host: str) -> None:
    """The twin in the same test: without follow-ups the sending is part of the delay."""
    with running(host) as reflector:
        told = measure(reflector.address[1], host=host, count=60, interval_seconds=0.002)
        untold = measure(reflector.address[1], host=host, count=60, interval_seconds=0.002, follow_up=False)
    lag_seconds = number_of(told, "reflector_send_lag_seconds")
    assert lag_seconds is not None
    assert lag_seconds > 0
    assert number_of(told, "follow_up_corrected_ratio") == pytest.approx(59 / 60)
    difference_ns = statistics.median(delays_ns(untold)) - statistics.median(delays_ns(told))
    assert difference_ns > 0.3 * lag_seconds * 1e9
    assert not [name for name in untold.statistics if name.name == "reflector_send_lag_seconds"]


def test_a_reflector_stopped_between_t3_and_sending_falsifies_only_what_has_no_follow_up() -> None:
    """T3 is written 20 ms before the packet leaves; only the departure shows it."""

    def late(number: int, _t2_ns: int, t3_ns: int) -> tuple[int, int]:
        threading.Event().wait(0.02)
        return number, t3_ns + 20 * MS

    with scripted(Script(number=own_count, follow_up=late)) as port:
        told = measure(port, count=6, interval_seconds=0.04)
        untold = measure(port, count=6, interval_seconds=0.04, follow_up=False)
    assert all(delay_ns >= 20 * MS for delay_ns in delays_ns(untold))
    assert all(delay_ns < 15 * MS for delay_ns in delays_ns(told)[:-1])
    last = told.singletons[-1]
    assert last.delay_ns is not None
    assert last.delay_ns >= 20 * MS, "nothing came after it to tell"
    assert last.own_error_ns is not None
    assert last.own_error_ns >= 20 * MS, "and its delay says how wrong it may be"


@pytest.mark.parametrize(
    "lie_ns",
    [-3_600_000 * MS, -1 * MS, 500 * MS, 3_600_000 * MS],
)
def test_a_follow_up_that_cannot_be_is_not_believed(lie_ns: int) -> None:
    with scripted(
        Script(number=own_count, follow_up=lambda number, _t2_ns, t3_ns: (number, t3_ns + lie_ns))
    ) as port:
        sample = measure(port)
    assert all(0 <= delay_ns < 100 * MS for delay_ns in delays_ns(sample))
    assert len(delays_ns(sample)) == 10
    assert any("9 follow-ups contradict" in note for note in sample.notes)
    assert number_of(sample, "follow_up_corrected_ratio") == 0


def test_a_follow_up_of_a_number_never_seen_changes_nothing() -> None:
    with scripted(Script(follow_up=lambda number, _t2_ns, t3_ns: (number + 5_000, t3_ns + 1))) as port:
        sample = measure(port)
    assert len(delays_ns(sample)) == 10
    assert number_of(sample, "follow_up_corrected_ratio") == 0


def test_follow_ups_in_ptp_time_are_understood() -> None:
    script = Script(
        number=own_count,
        estimate=b"\x40\x01",
        stamp=ptp,
        follow_up=lambda number, _t2_ns, t3_ns: (number, t3_ns + 2_000),
    )
    with scripted(script) as port:
        sample = measure(port)
    assert sample.facts["stamp_time_format"] == "ptp"
    assert number_of(sample, "reflector_send_lag_seconds") == pytest.approx(2e-6, abs=1e-8)


# Reflectors that lie


def test_a_reflector_whose_t3_lies_before_its_t2_gives_no_delay() -> None:
    with scripted(Script(times=lambda now_ns: (now_ns, now_ns - 5 * MS))) as port:
        sample = measure(port)
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.RECEIVED}
    assert delays_ns(sample) == []
    assert any("10 answers left before they came" in note for note in sample.notes)


def test_two_clock_readings_in_haste_are_no_lie() -> None:
    with scripted(Script(times=lambda now_ns: (now_ns, now_ns - 10_000))) as port:
        sample = measure(port)
    assert len(delays_ns(sample)) == 10


def test_a_reflector_that_tells_no_holding_time_has_it_in_the_delay_and_the_sample_says_so() -> None:
    with scripted(Script(times=lambda now_ns: (now_ns, now_ns))) as port:
        sample = measure(port)
    assert len(delays_ns(sample)) == 10
    assert any("T2 = T3" in note for note in sample.notes)
    assert number_of(sample, "reflector_holding_seconds") == 0


def test_a_reflector_that_held_longer_than_the_round_trip_took_gives_no_delay() -> None:
    with scripted(Script(times=lambda now_ns: (now_ns, now_ns + 3_600_000 * MS))) as port:
        sample = measure(port)
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.RECEIVED}
    assert delays_ns(sample) == []


def test_multiplier_zero_is_no_answer_to_believe() -> None:
    with scripted(Script(estimate=b"\x80\x00")) as port:
        sample = measure(port)
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.CORRUPT}
    assert delays_ns(sample) == []
    assert sample.directional_loss is None


# One way


def ours(maximum_error_ns: int | None = 3_000, *, synchronised: bool | None = True) -> OwnEnd:
    clock = ClockState(synchronised=synchronised, maximum_error_ns=maximum_error_ns)
    return OwnEnd(clock=clock, host="127.0.0.1", reflector="any")


def one(
    reply: Reply, own: OwnEnd, *, follow_ups: dict[int, int] | None = None, own_error_ns: int | None = 1
) -> tuple[Singleton, int]:
    """A round trip of 10 ms from WALL_NS, corrected by `reply`, and how many one-way delays were left out."""
    sent = Stamp(WALL_NS, 5_000, StampSource.KERNEL)
    received = Stamp(WALL_NS + 10 * MS, 5_000 + 10 * MS, StampSource.KERNEL)
    written_ns = max(reply.sent_wall_ns - reply.received_wall_ns, 0)
    singleton = Singleton(
        sequence=0,
        outcome=Outcome.RECEIVED,
        sent=sent,
        received=received,
        delay_ns=10 * MS - written_ns,
        delay_source=StampSource.KERNEL,
        own_error_ns=own_error_ns,
    )
    heard = Heard(extended=True, replies=[reply], follow_ups=follow_ups or {})
    (found,), corrections = corrected([singleton], heard, own)
    return found, corrections.impossible_one_way


def reply(t2_ns: int, t3_ns: int, error: ErrorEstimate) -> Reply:
    return Reply(0, 0, WALL_NS + t2_ns, WALL_NS + t3_ns, error)


# 2^12 × 2^-32 s: 0.95 microseconds.
SYNCHRONISED = ErrorEstimate(synchronised=True, scale=12, multiplier=1)


def test_one_way_delays_come_with_the_error_of_both_clocks() -> None:
    """And of our own stamps: 3,000 and 954 ns of the clocks, 1 of the stamps."""
    follow_ups = {0: WALL_NS + 6 * MS}
    found, _left_out = one(reply(4 * MS, 6 * MS, SYNCHRONISED), ours(3_000), follow_ups=follow_ups)
    delays = {one_way.direction: (one_way.delay_ns, one_way.error_ns) for one_way in found.one_way}
    assert delays == {Direction.UP: (4 * MS, 3_955), Direction.DOWN: (4 * MS, 3_955)}


def test_stamps_of_unknown_error_give_no_one_way_delay() -> None:
    found, _left_out = one(reply(4 * MS, 6 * MS, SYNCHRONISED), ours(3_000), own_error_ns=None)
    assert found.one_way == ()
    assert found.delay_ns == 8 * MS


@pytest.mark.parametrize("own_error_ns", [0, 1_000, 5_000_000])
def test_the_error_of_our_stamps_is_part_of_a_one_way_delay_s(own_error_ns: int) -> None:
    found, _left_out = one(reply(4 * MS, 6 * MS, SYNCHRONISED), ours(3_000), own_error_ns=own_error_ns)
    assert [one_way.error_ns for one_way in found.one_way] == [3_954 + own_error_ns]


def test_without_any_follow_up_nobody_knows_when_the_way_down_began() -> None:
    found, _left_out = one(reply(4 * MS, 6 * MS, SYNCHRONISED), ours())
    assert {one_way.direction for one_way in found.one_way} == {Direction.UP}


def stream_of(
    count: int, *, follow_ups: dict[int, int], wall_step_ns: int = 0
) -> tuple[list[Singleton], Heard]:
    """`count` round trips of 10 ms, one a second; our wall clock is set after the first of them."""
    singletons, heard = [], Heard(extended=True, follow_ups=follow_ups)
    for number in range(count):
        mono_ns, wall_ns = 5_000 + number * 1000 * MS, WALL_NS + number * 1000 * MS
        ours_ns = wall_ns + (wall_step_ns if number else 0)
        singletons.append(
            Singleton(
                sequence=number,
                outcome=Outcome.RECEIVED,
                sent=Stamp(ours_ns, mono_ns, StampSource.KERNEL),
                received=Stamp(ours_ns + 10 * MS, mono_ns + 10 * MS, StampSource.KERNEL),
                delay_ns=8 * MS,
                delay_source=StampSource.KERNEL,
                own_error_ns=1,
            )
        )
        heard.replies.append(Reply(number, number, wall_ns + 4 * MS, wall_ns + 6 * MS, SYNCHRONISED))
    return singletons, heard


def test_the_way_down_without_a_follow_up_may_be_wrong_by_the_worst_of_the_others() -> None:
    follow_ups = {0: WALL_NS + 6 * MS + 40_000, 1: WALL_NS + 1006 * MS + 2 * MS}
    singletons, heard = stream_of(3, follow_ups=follow_ups)
    found, _corrections = corrected(singletons, heard, ours(3_000))
    errors = [{one_way.direction: one_way.error_ns for one_way in kept.one_way} for kept in found]
    assert errors[0] == errors[1] == {Direction.UP: 3_955, Direction.DOWN: 3_955}
    assert errors[2] == {Direction.UP: 3_955, Direction.DOWN: 3_955 + 2 * MS}
    assert found[2].own_error_ns == 1 + 2 * MS


@pytest.mark.parametrize("step_ns", [50 * MS, -50 * MS, 3_600_000 * MS])
def test_a_clock_of_ours_that_is_set_during_the_test_leaves_no_one_way_delay(step_ns: int) -> None:
    singletons, heard = stream_of(4, follow_ups={}, wall_step_ns=step_ns)
    found, corrections = corrected(singletons, heard, ours(3_000))
    assert [kept.one_way for kept in found] == [()] * 4
    assert corrections.own_clock_stepped
    # The twin: a clock left alone.
    singletons, heard = stream_of(4, follow_ups={})
    assert all(kept.one_way for kept in corrected(singletons, heard, ours(3_000))[0])


def test_a_clock_of_ours_that_moved_a_little_may_be_wrong_by_as_much() -> None:
    singletons, heard = stream_of(4, follow_ups={}, wall_step_ns=200_000)
    found, _corrections = corrected(singletons, heard, ours(3_000))
    assert {one_way.error_ns for kept in found for one_way in kept.one_way} == {3_955 + 200_000}


def test_the_worst_that_was_said_of_our_clock_during_the_test_counts() -> None:
    said = iter([(True, 5), (True, 4), (True, 900), (True, 7), (False, 3)])

    def read() -> ClockState:
        synchronised, error_ns = next(said)
        return ClockState(synchronised=synchronised, maximum_error_ns=error_ns)

    clock = OwnClock(read)
    assert clock.worst.maximum_error_ns == 5
    assert clock.look(10 * 10**9)
    assert not clock.look(10 * 10**9 + 999 * MS), "the kernel is asked once a second"
    assert clock.look(11 * 10**9)
    clock.ask()
    assert (clock.worst.synchronised, clock.worst.maximum_error_ns) == (True, 900)
    clock.ask()
    assert (clock.worst.synchronised, clock.worst.maximum_error_ns) == (False, 900)


def test_a_clock_nobody_could_ask_in_between_is_no_set_clock() -> None:
    said = iter([ClockState(synchronised=True, maximum_error_ns=5), ClockState()])
    clock = OwnClock(lambda: next(said))
    clock.ask()
    assert (clock.worst.synchronised, clock.worst.maximum_error_ns) == (None, None)


def test_the_way_down_begins_at_the_true_departure() -> None:
    found, _left_out = one(reply(4 * MS, 6 * MS, SYNCHRONISED), ours(), follow_ups={0: WALL_NS + 7 * MS})
    assert {one_way.direction: one_way.delay_ns for one_way in found.one_way} == {
        Direction.UP: 4 * MS,
        Direction.DOWN: 3 * MS,
    }
    assert found.delay_ns == 7 * MS


@pytest.mark.parametrize(
    ("error", "own"),
    [
        (ErrorEstimate(synchronised=False, scale=12, multiplier=1), ours()),
        (SYNCHRONISED, ours(synchronised=False)),
        (SYNCHRONISED, ours(synchronised=None)),
        (SYNCHRONISED, ours(None)),
    ],
)
def test_a_clock_that_does_not_say_it_is_set_gives_no_one_way_delay(
    error: ErrorEstimate, own: OwnEnd
) -> None:
    found, _left_out = one(reply(4 * MS, 6 * MS, error), own)
    assert found.one_way == ()
    assert found.delay_ns == 8 * MS, "the round trip needs no set clock"


def test_a_one_way_delay_below_zero_by_more_than_its_error_is_left_out() -> None:
    found, left_out = one(reply(-1 * MS, 1 * MS, SYNCHRONISED), ours(3_000))
    assert (found.one_way, left_out) == ((), 1)
    follow_ups = {0: WALL_NS + 1 * MS}
    found, left_out = one(reply(-3_000, 1 * MS, SYNCHRONISED), ours(3_000), follow_ups=follow_ups)
    assert {one_way.delay_ns for one_way in found.one_way} == {-3_000, 9 * MS}
    assert left_out == 0


def test_on_this_host_no_one_way_delay_is_published_while_its_clock_is_not_set() -> None:
    from nhip.clock import clock_state

    with scripted(Script(estimate=b"\x80\x01")) as port:
        sample = measure(port)
    published = any(singleton.one_way for singleton in sample.singletons)
    assert published == bool(clock_state().synchronised)
