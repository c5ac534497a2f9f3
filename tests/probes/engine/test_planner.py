"""Due times: a smooth stream, random phases, and nothing made up for after a pause."""

from __future__ import annotations

import numpy as np
import pytest

from probes.engine.planner import Due, Planner

SECOND = 1_000_000_000


def planner(count: int, *, poisson: bool, interval_seconds: float = 1.0, seed: int = 7) -> Planner:
    rng = np.random.default_rng(seed)
    return Planner(count, interval_seconds, poisson=poisson, start_ns=0, rng=rng)


def all_due(plan: Planner, seconds: int, *, step_ns: int = 10_000_000) -> Due:
    parts = [plan.plan(at, at + step_ns) for at in range(0, seconds * SECOND, step_ns)]
    return Due(
        np.concatenate([part.due_ns for part in parts]),
        np.concatenate([part.targets for part in parts]),
        np.concatenate([part.rounds for part in parts]),
        sum(part.missed for part in parts),
    )


def test_equal_gaps_are_exactly_equal_and_start_anywhere_in_an_interval() -> None:
    due = all_due(planner(50, poisson=False), 4)
    for target in range(50):
        own = due.due_ns[due.targets == target]
        assert 0 <= own[0] < SECOND
        assert (np.diff(own) == SECOND).all()
        assert due.rounds[due.targets == target].tolist() == list(range(len(own)))


@pytest.mark.parametrize("poisson", [True, False])
def test_each_second_brings_as_many_probes_as_there_are_targets(poisson: bool) -> None:
    """From the first second on: a Poisson stream is entered in its middle, not at a beginning."""
    due = all_due(planner(20_000, poisson=poisson), 4)
    per_second = np.bincount(due.due_ns // SECOND)
    assert (abs(per_second - 20_000) < 600).all(), per_second


def test_random_gaps_have_the_mean_asked_for_and_an_end() -> None:
    due = all_due(planner(400, poisson=True), 60)
    gaps = np.concatenate([np.diff(due.due_ns[due.targets == target]) for target in range(400)])
    assert gaps.mean() == pytest.approx(SECOND, rel=0.02)
    assert gaps.max() <= 2.5 * SECOND
    assert gaps.std() > 0.6 * SECOND


def test_no_probe_is_planned_twice_and_none_is_forgotten() -> None:
    due = all_due(planner(300, poisson=True), 10)
    assert (np.diff(due.due_ns) >= 0).all() or len(due.due_ns) == 0
    assert len({*zip(due.targets.tolist(), due.rounds.tolist(), strict=True)}) == len(due.targets)
    for target in range(300):
        rounds = due.rounds[due.targets == target]
        assert rounds.tolist() == list(range(len(rounds)))


@pytest.mark.parametrize("poisson", [True, False])
def test_after_a_pause_probes_are_missed_and_not_fired_in_a_burst(poisson: bool) -> None:
    plan = planner(1000, poisson=poisson)
    plan.plan(0, SECOND)
    pause_ns = 10 * SECOND
    due = plan.plan(SECOND + pause_ns, SECOND + pause_ns + 10_000_000)
    assert due.missed == pytest.approx(10_000, rel=0.1)
    assert plan.missed.sum() == due.missed
    # Ten milliseconds' worth, as ever: about 10 of 1000 targets, and not one for each.
    assert len(due.targets) < 40
    assert (due.due_ns >= SECOND + pause_ns).all()


def test_a_pause_keeps_the_phase_of_equal_gaps() -> None:
    plan = planner(10, poisson=False)
    first = plan.plan(0, SECOND)
    later = plan.plan(7 * SECOND, 8 * SECOND)
    phases = dict(zip(first.targets.tolist(), (first.due_ns % SECOND).tolist(), strict=True))
    assert dict(zip(later.targets.tolist(), (later.due_ns % SECOND).tolist(), strict=True)) == phases


def test_a_target_due_several_times_at_once_is_planned_several_times() -> None:
    due = planner(1, poisson=False, interval_seconds=0.01).plan(0, SECOND // 10)
    assert len(due.targets) in (10, 11)


def test_the_earliest_due_time_is_told() -> None:
    plan = planner(100, poisson=True)
    earliest = plan.earliest_ns()
    assert plan.plan(0, earliest + 1).due_ns.tolist() == [earliest]


def test_what_finds_no_room_is_missed_and_leaves_no_gap_in_the_rounds() -> None:
    """A window is so many rounds one after another; a round that never comes would hold it up for ever."""
    plan = planner(20, poisson=True)
    kept = [
        plan.plan(at, at + SECOND, room)
        for at, room in zip(range(0, 9 * SECOND, SECOND), [9, 0, 50] * 3, strict=True)
    ]
    for target in range(20):
        rounds = np.concatenate([due.rounds[due.targets == target] for due in kept])
        assert rounds.tolist() == list(range(len(rounds)))
    assert [len(due.targets) <= room for due, room in zip(kept, [9, 0, 50] * 3, strict=True)] == [True] * 9
    assert plan.missed.sum() == sum(due.missed for due in kept) > 50
