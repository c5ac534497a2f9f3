"""A receiver's jitter buffer, played through for one direction of a stream: what is heard, what is too late.

No synchronised clocks are needed. A packet is known by when it was sent, on the sender's clock, and when it
arrived, on the receiver's; all that is used of them is how *transit* = arrival − sending differs from packet
to packet, so that an unknown, constant offset between the clocks falls out::

    sent     |----|----|----|----|          one packet each packetisation interval
    arrived    |----|--------||---|         transit varies
    played        |----|----|----|----|     sent + play-out offset; one not there by then is discarded

Play-out delays are reported above the fastest transit of the stream, to which the caller adds what he knows
of that fastest transit: a one-way delay, or half a round trip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

from nhip.statistics import NANOSECONDS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Passage:
    """One packet, sent by the sender's clock and arrived by the receiver's; `None` when it never came."""

    sent_ns: int
    arrived_ns: int | None


class Fate(StrEnum):
    """What the listener got of a packet."""

    PLAYED = "played"
    LOST = "lost"
    """It never came."""
    DISCARDED = "discarded"
    """It came after its moment had passed."""


class Anchor(StrEnum):
    """What a fixed play-out delay counts from: the first packet that came, or the fastest of the stream.

    A terminal knows only the first; measured from the fastest, the same network always gets the same delay.
    """

    FIRST = "first"
    FASTEST = "fastest"


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedBuffer:
    """Every packet is played `delay_seconds` after the transit of the anchor."""

    delay_seconds: float = 0.04
    anchor: Anchor = Anchor.FASTEST

    def offsets_ns(self, passages: Sequence[Passage]) -> list[int]:
        """For each packet how long after its sending it is played, as transits are measured."""
        transits = [transit for passage in passages if (transit := _transit_ns(passage)) is not None]
        if not transits:
            return [0] * len(passages)
        start = _arrivals(passages)[0][1] if self.anchor is Anchor.FIRST else min(transits)
        return [start + _nanoseconds(self.delay_seconds)] * len(passages)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveBuffer:
    """Follows the network, by algorithm 4 of Ramjee, Kurose, Towsley and Schulzrinne (INFOCOM 1994).

    A mean transit *d* and its deviation *v* are followed with weight 1/8; a talk spurt is played at d + 4 v.
    A jump of more than 2 v + 100 ms is a delay spike: until its slope has died down (below 8 ms), *d* follows
    the transit itself, so that the end of the spike lowers the delay at once.

    The play-out offset changes only from one talk spurt to the next, in the silence between them. A measured
    stream has no silence, so every `talk_spurt_seconds` counts as one spurt. The first is played
    `start_seconds` after the first packet's transit; later offsets are kept between `minimum_seconds` and
    `maximum_seconds` above the fastest transit seen so far.
    """

    start_seconds: float = 0.04
    minimum_seconds: float = 0.02
    maximum_seconds: float = 0.2
    talk_spurt_seconds: float = 1.0

    def offsets_ns(self, passages: Sequence[Passage]) -> list[int]:
        """For each packet how long after its sending it is played, as transits are measured."""
        follower = _Follower()
        offsets: list[int] = []
        arrivals = sorted(
            (passage.arrived_ns, passage.arrived_ns - passage.sent_ns)
            for passage in passages
            if passage.arrived_ns is not None
        )
        if not arrivals:
            return [0] * len(passages)
        heard = 0
        # In the order of sending; the first that came starts the play-out.
        first_transit = next(transit for passage in passages if (transit := _transit_ns(passage)) is not None)
        offset = first_transit + _nanoseconds(self.start_seconds)
        spurt_began_ns = passages[0].sent_ns
        for passage in passages:
            if passage.sent_ns - spurt_began_ns >= _nanoseconds(self.talk_spurt_seconds):
                spurt_began_ns = passage.sent_ns
                # What the receiver knows when this packet would be played at the present offset.
                while heard < len(arrivals) and arrivals[heard][0] <= passage.sent_ns + offset:
                    follower.hear(arrivals[heard][1])
                    heard += 1
                offset = self._offset_ns(follower, offset)
            offsets.append(offset)
        return offsets

    def _offset_ns(self, follower: _Follower, present_ns: int) -> int:
        wanted = follower.offset_ns()
        fastest = follower.fastest_ns
        if wanted is None or fastest is None:
            return present_ns
        lowest = fastest + _nanoseconds(self.minimum_seconds)
        highest = fastest + _nanoseconds(self.maximum_seconds)
        return min(max(wanted, lowest), highest)


JitterBuffer = FixedBuffer | AdaptiveBuffer


@dataclass(frozen=True, slots=True, kw_only=True)
class Playout:
    """What became of a stream behind a jitter buffer."""

    fates: tuple[Fate, ...]
    """Packet by packet, in sending order."""
    delay_seconds: float | None
    """Mean time from the fastest transit to the play-out of those played; `None` when nothing was played."""
    underruns: int
    """Moments at which a packet was due and the buffer held neither it nor any later one."""

    @property
    def played(self) -> int:
        """Packets heard."""
        return self.fates.count(Fate.PLAYED)

    @property
    def discarded(self) -> int:
        """Packets that came, too late."""
        return self.fates.count(Fate.DISCARDED)

    @property
    def discard_ratio(self) -> float | None:
        """Discarded ÷ arrived; `None` when nothing arrived."""
        arrived = self.played + self.discarded
        return self.discarded / arrived if arrived else None

    @property
    def loss_ratio(self) -> float | None:
        """Not played ÷ sent, lost and discarded alike: Ppl of the E-model; `None` of an empty stream."""
        return (len(self.fates) - self.played) / len(self.fates) if self.fates else None


def play(passages: Sequence[Passage], buffer: JitterBuffer) -> Playout:
    """The stream `passages`, in sending order, heard through `buffer`."""
    offsets = buffer.offsets_ns(passages)
    fates: list[Fate] = []
    for passage, offset in zip(passages, offsets, strict=True):
        transit = _transit_ns(passage)
        fates.append(Fate.LOST if transit is None else Fate.DISCARDED if transit > offset else Fate.PLAYED)
    fastest = min((transit for _, transit in _arrivals(passages)), default=0)
    # Whole numbers until the offset between the clocks, decades perhaps, is out of them.
    played = [offset - fastest for fate, offset in zip(fates, offsets, strict=True) if fate is Fate.PLAYED]
    delay_ns = sum(played) / len(played) if played else None
    return Playout(
        fates=tuple(fates),
        delay_seconds=None if delay_ns is None else delay_ns / NANOSECONDS_PER_SECOND,
        underruns=_underruns(passages, offsets, fates),
    )


def rtp_jitter_seconds(passages: Sequence[Passage]) -> float | None:
    """Interarrival jitter J at the end of the stream (RFC 3550 section 6.4.1 and appendix A.8).

    ``J += (|D| − J) ÷ 16`` over the packets in the order they arrived, lost ones left out, beginning with 0;
    D is the difference of the transits of neighbours. `None` below two arrivals.
    """
    arrivals = _arrivals(passages)
    if len(arrivals) < 2:
        return None
    jitter_ns = 0.0
    for (_, before), (_, after) in pairwise(arrivals):
        jitter_ns += (abs(after - before) - jitter_ns) / 16
    return jitter_ns / NANOSECONDS_PER_SECOND


def delay_variations_seconds(passages: Sequence[Passage]) -> list[float]:
    """Transit above the fastest of the stream (PDV, RFC 5481 section 4.2), in sending order."""
    transits = [transit for passage in passages if (transit := _transit_ns(passage)) is not None]
    if len(transits) < 2:
        return []
    fastest = min(transits)
    return [(transit - fastest) / NANOSECONDS_PER_SECOND for transit in transits]


@dataclass(slots=True)
class _Follower:
    """The estimates of algorithm 4, in nanoseconds; the mean counts from the first transit."""

    fastest_ns: int | None = None
    _first_ns: int = 0
    _mean: float = 0.0
    _deviation: float = 0.0
    _slope: float = 0.0
    _spike: bool = False
    _before: list[int] = field(default_factory=list)
    """The last two transits, newest first."""

    def hear(self, transit_ns: int) -> None:
        """A packet arrived."""
        if self.fastest_ns is None:
            self.fastest_ns, self._first_ns, self._before = transit_ns, transit_ns, [transit_ns] * 2
            return
        self.fastest_ns = min(self.fastest_ns, transit_ns)
        last, last_but_one = self._before
        self._before = [transit_ns, last]
        if not self._spike:
            if abs(transit_ns - last) > 2 * self._deviation + _SPIKE_NS:
                self._spike, self._slope = True, 0.0
        else:
            self._slope = self._slope / 2 + abs(2 * transit_ns - last - last_but_one) / 8
            if self._slope <= _SPIKE_OVER_NS:
                # The paper's algorithm leaves both estimates as they are for the packet that ends a spike.
                self._spike = False
                return
        if self._spike:
            self._mean += transit_ns - last
        else:
            self._mean += (transit_ns - self._first_ns - self._mean) / 8
        self._deviation += (abs(transit_ns - self._first_ns - self._mean) - self._deviation) / 8

    def offset_ns(self) -> int | None:
        """d + 4 v; `None` before anything arrived."""
        if self.fastest_ns is None:
            return None
        return self._first_ns + round(self._mean + 4 * self._deviation)


# 800 and 63 samples of 125 µs in the paper.
_SPIKE_NS = 100_000_000
_SPIKE_OVER_NS = 7_875_000


def _underruns(passages: Sequence[Passage], offsets: Sequence[int], fates: Sequence[Fate]) -> int:
    """How often a packet was missing at its moment while no later one was already waiting."""
    underruns = 0
    next_arrival_ns: int | None = None  # the earliest arrival among the later packets that were played
    for passage, offset, fate in zip(reversed(passages), reversed(offsets), reversed(fates), strict=True):
        if fate is Fate.PLAYED:
            assert passage.arrived_ns is not None  # noqa: S101 - only an arrived packet is played
            if next_arrival_ns is None or passage.arrived_ns < next_arrival_ns:
                next_arrival_ns = passage.arrived_ns
        elif next_arrival_ns is None or next_arrival_ns > passage.sent_ns + offset:
            underruns += 1
    return underruns


def _arrivals(passages: Sequence[Passage]) -> list[tuple[int, int]]:
    """Arrival and transit of those that came, in the order they came."""
    return sorted(
        (passage.arrived_ns, passage.arrived_ns - passage.sent_ns)
        for passage in passages
        if passage.arrived_ns is not None
    )


def _transit_ns(passage: Passage) -> int | None:
    return None if passage.arrived_ns is None else passage.arrived_ns - passage.sent_ns


def _nanoseconds(seconds: float) -> int:
    return round(seconds * NANOSECONDS_PER_SECOND)
