"""What a link does to packets in one direction: the numbers, and what they should amount to.

A packet meets the effects in this order::

    arrival -> loss (random, then bursty) -> queue and rate (or trace) -> delay + jitter
            -> held back (reordering) -> duplication -> departure

Loss stands before the queue, so that a lost packet takes none of the link's rate.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

Distribution = Literal["none", "uniform", "normal", "pareto"]

PARETO_SHAPE = 3.0
"""Shape of the heavy-tailed jitter; its mean is the scale over (shape - 1), so the tail has a mean."""


class Effects(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The effects of one direction of a link; the defaults change nothing.

    ``delay_seconds`` is the one-way delay no packet goes below. Jitter only adds to it, with mean
    ``jitter_seconds``: `uniform` between 0 and twice the mean, `normal` is the positive half of a
    normal distribution, `pareto` has a long tail (shape 3, cut at 20 means). Packets keep their order
    whatever the jitter, as in the one queue of a radio link; only ``reorder_ratio`` of them are held
    back by ``reorder_seconds`` and may be overtaken.

    ``burst_start_ratio`` and ``burst_end_ratio`` are the Gilbert-Elliott chances, per packet, of
    entering and of leaving a bad spell in which ``burst_loss_ratio`` of the packets are lost.

    ``rate_bits_per_second`` counts whole IP packets. ``trace`` names a file of delivery opportunities
    and then replaces the rate. ``queue_bytes`` bounds what waits for either; more is dropped (drop-tail).
    """

    delay_seconds: float = 0.0
    jitter_distribution: Distribution = "none"
    jitter_seconds: float = 0.0
    loss_ratio: float = 0.0
    burst_start_ratio: float = 0.0
    burst_end_ratio: float = 1.0
    burst_loss_ratio: float = 1.0
    duplicate_ratio: float = 0.0
    reorder_ratio: float = 0.0
    reorder_seconds: float = 0.0
    rate_bits_per_second: float | None = None
    queue_bytes: int = 262_144
    trace: str | None = None

    def __post_init__(self) -> None:
        for name in ("delay_seconds", "jitter_seconds", "reorder_seconds"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value <= 60):
                raise ValueError(f"{name} is {value}; it must lie between 0 and 60 seconds")
        for name in _RATIOS:
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; a ratio lies between 0 and 1")
        if self.burst_start_ratio > 0 and self.burst_end_ratio == 0:
            raise ValueError("burst_end_ratio is 0; a bad spell that never ends is loss_ratio = 1")
        rate = self.rate_bits_per_second
        if rate is not None and not (math.isfinite(rate) and rate >= 1000):
            raise ValueError(f"rate_bits_per_second is {rate}; the slowest link is 1000 bit/s")
        if rate is not None and self.trace is not None:
            raise ValueError("rate_bits_per_second and trace exclude each other; remove one")
        if self.queue_bytes < 1600:
            raise ValueError(
                f"queue_bytes is {self.queue_bytes}; it must hold one packet, 1600 bytes or more"
            )
        if (self.jitter_distribution == "none") != (self.jitter_seconds == 0):
            raise ValueError("jitter_distribution and jitter_seconds go together; set both or neither")
        if self.reorder_ratio > 0 and self.reorder_seconds == 0:
            raise ValueError("reorder_seconds is 0; say how long a packet is held back")


_RATIOS = (
    "loss_ratio",
    "burst_start_ratio",
    "burst_end_ratio",
    "burst_loss_ratio",
    "duplicate_ratio",
    "reorder_ratio",
)


def expected_loss_ratio(effects: Effects) -> float:
    """The share of packets the link loses in the long run, without what its queue drops (ratio)."""
    start, end = effects.burst_start_ratio, effects.burst_end_ratio
    bad = start / (start + end) if start > 0 else 0.0
    kept_in_burst = 1 - bad * effects.burst_loss_ratio
    return 1 - (1 - effects.loss_ratio) * kept_in_burst


def without_chance(effects: Effects) -> Effects:
    """The same delay and rate with everything random taken off, so that a packet's delay is foreseeable."""
    return Effects(
        delay_seconds=effects.delay_seconds,
        rate_bits_per_second=effects.rate_bits_per_second,
        queue_bytes=effects.queue_bytes,
    )
