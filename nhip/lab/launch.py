"""Starting a lab's own processes, and asking the running ones: shared by both variants of the lab."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from nhip.errors import LabError
from nhip.lab.control import ask, ask_raw
from nhip.lab.report import Singleton, Truth, truth_from_json
from nhip.lab.state import Process, is_alive, process_of

_START_SECONDS = 15.0


def launch(module: str, folder: Path, role: str) -> Process:
    """Start ``python -m module folder`` with its output in ``<role>.log``; LabError when it ends at once."""
    package_root = Path(__file__).resolve().parents[2]
    with (folder / f"{role}.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", module, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(package_root)},
            start_new_session=True,
        )
    process = process_of(role, child.pid)
    # The lab outlives this object, so nobody waits for the child; its state file remembers it.
    child.returncode = 0
    if process is None:
        raise LabError(f"the {role} ended at once: {_last_line(folder, role)}")
    return process


def await_answer(path: Path, process: Process) -> None:
    """Return when `process` answers at the control socket `path`; LabError when it ends or stays silent."""
    until = time.monotonic() + _START_SECONDS
    while is_alive(process) and time.monotonic() < until:
        if path.exists():
            try:
                ask(path, {"do": "health"})
                return
            except LabError:
                pass  # The socket is there a moment before anybody listens.
        time.sleep(0.005)
    raise LabError(
        f"the {process.role} did not start: {_last_line(path.parent, process.role)}",
        remedy=f"mend what it names; nothing was left behind, {process.role}.log included",
    )


def ask_truth(path: Path, since_wall_ns: int, until_wall_ns: int | None) -> Truth:
    """The truth of the lab that answers at `path`."""
    bounds = {"since_wall_ns": since_wall_ns, "until_wall_ns": until_wall_ns}
    return truth_from_json(_answer_of(ask_raw(path, {"do": "truth", **bounds})))


def ask_singletons(path: Path, link: str, since_wall_ns: int, until_wall_ns: int | None) -> list[Singleton]:
    """The fate of each request at the near end of `link`, from the lab that answers at `path`."""
    request = {
        "do": "singletons",
        "link": link,
        "since_wall_ns": since_wall_ns,
        "until_wall_ns": until_wall_ns,
    }
    return msgspec.json.decode(_answer_of(ask_raw(path, request)), type=list[Singleton])


def _answer_of(line: bytes) -> bytes:
    """The JSON of a successful answer without its envelope."""
    return line[line.index(b":") + 1 : line.rindex(b"}")]


def _last_line(folder: Path, role: str) -> str:
    try:
        lines = (folder / f"{role}.log").read_text(errors="replace").strip().splitlines()
    except FileNotFoundError:
        lines = []
    return lines[-1] if lines else "it said nothing"
