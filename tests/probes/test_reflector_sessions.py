"""Sessions of a stateful reflector: their numbers, their replay window, and that there are never too many."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.packets import stamp
from probes.reflector.counters import ReflectorCounters
from probes.reflector.sessions import Session, Sessions
from tests.lab.fake_clock import FakeClock
from tests.lab.reflectors import asked, client, request, running, until

SECOND = 1_000_000_000


def sessions(most: int = 3, idle_seconds: float = 10) -> tuple[Sessions, ReflectorCounters]:
    counters = ReflectorCounters()
    return Sessions(most=most, idle_ns=round(idle_seconds * SECOND), counters=counters), counters


# Number and age


def test_the_session_silent_longest_is_forgotten_first() -> None:
    found, counters = sessions(most=3)
    kept = [found.of(("a", port, 0), port) for port in range(3)]
    assert found.of(("a", 0, 0), 10) is kept[0]
    found.of(("a", 3, 0), 11)
    assert len(found) == 3
    assert found.of(("a", 0, 0), 12) is kept[0]
    assert found.of(("a", 2, 0), 13) is kept[2]
    assert found.of(("a", 1, 0), 14) is not kept[1]
    assert counters.sessions_evicted == 2


def test_a_session_silent_for_too_long_begins_anew() -> None:
    found, counters = sessions(idle_seconds=10)
    first = found.of(("a", 1, 0), 0)
    assert found.of(("a", 1, 0), 10 * SECOND) is first
    assert found.of(("a", 1, 0), 20 * SECOND + 1) is not first
    assert (counters.sessions_begun, counters.sessions_evicted, len(found)) == (2, 0, 1)


def test_a_hundred_thousand_clients_fill_no_more_than_their_room() -> None:
    found, counters = sessions(most=100)
    rng = random.Random(1)
    for now_ns in range(100_000):
        found.of((f"192.0.2.{rng.randrange(256)}", rng.randrange(65_536), rng.randrange(65_536)), now_ns)
    assert len(found) == 100
    assert counters.sessions_evicted == counters.sessions_begun - 100


def test_a_session_is_its_address_its_port_and_its_identifier() -> None:
    found, _counters = sessions()
    one = found.of(("a", 1, 5), 0)
    assert found.of(("a", 1, 6), 0) is not one
    assert found.of(("a", 2, 5), 0) is not one
    assert found.of(("a", 1, 5), 0) is one


# The replay window


def test_each_number_is_admitted_once() -> None:
    session = Session(0)
    for sequence in (0, 1, 2, 5, 4, 3):
        assert session.admit(sequence, sequence, 64)
        assert not session.admit(sequence, sequence, 64)


def test_without_a_window_a_replay_is_admitted() -> None:
    """The twin of the test above."""
    session = Session(0)
    assert session.admit(7, 7, 0)
    assert session.admit(7, 7, 0)


def test_a_number_behind_the_window_is_refused_though_nobody_saw_it() -> None:
    session = Session(0)
    assert session.admit(100, 100, 64)
    assert session.admit(37, 37, 64)
    assert not session.admit(36, 36, 64)


def test_a_leap_ahead_forgets_what_was_behind() -> None:
    session = Session(0)
    assert session.admit(0, 0, 64)
    assert session.admit(10_000_000, 1, 64)
    assert not session.admit(0, 0, 64)
    assert session.seen.bit_length() <= 64


def test_a_sender_that_begins_again_is_admitted_by_its_newer_time() -> None:
    session = Session(0)
    for sequence in range(10):
        assert session.admit(sequence, 1_000 + sequence, 64)
    session.next_sequence = 10
    assert session.admit(0, 2_000, 64)
    assert (session.next_sequence, session.received, session.generation) == (0, 1, 1)
    assert session.admit(1, 2_001, 64)
    for sequence in range(10):
        assert not session.admit(sequence, 1_000 + sequence, 64), "the first time's packets are old by T1"


@given(
    order=st.lists(st.integers(0, 300), min_size=1, max_size=200),
    window=st.integers(1, 128),
)
def test_no_number_with_its_own_time_is_ever_admitted_twice(order: list[int], window: int) -> None:
    """T1 rises with the number, as an honest sender has it; an attacker chooses the order."""
    session = Session(0)
    admitted = [sequence for sequence in order if session.admit(sequence, sequence, window)]
    assert len(admitted) == len(set(admitted))
    assert session.seen.bit_length() <= window


# On the wire


def test_a_stateful_reflector_numbers_its_answers_from_zero_for_each_session() -> None:
    with running() as reflector, client(reflector) as one, client(reflector) as other:
        for number, sequence in enumerate([0, 3, 4, 9]):
            assert stamp.unpack_reflector(asked(one, request(sequence))).sequence == number
        assert stamp.unpack_reflector(asked(other, request(9))).sequence == 0
        assert stamp.unpack_reflector(asked(one, request(10, session_id=6))).sequence == 0
        assert reflector.sessions == 3


def test_a_stateless_reflector_copies_the_sender_s_number() -> None:
    with running(stateful=False) as reflector, client(reflector) as sock:
        for sequence in (0, 3, 9):
            assert stamp.unpack_reflector(asked(sock, request(sequence))).sequence == sequence
        assert reflector.sessions == 0


def test_a_doubled_request_gets_a_number_for_each() -> None:
    with running() as reflector, client(reflector) as sock:
        packet = request(0)
        assert [stamp.unpack_reflector(asked(sock, packet)).sequence for _ in range(3)] == [0, 1, 2]


def test_numbers_begin_again_with_a_sender_that_does() -> None:
    with running() as reflector, client(reflector) as sock:
        for sequence in range(3):
            asked(sock, request(sequence))
        assert stamp.unpack_reflector(asked(sock, request(0))).sequence == 0


def test_a_session_on_the_wire_ages() -> None:
    clock = FakeClock()
    with running(clock=clock, session_idle_seconds=60) as reflector, client(reflector) as sock:
        asked(sock, request(0))
        clock.advance(59)
        assert stamp.unpack_reflector(asked(sock, request(1))).sequence == 1
        clock.advance(61)
        assert stamp.unpack_reflector(asked(sock, request(2))).sequence == 0
        until(lambda: reflector.counters.reflected == 3)
        assert reflector.counters.sessions_begun == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_sessions_on_the_wire_are_bounded(host: str) -> None:
    with running(host, most_sessions=4) as reflector, client(reflector, host) as sock:
        for session_id in range(1, 10):
            asked(sock, request(0, session_id=session_id))
        until(lambda: reflector.counters.reflected == 9)
        assert reflector.sessions == 4
        assert reflector.counters.sessions_evicted == 5
