"""The agent: measures on schedule, keeps what it measured until it is acknowledged, and listens to nobody."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nhip import config, wire
from nhip.clock import SystemClock
from nhip.errors import CannotMeasureError, ConfigError
from probes.agent import Agent
from probes.agent_config import AgentConfig
from probes.line.modem import Modem
from probes.spool import Spool
from tests.lab import recording_probes
from tests.lab.scripted_collector import Act, ScriptedCollector

AgentOf = Callable[..., Agent]


@pytest.fixture
def listening_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as server:
        yield server.getsockname()[1]


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[recording_probes.Run]:
    """The kinds ``light`` and ``heavy`` exist; gives what they noted."""
    (tmp_path / "other").mkdir()
    recording_probes.install(tmp_path / "other", monkeypatch)
    return recording_probes.RUNS


@pytest.fixture
def agent_of(tmp_path: Path) -> Iterator[AgentOf]:
    """``agent_of(collector, tasks)`` is an agent that was started and will be closed."""
    agents: list[Agent] = []

    def start(collector: ScriptedCollector, tasks: list[dict[str, Any]], **changes: Any) -> Agent:
        table = table_of(tmp_path, collector.url, tasks, **changes)
        agent = Agent(config.convert(table, AgentConfig, "test", environment={}), SystemClock())
        agents.append(agent)
        agent.start()
        return agent

    yield start
    for agent in agents:
        agent.close()


def table_of(
    folder: Path,
    url: str,
    tasks: list[dict[str, Any]],
    *,
    port: int = 1,
    network: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "format": "nhip-probe/1",
        "probe_id": "probe-1",
        "access": {"operator": "alpha", "technology": "fixed", "province": "01"},
        "collector": {
            "url": url,
            "key": "k",
            "interval_seconds": 0.1,
            "timeout_seconds": 1,
            "batch_records": 3,
        },
        "spool": {"path": str(folder / "spool.sqlite")},
        "network": network or {},
        "target": [{"id": "server", "host": "127.0.0.1", "port": port}],
        "task": [
            {"target": "server", "interval_seconds": 1, "arrival": "fixed", "start_at_once": True, **task}
            for task in tasks
        ],
    }


CONNECT = {"kind": "tcp_connect", "settings": {"count": 1, "loss_threshold_seconds": 0.5}}


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.01)


def spooled_ids(folder: Path) -> list[str]:
    spool = Spool(folder / "spool.sqlite", 1 << 26, SystemClock())
    spool.start()
    waiting = spool.oldest(100_000, 1 << 26)
    spool.close()
    return [str(wire.decode_record(body).record_id) for body in waiting.bodies] if waiting else []


# Delivery


def test_every_record_is_delivered_though_the_collector_fails_in_every_way(
    agent_of: AgentOf, tmp_path: Path, listening_port: int
) -> None:
    failures = [
        *(Act.LOSE_ANSWER, Act.WRONG_HASH, Act.PORTAL, Act.BUSY, Act.UNKNOWN_KEY, Act.RESET),
        *(Act.HALF_ANSWER, Act.NOT_HTTP, Act.HANG, Act.CLOSE_AFTER),
    ]
    script = [act for failure in failures for act in (failure, Act.OK)]
    with ScriptedCollector(script) as collector:
        agent = agent_of(collector, [CONNECT] * 4, port=listening_port)
        until(lambda: len(collector.acts) > len(script), 40)
        agent.close()
        stored = Counter(collector.stored_ids())
        status = agent_status(collector)
    sequences = sorted({record["sequence"] for record in collector.stored})
    assert sequences == list(range(1, sequences[-1] + 1)), "a gap is a record that was lost"
    assert spooled_ids(tmp_path) == []
    assert len(stored) == len(sequences) >= 8
    # Only a delivery whose acknowledgement was lost is repeated, and with the same identifiers.
    repeated = [identifier for identifier, times in stored.items() if times > 1]
    assert len(repeated) <= 3
    # A connection that was kept and then found closed is opened anew; that is no failure.
    assert status["ship_failures_total"] >= len(failures) - 2


def agent_status(collector: ScriptedCollector) -> dict[str, Any]:
    """What the agent said of itself last."""
    found: dict[str, Any] = collector.batches[-1]["agent"]
    return found


def test_nothing_leaves_the_spool_before_it_is_acknowledged(
    agent_of: AgentOf, tmp_path: Path, listening_port: int
) -> None:
    refusals = itertools.cycle([Act.WRONG_HASH, Act.PORTAL, Act.BUSY])
    with ScriptedCollector(refusals) as collector:
        agent = agent_of(collector, [CONNECT] * 3, port=listening_port)
        until(lambda: agent.status().spool_records >= 3 and len(collector.acts) >= 2)
        agent.close()
        offered = {record["record_id"] for batch in collector.batches for record in batch["records"]}
    kept = spooled_ids(tmp_path)
    assert len(kept) >= 3
    assert offered <= set(kept)
    with ScriptedCollector() as collector:
        agent = agent_of(collector, [CONNECT], port=listening_port)
        until(lambda: set(kept) <= set(collector.stored_ids()))
        agent.close()
        assert max(Counter(collector.stored_ids()).values()) == 1
        assert [record["record_id"] for record in collector.stored][: len(kept)] == kept, "oldest first"
    assert spooled_ids(tmp_path) == []


def test_an_agent_without_anything_to_deliver_still_says_that_it_is_alive(
    agent_of: AgentOf, recording: list[recording_probes.Run]
) -> None:
    with ScriptedCollector() as collector:
        agent_of(collector, [{"kind": "light", "settings": {"duration_seconds": 60}}])
        until(lambda: len(collector.batches) >= 3)
        assert collector.batches[-1]["records"] == []
        assert agent_status(collector)["spool_records"] == 0
        assert agent_status(collector)["software_version"]


def test_a_record_says_who_measured_and_how_often(agent_of: AgentOf, listening_port: int) -> None:
    with ScriptedCollector() as collector:
        agent_of(collector, [{**CONNECT, "keep_singletons": True}], port=listening_port)
        until(lambda: collector.stored)
        record = collector.stored[0]
    assert record["probe_id"] == "probe-1"
    assert record["access"]["operator"] == "alpha"
    assert record["parameters"]["schedule_interval_seconds"] == 1
    assert record["counters"]["received"] == 1
    assert [singleton["outcome"] for singleton in record["singletons"]] == ["received"]


# Tests that fail


def test_a_failing_network_is_a_record(agent_of: AgentOf) -> None:
    with ScriptedCollector() as collector:
        agent = agent_of(collector, [CONNECT], port=1)
        until(lambda: collector.stored)
        assert collector.stored[0]["outcome"] == "refused"
        assert agent.status().tests_failed_to_run_total == 0


def test_a_host_that_cannot_measure_is_counted_and_makes_no_record(
    agent_of: AgentOf, caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedCollector() as collector:
        agent_of(collector, [CONNECT], network={"interface": "absent0"})
        until(lambda: collector.batches and agent_status(collector)["tests_failed_to_run_total"] >= 2)
        assert collector.stored == []
        assert agent_status(collector)["tests_total"] == 0
    assert "ip -brief address" in caplog.text


def test_a_host_that_still_cannot_measure_does_not_fill_the_log(
    agent_of: AgentOf, recording: list[recording_probes.Run], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "nhip.probe")
    with ScriptedCollector() as collector:
        agent = agent_of(collector, [{"kind": "light", "settings": {"cannot": True}}] * 2)
        until(lambda: agent.status().tests_failed_to_run_total >= 5)
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said == ["test light towards server did not run: this host could not; do something"] * 2


class HungModems:
    """A manager that is asked and does not answer until it is let go."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.let_go = threading.Event()

    def modems(self) -> tuple[Modem, ...]:
        self.asked.set()
        self.let_go.wait(60)
        raise CannotMeasureError("ModemManager cannot be asked", remedy="start it")


