"""The engine in a process of its own: records come, failures are said, and a dead one is started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nhip import wire
from nhip.clock import SystemClock
from nhip.errors import ConfigError
from nhip.measurement import Access, Outcome, Technology
from probes.engine.child import Outlet
from probes.engine.circumstances import Circumstances
from probes.engine.frames import Said, read_messages
from probes.engine.process import EngineProcess
from probes.line.config import LineSection
from tests.probes.engine.conftest import group_of

WHO = Circumstances(
    probe_id="probe-1", access=Access(operator="alpha", technology=Technology.FIXED, province="01")
)


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.02)


def process(records: list[wire.Record], hosts: list[str], **more: object) -> EngineProcess:
    group = group_of(hosts, window_seconds=0.25, loss_threshold_seconds=0.1)
    return EngineProcess(
        [group],
        LineSection(),
        SystemClock(),
        records.extend,
        circumstances=WHO,
        **{"most_probes_per_second": 1000.0} | more,  # type: ignore[arg-type]
    )


def test_records_come_by_themselves_and_the_last_ones_at_the_end(icmp: None) -> None:
    records: list[wire.Record] = []
    engine = process(records, ["127.0.0.1", "::1"])
    engine.start()
    try:
        until(lambda: len(records) >= 4)
    finally:
        engine.close()
    assert {record.address for record in records} == {"127.0.0.1", "::1"}
    for record in records:
        kept = wire.decode_record(wire.encode_record(record))
        assert kept.outcome is Outcome.RECEIVED
        assert kept.parameters["group"] == "g"
        assert abs(kept.started_wall_ns - time.time_ns()) < 60e9
    whole = [record for record in records if record.counters.sent + record.counters.not_sent >= 5]
    assert len(whole) >= 4
    told = engine.readings
    assert told["received"] == sum(record.counters.received for record in records)
    assert told["windows_dropped"] == 0


def test_a_killed_engine_is_started_again_and_the_failure_is_counted(icmp: None) -> None:
    records: list[wire.Record] = []
    failures: list[str] = []
    engine = process(records, ["127.0.0.1"], on_failure=failures.append)
    engine.start()
    try:
        until(lambda: records)
        pid = engine.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: engine.restarts == 1)
        records.clear()
        until(lambda: records)
        assert engine.pid != pid
    finally:
        engine.close()
    assert failures == ["the engine's process ended with -9"]


def test_more_than_can_be_done_is_an_error_of_the_file_at_start(icmp: None) -> None:
    engine = process([], ["127.0.0.1", "127.0.0.2"], most_probes_per_second=30.0)
    with pytest.raises(ConfigError, match="can do 30"):
        engine.start()
    assert engine.pid is None


def test_a_missing_interface_is_said_and_tried_again() -> None:
    """The agent goes on with its other tasks."""
    failures: list[str] = []
    group = group_of(["127.0.0.1"])
    engine = EngineProcess(
        [group],
        LineSection(interface="wwan7"),
        SystemClock(),
        lambda _records: None,
        circumstances=WHO,
        most_probes_per_second=1000.0,
        on_failure=failures.append,
    )
    engine.start()
    try:
        until(lambda: failures)
    finally:
        engine.close()
    assert "wwan7" in failures[0]


def test_an_engine_that_says_nonsense_is_ended_and_not_the_agent() -> None:
    code = (
        "import sys; sys.stdout.buffer.write(bytes([4,0,0,0,1,2,3,4])); sys.stdout.flush(); sys.stdin.read()"
    )
    failures: list[str] = []
    engine = process([], ["127.0.0.1"], command=(sys.executable, "-c", code), on_failure=failures.append)
    engine.start()
    engine.close()
    assert engine.pid is None


def test_the_engine_ends_when_the_agent_is_gone(icmp: None, tmp_path: Path) -> None:
    """Its input is closed then; nobody has to find and end it."""
    code = f"""
import pathlib, threading
from tests.probes.engine.test_process import process
engine = process([], ["127.0.0.1"])
engine.start()
pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(engine.pid))
threading.Event().wait()
"""
    agent = subprocess.Popen([sys.executable, "-c", code])
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    engine_pid = int((tmp_path / "pid").read_text())
    agent.kill()
    agent.wait()
    until(lambda: not _runs(engine_pid))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_what_a_slow_agent_does_not_take_is_dropped_and_counted() -> None:
    read_end, write_end = os.pipe()
    outlet = Outlet(write_end, most_octets=200_000)
    outlet.start()
    for number in range(2000):
        outlet.put(Said(level=20, text=f"{number:5d}" + "x" * 400))
    assert outlet.dropped > 500
    texts: list[str] = []

    def take(message: object) -> None:
        assert isinstance(message, Said)
        texts.append(message.text)

    reader = threading.Thread(target=read_messages, args=(read_end, take))
    reader.start()
    outlet.close()
    reader.join()
    os.close(read_end)
    assert len(texts) + outlet.dropped == 2000
    assert texts == sorted(texts)


def test_an_agent_that_went_away_stops_no_loop() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    outlet = Outlet(write_end)
    outlet.start()
    for _ in range(50):
        outlet.put(Said(level=20, text="x"))
    outlet.close()
