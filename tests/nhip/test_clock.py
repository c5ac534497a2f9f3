"""The clocks, and what the kernel says of itself."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest

from nhip.clock import SystemClock, clock_state


def test_the_clocks_are_those_of_the_host() -> None:
    clock = SystemClock()
    assert abs(clock.wall_ns() - time.time_ns()) < 1e9
    before = time.monotonic_ns()
    assert before <= clock.mono_ns() <= time.monotonic_ns()


def test_a_sleep_takes_its_time() -> None:
    clock = SystemClock()
    before = clock.mono_ns()
    clock.sleep(0.01)
    assert clock.mono_ns() - before >= 10_000_000


def test_the_state_of_the_clock_has_plausible_errors() -> None:
    state = clock_state()
    if state.synchronised is None:
        pytest.skip("this system does not answer adjtimex")
    assert state.maximum_error_ns is not None
    assert state.estimated_error_ns is not None
    assert 0 <= state.estimated_error_ns < 60e9
    # The kernel counts the maximum error up to 16 s and stops there.
    assert 0 <= state.maximum_error_ns <= 17e9


def test_the_state_of_the_clock_is_what_adjtimex_prints() -> None:
    command = shutil.which("adjtimex")
    if command is None:
        pytest.skip("adjtimex is not installed (Debian package adjtimex)")
    printed = subprocess.run([command, "--print"], capture_output=True, text=True, check=True).stdout
    said = dict(line.strip().split(":", 1) for line in printed.splitlines() if ":" in line)
    state = clock_state()
    assert state.estimated_error_ns == int(said["esterror"]) * 1000
    assert state.synchronised == (not int(said["status"]) & 0x40)