def test_a_modem_manager_that_hangs_holds_up_no_other_test(
    tmp_path: Path, recording: list[recording_probes.Run]
) -> None:
    """Neither a heavy test that looks for its SIM nor light ones do so while they hold the gate."""
    modems = HungModems()
    line = {"iccid": "8984012345678901234"}
    with ScriptedCollector() as collector:
        tasks = [{"kind": "heavy", "network": line}, {"kind": "light", "network": line}]
        tasks += [{"kind": "light"}, {"kind": "heavy"}]
        table = table_of(tmp_path, collector.url, tasks)
        found = config.convert(table, AgentConfig, "test", environment={})
        agent = Agent(found, SystemClock(), modems=modems)
        agent.start()
        try:
            assert modems.asked.wait(20)
            recording.clear()
            until(lambda: {run.kind for run in recording} == {"light", "heavy"})
            assert not modems.let_go.is_set()
            assert agent.status().tests_failed_to_run_total == 0
            modems.let_go.set()
            until(lambda: agent.status().tests_failed_to_run_total >= 2)
        finally:
            modems.let_go.set()
            agent.close()


def test_a_fault_of_ours_in_one_task_does_not_stop_the_others(
    agent_of: AgentOf, recording: list[recording_probes.Run], caplog: pytest.LogCaptureFixture
) -> None:
    tasks = [
        {"kind": "light", "settings": {"fault": True}},
        {"kind": "light", "settings": {"cannot": True}},
        {"kind": "light"},
    ]
    with ScriptedCollector() as collector:
        agent = agent_of(collector, tasks)
        until(lambda: len(recording) >= 2)
        status = agent.status()
    assert status.tests_failed_to_run_total >= 2
    assert "ZeroDivisionError" in caplog.text
    assert "this host could not; do something" in caplog.text


