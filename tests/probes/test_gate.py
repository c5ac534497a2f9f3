"""The gate: light tests together, heavy ones alone, on this agent and on this line."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from probes.gate import Gate


class Visitor:
    """A test that stays inside until told to leave."""

    def __init__(self, gate: Gate, *, exclusive: bool) -> None:
        self.inside, self.leave = threading.Event(), threading.Event()
        self._gate, self._exclusive = gate, exclusive
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._gate.enter(exclusive=self._exclusive):
            self.inside.set()
            self.leave.wait(20)

    def go(self) -> None:
        self.leave.set()
        self._thread.join(5)
        assert not self._thread.is_alive()


def is_in(visitor: Visitor) -> bool:
    return visitor.inside.wait(5)


def stays_out(visitor: Visitor) -> bool:
    return not visitor.inside.wait(0.05)


def test_light_tests_run_together() -> None:
    gate = Gate()
    first, second = Visitor(gate, exclusive=False), Visitor(gate, exclusive=False)
    assert is_in(first)
    assert is_in(second)
    first.go()
    second.go()


def test_a_heavy_test_waits_for_light_ones_and_runs_alone() -> None:
    gate = Gate()
    light = Visitor(gate, exclusive=False)
    assert is_in(light)
    heavy = Visitor(gate, exclusive=True)
    assert stays_out(heavy)
    light.go()
    assert is_in(heavy)
    late_light, second_heavy = Visitor(gate, exclusive=False), Visitor(gate, exclusive=True)
    assert stays_out(late_light)
    assert stays_out(second_heavy)
    heavy.go()
    assert is_in(second_heavy)
    assert stays_out(late_light)
    second_heavy.go()
    assert is_in(late_light)
    late_light.go()


def test_a_waiting_heavy_test_is_not_starved_by_new_light_ones() -> None:
    gate = Gate()
    first = Visitor(gate, exclusive=False)
    assert is_in(first)
    heavy = Visitor(gate, exclusive=True)
    assert stays_out(heavy)
    second = Visitor(gate, exclusive=False)
    assert stays_out(second)
    first.go()
    assert is_in(heavy)
    heavy.go()
    assert is_in(second)
    second.go()


def test_a_test_that_breaks_gives_its_turn_back() -> None:
    gate = Gate()
    for exclusive in (True, False):
        with pytest.raises(ValueError, match="broke"), gate.enter(exclusive=exclusive):
            raise ValueError("broke")
    with gate.enter(exclusive=True):
        pass


def test_many_threads_never_overlap_a_heavy_test() -> None:
    gate, lock = Gate(), threading.Lock()
    inside = {True: 0, False: 0}
    overlaps: list[dict[bool, int]] = []

    def visit(exclusive: bool) -> None:
        for _ in range(20):
            with gate.enter(exclusive=exclusive):
                with lock:
                    inside[exclusive] += 1
                    if inside[True] > 1 or (inside[True] and inside[False]):
                        overlaps.append(dict(inside))
                threading.Event().wait(0.0005)
                with lock:
                    inside[exclusive] -= 1

    threads = [threading.Thread(target=visit, args=(number % 3 == 0,)) for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert overlaps == []


# The line


def test_two_agents_on_one_line_run_their_heavy_tests_one_after_the_other(tmp_path: Path) -> None:
    lock = tmp_path / "run" / "line.lock"
    first, second = Visitor(Gate(lock), exclusive=True), None
    assert is_in(first)
    second = Visitor(Gate(lock), exclusive=True)
    assert stays_out(second)
    first.go()
    assert is_in(second)
    second.go()


def test_light_tests_go_on_while_another_agent_has_the_line(tmp_path: Path) -> None:
    lock = tmp_path / "line.lock"
    other = Visitor(Gate(lock), exclusive=True)
    assert is_in(other)
    gate = Gate(lock)
    heavy = Visitor(gate, exclusive=True)
    assert stays_out(heavy)
    light = Visitor(gate, exclusive=False)
    assert is_in(light)
    light.go()
    other.go()
    assert is_in(heavy)
    heavy.go()


def test_an_agent_that_is_killed_gives_the_line_back(tmp_path: Path) -> None:
    lock = tmp_path / "line.lock"
    code = (
        "import sys; from pathlib import Path; from probes.gate import Gate\n"
        f"with Gate(Path({str(lock)!r})).enter(exclusive=True): print('in', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    visitor = Visitor(Gate(lock), exclusive=True)
    assert stays_out(visitor)
    process.kill()
    process.communicate()
    assert is_in(visitor)
    visitor.go()


def test_an_agent_that_stops_does_not_wait_for_the_line(tmp_path: Path) -> None:
    lock = tmp_path / "line.lock"
    stop = threading.Event()
    with lock.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        waiting = Visitor(Gate(lock, stop), exclusive=True)
        assert stays_out(waiting)
        begun = time.monotonic()
        stop.set()
        assert is_in(waiting)
        assert time.monotonic() - begun < 2
        waiting.go()
