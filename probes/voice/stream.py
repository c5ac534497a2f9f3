"""A round-trip stream taken apart into its two directions, as a listener at either end would hear them.

Of an answered packet four times are known: T1 and T4 by our clock, T2 and T3 by the far end's. Up is T1 → T2,
down is T3 → T4. The clocks need not agree: only differences within one direction are used, and the sum of
both directions, in which whatever lies between the clocks cancels out.

Lost packets are split by the numbers a stateful reflector gives its own answers (RFC 8762 section 4.3)::

    our number       0   1   2   3   4   5        answers to 1, 2 and 3 never came; between those to 0 and 4
    its number       0   -   -   -   2   3        it sent one, numbered 1, that was lost on the way back, so
                                                  two of the three never reached it
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from nhip.jitter_buffer import Passage
from nhip.measurement import Direction, Outcome, Singleton
from nhip.statistics import NANOSECONDS_PER_SECOND
from probes.stamp.directions import counted_anew
from probes.stamp.heard import Reply

# A far clock that was set jumps up by as much in one direction as it falls in the other. Smaller steps look
# like jitter and are harmless beside a jitter buffer.
_STEP_NS = 50_000_000
_STEP_LIKENESS = 0.1

_NEVER_SENT = frozenset({Outcome.NOT_SENT, Outcome.NOT_RESOLVED, Outcome.DUPLICATE})


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkDelay:
    """The fastest one-way delay each way, and how it was come by."""

    up_ns: int
    down_ns: int
    definition: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoWays:
    """Both directions of one stream."""

    up: tuple[Passage, ...]
    down: tuple[Passage, ...]
    counted_twice: int
    """Lost nobody knows where, and therefore in both directions here."""
    delay: NetworkDelay


def take_apart(
    singletons: Sequence[Singleton], replies: Sequence[Reply], *, interval_seconds: float, stateful: bool
) -> TwoWays | str:
    """The two directions, or in words why there are none.

    `replies` are all answers as they came, duplicates too; `stateful` says that their numbers are the
    reflector's own, which is not believed of numbers that are no single count. The singletons' delays are
    taken to be free of what the reflector held them.

    A telephone sends evenly and a busy host does not, so each packet is set where it was due: at its number
    times `interval_seconds`, with the transit it had. What this host or the reflector stalled is then in
    neither direction.
    """
    sent = sorted(
        (one for one in singletons if one.sent is not None and one.outcome not in _NEVER_SENT),
        key=lambda one: one.sequence,
    )
    first: dict[int, Reply] = {}
    for reply in replies:
        first.setdefault(reply.sequence, reply)
    packets = [packet for one in sent if (packet := _packet(one, first.get(one.sequence))) is not None]
    answered = [packet for packet in packets if packet.times is not None]
    if not answered:
        return "nothing came back"
    if (step_ns := _far_clock_step_ns([packet.times for packet in answered if packet.times])) is not None:
        return f"the far clock was set by about {step_ns / 1e6:.0f} ms during the test"
    one_count = stateful and not counted_anew(replies)
    gaps = _split(packets, {reply.number for reply in replies}) if one_count else None
    if gaps is None:
        gaps = _Gaps(
            frozenset(),
            frozenset(),
            frozenset(packet.sequence for packet in packets if packet.times is None),
        )
    interval_ns = round(interval_seconds * NANOSECONDS_PER_SECOND)
    return TwoWays(
        up=_up(packets, gaps, interval_ns),
        down=_down(packets, gaps, interval_ns),
        counted_twice=len(gaps.unknown),
        delay=_network_delay(sent, [packet.times for packet in answered if packet.times]),
    )


@dataclass(frozen=True, slots=True)
class _Times:
    """T1 to T4 of one answered packet, and the answer's own number; ours by the monotonic clock."""

    t1: int
    t2: int
    t3: int
    t4: int
    number: int

    @property
    def up_ns(self) -> int:
        return self.t2 - self.t1

    @property
    def down_ns(self) -> int:
        return self.t4 - self.t3


@dataclass(frozen=True, slots=True)
class _Packet:
    sequence: int
    times: _Times | None


@dataclass(frozen=True, slots=True)
class _Gaps:
    """The packets without an answer, by our number: lost on the way up, lost on the way down, unknown."""

    up: frozenset[int]
    down: frozenset[int]
    unknown: frozenset[int]