# Schedule


def test_heavy_tests_never_overlap_anything(agent_of: AgentOf, recording: list[recording_probes.Run]) -> None:
    tasks = [{"kind": "heavy", "settings": {"duration_seconds": 0.1}} for _ in range(3)]
    tasks += [{"kind": "light", "settings": {"duration_seconds": 0.05}} for _ in range(4)]
    with ScriptedCollector() as collector:
        agent = agent_of(collector, tasks)
        until(lambda: Counter(run.kind for run in recording)["heavy"] >= 6)
        agent.close()
    heavy = [run for run in recording if run.kind == "heavy"]
    for run in heavy:
        for other in recording:
            assert run is other or not run.overlaps(other)
    light = [run for run in recording if run.kind == "light"]
    assert any(one.overlaps(other) for one, other in itertools.combinations(light, 2)), "light ones may"


def test_a_test_longer_than_its_interval_is_missed_and_counted(
    agent_of: AgentOf, recording: list[recording_probes.Run]
) -> None:
    with ScriptedCollector() as collector:
        agent = agent_of(collector, [{"kind": "light", "settings": {"duration_seconds": 1.5}}])
        until(lambda: agent.status().tests_missed_total >= 1)
        until(lambda: len(recording) >= 2)
        agent.close()
    assert not any(one.overlaps(other) for one, other in itertools.combinations(recording, 2))


def test_the_lag_of_the_schedule_is_told_until_it_was_delivered(
    agent_of: AgentOf, recording: list[recording_probes.Run]
) -> None:
    with ScriptedCollector([Act.WRONG_HASH]) as collector:
        agent_of(collector, [{"kind": "light", "settings": {"duration_seconds": 0}}])
        until(
            lambda: any(batch["agent"]["schedule_lag_seconds_max"] is not None for batch in collector.batches)
        )
    told = [batch["agent"]["schedule_lag_seconds_max"] for batch in collector.batches]
    assert 0 <= max(lag for lag in told if lag is not None) < 1


