"""What a lab's state directory holds, and which processes are its own.

::

    /run/nhip-lab/<name>/
        lab.json        this file's LabState: written before anything is made
        control.sock    questions about the lab (recorder)
        emulator.sock   questions to the emulator
        truth.json      the truth, once a second
        emulator.log, recorder.log

A process is named by its id and its start time: an id alone may by now be somebody else's.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from nhip.errors import LabError
from nhip.lab.plan import Plan
from nhip.lab.realtime import leave_idle_class

DEFAULT_STATE_DIR = Path("/run/nhip-lab")

GUEST = "guest"
"""The role of a process that somebody started inside the lab and waits for himself."""


class Process(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A process of the lab: its role, id and start time in clock ticks since boot."""

    role: str
    pid: int
    start_ticks: int


class Service(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A port of the measurement server that the loopback variant relays."""

    protocol: Literal["udp", "tcp"]
    port: int


class LabState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything needed to find, and to remove, what a lab is made of."""

    name: str
    variant: Literal["namespaces", "loopback"]
    phase: Literal["building", "up"]
    made_wall_ns: int
    plan: Plan
    keep_awake: bool = True
    services: tuple[Service, ...] = ()
    processes: tuple[Process, ...] = ()

    def namespace(self, host: str) -> str:
        """The network namespace of `host`."""
        return f"{self.name}-{host}"


@dataclass(frozen=True)
class LabStatus:
    """What is there of a lab: `phase` is absent, building (an `up` that did not finish), broken or up."""

    name: str
    phase: Literal["absent", "building", "broken", "up"]
    hosts: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def check_name(name: str) -> None:
    """Refuse, with LabError, what cannot name a lab."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name):
        raise LabError(
            f"{name!r} cannot name a lab",
            remedy="use up to 31 of a-z, 0-9 and '-', beginning with a letter or digit",
        )


def read_state(folder: Path) -> LabState | None:
    """The state kept in `folder`; None when there is no lab there."""
    try:
        data = (folder / "lab.json").read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(data, type=LabState)
    except msgspec.MsgspecError as error:
        raise LabError(
            f"{folder / 'lab.json'}: cannot be read ({error})",
            remedy="delete its namespaces with `ip netns del`, then the directory",
        ) from error


def write_state(folder: Path, state: LabState) -> None:
    """Keep `state`, whole or not at all."""
    write_whole(folder / "lab.json", msgspec.json.encode(state))


def write_whole(path: Path, data: bytes) -> None:
    """Put `data` in `path` such that no reader ever meets half of it."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(data)
    fresh.replace(path)


def process_of(role: str, pid: int) -> Process | None:
    """The running process `pid`, or None."""
    ticks = _start_ticks(pid)
    return None if ticks is None else Process(role, pid, ticks)


def is_alive(process: Process) -> bool:
    """Whether this very process still runs, zombies not counted."""
    return _start_ticks(process.pid) == process.start_ticks


def end_processes(processes: Iterable[Process], *, grace_seconds: float = 1.0) -> None:
    """End each process: asked first, killed after the grace; returns when all are gone.

    Raises LabError if one stays even then.
    """
    processes = list(processes)
    left = [process for process in processes if is_alive(process)]
    for number, patience_seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 5.0)):
        for process in left:
            _signal(process, number)
        until = time.monotonic() + patience_seconds
        while left and time.monotonic() < until:
            left = [process for process in left if is_alive(process)]
            if left:
                time.sleep(0.002)
        if not left:
            _reap(process for process in processes if process.role != GUEST)
            return
    raise LabError(
        f"the processes {[process.pid for process in left]} do not end", remedy="look at them with `ps`"
    )


def processes_running(module: str, folder: Path, *, role: str) -> list[Process]:
    """The processes started as ``python -m module folder``: also those no state file names."""
    found = []
    for pid in all_pids():
        try:
            words = Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[-4:-1] == [b"-m", module.encode(), os.fsencode(folder)]:
            process = process_of(role, pid)
            if process is not None:
                found.append(process)
    return found


def all_pids() -> list[int]:
    """The process ids of this machine but our own."""
    names = (path.name for path in Path("/proc").iterdir())
    return [int(name) for name in names if name.isdigit() and int(name) != os.getpid()]


def _start_ticks(pid: int) -> int | None:
    try:
        text = Path("/proc", str(pid), "stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command in brackets may hold anything, so count from its end: state is field 3, start time 22.
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _signal(process: Process, number: signal.Signals) -> None:
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # Between the check and the signal the id cannot pass to another process: the descriptor holds it.
        if is_alive(process):
            leave_idle_class(process.pid)
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)


def _reap(processes: Iterable[Process]) -> None:
    """Collect those that were our own children, which nobody else waits for."""
    for process in processes:
        try:
            os.waitpid(process.pid, os.WNOHANG)
        except ChildProcessError:
            continue
