"""Nhịp's own entries: ICMP through a datagram and through a raw socket, and STAMP with its reflector."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from benchmarks.accuracy.line import Line
from benchmarks.accuracy.said import Plan, Program, Said
from benchmarks.accuracy.truth import STAMP_PORT
from nhip.clock import SystemClock
from nhip.lab.namespace import inside, write_settings
from nhip.measurement import Outcome, Sample, Target
from probes.api import ProbeContext
from probes.icmp import Icmp, IcmpConfig
from probes.network import HostNetwork
from probes.stamp.probe import Stamp, StampConfig

_GROUPS = "net/ipv4/ping_group_range"


def programs() -> list[Program]:
    """The three entries."""
    return [
        Program("nhip icmp", icmp, note="datagram socket, no privilege needed"),
        Program("nhip icmp raw", icmp_raw, note="raw socket (CAP_NET_RAW)"),
        Program("nhip stamp", stamp, excludes_turnaround=True, note="against `nhip server`"),
    ]


def icmp(line: Line, plan: Plan) -> Said:
    """ICMP echo as an agent without privilege sends it."""
    config = IcmpConfig(
        count=plan.count,
        interval_seconds=plan.interval_seconds,
        loss_threshold_seconds=plan.loss_threshold_seconds,
    )
    with inside(line.near):
        return account(Icmp(config).measure(Target(id="far", host=line.far_address), _context()))


def icmp_raw(line: Line, plan: Plan) -> Said:
    """The same where no group may open datagram sockets, so that a raw one is used."""
    with _no_group_may_ping(line):
        return icmp(line, plan)


def stamp(line: Line, plan: Plan) -> Said:
    """STAMP towards the reflector on the far host."""
    config = StampConfig(
        count=plan.count,
        interval_seconds=plan.interval_seconds,
        loss_threshold_seconds=plan.loss_threshold_seconds,
    )
    target = Target(id="far", host=line.far_address, port=STAMP_PORT)
    with inside(line.near):
        return account(Stamp(config).measure(target, _context()))


def account(sample: Sample) -> Said:
    """What the sample says, in this benchmark's words."""
    received = [
        singleton
        for singleton in sample.singletons
        if singleton.outcome is Outcome.RECEIVED and singleton.delay_ns is not None
    ]
    return Said(
        by="sequence",
        sent=sum(
            singleton.outcome not in (Outcome.NOT_SENT, Outcome.DUPLICATE) for singleton in sample.singletons
        ),
        lost=sum(singleton.outcome in (Outcome.LOST, Outcome.LATE) for singleton in sample.singletons),
        delays_ns={one.sequence: one.delay_ns for one in received if one.delay_ns is not None},
        own_error_ns={one.sequence: one.own_error_ns for one in received if one.own_error_ns is not None},
        departed_ns={one.sequence: one.sent.wall_ns for one in received if one.sent is not None},
        arrived_ns={one.sequence: one.received.wall_ns for one in received if one.received is not None},
        levels=Counter(
            f"{one.sent.source.value}/{one.received.source.value}"
            for one in received
            if one.sent is not None and one.received is not None
        ),
    )


def _context() -> ProbeContext:
    return ProbeContext(clock=SystemClock(), network=HostNetwork())


@contextlib.contextmanager
def _no_group_may_ping(line: Line) -> Iterator[None]:
    write_settings(line.near, [(_GROUPS, "1 0")])
    try:
        yield
    finally:
        write_settings(line.near, [(_GROUPS, "0 2147483647")])
