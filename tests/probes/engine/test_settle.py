"""The final fate of a probe: threshold, stamps, steps of the clock, and a host without a way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from probes.engine import fate
from probes.engine.book import LARGEST_LAG, NO_DELAY, Settled
from probes.engine.flight import Flight
from probes.engine.settle import Rules, settle
from tests.lab.engine_columns import WALL_NS, flight_of

MS = 1_000_000
RULES = Rules(threshold_ns=100 * MS, offset_ns=WALL_NS, suspect_until_ns=-1)


def one(*, sent_ns: int | None = 500, received_ns: int | None, flags: int = 0) -> Flight:
    """One probe, due and handed over at 0 ns monotonic; stamps are given on that scale."""
    flight = flight_of([3], [0])
    flight.sent_wall_ns[0] = 0 if sent_ns is None else WALL_NS + sent_ns
    flight.received_wall_ns[0] = 0 if received_ns is None else WALL_NS + received_ns
    flight.flags[0] = flags
    return flight


def fate_of(flight: Flight, rules: Rules = RULES) -> tuple[int, int | None, Settled]:
    settled = settle(flight, np.array([0]), rules)
    delay = int(settled.delays_ns[0])
    return int(settled.status[0] & fate.FATE), None if delay == NO_DELAY else delay, settled


def test_the_delay_is_arrival_less_departure_by_the_kernel() -> None:
    kind, delay_ns, settled = fate_of(one(sent_ns=500, received_ns=20_500))
    assert (kind, delay_ns) == (fate.RECEIVED, 20_000)
    assert settled.status[0] == fate.RECEIVED


def test_no_reply_is_lost_and_has_no_delay() -> None:
    assert fate_of(one(received_ns=None))[:2] == (fate.LOST, None)


def test_a_reply_after_the_threshold_is_late_and_has_no_delay() -> None:
    assert fate_of(one(sent_ns=0, received_ns=100 * MS))[0] == fate.RECEIVED
    assert fate_of(one(sent_ns=0, received_ns=100 * MS + 1))[:2] == (fate.LATE, None)
    assert fate_of(one(sent_ns=0, received_ns=6_000 * MS))[:2] == (fate.LATE, None)


def test_without_a_departure_stamp_the_hand_over_stands_for_it_and_says_so() -> None:
    kind, delay_ns, settled = fate_of(one(sent_ns=None, received_ns=20_000))
    assert (kind, delay_ns) == (fate.RECEIVED, 20_000)
    assert settled.status[0] & fate.SENT_BY_USER_STAMP


def test_a_departure_stamp_from_before_the_hand_over_is_another_packets() -> None:
    kind, delay_ns, settled = fate_of(one(sent_ns=-60_000, received_ns=20_000))
    assert (kind, delay_ns) == (fate.RECEIVED, 20_000)
    assert settled.status[0] & fate.SENT_BY_USER_STAMP


def test_a_step_of_the_clock_under_way_leaves_the_delay_undefined() -> None:
    stepped = one(sent_ns=500, received_ns=20_500 + 40 * MS)  # the clock went 40 ms forward meanwhile
    kind, delay_ns, _settled = fate_of(stepped, replace(RULES, suspect_until_ns=30_000))
    assert (kind, delay_ns) == (fate.RECEIVED, None)


def test_without_looking_for_steps_the_delay_would_be_wrong() -> None:
    """The twin: 20 µs would be published as 40 ms."""
    stepped = one(sent_ns=500, received_ns=20_500 + 40 * MS)
    assert fate_of(stepped)[1] == 20_000 + 40 * MS


def test_a_step_backwards_beyond_the_delay_leaves_it_undefined_in_any_case() -> None:
    assert fate_of(one(sent_ns=500, received_ns=-3_000))[:2] == (fate.RECEIVED, None)


def test_what_was_lost_while_this_host_had_no_way_is_no_loss() -> None:
    rules = replace(RULES, blind_from_ns=-10, blind_until_ns=10)
    assert fate_of(one(received_ns=None), rules)[0] == fate.NOT_SENT
    assert fate_of(one(received_ns=None, flags=fate.UNREACHABLE), rules)[0] == fate.NOT_SENT
    assert fate_of(one(received_ns=9_000), rules)[0] == fate.RECEIVED
    assert fate_of(one(received_ns=None), replace(rules, blind_until_ns=-1))[0] == fate.LOST


def test_a_reply_counts_more_than_an_error_or_a_broken_one() -> None:
    for flag in (fate.UNREACHABLE, fate.CORRUPT):
        assert fate_of(one(received_ns=9_000, flags=flag))[0] == fate.RECEIVED
        assert fate_of(one(received_ns=None, flags=flag))[0] == flag


def test_a_probe_never_handed_over_is_not_sent() -> None:
    kind, delay_ns, settled = fate_of(one(sent_ns=None, received_ns=None, flags=fate.NOT_SENT))
    assert (kind, delay_ns) == (fate.NOT_SENT, None)
    assert settled.status[0] == fate.NOT_SENT


def test_the_lag_is_how_far_off_its_due_time_the_packet_left() -> None:
    flight = one(sent_ns=250_000, received_ns=300_000)
    assert fate_of(flight)[2].lags_us[0] == 250
    flight.due_ns[0] = 400_000
    assert fate_of(flight)[2].lags_us[0] == 150
    flight.due_ns[0] = -(10**9)
    assert fate_of(flight)[2].lags_us[0] == LARGEST_LAG
