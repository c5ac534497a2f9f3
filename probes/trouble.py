"""What keeps a task from running, said when it begins, each hour while it lasts, and when it is over.

A SIM that is out for a week fails a test a minute ten thousand times. A log of ten thousand equal lines hides
the one line that is another.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from nhip.clock import Clock
from nhip.statistics import NANOSECONDS_PER_SECOND

_REMINDER_NS = 3600 * NANOSECONDS_PER_SECOND
# Words that differ each time, by a number in them, must not be collected without end.
_MOST_WORDS = 16


@dataclass(slots=True)
class _Said:
    """One reason that was given, and since when it was not repeated."""

    at_ns: int
    unsaid: int = 0


@dataclass(slots=True)
class Trouble:
    """The trouble of one `subject`, such as ``test icmp towards server``. One thread at a time."""

    subject: str
    clock: Clock
    log: logging.Logger
    _said: dict[str, _Said] = field(default_factory=dict)
    _times: int = 0

    def happened(self, why: str, *, trace: bool = False) -> None:
        """It did not run; `why` is logged unless it was within the last hour. `trace`: with the traceback."""
        self._times += 1
        now_ns = self.clock.mono_ns()
        known = self._said.get(why)
        if known is None:
            if len(self._said) >= _MOST_WORDS:
                self._said.pop(min(self._said, key=lambda words: self._said[words].at_ns))
            self._said[why] = _Said(now_ns)
            self.log.error("%s did not run: %s", self.subject, why, exc_info=trace)
            return
        known.unsaid += 1
        if now_ns - known.at_ns >= _REMINDER_NS:
            self.log.error("%s did not run, %d times more: %s", self.subject, known.unsaid, why)
            known.at_ns, known.unsaid = now_ns, 0

    def ended(self) -> None:
        """It ran. Says so, if it did not before."""
        if self._times:
            self.log.info("%s runs again after %d failures", self.subject, self._times)
        self._said.clear()
        self._times = 0
