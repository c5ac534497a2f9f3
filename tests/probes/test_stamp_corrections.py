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


def one(reply: Reply, own: OwnEnd, *, follow_ups: dict[int, int] | None = None) -> tuple[Singleton, int]:
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
        own_error_ns=1,
    )
    heard = Heard(extended=True, replies=[reply], follow_ups=follow_ups or {})
    (found,), corrections = corrected([singleton], heard, own)
    return found, corrections.impossible_one_way


def reply(t2_ns: int, t3_ns: int, error: ErrorEstimate) -> Reply:
    return Reply(0, 0, WALL_NS + t2_ns, WALL_NS + t3_ns, error)


# 2^12 × 2^-32 s: 0.95 microseconds.
SYNCHRONISED = ErrorEstimate(synchronised=True, scale=12, multiplier=1)


def test_one_way_delays_come_with_the_error_of_both_clocks() -> None:
    found, _left_out = one(reply(4 * MS, 6 * MS, SYNCHRONISED), ours(3_000))
    delays = {one_way.direction: (one_way.delay_ns, one_way.error_ns) for one_way in found.one_way}
    assert delays == {Direction.UP: (4 * MS, 3_954), Direction.DOWN: (4 * MS, 3_954)}


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
    found, left_out = one(reply(-3_000, 1 * MS, SYNCHRONISED), ours(3_000))
    assert {one_way.delay_ns for one_way in found.one_way} == {-3_000, 9 * MS}
    assert left_out == 0


def test_on_this_host_no_one_way_delay_is_published_while_its_clock_is_not_set() -> None:
    from nhip.clock import clock_state

    with scripted(Script(estimate=b"\x80\x01")) as port:
        sample = measure(port)
    published = any(singleton.one_way for singleton in sample.singletons)
    assert published == bool(clock_state().synchronised)
