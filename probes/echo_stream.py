"""One stream of echo packets, from the target's name to a whole sample: what icmp and stamp share."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from typing import Annotated

import msgspec

from nhip.clock import clock_state
from nhip.measurement import Method, Outcome, Sample, Singleton, Target, TypeP
from nhip.statistics import NANOSECONDS_PER_SECOND, worst_source
from probes.api import ProbeContext
from probes.echo import EchoProtocol, Findings, exchange
from probes.line.way import WayWatch
from probes.network import Address, notes_on_name
from probes.pacing import Spacing, offsets_ns


class EchoConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Knobs every echo stream has."""

    count: Annotated[int, msgspec.Meta(ge=1, le=200_000)] = 10
    interval_seconds: Annotated[float, msgspec.Meta(ge=0.0001, le=3600)] = 1.0
    spacing: Spacing = Spacing.PERIODIC
    dscp: Annotated[int, msgspec.Meta(ge=0, le=63)] = 0
    loss_threshold_seconds: Annotated[float, msgspec.Meta(gt=0, le=120)] = 2.0


def measure_echo(
    *,
    kind: str,
    method: Method,
    config: EchoConfig,
    target: Target,
    port: int,
    context: ProbeContext,
    open_session: Callable[[Address], tuple[socket.socket, EchoProtocol]],
    type_p: Callable[[Address | None], TypeP],
) -> Sample:
    """Resolve, open, exchange, and put the result into a sample of `kind`.

    `open_session` gives the socket and the packets for an address; the socket is closed here.
    CannotMeasureError comes through from it when this host may not open such a socket, and is raised when
    this host has no way to the target or lost it during the test.
    """
    started, clock = context.now(), clock_state()
    address = context.network.resolve(target.host, port, timeout_seconds=config.loss_threshold_seconds)
    found = Findings(
        singletons=tuple(
            Singleton(sequence=sequence, outcome=Outcome.NOT_RESOLVED) for sequence in range(config.count)
        )
    )
    octets_sent = octets_received = 0
    notes: list[str] = []
    way = WayWatch(context.network)
    if address is not None:
        way.check(address)
        sock, session = open_session(address)
        with sock:
            mark(sock, config.dscp)
            result = exchange(
                sock,
                address,
                session,
                offsets_ns=offsets_ns(config.count, config.interval_seconds, config.spacing, random.Random()),
                loss_threshold_seconds=config.loss_threshold_seconds,
                context=context,
            )
        found = session.concluded(result.singletons)
        octets_sent, octets_received = result.octets_sent, result.octets_received
        if result.foreign:
            notes.append(f"{result.foreign} foreign answers ignored")
        if result.duplicates_left_out:
            notes.append(f"{result.duplicates_left_out} further duplicates counted and not kept")
        if result.clock_steps:
            notes.append(f"the wall clock was set {result.clock_steps} times during the test")
        if result.held_back_ns:
            stalled_seconds = result.held_back_ns / NANOSECONDS_PER_SECOND
            notes.append(f"this host stalled: the plan was moved back by {stalled_seconds:.3f} s in all")
    sample = Sample(
        kind=kind,
        method=method,
        target=target,
        type_p=type_p(address),
        started=started,
        ended=context.now(),
        loss_threshold_seconds=config.loss_threshold_seconds,
        singletons=found.singletons,
        timestamp_source=worst_source(found.singletons),
        address=address.host if address else None,
        source_address=context.network.source,
        interface=context.network.interface,
        clock=clock,
        octets_sent=octets_sent,
        octets_received=octets_received,
        parameters={
            "count": config.count,
            "interval_seconds": config.interval_seconds,
            "spacing": config.spacing.value,
        },
        statistics=found.statistics,
        facts=found.facts,
        directional_loss=found.directional_loss,
        notes=(*notes, *found.notes, *notes_on_name(context.network, target.host)),
    )
    return way.confirmed(sample)


def forbid_fragments(sock: socket.socket) -> None:
    """Send with DF set and whatever path MTU this host has noted ignored (IP_PMTUDISC_PROBE)."""
    if sock.family is socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, 10, 3)  # IP_MTU_DISCOVER, linux/in.h
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, 23, 3)  # IPV6_MTU_DISCOVER, linux/in6.h


def mark(sock: socket.socket, dscp: int) -> None:
    """Send with code point `dscp`, 0 to 63 (RFC 2474); 0 leaves the socket as it is."""
    if dscp == 0:
        return
    if sock.family is socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, dscp << 2)
