"""The agent's end of the engine: starts its process, makes records of what it says, starts it again.

Needs numpy only once windows come; :meth:`EngineProcess.start` says so in one line where it is not
installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

import probes
from nhip.clock import Clock, clock_state
from nhip.errors import CannotMeasureError, ConfigError, NhipError
from nhip.extras import MissingExtraError
from nhip.wire import Record
from probes.engine.circumstances import Circumstances
from probes.engine.frames import (
    LENGTH,
    GroupJob,
    Job,
    Message,
    Refused,
    Said,
    Started,
    Told,
    WindowColumns,
    read_messages,
)
from probes.engine.group import Group
from probes.line.config import LineSection

log = logging.getLogger("nhip.engine")

_FIRST_RESTART_SECONDS, _LAST_RESTART_SECONDS = 1.0, 60.0
_ANSWER_SECONDS = 60.0
# The loss threshold has to pass before the last probes are known; beyond that it is stuck.
_END_SECONDS = 30.0


class EngineProcess:
    """Runs an engine beside the agent until closed. The constructor does nothing.

    `on_records` is called from a thread of this object with records ready to be kept.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        line: LineSection,
        clock: Clock,
        on_records: Callable[[list[Record]], None],
        *,
        circumstances: Circumstances,
        most_probes_per_second: float | None = None,
        on_failure: Callable[[str], None] = lambda _why: None,
        command: Sequence[str] = (sys.executable, "-m", "probes.engine.child"),
    ) -> None:
        self._groups = groups
        self._line = line
        self._clock = clock
        self._on_records = on_records
        self._circumstances = circumstances
        self._most = most_probes_per_second
        self._on_failure = on_failure
        self._command = command
        self._stop = threading.Event()
        self._answered = threading.Event()
        self._refusal: NhipError | None = None
        self._ran = False
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self.restarts = 0
        self.readings: dict[str, Any] = {}
        """What the engine last said of itself; empty before it said anything."""

    def start(self) -> None:
        """Start and wait for the engine's first word.

        ConfigError when the groups are more than this host can do, MissingExtraError without numpy. That
        there is no way out just now is no error here: it is logged, and tried again.
        """
        if not _is_installed("numpy"):
            raise MissingExtraError(
                "groups of ICMP targets need the module 'numpy', which is not installed",
                remedy="install it with: pip install 'nhip[engine]'",
            )
        self._thread = threading.Thread(target=self._supervise, name="engine", daemon=True)
        self._thread.start()
        self._answered.wait(_ANSWER_SECONDS)
        if isinstance(self._refusal, ConfigError):
            refusal = self._refusal
            self.close()
            raise refusal

    def close(self) -> None:
        """Have the engine send nothing more, take its last records, and end it."""
        self._stop.set()
        with self._lock:
            child = self._child
            if child is not None and child.stdin is not None:
                with contextlib.suppress(OSError):
                    child.stdin.close()
        if self._thread is not None:
            self._thread.join(_END_SECONDS)
            if self._thread.is_alive() and child is not None:
                child.kill()
                self._thread.join()
            self._thread = None

    @property
    def pid(self) -> int | None:
        """The process that measures now; `None` while there is none."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def _supervise(self) -> None:
        pause_seconds = _FIRST_RESTART_SECONDS
        while not self._stop.is_set():
            self._refusal, self._ran = None, False
            code = self._run_once()
            self._answered.set()
            if self._stop.is_set() or isinstance(self._refusal, ConfigError):
                return
            why = str(self._refusal) if self._refusal else f"the engine's process ended with {code}"
            log.error("engine stopped, next try in %.0f s: %s", pause_seconds, why)
            self._on_failure(why)
            if self._ran:
                pause_seconds = _FIRST_RESTART_SECONDS
            self._stop.wait(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LAST_RESTART_SECONDS)
            self.restarts += 1

    def _run_once(self) -> int:
        """One life of the process; its exit code."""
        where = str(Path(probes.__file__).resolve().parent.parent)
        paths = [where, *filter(None, [os.environ.get("PYTHONPATH")])]
        with self._lock:
            if self._stop.is_set():
                return 0
            child = subprocess.Popen(
                list(self._command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            )
            self._child = child
        assert child.stdin is not None and child.stdout is not None  # noqa: S101 - they were asked for
        try:
            with contextlib.suppress(BrokenPipeError):
                job = msgspec.msgpack.encode(self._job())
                child.stdin.write(LENGTH.pack(len(job)) + job)
                child.stdin.flush()
            read_messages(child.stdout.fileno(), self._take)
        except Exception:
            # A fault of ours ends this life of the engine, never the agent; its trace is kept.
            log.exception("what the engine said could not be taken")
            child.kill()
        finally:
            with self._lock, contextlib.suppress(OSError):
                child.stdin.close()
            child.stdout.close()
        return child.wait()

    def _job(self) -> Job:
        return Job(
            groups=[
                GroupJob(
                    id=group.id,
                    targets=group.targets.as_text(),
                    interval_seconds=group.interval_seconds,
                    poisson=group.poisson,
                    window_seconds=group.window_seconds,
                    size_octets=group.size_octets,
                    dscp=group.dscp,
                    dont_fragment=group.dont_fragment,
                    loss_threshold_seconds=group.loss_threshold_seconds,
                )
                for group in self._groups
            ],
            line=self._line,
            most_probes_per_second=self._most,
        )

    def _take(self, message: Message) -> None:
        match message:
            case Started():
                log.info(
                    "engine started: %d targets, good for %.0f probes a second",
                    message.targets,
                    message.most_probes_per_second,
                )
                self._ran = True
                self._answered.set()
            case Refused():
                kind = ConfigError if message.error == "ConfigError" else CannotMeasureError
                self._refusal = kind(message.what, remedy=message.remedy)
            case Said():
                log.log(message.level, "%s", message.text)
            case Told():
                self.readings = message.readings
            case WindowColumns():
                self._on_records(self._records(message))

    def _records(self, columns: WindowColumns) -> list[Record]:
        from probes.engine.received import context_and_windows
        from probes.engine.records import records

        group = self._groups[columns.group]
        context, windows = context_and_windows(columns, group, clock_state())
        return list(records(windows, context, self._circumstances, self._clock.wall_ns()))


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # somebody forbade the module to be imported
        return False
