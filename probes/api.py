"""What a probe type is, and what it is handed to measure with.

A probe type is one file: a ``Config`` (its knobs with their defaults), a class with ``kind``, ``method`` and
``measure``, and a module docstring that is its manual page. `measure` blocks until its sample is whole; the
agent gives each test a thread. It never raises because a network failed; it raises
:class:`~nhip.errors.CannotMeasureError` when this host could not measure at all.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from nhip.clock import Clock
from nhip.measurement import Method, Sample, Stamp, StampSource, Target
from probes.network import Network

# A pause is cut into pieces no longer than this, so that cancelling a test takes effect soon.
LONGEST_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeContext:
    """The world as a probe sees it: a clock, the network, and a way to be told to stop."""

    clock: Clock
    network: Network
    cancelled: threading.Event = field(default_factory=threading.Event)

    def now(self) -> Stamp:
        """Both clocks, read one after the other in user space."""
        return Stamp(self.clock.wall_ns(), self.clock.mono_ns(), StampSource.USER)

    def wait_until(self, mono_ns: int) -> bool:
        """Return True at `mono_ns`, or False as soon as the test is cancelled."""
        while not self.cancelled.is_set():
            remaining_ns = mono_ns - self.clock.mono_ns()
            if remaining_ns <= 0:
                return True
            self.clock.sleep(min(remaining_ns / 1e9, LONGEST_PAUSE_SECONDS))
        return False


class Probe(Protocol):
    """One test of one kind, configured and ready."""

    def measure(self, target: Target, context: ProbeContext) -> Sample:
        """The sample of one test; every attempt is in it, failed ones too."""


class ProbeType(Protocol):
    """A class the registry names."""

    kind: ClassVar[str]
    method: ClassVar[Method]
    Config: ClassVar[type[Any]]
    """A msgspec Struct; ``count``, ``interval_seconds``, ``loss_threshold_seconds`` and ``size_octets`` are
    the names used where a kind has such a knob."""
    exclusive: ClassVar[bool]
    """True for a heavy test: no other test of this host runs beside it."""
    has_port: ClassVar[bool]
    """False for a kind whose packets carry no port; a target's port is then refused, not ignored."""

    def __call__(self, config: Any, /) -> Probe: ...
