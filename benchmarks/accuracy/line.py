"""The line between the prober and the far host: an emulated link, or a bare veth pair without delay."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from nhip.lab.control import ask
from nhip.lab.effects import Effects
from nhip.lab.lifecycle import Lab
from nhip.lab.plan import Interface, Plan, Wire, pair_plan
from nhip.lab.state import DEFAULT_STATE_DIR, end_processes, read_state

_PREFIX = "accuracy-"
MANY = "203.0.113"
"""Every address of 203.0.113.0/24 (TEST-NET-3, RFC 5737) is the far host's too."""


class Line:
    """Two hosts that are up; `emulated` says whether delay and loss can be set."""

    def __init__(self, lab: Lab, emulated: bool) -> None:
        self._lab = lab
        self.emulated = emulated
        self.near, self.far = f"{lab.name}-near", f"{lab.name}-far"
        ends = {interface.host: interface for interface in lab.plan.interfaces()}
        self.near_end, self.far_end = (self.near, ends["near"].name), (self.far, ends["far"].name)
        self.far_address = ends["far"].ipv4

    def set(self, round_trip_seconds: float, loss_ratio: float) -> None:
        """Give each direction half of the delay and its share of the loss: p of all round trips fail."""
        if not self.emulated:
            assert round_trip_seconds == 0 and loss_ratio == 0
            return
        effects = Effects(delay_seconds=round_trip_seconds / 2, loss_ratio=1 - math.sqrt(1 - loss_ratio))
        for direction in ("up", "down"):
            self._ask({"do": "set", "direction": direction, "effects": msgspec.to_builtins(effects)})

    def dropped(self) -> int | None:
        """Packets the emulator dropped so far, both directions; `None` of a bare pair, which drops none."""
        if not self.emulated:
            return None
        total = 0
        for direction in ("up", "down"):
            answer = self._ask({"do": "counters", "direction": direction})
            total += sum(answer["dropped_loss"]) + sum(answer["dropped_queue"]) + answer["dropped_interface"]
        return total

    def enter(self, host: str, argv: list[str]) -> list[str]:
        """The command line that runs `argv` on `host`, near or far."""
        return self._lab.enter_argv(host, argv)

    def _ask(self, request: dict[str, object]) -> dict[str, Any]:
        answer: dict[str, Any] = ask(self._lab.folder / "emulator.sock", {"link": "pair", **request})
        return answer


@contextlib.contextmanager
def line(*, emulated: bool) -> Iterator[Line]:
    """A line that is up inside the block and gone after it.

    The lab's own recorder is ended: it would be one more tap between the prober and the wire. The lab does
    not keep the processors awake either, so that "idle" is what a program meets on an idle host; the emulator
    may then be some 0.1 ms late, which falsifies nothing, because the truth is captured and not configured.
    """
    remove_remains()
    lab = Lab(
        f"{_PREFIX}{os.getpid()}-{'link' if emulated else 'veth'}",
        pair_plan() if emulated else _bare_pair(),
        keep_awake=False,
    )
    try:
        lab.up()
        state = read_state(lab.folder)
        assert state is not None
        unused = {"recorder"} if emulated else {"recorder", "emulator"}
        end_processes([process for process in state.processes if process.role in unused])
        made = Line(lab, emulated)
        _give_many_addresses(made)
        yield made
    finally:
        lab.down()


def remove_remains(state_dir: Path = DEFAULT_STATE_DIR) -> None:
    """Take down what a killed run of this benchmark left behind."""
    for folder in state_dir.glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            Lab(folder.name).down()


def _bare_pair() -> Plan:
    near, far = (
        Interface(host=host, name="access0", ipv4=f"198.18.1.{last}", ipv6=f"2001:db8:18:1::{last}")
        for host, last in (("near", 2), ("far", 1))
    )
    return Plan(
        hosts=("near", "far"), wires=(Wire(near=near, far=far),), links=(), routes=(), server="far", seed=1
    )


def _give_many_addresses(made: Line) -> None:
    for host, route in (
        ("far", f"local {MANY}.0/24 dev lo"),
        ("near", f"{MANY}.0/24 via {made.far_address}"),
    ):
        subprocess.run(made.enter(host, ["ip", "route", "add", *route.split()]), check=True)
