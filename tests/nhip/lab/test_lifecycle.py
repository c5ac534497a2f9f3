"""A lab appears, is found again, and leaves nothing behind, whatever happened to it."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nhip.errors import LabError
from nhip.lab.effects import Effects
from nhip.lab.lifecycle import Lab
from nhip.lab.namespace import namespaces
from nhip.lab.plan import Interface, Link, Plan, pair_plan
from nhip.lab.state import processes_running, read_state
from nhip.lab.topology import Access, Operator, Topology
from tests.lab.network import LabOf, fresh_name, needs_namespaces, send_echoes

pytestmark = pytest.mark.lab

SMALL = Topology(operators=(Operator(id="one", access=(Access(technology="fixed"),)),))


def left_of(lab: Lab) -> list[str]:
    """Everything a lab could leave on this machine and did."""
    left = [name for name in namespaces() if name.startswith(f"{lab.name}-")]
    left += [str(lab.folder)] if lab.folder.exists() else []
    for module in ("nhip.lab.emulator", "nhip.lab.recorder"):
        left += [f"{module} {process.pid}" for process in processes_running(module, lab.folder, role=module)]
    return left


def process_id(lab: Lab, role: str) -> int:
    state = read_state(lab.folder)
    assert state is not None
    return next(process.pid for process in state.processes if process.role == role)


def wait_for_end(pid: int, timeout_seconds: float) -> bool:
    """Whether process `pid` ends in time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], timeout_seconds)[0])
    finally:
        os.close(descriptor)


def test_down_leaves_nothing_of_a_healthy_lab(lab_of: LabOf) -> None:
    interfaces_before = {path.name for path in Path("/sys/class/net").iterdir()}
    lab = lab_of(SMALL)
    assert lab.status().phase == "up"
    # The check sees what is there, so that seeing nothing afterwards means something.
    assert len(left_of(lab)) >= 5 + 1 + 2
    appeared = {path.name for path in Path("/sys/class/net").iterdir()} - interfaces_before
    names = {interface.name for interface in lab.plan.interfaces()}
    assert not appeared & names, "the lab reached into the root namespace"
    guest = lab.popen("one-fixed", ["sleep", "600"])
    lab.down()
    assert left_of(lab) == []
    assert guest.wait(timeout=5) != 0
    assert lab.status().phase == "absent"
    lab.down()


def test_down_leaves_nothing_after_the_emulator_was_killed(lab_of: LabOf) -> None:
    lab = lab_of(pair_plan())
    emulator = process_id(lab, "emulator")
    os.kill(emulator, signal.SIGKILL)
    assert wait_for_end(emulator, 5)
    assert lab.status().phase == "broken"
    assert lab.status().problems == ("the emulator has ended",)
    truth = lab.truth()
    assert not truth.emulator.alive
    lab.down()
    assert left_of(lab) == []


def test_the_spinning_processes_end_with_a_killed_emulator(lab_of: LabOf) -> None:
    lab = lab_of(pair_plan())
    emulator = process_id(lab, "emulator")
    running = {process.pid for process in processes_running("nhip.lab.emulator", lab.folder, role="")}
    spinning = running - {emulator}
    assert len(spinning) == len(os.sched_getaffinity(0))
    os.kill(emulator, signal.SIGKILL)
    assert all(wait_for_end(pid, 30) for pid in spinning)


def test_the_emulator_ends_when_its_lab_goes_away(lab_of: LabOf) -> None:
    lab = lab_of(pair_plan())
    emulator, recorder = process_id(lab, "emulator"), process_id(lab, "recorder")
    kept = (lab.folder / "lab.json").read_bytes()
    shutil.rmtree(lab.folder)
    assert wait_for_end(emulator, 5)
    assert wait_for_end(recorder, 5)
    # Its namespaces can still be removed by what the state file knew.
    lab.folder.mkdir()
    (lab.folder / "lab.json").write_bytes(kept)
    lab.down()
    assert left_of(lab) == []


def broken_plan() -> Plan:
    """A plan whose last interface has a name longer than Linux allows."""
    near = Interface(host="near", name="access0", ipv4="198.18.1.2", ipv6="2001:db8:18:1::2")
    far = Interface(host="far", name="a-name-of-17-chars", ipv4="198.18.1.1", ipv6="2001:db8:18:1::1")
    link = Link(id="pair", near=near, far=far, up=Effects(), down=Effects())
    return Plan(hosts=("near", "far"), wires=(), links=(link,), routes=(), server="far", seed=1)


def test_an_up_that_fails_leaves_nothing(tmp_path: Path) -> None:
    needs_namespaces()
    lab = Lab(fresh_name(), broken_plan(), tmp_path)
    with pytest.raises(LabError, match="a-name-of-17-chars"):
        lab.up()
    assert left_of(lab) == []


def test_an_emulator_that_cannot_start_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    needs_namespaces()
    lab = Lab(fresh_name(), pair_plan(up=Effects(trace="/no/such/trace")), tmp_path)
    with pytest.raises(LabError, match="/no/such/trace"):
        lab.up()
    assert left_of(lab) == []


def test_down_leaves_nothing_of_an_up_that_was_killed_halfway(tmp_path: Path) -> None:
    needs_namespaces()
    name = fresh_name()
    code = (
        "import sys, pathlib; from nhip.lab.lifecycle import Lab\n"
        "Lab(sys.argv[1], state_dir=pathlib.Path(sys.argv[2])).up()"
    )
    builder = subprocess.Popen([sys.executable, "-c", code, name, str(tmp_path)])
    lab = Lab(name, state_dir=tmp_path)
    until = time.monotonic() + 20
    while len(left_of(lab)) < 8 and time.monotonic() < until:
        assert builder.poll() is None
    builder.kill()
    builder.wait()
    assert len(left_of(lab)) >= 8
    assert lab.status().phase == "building"
    lab.down()
    assert left_of(lab) == []


def test_two_labs_stand_side_by_side(lab_of: LabOf) -> None:
    one, two = lab_of(pair_plan(up=Effects(loss_ratio=1.0))), lab_of(pair_plan())
    assert send_echoes(one, 20).lost == 20
    assert send_echoes(two, 20).lost == 0
    one.down()
    assert two.status().phase == "up"
    assert send_echoes(two, 20).lost == 0


def test_a_name_that_is_taken_is_refused_and_the_lab_there_lives_on(lab_of: LabOf) -> None:
    lab = lab_of(pair_plan())
    with pytest.raises(LabError, match="already there"):
        Lab(lab.name, pair_plan(), lab.folder.parent).up()
    assert lab.status().phase == "up"


def test_namespaces_of_somebody_else_are_refused_and_kept(lab_of: LabOf, tmp_path: Path) -> None:
    lab = lab_of(pair_plan())
    elsewhere = Lab(lab.name, pair_plan(), tmp_path / "elsewhere")
    with pytest.raises(LabError, match="belong to somebody else"):
        elsewhere.up()
    elsewhere.down()
    assert send_echoes(lab, 5).lost == 0


def test_a_running_lab_is_found_by_its_name_alone(lab_of: LabOf) -> None:
    lab = lab_of(SMALL)
    found = Lab(lab.name, state_dir=lab.folder.parent)
    assert found.plan == lab.plan
    assert found.address("one-fixed") == "198.18.11.2"
    with pytest.raises(LabError, match="no host 'two'"):
        found.address("two")


def test_a_lab_without_privilege_says_what_to_do(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("starts a process as another user, which needs root")
    code = "import os; from nhip.lab.namespace import check_can_build; os.setuid(65534); check_can_build()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "needs root" in done.stderr
    assert "--relay" in done.stderr
