"""Attempts one after the other, and the sample they make: what tests of that shape have in common.

A probe type says what one attempt is; here stand when each is due, what becomes of those that a cancelled
test never made, and the fields of a sample that follow from the target, the network and the attempts.

An attempt may take longer than the interval, because the network is slow. The next one begins when it ends,
and all after it move back by as much: none is late by it, since only this host is ever late, and no burst
makes up for it::

    due    |0---------|1---------|2---------|3
    done   |000|      |1111111111111111|2222|     |333|
                                        ^ held back, and so are all that follow
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from nhip.clock import clock_state
from nhip.measurement import (
    ClockState,
    Method,
    Outcome,
    Sample,
    Singleton,
    Stamp,
    Statistic,
    Target,
    TypeP,
)
from nhip.statistics import NANOSECONDS_PER_SECOND, worst_source
from probes.api import ProbeContext
from probes.line.way import WayWatch
from probes.network import Address, notes_on_name


@dataclass(slots=True)
class Attempts:
    """One test under way: when it began, and the watch over this host's way to the target."""

    target: Target
    context: ProbeContext
    started: Stamp
    clock: ClockState
    way: WayWatch
    _held_back_ns: int = 0

    @classmethod
    def begin(cls, target: Target, context: ProbeContext) -> Attempts:
        """A test that begins now."""
        return cls(target, context, context.now(), clock_state(), WayWatch(context.network, context.clock))

    def resolve(self, port: int, *, timeout_seconds: float) -> Address | None:
        """The target's address; CannotMeasureError when this host has no way there."""
        address = self.context.network.resolve(self.target.host, port, timeout_seconds=timeout_seconds)
        if address is not None:
            self.way.check(address)
        return address

    def make(
        self, count: int, interval_seconds: float, attempt: Callable[[int], Singleton]
    ) -> tuple[Singleton, ...]:
        """The singletons of `count` attempts that begin `interval_seconds` apart, the first of them now.

        An attempt that outlasts the interval holds back all after it; none is left out, and none runs beside
        another. ``send_lag_ns`` is how long after it was due, or after the one before had ended, this host
        began. What a cancelled test did not begin is ``not_sent``.
        """
        clock = self.context.clock
        begin_ns = ready_ns = clock.mono_ns()
        made = []
        for sequence in range(count):
            planned_ns = begin_ns + round(sequence * interval_seconds * NANOSECONDS_PER_SECOND)
            self._held_back_ns = max(self._held_back_ns, ready_ns - planned_ns)
            due_ns = planned_ns + self._held_back_ns
            if not self.context.wait_until(due_ns):
                made.append(Singleton(sequence=sequence, outcome=Outcome.NOT_SENT, detail="cancelled"))
                continue
            lag_ns = max(0, clock.mono_ns() - due_ns)
            singleton = attempt(sequence)
            ready_ns = clock.mono_ns()
            if singleton.send_lag_ns is None and singleton.outcome is not Outcome.NOT_SENT:
                singleton = replace(singleton, send_lag_ns=lag_ns)
            made.append(singleton)
        return tuple(made)

    def sample(
        self,
        singletons: tuple[Singleton, ...],
        *,
        kind: str,
        method: Method,
        protocol: str,
        port: int,
        address: Address | None,
        loss_threshold_seconds: float,
        parameters: Mapping[str, str | int | float | bool],
        size_octets: int | None = None,
        octets_sent: int = 0,
        octets_received: int = 0,
        statistics: Sequence[Statistic] = (),
        facts: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
    ) -> Sample:
        """The whole sample; CannotMeasureError when its losses may be this host's own."""
        network = self.context.network
        sample = Sample(
            kind=kind,
            method=method,
            target=self.target,
            type_p=TypeP(
                protocol=protocol,
                ip_version=address.ip_version if address else None,
                size_octets=size_octets,
                destination_port=port,
            ),
            started=self.started,
            ended=self.context.now(),
            loss_threshold_seconds=loss_threshold_seconds,
            singletons=singletons,
            timestamp_source=worst_source(singletons),
            address=address.host if address else None,
            source_address=network.source,
            interface=network.interface,
            clock=self.clock,
            octets_sent=octets_sent,
            octets_received=octets_received,
            parameters=parameters,
            statistics=tuple(statistics),
            facts=facts or {},
            notes=(*notes, *self._notes(), *notes_on_name(network, self.target.host)),
        )
        return self.way.confirmed(sample)

    def _notes(self) -> tuple[str, ...]:
        if not self._held_back_ns:
            return ()
        seconds = self._held_back_ns / NANOSECONDS_PER_SECOND
        return (f"attempts took longer than the interval: the plan was moved back by {seconds:.3f} s",)
