"""One line of JSON for each event, and never a flood of them.

Whatever a sender makes us write, a line stays a line: JSON escapes line ends and control characters. The
same message is written a few times in ten seconds and then counted.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import TextIO

PERIOD_SECONDS = 10.0
LINES_PER_PERIOD = 20


class JsonLines(logging.Formatter):
    """Time, level, logger, message and whatever fields the event carries."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage()[:1000],
        }
        line.update({key: value for key, value in vars(record).items() if key not in _USUAL})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[-4000:]
        return json.dumps(line, ensure_ascii=True, default=str)


class Throttle(logging.Filter):
    """Lets each kind of message through a few times a period; the next one says how many were not written."""

    def __init__(self, mono_seconds: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._mono_seconds = mono_seconds
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = self._mono_seconds()
        key = (record.name, str(record.msg)[:100])
        if len(self._seen) > 1_000:  # messages made of free text must not fill the memory instead of the disk
            self._seen.clear()
        began, written = self._seen.get(key, (now, 0))
        if now - began >= PERIOD_SECONDS:
            if written > LINES_PER_PERIOD:
                record.suppressed = written - LINES_PER_PERIOD
            began, written = now, 0
        self._seen[key] = (began, written + 1)
        return written < LINES_PER_PERIOD


def log_to(stream: TextIO = sys.stderr, level: int = logging.INFO) -> None:
    """Send this process's log to `stream` in that form; replaces what was set up before."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    handler.addFilter(Throttle())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Every line of uvicorn at this level is either ours already or about ordinary life.
    logging.getLogger("uvicorn.error").setLevel(max(level, logging.WARNING))


_USUAL = frozenset(
    {*vars(logging.LogRecord("", 0, "", 0, "", (), None)), "message", "asctime", "color_message", "taskName"}
)
