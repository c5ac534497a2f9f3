"""Sessions of a stateful reflector: their numbers, their replay window, and that there are never too many."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.packets import stamp
from probes.reflector.counters import ReflectorCounters
from probes.reflector.sessions import Key, Session, Sessions
from tests.lab.fake_clock import FakeClock
from tests.lab.reflectors import asked, client, request, running, until

SECOND = 1_000_000_000


def sessions(
    most: int = 3, idle_seconds: float = 10, *, most_per_client: int = 1_000, replayable_seconds: float = 0
) -> tuple[Sessions, ReflectorCounters]:
    counters = ReflectorCounters()
    found = Sessions(
        most=most,
        most_per_client=most_per_client,
        idle_ns=round(idle_seconds * SECOND),
        counters=counters,
        replayable_ns=round(replayable_seconds * SECOND),
    )
    return found, counters


def of(found: Sessions, key: Key, now_ns: int) -> Session:
    session = found.of(key, key[0], now_ns)
    assert session is not None
    return session


# Number and age


def test_the_session_silent_longest_is_forgotten_first() -> None:
    found, counters = sessions(most=3)
    kept = [of(found, ("a", port, 0), port) for port in range(3)]
    assert of(found, ("a", 0, 0), 10) is kept[0]
    of(found, ("a", 3, 0), 11)
    assert len(found) == 3
    assert of(found, ("a", 0, 0), 12) is kept[0]
    assert of(found, ("a", 2, 0), 13) is kept[2]
    assert of(found, ("a", 1, 0), 14) is not kept[1]
    assert counters.sessions_evicted == 2


def test_a_session_silent_for_too_long_begins_anew() -> None:
    found, counters = sessions(idle_seconds=10)
    first = of(found, ("a", 1, 0), 0)
    assert of(found, ("a", 1, 0), 10 * SECOND) is first
    assert of(found, ("a", 1, 0), 20 * SECOND + 1) is not first
    assert (counters.sessions_begun, counters.sessions_evicted, len(found)) == (2, 0, 1)


@pytest.mark.parametrize("most_per_client", [2, 1_000])
def test_a_hundred_thousand_clients_fill_no_more_than_their_room(most_per_client: int) -> None:
    found, counters = sessions(most=100, most_per_client=most_per_client)
    rng = random.Random(1)
    for now_ns in range(100_000):
        of(found, (f"192.0.2.{rng.randrange(256)}", rng.randrange(65_536), rng.randrange(65_536)), now_ns)
    assert len(found) == 100
    assert counters.sessions_evicted == counters.sessions_begun - 100


def test_a_session_is_its_address_its_port_and_its_identifier() -> None:
    found, _counters = sessions()
    one = of(found, ("a", 1, 5), 0)
    assert of(found, ("a", 1, 6), 0) is not one
    assert of(found, ("a", 2, 5), 0) is not one
    assert of(found, ("a", 1, 5), 0) is one


# One client and the others


def kept_after_a_flood(found: Sessions) -> int:
    """How many of twenty clients' sessions outlive ten thousand of one other client."""
    others = [of(found, (f"client-{number}", 1, 0), number) for number in range(20)]
    for number in range(10_000):
        of(found, ("flood", number % 60_000, number), 100 + number)
    return sum(
        of(found, (f"client-{number}", 1, 0), 20_000) is session for number, session in enumerate(others)
    )


def test_one_client_cannot_have_the_sessions_of_others_forgotten() -> None:
    found, _counters = sessions(most=200, most_per_client=64)
    assert kept_after_a_flood(found) == 20
    assert len(found) == 20 + 64


def test_a_client_beyond_its_share_of_a_full_table_loses_its_own() -> None:
    """Without a limit for each client; here the table is what is short."""
    assert kept_after_a_flood(sessions(most=200, most_per_client=1_000)[0]) == 20


def test_if_all_were_one_client_the_others_would_be_forgotten() -> None:
    """The twin of both: what is counted by client is counted by nobody."""
    found, _counters = sessions(most=200)
    others = [found.of((f"client-{number}", 1, 0), "", number) for number in range(20)]
    for number in range(10_000):
        found.of(("flood", number, number), "", 100 + number)
    kept = [found.of((f"client-{number}", 1, 0), "", 20_000) is one for number, one in enumerate(others)]
    assert not any(kept)


def test_where_packets_could_be_replayed_a_new_session_is_refused_and_none_forgotten() -> None:
    found, counters = sessions(most=3, idle_seconds=600, replayable_seconds=120)
    first = of(found, ("a", 1, 0), 0)
    for port in (2, 3):
        of(found, ("a", port, 0), 10 * SECOND)
    assert found.of(("b", 1, 0), "b", 100 * SECOND) is None
    assert of(found, ("a", 1, 0), 110 * SECOND) is first
    assert counters.sessions_evicted == 0
    # Those of 10 s are beyond any replay at 131 s, though not yet idle.
    assert found.of(("b", 1, 0), "b", 131 * SECOND) is not None
    assert (counters.sessions_evicted, len(found)) == (1, 3)


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


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_one_client_on_the_wire_has_no_more_sessions_than_its_limit(host: str) -> None:
    with running(host, most_sessions_per_client=8) as reflector, client(reflector, host) as sock:
        for session_id in range(1, 30):
            asked(sock, request(0, session_id=session_id))
        until(lambda: reflector.counters.reflected == 29)
        assert reflector.sessions == 8
        assert stamp.unpack_reflector(asked(sock, request(1, session_id=29))).sequence == 1
