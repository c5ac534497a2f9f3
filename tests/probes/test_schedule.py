"""When tests are due: spread over the country, counted when missed, never made up in a burst."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.agent_config import Arrival
from probes.schedule import LONGEST_POISSON_GAP_INTERVALS, Timetable

SECOND = 1_000_000_000
arrivals = pytest.mark.parametrize("arrival", list(Arrival))


def timetable(arrival: Arrival = Arrival.FIXED, interval_seconds: float = 60.0, seed: int = 1) -> Timetable:
    return Timetable(interval_seconds, arrival, random.Random(seed))


def gaps(arrival: Arrival, count: int = 20_000) -> list[float]:
    table, due = timetable(arrival), 0
    found = []
    for _ in range(count):
        following = table.next_due_ns(due, due)
        found.append((following - due) / 60 / SECOND)
        due = following
    assert table.missed == 0
    return found


def test_a_thousand_probes_begin_all_over_the_interval() -> None:
    starts = [timetable(seed=seed).first_due_ns(0, at_once=False) / 60 / SECOND for seed in range(1000)]
    assert 0 <= min(starts) < 0.02
    assert 0.98 < max(starts) <= 1
    tenths = [sum(tenth / 10 <= start < (tenth + 1) / 10 for start in starts) for tenth in range(10)]
    assert min(tenths) > 60
    assert max(tenths) < 140


def test_a_task_told_to_begins_at_once() -> None:
    assert timetable().first_due_ns(123, at_once=True) == 123


def test_fixed_gaps_are_the_interval() -> None:
    assert set(gaps(Arrival.FIXED, 100)) == {1.0}


def test_poisson_gaps_have_the_interval_as_their_mean() -> None:
    assert statistics.fmean(gaps(Arrival.POISSON)) == pytest.approx(1, rel=0.02)


def test_poisson_gaps_are_mostly_exponential_and_never_long_enough_to_look_silent() -> None:
    found = gaps(Arrival.POISSON)
    assert max(found) <= LONGEST_POISSON_GAP_INTERVALS < 3
    assert statistics.stdev(found) > 0.6
    assert 0.4 < statistics.median(found) < 0.9


@arrivals
@given(late_seconds=st.floats(0, 1e5), seed=st.integers())
def test_the_next_due_time_is_never_in_the_past(arrival: Arrival, late_seconds: float, seed: int) -> None:
    table = timetable(arrival, seed=seed)
    now = round(late_seconds * SECOND)
    assert table.next_due_ns(0, now) >= now
    assert table.next_due_ns(0, now) > 0


def test_a_jump_of_an_hour_is_sixty_tests_missed_and_one_run() -> None:
    table = timetable(interval_seconds=60)
    # The test due at 0 runs now, an hour late; those of the hour between are missed.
    following = table.next_due_ns(0, 3600 * SECOND + 1)
    assert table.missed == 60
    assert following == 3660 * SECOND
    # No burst afterwards: the one after that is a whole interval on.
    assert table.next_due_ns(following, following) == 3720 * SECOND
    assert table.missed == 60


def test_a_test_that_is_a_little_late_is_not_missed() -> None:
    table = timetable(interval_seconds=60)
    assert table.next_due_ns(0, 59 * SECOND) == 60 * SECOND
    assert table.missed == 0


def test_fixed_tests_keep_their_phase_over_a_jump() -> None:
    table = timetable(interval_seconds=10)
    phase = table.first_due_ns(0, at_once=False)
    following = table.next_due_ns(phase, phase + 995 * SECOND)
    assert (following - phase) % (10 * SECOND) == 0