def _packet(one: Singleton, reply: Reply | None) -> _Packet | None:
    """A packet with its times where it came back whole, in time or not: a jitter buffer has its own late."""
    if one.sent is None:
        return None
    whole = one.outcome in (Outcome.RECEIVED, Outcome.LATE)
    if reply is None or one.received is None or not whole:
        return _Packet(one.sequence, None)
    sent_ns, received_ns = one.sent.mono_ns, one.received.mono_ns
    left_ns = reply.sent_wall_ns
    if one.delay_ns is not None:
        # What the delay does not contain was the reflector's; so it may have left later than T3 says.
        left_ns = reply.received_wall_ns + (received_ns - sent_ns) - one.delay_ns
    times = _Times(sent_ns, reply.received_wall_ns, left_ns, received_ns, reply.number)
    return _Packet(one.sequence, times)


def _split(packets: Sequence[_Packet], numbers: set[int]) -> _Gaps | None:
    """Which gap was lost where; `None` when the reflector's `numbers` do not fit into ours.

    Within one gap nobody knows which packet was lost where, and it makes no difference: those lost up are
    taken to be its first. After the last answer nothing is known.
    """
    up: set[int] = set()
    down: set[int] = set()
    gap: list[int] = []
    theirs = -1
    for packet in packets:
        if packet.times is None:
            gap.append(packet.sequence)
            continue
        number = packet.times.number
        if number - theirs > len(numbers) + len(gap) + 1:
            return None
        lost_down = sum(between not in numbers for between in range(theirs + 1, number))
        if lost_down > len(gap):
            return None
        lost_up = len(gap) - lost_down
        up.update(gap[:lost_up])
        down.update(gap[lost_up:])
        gap, theirs = [], max(theirs, number)
    return _Gaps(frozenset(up), frozenset(down), frozenset(gap))


def _up(packets: Sequence[_Packet], gaps: _Gaps, interval_ns: int) -> tuple[Passage, ...]:
    """Us to them; a packet whose answer was lost did arrive, nobody knows when, and is left out."""
    return tuple(
        _passage(packet.sequence * interval_ns, packet.times.up_ns if packet.times else None)
        for packet in packets
        if packet.sequence not in gaps.down
    )


def _down(packets: Sequence[_Packet], gaps: _Gaps, interval_ns: int) -> tuple[Passage, ...]:
    """Them to us; what never reached them they never sent."""
    return tuple(
        _passage(packet.sequence * interval_ns, packet.times.down_ns if packet.times else None)
        for packet in packets
        if packet.sequence not in gaps.up
    )


def _passage(due_ns: int, transit_ns: int | None) -> Passage:
    return Passage(due_ns, None if transit_ns is None else due_ns + transit_ns)


def _network_delay(sent: Sequence[Singleton], times: Sequence[_Times]) -> NetworkDelay:
    """From both clocks where they tell it better than halving the round trip would, else half of it.

    Half the round trip is wrong by at most as much again, so clocks whose summed error is below it are worth
    more than the assumption.
    """
    fastest_up_ns = min(one.up_ns for one in times)
    fastest_down_ns = min(one.down_ns for one in times)
    together_ns = max(fastest_up_ns + fastest_down_ns, 0)
    half_ns = together_ns // 2
    up = [one_way for one in sent for one_way in one.one_way if one_way.direction is Direction.UP]
    error_ns = max((one_way.error_ns for one_way in up), default=half_ns)
    if error_ns < half_ns:
        up_ns = min(max(min(one_way.delay_ns for one_way in up), 0), together_ns)
        return NetworkDelay(
            up_ns=up_ns,
            down_ns=together_ns - up_ns,
            definition=f"one-way delay by two clocks within {error_ns / 1e6:.3f} ms",
        )
    return NetworkDelay(
        up_ns=half_ns, down_ns=together_ns - half_ns, definition="half of the fastest round trip, assumed"
    )


def _far_clock_step_ns(times: Sequence[_Times]) -> int | None:
    """By how much the far clock was set within the stream; `None` when it was not."""
    for one in times:
        held_ns = one.t3 - one.t2
        if not -_STEP_NS < held_ns < one.t4 - one.t1 + _STEP_NS:
            return held_ns
    for before, after in pairwise(times):
        rise_up, rise_down = after.up_ns - before.up_ns, after.down_ns - before.down_ns
        step_ns = (rise_up - rise_down) // 2
        if abs(step_ns) > _STEP_NS and abs(rise_up + rise_down) < _STEP_LIKENESS * abs(step_ns):
            return step_ns
    return None
