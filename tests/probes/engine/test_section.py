"""The tables of an agent's file: what is refused, and that no numpy is needed to read them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nhip import config
from nhip.errors import ConfigError
from probes.agent_config import AgentConfig

ONE = [{"id": "a", "host": "192.0.2.1"}]


def table(*groups: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "format": "nhip-probe/1",
        "probe_id": "probe-1",
        "access": {"operator": "alpha", "technology": "fixed", "province": "01"},
        "collector": {"url": "https://collector.example.vn", "key": "k"},
        "spool": {"path": "spool.sqlite"},
        "icmp_group": list(groups),
        **more,
    }


def read(*groups: dict[str, Any], **more: Any) -> AgentConfig:
    return config.convert(table(*groups, **more), AgentConfig, "probe.toml", environment={})


def test_a_file_may_hold_groups_alone() -> None:
    (group,) = read({"id": "homes", "targets": ONE, "interval_seconds": 0.5, "arrival": "fixed"}).groups()
    assert (group.id, group.poisson, group.window_rounds) == ("homes", False, 120)
    assert [target.host for target in group.targets] == ["192.0.2.1"]


def test_targets_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "targets.txt"
    path.write_text("a 192.0.2.1\nb 2001:db8::1\n")
    (group,) = read({"id": "homes", "targets_file": str(path)}).groups()
    assert len(group.targets) == 2


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"targets": ONE, "targets_file": "x"}, r"icmp_group\[0\]\.targets: give either"),
        ({}, r"icmp_group\[0\]\.targets: give either"),
        ({"targets": [{"id": "a", "host": "192.0.2.999"}]}, r"icmp_group\[0\]\.targets\[0\]\.host"),
        ({"targets": ONE, "interval_seconds": 0.001}, r"icmp_group\[0\]\.interval_seconds"),
        ({"targets": ONE, "size_octets": 31}, r"icmp_group\[0\]\.size_octets"),
        ({"targets": ONE, "loss_threshold_seconds": 5}, r"icmp_group\[0\]\.loss_threshold_seconds"),
        ({"targets": ONE, "intervall_seconds": 5}, r"did you mean 'interval_seconds'"),
        ({"targets": ONE, "interval_seconds": 0.01, "window_seconds": 5000}, r"is 500000 probes a record"),
        ({"targets": ONE * 2}, r"target 'a': stands in"),
        ({"targets_file": "/nowhere/targets.txt"}, r"/nowhere/targets.txt: cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_by_key(group: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read({"id": "homes"} | group)


def test_two_groups_share_no_id_and_no_target() -> None:
    with pytest.raises(ConfigError, match="two groups share an id"):
        read({"id": "g", "targets": ONE}, {"id": "g", "targets": [{"id": "b", "host": "::1"}]})
    with pytest.raises(ConfigError, match="stands in 'g' and in 'h'"):
        read({"id": "g", "targets": ONE}, {"id": "h", "targets": ONE})


def test_a_target_is_not_probed_by_a_task_and_a_group_as_one_series() -> None:
    task = {"kind": "icmp", "target": "a", "interval_seconds": 60}
    with pytest.raises(ConfigError, match="has a task of kind icmp too"):
        read({"id": "g", "targets": ONE}, target=ONE, task=[task])


def test_more_than_the_ceiling_is_refused_with_both_numbers() -> None:
    group = {"id": "g", "targets": ONE, "interval_seconds": 0.01}
    assert read(group, icmp_engine={"maximum_probes_per_second": 100}).groups()
    with pytest.raises(ConfigError, match=r"maximum_probes_per_second: 99: and the groups ask for 100"):
        read(group, icmp_engine={"maximum_probes_per_second": 99})


def test_neither_tasks_nor_groups_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task: is missing; add a \[\[task\]\] or an \[\[icmp_group\]\]"):
        read()


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_an_agent_without_groups_never_loads_numpy() -> None:
    done = python("import sys, probes.agent, nhip.cli; sys.exit('numpy' in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_groups_on_a_host_without_numpy_are_answered_by_the_command_that_brings_it() -> None:
    done = python(
        "import sys; sys.modules['numpy'] = None\n"
        "from nhip.clock import SystemClock\n"
        "from probes.line.config import LineSection\n"
        "from probes.engine.process import EngineProcess\n"
        "EngineProcess([], LineSection(), SystemClock(), print, circumstances=None).start()\n"
    )
    assert "MissingExtraError" in done.stderr
    assert "pip install 'nhip[engine]'" in done.stderr
