"""When the packets of one stream leave, as offsets from its start."""

from __future__ import annotations

import random
from enum import StrEnum


class Spacing(StrEnum):
    """The gaps between packets.

    ``periodic``: equal gaps. ``poisson``: exponential gaps of the same mean (RFC 2330 section 11.1.1), which
    do not fall in step with anything periodic in the network.
    """

    PERIODIC = "periodic"
    POISSON = "poisson"


def offsets_ns(count: int, interval_seconds: float, spacing: Spacing, rng: random.Random) -> list[int]:
    """`count` ascending offsets in nanoseconds, the first one 0."""
    offsets, elapsed_seconds = [], 0.0
    for _ in range(count):
        offsets.append(round(elapsed_seconds * 1e9))
        elapsed_seconds += (
            interval_seconds if spacing is Spacing.PERIODIC else rng.expovariate(1 / interval_seconds)
        )
    return offsets
