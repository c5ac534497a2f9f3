"""An agent with a group: its records are spooled and delivered like any other."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from nhip import config
from nhip.clock import SystemClock
from nhip.errors import ConfigError
from probes.agent import Agent
from probes.agent_config import AgentConfig
from tests.lab import records
from tests.lab.scripted_collector import ScriptedCollector


def agent_of(folder: Path, url: str, **more: object) -> Agent:
    table = {
        "format": "nhip-probe/1",
        "probe_id": "probe-1",
        "access": {"operator": "alpha", "technology": "fixed", "province": "01"},
        "collector": {"url": url, "key": "k", "interval_seconds": 0.1, "timeout_seconds": 1},
        "spool": {"path": str(folder / "spool.sqlite")},
        "icmp_group": [
            {
                "id": "homes",
                "targets": [{"id": "a", "host": "127.0.0.1"}, {"id": "b", "host": "::1"}],
                "interval_seconds": 0.1,
                "window_seconds": 1,
                "loss_threshold_seconds": 0.1,
            }
        ],
        "icmp_engine": {"maximum_probes_per_second": 1000},
    }
    return Agent(config.convert(table | more, AgentConfig, "test", environment={}), SystemClock())


def test_records_of_a_group_reach_the_collector(icmp: None, tmp_path: Path) -> None:
    with ScriptedCollector() as collector:
        agent = agent_of(tmp_path, collector.url)
        agent.start()
        try:
            deadline = time.monotonic() + 20
            while len({record["target"]["id"] for record in collector.stored}) < 2:
                assert time.monotonic() < deadline, "waited in vain"
                threading.Event().wait(0.02)
        finally:
            agent.close()
        stored = collector.stored
    assert {record["kind"] for record in stored} == {"icmp"}
    sequences = [record["sequence"] for record in stored]
    assert sorted(sequences) == list(range(1, len(sequences) + 1))
    for record in stored:
        assert record["method"]["version"] == "2"
        assert record["parameters"]["schedule_interval_seconds"] == 1.0
        assert record["access"]["operator"] == "alpha"
        assert record["counters"]["lost"] == 0


def test_records_of_the_engine_are_spooled_many_at_once_and_counted_one_by_one(tmp_path: Path) -> None:
    agent = agent_of(tmp_path, "http://127.0.0.1:9")
    agent._spool.start()
    commits: list[str] = []
    agent._spool._require().set_trace_callback(
        lambda statement: commits.append(statement) if statement.startswith("COMMIT") else None
    )
    agent._keep([records.record() for _ in range(1200)])
    assert (agent.status().spool_records, agent.status().tests_total) == (1200, 1200)
    assert len(commits) == 3
    agent._spool._require().execute(
        "CREATE TRIGGER no BEFORE INSERT ON record BEGIN SELECT raise(ABORT, 'x'); END"
    )
    agent._keep([records.record() for _ in range(600)])
    assert agent.status().spool_records == 1200
    assert agent.status().tests_failed_to_run_total == 600
    agent.close()


def test_a_group_beyond_this_host_stops_the_start_with_the_reason(icmp: None, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="maximum_probes_per_second: 5"):
        agent_of(tmp_path, "http://127.0.0.1:9", icmp_engine={"maximum_probes_per_second": 5})