# Life


def test_starting_without_a_key_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    table = table_of(tmp_path, "http://127.0.0.1:1", [CONNECT])
    del table["collector"]["key"]
    agent = Agent(config.convert(table, AgentConfig, "t", environment={}), SystemClock())
    with pytest.raises(ConfigError, match="has no key"):
        agent.start()
    agent.close()


def test_close_works_without_start_and_twice(tmp_path: Path) -> None:
    table = table_of(tmp_path, "http://127.0.0.1:1", [CONNECT])
    agent = Agent(config.convert(table, AgentConfig, "t", environment={}), SystemClock())
    agent.close()
    agent.close()
    assert not (tmp_path / "spool.sqlite").exists(), "a constructor does nothing"


def test_stopping_takes_no_lock_that_an_interrupted_thread_may_hold(
    agent_of: AgentOf, recording: list[recording_probes.Run]
) -> None:
    """A signal handler runs in the middle of whatever the main thread does, such as waiting for it."""
    with ScriptedCollector() as collector:
        agent = agent_of(collector, [{"kind": "light"}])
        with agent._stop._cond:  # type: ignore[attr-defined]
            handler = threading.Thread(target=agent.stop, daemon=True)
            handler.start()
            handler.join(5)
            assert not handler.is_alive()
            # The twin: to set the event itself would have waited for ever.
            setter = threading.Thread(target=agent._stop.set, daemon=True)
            setter.start()
            setter.join(0.1)
            assert setter.is_alive()
        agent.wait(5)
        setter.join(5)
        agent.close()
        agent.stop()


def test_an_agent_says_once_what_it_is_and_once_what_it_leaves(
    agent_of: AgentOf, recording: list[recording_probes.Run], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "nhip.probe")
    with ScriptedCollector() as collector:
        agent = agent_of(collector, [{"kind": "light"}, {"kind": "heavy"}])
        until(lambda: collector.stored)
        agent.close()
        agent.close()
    said = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    assert len(said) == 2, said
    for part in ("probe probe-1", "2 tasks (heavy, light)", "server (127.0.0.1)", collector.url, "0 records"):
        assert part in said[0]
    assert "agent stopped: probe probe-1" in said[1]
    assert "0 records left in the spool" in said[1]


def test_an_agent_serves_its_own_metrics_when_told_to(
    tmp_path: Path, recording: list[recording_probes.Run], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "nhip.probe")
    with ScriptedCollector() as collector:
        table = table_of(tmp_path, collector.url, [{"kind": "light"}])
        table["metrics"] = {"listen": "127.0.0.1:0"}
        agent = Agent(config.convert(table, AgentConfig, "t", environment={}), SystemClock())
        agent.start()
        until(lambda: collector.stored)
        port = caplog.records[0].getMessage().rpartition("metrics on port ")[2]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            page = answer.read().decode()
        agent.close()
    assert re.search(
        r'nhip_agent_tests_total\{operator="alpha",probe="probe-1",province="01",technology="fixed"\} [1-9]',
        page,
    )


def test_close_ends_a_long_test_soon_and_keeps_its_record(
    agent_of: AgentOf, tmp_path: Path, listening_port: int
) -> None:
    task = {"kind": "tcp_connect", "settings": {"count": 1000, "interval_seconds": 1}}
    with ScriptedCollector() as collector:
        agent = agent_of(collector, [task], port=listening_port)
        until(lambda: collector.batches)
        threading.Event().wait(0.2)
        begun = time.monotonic()
        agent.close()
        assert time.monotonic() - begun < 5
        (record,) = collector.stored or [wire_record(tmp_path)]
    assert record["counters"]["lost"] == 0
    assert record["counters"]["received"] + record["counters"]["not_sent"] == 1000


