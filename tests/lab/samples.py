"""Singletons and samples of any fate, for tests of what is computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nhip.measurement import Method, Outcome, Sample, Singleton, Stamp, StampSource, Target, TypeP

MS = 1_000_000
START = Stamp(1_790_000_000_000_000_000, 5_000_000_000, StampSource.USER)


def at(offset_ns: int, source: StampSource = StampSource.USER) -> Stamp:
    """A stamp so many nanoseconds after the start of every sample here."""
    return Stamp(START.wall_ns + offset_ns, START.mono_ns + offset_ns, source)


def received(sequence: int, delay_ns: int, *, sent_ns: int | None = None) -> Singleton:
    """A packet that came back after `delay_ns`; sent one second after its predecessor unless said."""
    sent_ns = sequence * 1000 * MS if sent_ns is None else sent_ns
    return Singleton(
        sequence=sequence,
        outcome=Outcome.RECEIVED,
        sent=at(sent_ns),
        received=at(sent_ns + delay_ns, StampSource.KERNEL),
        delay_ns=delay_ns,
        delay_source=StampSource.KERNEL,
    )


def other(sequence: int, outcome: Outcome) -> Singleton:
    """A packet of any other fate, which has no delay."""
    sent = None if outcome is Outcome.NOT_SENT else at(sequence * 1000 * MS)
    return Singleton(sequence=sequence, outcome=outcome, sent=sent)


def stream(delays_ms: Sequence[float | None]) -> list[Singleton]:
    """One packet a second: a delay in milliseconds, or ``None`` for a lost one."""
    return [
        other(sequence, Outcome.LOST) if delay is None else received(sequence, round(delay * MS))
        for sequence, delay in enumerate(delays_ms)
    ]


def sample(singletons: Sequence[Singleton], **changes: Any) -> Sample:
    """A whole icmp sample of `singletons`; every keyword is a field."""
    fields: dict[str, Any] = {
        "kind": "icmp",
        "method": Method("icmp_echo", "1"),
        "target": Target(id="gateway", host="192.0.2.1"),
        "type_p": TypeP(protocol="icmp", ip_version=4, size_octets=64),
        "started": START,
        "ended": at(10_000 * MS),
        "loss_threshold_seconds": 2.0,
        "singletons": tuple(singletons),
        "timestamp_source": StampSource.KERNEL,
        "address": "192.0.2.1",
        "octets_sent": 64 * len(singletons),
        "parameters": {"count": len(singletons), "interval_seconds": 1.0},
    }
    return Sample(**{**fields, **changes})
