"""The engine over an emulated link: what it says was lost, doubled and overtaken is what the link did."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nhip.lab.effects import Effects
from nhip.lab.report import Counters, RoundTrips
from tests.lab.network import LabLink, lab_link, lab_of
from tests.probes.engine.conftest import Run, group_of, run_engine

__all__ = ["lab_link", "lab_of"]

pytestmark = pytest.mark.lab

Over = Callable[..., tuple[Run, Counters, Counters, RoundTrips]]


@pytest.fixture
def over(lab_link: LabLink) -> Over:
    """Two seconds of probes over a link with these effects; what the engine and what the link says."""

    def run(up: Effects, down: Effects) -> tuple[Run, Counters, Counters, RoundTrips]:
        lab = lab_link(up=up, down=down, seed=3)
        group = group_of(
            [lab.address("far")], interval_seconds=0.005, window_seconds=0.1, loss_threshold_seconds=0.4
        )
        found = run_engine([group], 1.5, namespace=f"{lab.name}-near")
        (link,) = lab.truth().links
        trips = max(
            (trip for trip in link.round_trips if trip.kind == "icmp"), key=lambda trip: trip.requests
        )
        return found, link.up.counters["icmp"], link.down.counters["icmp"], trips

    return run


def test_loss_is_exactly_what_the_link_dropped(over: Over) -> None:
    effects = Effects(delay_seconds=0.005, loss_ratio=0.05)
    run, up, down, trips = over(effects, effects)
    assert run.readings.handed_over == up.arrived == trips.requests
    assert run.readings.lost == up.dropped_loss + down.dropped_loss > 5


def test_duplicates_are_the_copies_the_link_made(over: Over) -> None:
    run, up, down, _trips = over(
        Effects(delay_seconds=0.005), Effects(delay_seconds=0.005, duplicate_ratio=0.1)
    )
    assert run.readings.lost == 0
    assert run.readings.duplicate == down.duplicated > 5
    assert run.readings.received == up.arrived


def test_reordering_is_what_the_link_turned_round(over: Over) -> None:
    run, _up, down, _trips = over(
        Effects(delay_seconds=0.005),
        Effects(delay_seconds=0.005, reorder_ratio=0.1, reorder_seconds=0.02),
    )
    assert run.readings.lost == 0
    assert run.readings.reordered == down.reordered > 5


def test_the_delays_are_those_of_a_capture(over: Over) -> None:
    run, _up, _down, trips = over(Effects(delay_seconds=0.01), Effects(delay_seconds=0.01))
    (delays_ns,) = run.delays_ns.values()
    median = sorted(delays_ns)[len(delays_ns) // 2] / 1e9
    assert trips.median_seconds is not None
    assert median == pytest.approx(trips.median_seconds, abs=50e-6)
    assert trips.max_seconds is not None
    assert max(delays_ns) / 1e9 == pytest.approx(trips.max_seconds, abs=200e-6)
    assert run.readings.sent_by_user_stamp == 0
