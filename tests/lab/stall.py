"""How long this host kept a test waiting: what an upper bound on a duration must allow for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_NAP_SECONDS = 0.005


@dataclass(slots=True)
class Stall:
    """Time lost so far, in seconds: by how much short naps were too long, all together."""

    seconds: float = 0.0


@contextmanager
def watching_stall() -> Iterator[Stall]:
    """Measures, beside a test, how long a thread that wanted to run could not."""
    stall, stop = Stall(), threading.Event()

    def nap() -> None:
        before = time.monotonic()
        while not stop.wait(_NAP_SECONDS):
            now = time.monotonic()
            stall.seconds += max(0.0, now - before - 2 * _NAP_SECONDS)
            before = now

    thread = threading.Thread(target=nap, daemon=True)
    thread.start()
    try:
        yield stall
    finally:
        stop.set()
        thread.join()
