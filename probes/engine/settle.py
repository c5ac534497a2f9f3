"""The final fate of probes whose time is up: a pure function from columns to columns.

Round-trip delay is arrival less departure, both as the kernel stamped them where it did. A reply after the
loss threshold is late (RFC 7680 section 2.8.2: the threshold decides); a delay whose two stamps are not of
one undisturbed clock, or contradict each other, is undefined and never published.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probes.engine import fate
from probes.engine.book import LARGEST_LAG, LONGEST_DELAY_NS, NO_DELAY, Settled
from probes.engine.flight import Flight
from probes.engine.packet import Int64s

# A departure cannot lie before the hand-over, but for the noise of reading two clocks.
_BEFORE_HANDED_NS = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What decides between the fates."""

    threshold_ns: int
    offset_ns: int
    """Wall minus monotonic clock when these probes were handed over."""
    suspect_until_ns: int
    """What was handed over up to then was under way while the clock was stepped; -1 for nothing."""
    blind_from_ns: int = 0
    blind_until_ns: int = -1
    """What found no answer while this host itself had no way to send says nothing of the network."""


def settle(flight: Flight, serials: Int64s, rules: Rules) -> Settled:
    """The fates of these probes, which leave the ring afterwards."""
    places = serials % flight.capacity
    handed_ns = flight.handed_ns[places]
    flags = flight.flags[places]
    sent_wall_ns = flight.sent_wall_ns[places]
    received_wall_ns = flight.received_wall_ns[places]

    handed_wall_ns = handed_ns + rules.offset_ns
    stamped = sent_wall_ns >= handed_wall_ns - _BEFORE_HANDED_NS
    sent_wall_ns = np.where(stamped, sent_wall_ns, handed_wall_ns)
    answered = received_wall_ns > 0
    delays_ns = received_wall_ns - sent_wall_ns
    suspect = handed_ns <= rules.suspect_until_ns
    sound = answered & ~suspect & (delays_ns >= 0) & (delays_ns <= LONGEST_DELAY_NS)
    late = sound & (delays_ns > rules.threshold_ns) | answered & ~suspect & (delays_ns > LONGEST_DELAY_NS)

    kinds = flags & fate.FATE
    blind = (handed_ns >= rules.blind_from_ns) & (handed_ns <= rules.blind_until_ns)
    kinds = np.where(kinds == fate.OPEN, fate.LOST, kinds)
    kinds = np.where(blind & ((kinds == fate.LOST) | (kinds == fate.UNREACHABLE)), fate.NOT_SENT, kinds)
    kinds = np.where(answered, np.where(late, fate.LATE, fate.RECEIVED), kinds)

    bits = flags & (fate.RECEIVED_BY_USER_STAMP | fate.REORDERED)
    bits = np.where(stamped, bits, bits | fate.SENT_BY_USER_STAMP)
    # When it left, on the monotonic clock: where the clock was stepped only the hand-over is known.
    left_ns = np.where(suspect, handed_ns, sent_wall_ns - rules.offset_ns)
    lags_us = np.minimum(np.abs(left_ns - flight.due_ns[places]) // 1000, LARGEST_LAG)
    return Settled(
        targets=flight.target[places].astype(np.int64),
        rounds=flight.round[places],
        status=(kinds | np.where(kinds == fate.NOT_SENT, 0, bits)).astype(np.uint8),
        delays_ns=np.where(sound & ~late, delays_ns, NO_DELAY).astype(np.uint32),
        lags_us=lags_us.astype(np.uint16),
        duplicates=flight.duplicates[places],
        handed_ns=handed_ns,
    )
