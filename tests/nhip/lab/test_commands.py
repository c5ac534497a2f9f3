"""The commands say what they did, in both languages, and refuse what makes no sense."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from nhip.errors import LabError
from nhip.lab import commands
from nhip.lab.state import read_state
from tests.lab.network import fresh_name, needs_namespaces

SMALL = '[[operators]]\nid = "one"\naccess = [{technology = "4g", down = {delay_seconds = 0.012}}]\n'


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def name(tmp_path: Path) -> Iterator[str]:
    name = fresh_name()
    yield name
    commands.down(name, state_dir=tmp_path)


@pytest.mark.lab
def test_a_lab_comes_is_calibrated_and_goes(small: Path, name: str, tmp_path: Path) -> None:
    needs_namespaces()
    assert "2 emulated links" in commands.up(name, topology_path=small, state_dir=tmp_path)
    table = commands.status(name, state_dir=tmp_path, calibrated=True)
    assert f"lab {name}: up, network namespaces" in table
    assert "12.000 / 0.000" in table
    assert "one-way error in ms" in table
    assert "200/200" in table
    assert "đang chạy" in commands.status(name, state_dir=tmp_path, language="vi")
    assert json.loads(commands.status(name, state_dir=tmp_path, json=True))["lab"] == name
    assert commands.down(name, state_dir=tmp_path, language="vi") == f"đã gỡ bỏ phòng thí nghiệm {name}"
    assert "nothing to remove" in commands.down(name, state_dir=tmp_path)


@pytest.mark.lab
def test_the_status_of_a_broken_lab_names_what_ended(small: Path, name: str, tmp_path: Path) -> None:
    needs_namespaces()
    commands.up(name, topology_path=small, state_dir=tmp_path)
    state = read_state(tmp_path / name)
    assert state is not None
    recorder = next(process for process in state.processes if process.role == "recorder")
    os.kill(recorder.pid, signal.SIGKILL)
    os.waitpid(recorder.pid, 0)
    assert commands.status(name, state_dir=tmp_path) == f"{name}: broken\n  ! the recorder has ended"


def test_the_loopback_lab_says_what_it_cannot_do(small: Path, name: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("", 0))
        service = f"udp:{free.getsockname()[1]}"
    commands.up(name, topology_path=small, state_dir=tmp_path, relay=True, services=[service])
    table = commands.status(name, state_dir=tmp_path)
    assert "loopback relays, without:" in table
    assert "ICMP" in table
    with pytest.raises(LabError, match="cannot be calibrated"):
        commands.status(name, state_dir=tmp_path, calibrated=True)


def test_without_a_lab_the_status_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="there is no lab called 'none'; `nhip lab up none` makes it"):
        commands.status("none", state_dir=tmp_path)


@pytest.mark.parametrize("service", ["udp", "udp:0", "udp:x", "icmp:1", "tcp:70000"])
def test_a_service_that_is_none_is_refused(tmp_path: Path, service: str) -> None:
    with pytest.raises(LabError, match="is no service"):
        commands.up("x", state_dir=tmp_path, relay=True, services=[service])


def test_services_belong_to_the_loopback_lab_and_are_needed_there(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="only for the loopback lab"):
        commands.up("x", state_dir=tmp_path, services=["udp:1"])
    with pytest.raises(LabError, match="nothing to relay"):
        commands.up("x", state_dir=tmp_path, relay=True)
