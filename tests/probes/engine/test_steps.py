"""Steps of the wall clock are seen, slewing and slow readings are not taken for one."""

from __future__ import annotations

import pytest

from probes.engine.steps import StepWatch
from tests.lab.fake_clock import FakeClock


@pytest.mark.parametrize("step_seconds", [1.0, -1.0, 0.0001, -0.0001])
def test_a_step_is_seen_at_the_next_look(step_seconds: float) -> None:
    clock = FakeClock()
    watch = StepWatch(clock)
    clock.advance(0.02)
    clock.step(step_seconds)
    watch.look()
    assert watch.steps == 1
    assert watch.suspect_until_ns == clock.mono_ns()


def test_slewing_as_fast_as_the_kernel_does_is_no_step() -> None:
    clock = FakeClock()
    watch = StepWatch(clock)
    for _ in range(100):
        clock.advance(0.02)
        clock.step(0.02 * 500e-6)
        watch.look()
    assert watch.steps == 0
    assert watch.suspect_until_ns == -1


class SlowClock(FakeClock):
    """Time passes between the readings of the two clocks, as when the process is scheduled away there."""

    slow = False

    def wall_ns(self) -> int:
        if self.slow:
            self.advance(0.003)
        return super().wall_ns()


def test_being_scheduled_away_between_two_readings_is_no_step() -> None:
    clock = SlowClock()
    watch = StepWatch(clock)
    clock.slow = True
    for _ in range(5):
        watch.look()
    assert watch.steps == 0


def test_the_difference_follows_the_step() -> None:
    clock = FakeClock()
    watch = StepWatch(clock)
    clock.step(5)
    watch.look()
    assert watch.offset_ns == clock.wall_ns() - clock.mono_ns()
    watch.look()
    assert watch.steps == 1
