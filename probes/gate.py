"""Keeps heavy tests alone: a throughput test beside another test measures neither."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_LINE_RETRY_SECONDS = 0.1


class Gate:
    """Light tests enter together, a heavy one alone: on this agent and, with a lock file, on this line.

    Once `stop` is set nobody waits for the line any more: who then enters must look at it and leave.
    """

    def __init__(self, lock_file: Path | None = None, stop: threading.Event | None = None) -> None:
        self._lock_file = lock_file
        self._stop = stop or threading.Event()
        self._changed = threading.Condition()
        self._light = 0
        self._heavy_waiting = 0
        self._heavy_inside = False

    @contextmanager
    def enter(self, *, exclusive: bool) -> Iterator[None]:
        """Wait for the turn, hold it, give it back."""
        with self._alone() if exclusive else self._together():
            yield

    @contextmanager
    def _together(self) -> Iterator[None]:
        with self._changed:
            # Waiting heavy tests go first, or a busy schedule of light ones would starve them.
            self._changed.wait_for(lambda: not self._heavy_inside and not self._heavy_waiting)
            self._light += 1
        try:
            yield
        finally:
            with self._changed:
                self._light -= 1
                self._changed.notify_all()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        # The line first: while another agent uses it, this agent's light tests may go on.
        with self._line():
            with self._changed:
                self._heavy_waiting += 1
                try:
                    self._changed.wait_for(lambda: not self._heavy_inside and not self._light)
                    self._heavy_inside = True
                finally:
                    self._heavy_waiting -= 1
                    self._changed.notify_all()
            try:
                yield
            finally:
                with self._changed:
                    self._heavy_inside = False
                    self._changed.notify_all()

    @contextmanager
    def _line(self) -> Iterator[None]:
        if self._lock_file is None:
            yield
            return
        self._lock_file.parent.mkdir(parents=True, exist_ok=True)
        with self._lock_file.open("a") as handle:
            # Asked for again and again, because a blocked flock cannot be told to stop.
            while not _locked(handle) and not self._stop.wait(_LINE_RETRY_SECONDS):
                pass
            yield


def _locked(handle: IO[str]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