def wire_record(folder: Path) -> dict[str, Any]:
    """The one record that waits in the spool, as plain values."""
    import msgspec

    spool = Spool(folder / "spool.sqlite", 1 << 26, SystemClock())
    spool.start()
    waiting = spool.oldest(1, 1)
    spool.close()
    assert waiting is not None
    found: dict[str, Any] = msgspec.json.decode(waiting.bodies[0])
    return found


# The process


def config_file(folder: Path, url: str, port: int) -> Path:
    path = folder / "probe.toml"
    path.write_text(
        f"""
format = "nhip-probe/1"
probe_id = "probe-1"
[access]
operator = "alpha"
technology = "fixed"
province = "01"
[collector]
url = "{url}"
interval_seconds = 0.1
timeout_seconds = 2
[spool]
path = "{folder}/spool.sqlite"
[[target]]
id = "server"
host = "127.0.0.1"
port = {port}
[[task]]
kind = "tcp_connect"
target = "server"
interval_seconds = 1
start_at_once = true
settings = {{ count = 1 }}
"""
    )
    return path


def run_probe(path: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "nhip.cli", "probe", "--config", str(path), *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NHIP_PROBE_KEY": "the-secret-key"},
    )


def sockets_of(pid: int) -> set[str]:
    """The socket inodes a process holds."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        target = str(link.readlink()) if link.is_symlink() else ""
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def listening(pid: int) -> list[str]:
    """Lines of /proc/net for sockets of `pid` that strangers can talk to."""
    own = sockets_of(pid)
    lines = []
    for name, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", None), ("udp6", None)):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in own and state in (None, fields[3]):
                lines.append(f"{name} {line}")
    return lines


def test_the_process_listens_on_nothing_and_does_not_show_its_key(
    tmp_path: Path, listening_port: int
) -> None:
    with ScriptedCollector() as collector:
        process = run_probe(config_file(tmp_path, collector.url, listening_port))
        try:
            until(lambda: collector.stored)
            assert listening(process.pid) == []
            assert "the-secret-key" not in Path(f"/proc/{process.pid}/cmdline").read_text()
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=15)
        finally:
            process.kill()
            process.communicate()
    assert process.returncode == 0, said
    assert collector.headers[0]["authorization"] == "Bearer the-secret-key"
    assert "the-secret-key" not in said
    assert "Traceback" not in said


def test_the_scan_for_listeners_sees_one() -> None:
    with socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        assert len(listening(os.getpid())) >= 2


def test_what_a_killed_agent_had_measured_is_delivered_by_the_next_one(
    tmp_path: Path, listening_port: int
) -> None:
    with ScriptedCollector(itertools.repeat(Act.BUSY)) as collector:
        path = config_file(tmp_path, collector.url, listening_port)
        process = run_probe(path)
        until(lambda: any(batch["records"] for batch in collector.batches))
        process.kill()
        process.communicate()
        offered = {record["record_id"] for batch in collector.batches for record in batch["records"]}
    kept = spooled_ids(tmp_path)
    assert offered <= set(kept)
    with ScriptedCollector() as collector:
        process = run_probe(config_file(tmp_path, collector.url, listening_port), "--for", "1")
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0, said
        stored = Counter(collector.stored_ids())
    assert set(kept) <= set(stored)
    assert set(stored.values()) == {1}


def test_a_wrong_file_ends_the_process_with_2_and_one_line(tmp_path: Path) -> None:
    path = config_file(tmp_path, "http://127.0.0.1:1", 1)
    path.write_text(path.read_text().replace("start_at_once", "start_at_onec"))
    process = run_probe(path)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 2
    assert said.count("\n") == 1
    assert "task[0].start_at_onec: is no key of this file; did you mean 'start_at_once'?" in said


def test_an_unknown_kind_is_refused_before_anything_starts(tmp_path: Path) -> None:
    table = table_of(tmp_path, "http://127.0.0.1:1", [{"kind": "tcp_conect"}])
    with pytest.raises(ConfigError, match="is no known probe type"):
        config.convert(table, AgentConfig, "t", environment={})
