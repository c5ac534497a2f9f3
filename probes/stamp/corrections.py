"""What a reflector's own times are worth: delays corrected by them, and delays in each direction.

T3 is written before the packet leaves; a follow-up says when it really left, so that::

    delay = (T4 − T1) − (left − T2)

A follow-up that contradicts T2, T3 or the round trip is not believed. An answer that has none keeps T3, and
its delay may be wrong by as much as T3 was wrong in the others.

A one-way delay bears as its error all that it may be wrong by: what both clocks say of themselves, what our
own stamps may be off by, and on the way down what T3 may be, which only follow-ups can tell. Where a part of
that is unknown there is no one-way delay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nhip.measurement import Direction, OneWayDelay, Outcome, Singleton
from nhip.statistics import NANOSECONDS_PER_SECOND
from probes.stamp.heard import Heard, OwnEnd, Reply
from probes.stamp.own_clock import drift_ns

# T3 before T2 by less than this is two clocks read in haste; by more, no holding time at all.
_READING_NOISE_NS = 1_000_000
# More than this between our two clocks' readings is a clock that was set.
_OWN_STEP_NS = 1_000_000
# A packet cannot have left before T3 was written, but for the resolution of both.
_FOLLOW_UP_NOISE_NS = 50_000


@dataclass(slots=True)
class Corrections:
    """What the correction came upon, for the whole test."""

    holdings_ns: list[int] = field(default_factory=list)
    lags_ns: list[int] = field(default_factory=list)
    """From T3 as written to the true departure."""
    offsets_ns: list[int] = field(default_factory=list)
    backwards: int = 0
    disbelieved: int = 0
    impossible_one_way: int = 0
    own_clock_stepped: bool = False


def corrected(
    singletons: Sequence[Singleton], heard: Heard, own: OwnEnd
) -> tuple[tuple[Singleton, ...], Corrections]:
    """The singletons with the delays that the reflector's times make of them."""
    first: dict[int, Reply] = {}
    for reply in heard.replies:
        first.setdefault(reply.sequence, reply)
    corrections = Corrections()
    kept: list[Singleton] = []
    left: dict[int, tuple[Reply, int | None]] = {}
    for singleton in singletons:
        found = first.get(singleton.sequence)
        if found is None or singleton.outcome is not Outcome.RECEIVED:
            kept.append(singleton)
            continue
        if found.received_wall_ns - found.sent_wall_ns > _READING_NOISE_NS:
            corrections.backwards += 1
            kept.append(replace(singleton, delay_ns=None, delay_source=None, own_error_ns=None))
            continue
        left_wall_ns = _left(singleton, found, heard, corrections)
        better = _by_follow_up(singleton, found, left_wall_ns) if left_wall_ns is not None else singleton
        left[len(kept)] = (found, left_wall_ns)
        kept.append(better)
    # What T3 was wrong by in the others it may be wrong by where no follow-up tells.
    worst_lag_ns = max(corrections.lags_ns, default=None)
    moved_ns = drift_ns(kept)
    corrections.own_clock_stepped = moved_ns > _OWN_STEP_NS
    for position, (reply, left_wall_ns) in left.items():
        lag_ns = worst_lag_ns if left_wall_ns is None else 0
        singleton = _with_one_way(kept[position], reply, left_wall_ns, lag_ns, moved_ns, own, corrections)
        if lag_ns and singleton.own_error_ns is not None:
            singleton = replace(singleton, own_error_ns=singleton.own_error_ns + lag_ns)
        kept[position] = singleton
    return tuple(kept), corrections


def _left(singleton: Singleton, reply: Reply, heard: Heard, corrections: Corrections) -> int | None:
    """When the answer really left, if that is told and can be."""
    left_wall_ns = heard.follow_ups.get(reply.number)
    written_ns = max(reply.sent_wall_ns - reply.received_wall_ns, 0)
    corrections.holdings_ns.append(written_ns)
    if left_wall_ns is None or singleton.delay_ns is None:
        return None
    lag_ns = left_wall_ns - reply.sent_wall_ns
    holding_ns = left_wall_ns - reply.received_wall_ns
    if lag_ns < -_FOLLOW_UP_NOISE_NS or not 0 <= holding_ns <= singleton.delay_ns + written_ns:
        corrections.disbelieved += 1
        return None
    corrections.holdings_ns[-1] = holding_ns
    corrections.lags_ns.append(max(lag_ns, 0))
    return left_wall_ns


def _by_follow_up(singleton: Singleton, reply: Reply, left_wall_ns: int) -> Singleton:
    if singleton.delay_ns is None:
        return singleton
    written_ns = max(reply.sent_wall_ns - reply.received_wall_ns, 0)
    holding_ns = left_wall_ns - reply.received_wall_ns
    return replace(singleton, delay_ns=singleton.delay_ns + written_ns - holding_ns)


def _with_one_way(
    singleton: Singleton,
    reply: Reply,
    left_wall_ns: int | None,
    lag_ns: int | None,
    moved_ns: int,
    own: OwnEnd,
    corrections: Corrections,
) -> Singleton:
    """The singleton with its delay in each direction of which it is known how wrong it may be.

    `lag_ns` is by how much the answer may have left after the time it is taken to have left, `moved_ns` by
    how much our own clock may have been set within the test.
    """
    if singleton.sent is None or singleton.received is None or singleton.delay_ns is None:
        return singleton
    left_ns = reply.sent_wall_ns if left_wall_ns is None else left_wall_ns
    up_ns = reply.received_wall_ns - singleton.sent.wall_ns
    down_ns = singleton.received.wall_ns - left_ns
    corrections.offsets_ns.append((up_ns - down_ns) // 2)
    clock = own.clock
    if not (reply.error.synchronised and clock.synchronised) or corrections.own_clock_stepped:
        return singleton
    if clock.maximum_error_ns is None or singleton.own_error_ns is None:
        return singleton
    clocks_ns = math.ceil(reply.error.seconds * NANOSECONDS_PER_SECOND) + clock.maximum_error_ns
    error_ns = clocks_ns + singleton.own_error_ns + moved_ns
    if error_ns <= 0 or up_ns < -error_ns or down_ns < -error_ns - (lag_ns or 0):
        corrections.impossible_one_way += 1
        return singleton
    one_way = [OneWayDelay(direction=Direction.UP, delay_ns=up_ns, error_ns=error_ns)]
    if lag_ns is not None:
        one_way.append(OneWayDelay(direction=Direction.DOWN, delay_ns=down_ns, error_ns=error_ns + lag_ns))
    return replace(singleton, one_way=tuple(one_way))
