"""Replies find their probes: duplicates, forgeries, strangers, broken and overtaken ones are told apart."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from probes.engine import fate
from probes.engine.flight import Flight
from tests.lab.engine_columns import WALL_NS, flight_of, note, replies_of


def newest() -> np.ndarray:
    return np.full(8, -1, np.int64)


def test_a_reply_is_noted_with_its_arrival() -> None:
    flight = flight_of([0, 1, 2], [0, 0, 0])
    note(flight, replies_of(flight, [1]), at_ns=500, newest=newest())
    assert flight.received_wall_ns[:3].tolist() == [0, WALL_NS + 500, 0]


def test_the_first_of_several_replies_counts_and_the_others_are_duplicates() -> None:
    flight, seen = flight_of([0, 1], [0, 0]), newest()
    note(flight, replies_of(flight, [0, 0, 1, 0]), at_ns=500, newest=seen)
    note(flight, replies_of(flight, [0]), at_ns=900, newest=seen)
    assert flight.received_wall_ns[:2].tolist() == [WALL_NS + 500, WALL_NS + 502]
    assert flight.duplicates[:2].tolist() == [3, 0]


def test_duplicates_beyond_255_stay_at_255() -> None:
    flight = flight_of([0], [0])
    note(flight, replies_of(flight, [0] * 300), at_ns=1, newest=newest())
    assert flight.duplicates[0] == 255


def test_a_reply_with_a_guessed_nonce_is_forged_and_not_taken() -> None:
    flight = flight_of([0, 1], [0, 0])
    note(flight, replies_of(flight, [0, 1], nonces=[4711, 1001]), at_ns=1, newest=newest())
    assert flight.strays.forged == 1
    assert (flight.received_wall_ns[:2] > 0).tolist() == [False, True]


def test_without_the_nonce_a_forged_reply_would_be_taken() -> None:
    """The twin: the check is what keeps it out."""
    flight = flight_of([0], [0], check_nonce=False)
    note(flight, replies_of(flight, [0], nonces=[4711]), at_ns=1, newest=newest())
    assert flight.received_wall_ns[0] > 0


def test_a_reply_from_another_address_is_foreign() -> None:
    flight = flight_of([0, 1], [0, 0])
    note(flight, replies_of(flight, [0, 1], hosts=[5, 1]), at_ns=1, newest=newest())
    assert flight.strays.foreign == 1
    assert (flight.received_wall_ns[:2] > 0).tolist() == [False, True]


def test_a_reply_to_a_probe_not_yet_sent_is_forged() -> None:
    flight = flight_of([0], [0])
    note(flight, replies_of(flight, [7]), at_ns=1, newest=newest())
    assert (flight.strays.forged, flight.strays.stale) == (1, 0)


def test_a_reply_to_a_settled_probe_is_stale_and_touches_nothing() -> None:
    flight = flight_of([0, 1], [0, 0])
    flight.settled = 2
    note(flight, replies_of(flight, [0, 1]), at_ns=1, newest=newest())
    assert flight.strays.stale == 2
    assert not flight.received_wall_ns.any()


def test_a_serial_is_never_mistaken_for_one_that_had_its_place_before() -> None:
    """The ring has 64 places: serial 3 and serial 67 share one, and only one of them is under way."""
    flight = flight_of([0] * 64, list(range(64)))
    flight.settled = 64
    serials = flight.begin(np.zeros(10, np.int64), np.arange(64, 74), np.zeros(10, np.int64))
    flight.nonce[serials % 64] = 1000 + serials
    note(flight, replies_of(flight, [3, 67]), at_ns=1, newest=newest())
    assert flight.strays.stale == 1
    assert flight.received_wall_ns[3] == WALL_NS + 2  # of serial 67


def test_a_broken_reply_is_corrupt_unless_a_whole_one_comes_too() -> None:
    flight, seen = flight_of([0, 1], [0, 0]), newest()
    note(flight, replies_of(flight, [0, 1], intact=[False, False]), at_ns=1, newest=seen)
    note(flight, replies_of(flight, [1]), at_ns=2, newest=seen)
    assert [flag & fate.FATE for flag in flight.flags[:2]] == [fate.CORRUPT, fate.CORRUPT]
    assert (flight.received_wall_ns[:2] > 0).tolist() == [False, True]


def test_a_reply_after_one_to_a_later_round_is_reordered() -> None:
    flight, seen = flight_of([0, 0, 0, 1], [0, 1, 2, 0]), newest()
    note(flight, replies_of(flight, [0, 2, 3]), at_ns=1, newest=seen)
    note(flight, replies_of(flight, [1]), at_ns=9, newest=seen)
    assert [bool(flag & fate.REORDERED) for flag in flight.flags[:4]] == [False, True, False, False]


@given(st.permutations(range(12)), st.integers(1, 12))
def test_reordering_is_the_same_however_the_replies_are_read(order: list[int], block: int) -> None:
    """In blocks of any size: RFC 4737 counts what arrives below the highest so far."""
    targets, rounds = [0, 1, 2] * 4, [round_ for round_ in range(4) for _ in range(3)]
    flight, seen = flight_of(targets, rounds), newest()
    for first in range(0, 12, block):
        part = list(order[first : first + block])
        note(flight, replies_of(flight, part), at_ns=1 + first * 10, newest=seen)
    highest, expected = {0: -1, 1: -1, 2: -1}, set()
    for serial in order:
        if rounds[serial] < highest[targets[serial]]:
            expected.add(serial)
        highest[targets[serial]] = max(highest[targets[serial]], rounds[serial])
    assert {serial for serial in range(12) if flight.flags[serial] & fate.REORDERED} == expected


def test_departures_of_settled_probes_change_nothing() -> None:
    flight = flight_of([0, 1], [0, 0])
    flight.settled = 1
    flight.departed(np.array([0, 1, -1, 99]), np.array([5, 6, 7, 8]))
    assert flight.sent_wall_ns[:2].tolist() == [0, 6]


def test_an_error_that_quotes_sixteen_bits_finds_the_last_probe_to_that_target() -> None:
    flight = Flight(200_000)
    count = 150_000
    flight.begin(np.arange(count) % 3, np.arange(count), np.zeros(count, np.int64))
    wanted = 65_536 + 600  # of target 65536+600 mod 3
    target = wanted % 3
    found = flight.latest(target, wanted & 0xFFFF)
    assert found is not None and found & 0xFFFF == wanted & 0xFFFF
    assert flight.target[found] == target
    flight.settled = found + 1
    assert flight.latest(target, wanted & 0xFFFF) != found


def test_an_error_marks_its_probe_once() -> None:
    flight = flight_of([0], [0])
    assert flight.failed(0, fate.UNREACHABLE)
    assert flight.failed(0, fate.REFUSED)
    assert flight.flags[0] & fate.FATE == fate.UNREACHABLE
    assert not flight.failed(5, fate.REFUSED)
