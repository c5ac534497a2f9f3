"""Loss and reordering by direction, as far as the reflector's numbers tell, and no further."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nhip.clock import SystemClock
from nhip.measurement import DirectionalLoss, Outcome, Sample, Singleton, Statistic, Target
from probes.api import ProbeContext
from probes.network import HostNetwork
from probes.packets.stamp import ErrorEstimate
from probes.stamp.directions import directional_loss, reordered
from probes.stamp.heard import Reply
from probes.stamp.probe import Stamp, StampConfig
from tests.lab.reflectors import running
from tests.lab.scripted_reflector import Script, own_count, scripted

ESTIMATE = ErrorEstimate(False, 0, 1)


def measure(port: int, *, host: str = "127.0.0.1", **settings: object) -> Sample:
    config = StampConfig(
        **{"count": 10, "interval_seconds": 0.005, "loss_threshold_seconds": 0.15} | settings  # type: ignore[arg-type]
    )
    context = ProbeContext(clock=SystemClock(), network=HostNetwork())
    return Stamp(config).measure(Target(id="target", host=host, port=port), context)


def ratios(statistics: Sequence[Statistic]) -> dict[str, float | None]:
    return {
        statistic.of: statistic.value
        for statistic in statistics
        if statistic.name == "directional_reordered_ratio"
    }


# On the wire


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_our_reflector_is_found_to_be_stateful_and_loses_nothing(host: str) -> None:
    with running(host) as reflector:
        sample = measure(reflector.address[1], host=host)
    assert sample.facts["stamp_reflector"] == "stateful"
    assert sample.directional_loss == DirectionalLoss(sent=10, lost_up=0, lost_down=0, undetermined=0)
    assert ratios(sample.statistics) == {"up": 0.0, "down": 0.0}


@pytest.mark.parametrize(
    ("up", "down", "expected"),
    [
        ({3}, set(), (1, 0, 0)),
        (set(), {3}, (0, 1, 0)),
        ({0, 1}, {5}, (2, 1, 0)),
        ({2, 3, 4}, {6, 7}, (3, 2, 0)),
        ({8, 9}, set(), (0, 0, 2)),
        (set(), {8, 9}, (0, 0, 2)),
        ({1}, {9}, (1, 0, 1)),
    ],
)
def test_lost_packets_are_told_apart_by_direction(
    up: set[int], down: set[int], expected: tuple[int, int, int]
) -> None:
    """What came after the last answer could have been lost in either direction."""
    script = Script(number=own_count, drop_up=frozenset(up), drop_down=frozenset(down))
    with scripted(script) as port:
        sample = measure(port, reflector="stateful")
    loss = sample.directional_loss
    assert loss is not None
    assert (loss.sent, loss.lost_up, loss.lost_down, loss.undetermined) == (10, *expected)
    lost = sum(singleton.outcome is Outcome.LOST for singleton in sample.singletons)
    assert lost == sum(expected)


def test_a_stateless_reflector_gives_loss_no_direction() -> None:
    with running(stateful=False) as reflector:
        sample = measure(reflector.address[1])
    assert sample.facts["stamp_reflector"] == "stateless"
    assert sample.directional_loss is None
    assert ratios(sample.statistics) == {}


def test_a_reflector_that_copies_our_numbers_would_turn_all_loss_into_loss_on_the_way_down() -> None:
    """Why nothing is said of a reflector nothing is known of; the twin takes its numbers for its own."""
    with scripted(Script(drop_up=frozenset({3, 4}))) as port:
        sample = measure(port)
        assert (sample.facts["stamp_reflector"], sample.directional_loss) == ("unknown", None)
        twin = measure(port, reflector="stateful").directional_loss
    assert twin is not None
    assert (twin.lost_up, twin.lost_down) == (0, 2)


def test_numbers_of_its_own_are_proof_that_a_reflector_is_stateful() -> None:
    with scripted(Script(number=own_count, drop_up=frozenset({3, 4}))) as port:
        sample = measure(port)
        assert sample.facts["stamp_reflector"] == "stateful"
        denied = measure(port, reflector="stateless")
    assert sample.directional_loss is not None
    assert sample.directional_loss.lost_up == 2
    assert any("which the settings deny" in note for note in denied.notes)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (lambda count, _sequence: count % 4, "one number to two packets"),
        (lambda count, _sequence: count + 100, "more packets than were sent"),
    ],
)
def test_numbers_that_cannot_be_give_no_direction(number: object, says: str) -> None:
    with scripted(Script(number=number)) as port:  # type: ignore[arg-type]
        sample = measure(port, reflector="stateful")
    assert sample.directional_loss is None
    assert any(says in note for note in sample.notes)
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.RECEIVED}


def test_nothing_back_is_loss_without_direction() -> None:
    with scripted(Script(drop_up=frozenset(range(10)))) as port:
        sample = measure(port, reflector="stateful")
    assert sample.directional_loss is None
    assert sample.facts.get("stamp_reflector") is None
    assert not ratios(sample.statistics)


# The arithmetic


def replies(pairs: Sequence[tuple[int, int]]) -> list[Reply]:
    return [Reply(sequence, number, 1, 2, ESTIMATE) for sequence, number in pairs]


def singletons(outcomes: Sequence[Outcome]) -> list[Singleton]:
    return [Singleton(sequence=sequence, outcome=outcome) for sequence, outcome in enumerate(outcomes)]


def test_what_was_not_sent_or_was_refused_was_not_lost_on_the_way_up() -> None:
    outcomes = [Outcome.RECEIVED, Outcome.NOT_SENT, Outcome.REFUSED, Outcome.LOST, Outcome.RECEIVED]
    found, _why = directional_loss(singletons(outcomes), replies([(0, 0), (4, 1)]))
    assert found == DirectionalLoss(sent=3, lost_up=1, lost_down=0, undetermined=0)


def test_a_late_answer_reached_both_ends() -> None:
    outcomes = [Outcome.RECEIVED, Outcome.LATE, Outcome.RECEIVED]
    found, _why = directional_loss(singletons(outcomes), replies([(0, 0), (2, 2), (1, 1)]))
    assert found == DirectionalLoss(sent=3, lost_up=0, lost_down=0, undetermined=0)


def test_a_request_doubled_on_the_way_up_is_no_loss() -> None:
    outcomes = [Outcome.RECEIVED, Outcome.RECEIVED, Outcome.RECEIVED]
    found, _why = directional_loss(singletons(outcomes), replies([(0, 0), (0, 1), (1, 2), (2, 3)]))
    assert found == DirectionalLoss(sent=3, lost_up=0, lost_down=0, undetermined=0)


def test_an_answer_doubled_on_the_way_down_is_no_loss() -> None:
    outcomes = [Outcome.RECEIVED, Outcome.RECEIVED]
    found, _why = directional_loss(singletons(outcomes), replies([(0, 0), (0, 0), (1, 1)]))
    assert found == DirectionalLoss(sent=2, lost_up=0, lost_down=0, undetermined=0)


@given(fates=st.lists(st.sampled_from(["back", "up", "down"]), min_size=1, max_size=60))
def test_the_truth_is_found_whatever_is_lost(fates: list[str]) -> None:
    pairs, number = [], 0
    for sequence, fate in enumerate(fates):
        if fate != "up":
            if fate == "back":
                pairs.append((sequence, number))
            number += 1
    outcomes = [Outcome.RECEIVED if fate == "back" else Outcome.LOST for fate in fates]
    found, _why = directional_loss(singletons(outcomes), replies(pairs))
    if not pairs:
        assert found is None
        return
    last = pairs[-1][0]
    assert found == DirectionalLoss(
        sent=len(fates),
        lost_up=fates[: last + 1].count("up"),
        lost_down=fates[: last + 1].count("down"),
        undetermined=len(fates) - 1 - last,
    )


def test_reordering_is_told_by_direction() -> None:
    # Our 1 and 2 changed places on the way up; the answers to 3 and 4 on the way down.
    found = ratios(list(reordered(replies([(0, 0), (2, 1), (1, 2), (4, 4), (3, 3)]))))
    assert found == {"up": 0.2, "down": 0.2}
