"""A line as a person writes it: for a whole agent, for one task of it, or behind ``nhip measure``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nhip import config
from nhip.clock import SystemClock
from nhip.errors import ConfigError
from probes.agent import Agent
from probes.agent_config import AgentConfig
from probes.line.config import LineSection
from probes.line.modem import Bearer, FixedModems, Modem
from tests.lab.bare_namespace import bare_namespace
from tests.lab.modem_manager import CONNECTED, REGISTERED, modems_on, needs_modem_manager, private_bus
from tests.lab.scripted_collector import ScriptedCollector
from tests.lab.uplinks import MARK, SERVER_V4, SERVER_V6, Uplinks, two_uplinks

ICCID, DEAD_ICCID = "8984012345678901234", "8984099999999999990"
MODEMS = FixedModems(
    (
        Modem(
            path="/M/0",
            state="connected",
            iccid=ICCID,
            bearers=(Bearer(path="/B/0", connected=True, interface="modem-b"),),
        ),
        Modem(path="/M/1", state="searching", iccid=DEAD_ICCID),
    )
)


def table_of(
    tasks: list[dict[str, Any]], network: dict[str, Any], *, url: str = "http://127.0.0.1:1", spool: str = "s"
) -> dict[str, Any]:
    return {
        "format": "nhip-probe/1",
        "probe_id": "probe-1",
        "access": {"operator": "alpha", "technology": "4g", "province": "01"},
        "collector": {"url": url, "key": "k", "interval_seconds": 0.1},
        "spool": {"path": spool},
        "network": network,
        "target": [{"id": "server", "host": SERVER_V4}],
        "task": [
            {
                "kind": "icmp",
                "target": "server",
                "interval_seconds": 2,
                "start_at_once": True,
                "settings": {"count": 2, "interval_seconds": 0.05, "loss_threshold_seconds": 0.3},
                **task,
            }
            for task in tasks
        ],
    }


def agent_config(network: dict[str, Any], *tasks: dict[str, Any]) -> AgentConfig:
    table = table_of(list(tasks) or [{}], network)
    return config.convert(table, AgentConfig, "probe.toml", environment={})


def test_the_example_of_three_modems_in_the_manual_is_a_configuration() -> None:
    page = (Path(__file__).parents[2] / "docs" / "binding.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    found = config.convert(tomllib.loads(example), AgentConfig, "docs/binding.md", environment={})
    lines = [task.network or found.network for task in found.task]
    assert len({line.iccid for line in lines}) == 3
    for key in LineSection.__struct_fields__:
        assert f"`{key}`" in page


# What is refused


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"interfaec": "wwan0"}, "interfaec: is no key"),
        ({"fwmark": 0}, "fwmark: 0"),
        ({"fwmark": 2**32}, "fwmark: 4294967296"),
        ({"fwmark": "7"}, "fwmark: '7'"),
        ({"netns": ""}, "netns: ''"),
        ({"iccid": "898401234567890123x"}, "iccid"),
        ({"iccid": "8984012345678901234\n"}, "iccid"),
        ({"iccid": "89840123"}, "iccid"),
        ({"source": "localhost"}, "source: 'localhost': is no address"),
        ({"source": "192.0.2.1", "ip_version": 6}, "ip_version: 6: and source is an IPv4 address"),
        ({"iccid": ICCID, "interface": "wwan0"}, "interface: 'wwan0': stands beside iccid"),
    ],
)
def test_a_line_that_cannot_be_is_refused_wherever_it_is_written(line: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        agent_config(line)
    assert f"probe.toml:network.{says}" in refusal.value.what
    assert refusal.value.remedy
    with pytest.raises(ConfigError) as refusal:
        agent_config({}, {}, {"network": line})
    assert f"probe.toml:task[1].network.{says}" in refusal.value.what


def test_a_task_without_a_line_has_that_of_the_file_and_one_with_a_line_only_its_own() -> None:
    found = agent_config(
        {"interface": "eth0", "ip_version": 4, "exclusive_lock": "/lock"}, {}, {"network": {"fwmark": 7}}
    )
    assert found.task[0].network is None
    assert found.task[1].network == LineSection(fwmark=7)
    network = found.network.network(MODEMS)
    assert (network.interface, network.ip_version, network.binding.mark) == ("eth0", 4, None)
    assert found.network.exclusive_lock == Path("/lock")


def test_a_sim_is_looked_up_when_the_test_begins_and_not_before() -> None:
    line = LineSection(iccid=ICCID, ip_version=6)
    assert line.network(MODEMS).interface == "modem-b"
    bearer = replace(MODEMS.known[0].bearers[0], interface="wwan7")
    moved = FixedModems((replace(MODEMS.known[0], bearers=(bearer,)),))
    network = line.network(moved)
    assert network.interface == "wwan7"
    assert network.binding.parameters == {"iccid": ICCID}


# One agent, several lines


@pytest.fixture
def uplinks() -> Iterator[Uplinks]:
    with two_uplinks(answering=True) as found:
        yield found


@pytest.mark.lab
def test_one_agent_measures_each_line_by_a_task_of_its_own(uplinks: Uplinks, tmp_path: Path) -> None:
    tasks = [
        {},
        {"network": {"iccid": ICCID}},
        {"network": {"fwmark": MARK}},
        {"network": {"netns": uplinks.near, "interface": "modem-b"}},
        {"network": {"iccid": DEAD_ICCID}},
    ]
    with ScriptedCollector() as collector:
        table = table_of(
            tasks, {"interface": "eth-a"}, url=collector.url, spool=str(tmp_path / "spool.sqlite")
        )
        found = config.convert(table, AgentConfig, "test", environment={})
        agent = Agent(found, SystemClock(), modems=MODEMS)
        agent.start()
        try:
            deadline = time.monotonic() + 20
            while len(lines_of(collector)) < 4 and time.monotonic() < deadline:
                threading.Event().wait(0.02)
            status = agent.status()
        finally:
            agent.close()
    namespace = uplinks.near
    assert lines_of(collector) == {
        ("eth-a", None, None, None, "eth-a"),
        ("modem-b", ICCID, None, None, "modem-b"),
        (None, None, MARK, None, "modem-b"),
        ("modem-b", None, None, namespace, "modem-b"),
    }
    assert {record["outcome"] for record in collector.stored} == {"received"}
    assert status.tests_failed_to_run_total >= 1, "the task of the dead SIM"


def lines_of(collector: ScriptedCollector) -> set[tuple[Any, ...]]:
    return {
        (
            record.get("interface"),
            record["parameters"].get("iccid"),
            record["parameters"].get("fwmark"),
            record["parameters"].get("network_namespace"),
            record["facts"]["way_interface"],
        )
        for record in list(collector.stored)
    }


# On the command line


def nhip(*arguments: str, namespace: str | None = None, **environment: str) -> Any:
    command = [sys.executable, "-m", "nhip.cli", "measure", *arguments]
    if namespace is not None:
        command = ["ip", "netns", "exec", namespace, *command]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "NHIP_LANGUAGE": "en", **environment},
    )


@pytest.mark.lab
@pytest.mark.parametrize("server", [SERVER_V4, SERVER_V6])
@pytest.mark.parametrize("option", [("--interface", "modem-b"), ("--fwmark", hex(MARK))])
def test_measure_takes_the_line_as_an_option(option: tuple[str, str], server: str, uplinks: Uplinks) -> None:
    before = uplinks.packets_sent()
    done = nhip("icmp", server, "--count", "1", *option, "--json", namespace=uplinks.near)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["received"] == 1
    assert uplinks.packets_sent() == before
    if option[0] == "--fwmark":
        assert document["parameters"]["fwmark"] == MARK


@pytest.mark.lab
def test_measure_sends_inside_another_namespace(uplinks: Uplinks) -> None:
    before = uplinks.packets_sent("modem-b")
    done = nhip("icmp", SERVER_V4, "--count", "1", "--netns", uplinks.near, "--interface", "modem-b")
    assert done.returncode == 0, done.stderr
    assert uplinks.packets_sent("modem-b") > before


@pytest.mark.lab
def test_measure_over_a_dead_modem_gives_2_and_what_to_do(uplinks: Uplinks) -> None:
    uplinks.kill("no carrier")
    before = uplinks.packets_sent()
    done = nhip("icmp", SERVER_V4, "--count", "1", "--interface", "modem-b", namespace=uplinks.near)
    assert done.returncode == 2
    assert "modem-b has no carrier; check the modem or the cable" in done.stderr
    assert uplinks.packets_sent() == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--netns", "absent"), "there is no network namespace absent"),
        (("--fwmark", "seven"), "'seven' is no number"),
        (("--fwmark", "0"), "nhip measure: --fwmark 0: expected"),
        (("--iccid", "12"), "--iccid '12': expected"),
        (("--iccid", ICCID, "--interface", "lo"), "stands beside iccid"),
        (("--source", "localhost"), "--source 'localhost': is no address"),
    ],
)
def test_a_line_that_cannot_be_ends_with_2(arguments: tuple[str, ...], says: str) -> None:
    done = nhip("tcp_connect", "127.0.0.1", "--count", "1", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.lab
@pytest.mark.servers
def test_measure_finds_the_line_of_a_sim(uplinks: Uplinks, tmp_path: Path) -> None:
    needs_modem_manager()
    bearer = {"interface": "modem-b", "connected": True}
    modems = [
        {"state": CONNECTED, "sim": ICCID, "bearers": [bearer]},
        {"state": REGISTERED, "sim": DEAD_ICCID, "bearers": []},
    ]
    with private_bus(tmp_path) as bus, modems_on(bus, modems):
        address = {"DBUS_SYSTEM_BUS_ADDRESS": bus["DBUS_SYSTEM_BUS_ADDRESS"]}
        before = uplinks.packets_sent()
        arguments = ("icmp", SERVER_V4, "--count", "1", "--json", "--iccid")
        done = nhip(*arguments, ICCID, namespace=uplinks.near, **address)
        dead = nhip(*arguments, DEAD_ICCID, namespace=uplinks.near, **address)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["interface"], document["parameters"]["iccid"]) == ("modem-b", ICCID)
    assert dead.returncode == 2
    assert "which is registered and not connected; connect it: mmcli -m" in dead.stderr
    assert uplinks.packets_sent() == before


@pytest.mark.lab
def test_a_bare_namespace_has_no_line_to_measure() -> None:
    with bare_namespace() as name:
        done = nhip("icmp", SERVER_V4, "--count", "1", "--netns", name)
    assert done.returncode == 2
    assert f"no route to {SERVER_V4} in namespace {name}" in done.stderr
