"""How many probes a second this host may promise: measured here and now, over loopback, by the engine itself.

The cost of a probe is processor time: planning, sending, the reply, both stamps, booking. A loopback probe
costs the kernel what a real one does, because the echo is answered in the same call. A part of one processor
is promised and the rest kept for the moments when the host does something else.
"""

from __future__ import annotations

import time

from nhip.clock import Clock
from nhip.errors import CannotMeasureError
from nhip.measurement import Target
from probes.engine.addresses import sort_by_family
from probes.engine.group import Group, TargetList
from probes.engine.lane import Lane
from probes.engine.steps import StepWatch
from probes.network import HostNetwork, Network

PROMISED_SHARE = 0.7
"""Of one processor."""
UNMEASURED_PROBES_PER_SECOND = 20_000.0
"""What is promised where the loopback of this network namespace does not answer."""

_TARGETS = 2000
_ROUNDS_OF_TRIAL = 2


def promised_probes_per_second(clock: Clock, network: Network | None = None) -> float:
    """What this host is good for, in about a tenth of a second; CannotMeasureError without any ICMP."""
    best: float | None = None
    for _ in range(_ROUNDS_OF_TRIAL):
        cost_seconds = _cost_seconds(clock, network or HostNetwork())
        if cost_seconds is not None:
            best = cost_seconds if best is None else min(best, cost_seconds)
    return UNMEASURED_PROBES_PER_SECOND if best is None else PROMISED_SHARE / best


def _cost_seconds(clock: Clock, network: Network) -> float | None:
    """Processor time of one probe, by a short trial; `None` when loopback gives no answers."""
    import numpy as np

    targets = TargetList(
        Target(id=f"t{number}", host=f"127.77.{number // 250}.{number % 250 + 1}")
        for number in range(_TARGETS)
    )
    group = Group(id="trial", targets=targets, interval_seconds=0.02, poisson=False, window_seconds=0.02)
    book = sort_by_family(targets, network)[0]
    lane = Lane(
        group, book, clock, network, steps=StepWatch(clock), rng=np.random.default_rng(), late_wait_seconds=0
    )
    try:
        try:
            lane.start(clock.mono_ns())
        except CannotMeasureError:
            return None
        began_ns = clock.mono_ns()
        began_seconds = time.thread_time()
        lane.begin(began_ns)
        while (now_ns := clock.mono_ns()) < began_ns + 50_000_000:
            lane.plan(now_ns)
            lane.send_due(now_ns)
            if lane.unread >= lane.read_when_waiting:
                lane.drain()
            elif lane.next_due_ns() > now_ns + lane.half_tick_ns:
                clock.sleep((lane.next_due_ns() - now_ns) / 1e9)
        lane.end()
        while not lane.drain():
            pass
        spent = time.thread_time() - began_seconds
        answered = int((lane.flight.received_wall_ns > 0).sum())
        return spent / lane.sending.handed_over if answered else None
    finally:
        lane.close()
