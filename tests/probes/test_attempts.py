"""Attempts one after the other: whose delay is whose, and that no burst makes up for a slow network."""

from __future__ import annotations

import threading

import pytest

from nhip.measurement import Method, Outcome, Singleton, Target
from probes.api import ProbeContext
from probes.attempts import Attempts
from probes.network import HostNetwork
from tests.lab.fake_clock import FakeClock


class Attempted:
    """Attempts that take as long as told, and when each began."""

    def __init__(self, clock: FakeClock, durations_seconds: list[float]) -> None:
        self.began_seconds: list[float] = []
        self._clock = clock
        self._durations_seconds = durations_seconds
        self._zero_ns = clock.mono_ns()

    def __call__(self, sequence: int) -> Singleton:
        self.began_seconds.append((self._clock.mono_ns() - self._zero_ns) / 1e9)
        self._clock.advance(self._durations_seconds[sequence])
        return Singleton(sequence=sequence, outcome=Outcome.RECEIVED)


def begin(clock: FakeClock, cancelled: threading.Event | None = None) -> Attempts:
    context = ProbeContext(clock=clock, network=HostNetwork(), cancelled=cancelled or threading.Event())
    return Attempts.begin(Target(id="t", host="127.0.0.1", port=1), context)


def notes(attempts: Attempts, singletons: tuple[Singleton, ...]) -> tuple[str, ...]:
    sample = attempts.sample(
        singletons,
        kind="tcp_connect",
        method=Method("tcp_connect", "1"),
        protocol="tcp",
        port=1,
        address=None,
        loss_threshold_seconds=1.0,
        parameters={},
    )
    return sample.notes


def lags_seconds(singletons: tuple[Singleton, ...]) -> list[float]:
    return [(singleton.send_lag_ns or 0) / 1e9 for singleton in singletons]


def test_attempts_that_fit_into_the_interval_keep_to_the_plan() -> None:
    clock = FakeClock()
    attempts, attempted = begin(clock), Attempted(clock, [0.1, 0.9, 0.0, 0.5])
    singletons = attempts.make(4, 1.0, attempted)
    assert attempted.began_seconds == pytest.approx([0, 1, 2, 3])
    assert lags_seconds(singletons) == pytest.approx([0, 0, 0, 0])
    assert notes(attempts, singletons) == ()


def test_an_attempt_that_outlasts_the_interval_holds_back_the_rest_and_makes_nobody_late() -> None:
    clock = FakeClock()
    attempts, attempted = begin(clock), Attempted(clock, [0.1, 3.5, 0.1, 1.25, 0.1, 0.1])
    singletons = attempts.make(6, 1.0, attempted)
    # Held back by 2.5 s, then by 0.25 s more; nowhere two within one interval.
    assert attempted.began_seconds == pytest.approx([0, 1, 4.5, 5.5, 6.75, 7.75])
    assert lags_seconds(singletons) == pytest.approx([0] * 6)
    assert notes(attempts, singletons) == (
        "attempts took longer than the interval: the plan was moved back by 2.750 s",
    )


class Oversleeper(FakeClock):
    """A host that was busy: its fifth sleep took 0.7 seconds longer."""

    sleeps = 0

    def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        super().sleep(seconds + (0.7 if self.sleeps == 5 else 0.0))


def test_a_host_that_wakes_late_is_late_and_moves_no_plan() -> None:
    """The twin: this delay is our own, is told as such, and the next attempt is due when it was."""
    clock = Oversleeper()
    attempts, attempted = begin(clock), Attempted(clock, [0.0] * 3)
    singletons = attempts.make(3, 1.0, attempted)
    assert attempted.began_seconds == pytest.approx([0, 1.7, 2])
    assert lags_seconds(singletons) == pytest.approx([0, 0.7, 0])
    assert notes(attempts, singletons) == ()


def test_what_a_cancelled_test_did_not_begin_was_not_sent() -> None:
    clock, cancelled = FakeClock(), threading.Event()
    attempted = Attempted(clock, [0.0] * 3)

    def attempt(sequence: int) -> Singleton:
        cancelled.set()
        return attempted(sequence)

    singletons = begin(clock, cancelled).make(3, 1.0, attempt)
    assert [singleton.outcome for singleton in singletons] == [Outcome.RECEIVED, *[Outcome.NOT_SENT] * 2]
    assert len(attempted.began_seconds) == 1
