"""The http probe as tests run it: one quick attempt, and its outcome in easy reach."""

from __future__ import annotations

import threading

from nhip.clock import SystemClock
from nhip.config import convert
from nhip.measurement import Outcome, Sample, Singleton, Target
from probes.api import ProbeContext
from probes.http.config import HttpConfig
from probes.http.probe import Http
from probes.network import HostNetwork, Network


def visit(
    port: int,
    host: str = "127.0.0.1",
    *,
    network: Network | None = None,
    cancelled: threading.Event | None = None,
    **settings: object,
) -> Sample:
    """The sample of one attempt, unless `settings` say otherwise."""
    table = {"count": 1, "interval_seconds": 0.1, "loss_threshold_seconds": 5.0}
    config = convert(table | settings, HttpConfig, "test", environment={})
    context = ProbeContext(
        clock=SystemClock(), network=network or HostNetwork(), cancelled=cancelled or threading.Event()
    )
    return Http(config).measure(Target(id="web", host=host, port=port), context)


def fate(sample: Sample) -> tuple[Outcome, str]:
    """Outcome and detail of the one attempt."""
    (singleton,) = sample.singletons
    return singleton.outcome, singleton.detail


def phases(singleton: Singleton) -> dict[str, int]:
    """Nanoseconds of each phase, in order."""
    return {phase.name: phase.duration_ns for phase in singleton.phases}
