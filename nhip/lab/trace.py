"""Recorded and invented cellular traces: when a link could deliver a packet.

The format is a text file with one whole number on each line, the milliseconds since the start at which
one packet of 1500 bytes may pass; several equal lines are several packets. The file repeats when it
ends, its last number being its length. Keith Winstein's Saturator recordings use it.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

from nhip.errors import LabError

OPPORTUNITY_BYTES = 1500
"""Bytes of IP packets that pass at one opportunity."""


@dataclass(frozen=True)
class Trace:
    """The delivery opportunities of one period, in milliseconds, never decreasing."""

    opportunities_ms: tuple[int, ...]

    @property
    def period_ms(self) -> int:
        """Length of the trace; it then starts again."""
        return self.opportunities_ms[-1]

    @property
    def mean_bits_per_second(self) -> float:
        """What the trace can carry on average, in bits of IP packets a second."""
        return len(self.opportunities_ms) * OPPORTUNITY_BYTES * 8 * 1000 / self.period_ms

    def time_ms(self, index: int) -> int:
        """When opportunity number `index` comes, counted from 0 on through every repetition."""
        cycle, position = divmod(index, len(self.opportunities_ms))
        return cycle * self.period_ms + self.opportunities_ms[position]

    def first_at_or_after(self, time_ms: int) -> int:
        """The number of the first opportunity that is not before `time_ms`."""
        cycle, within = divmod(time_ms, self.period_ms)
        if within == 0 and cycle > 0:
            # The end of one period is the start of the next; the old one's last opportunities come first.
            cycle, within = cycle - 1, self.period_ms
        return cycle * len(self.opportunities_ms) + bisect_left(self.opportunities_ms, within)


def load_trace(path: Path) -> Trace:
    """The trace in `path`; LabError names the line that is not one."""
    try:
        lines = path.read_text(encoding="ascii").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(
            f"{path}: the trace cannot be read ({error})", remedy="check the link's `trace`"
        ) from error
    times: list[int] = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text:
            continue
        if not text.isdigit():
            raise LabError(f"{path}:{number}: {text[:40]!r} is not a whole number of milliseconds")
        time_ms = int(text)
        if times and time_ms < times[-1]:
            raise LabError(
                f"{path}:{number}: {time_ms} comes after {times[-1]}", remedy="sort the trace by time"
            )
        times.append(time_ms)
    if not times or times[-1] == 0:
        raise LabError(
            f"{path}: the trace holds no opportunity after 0 ms", remedy="give it at least one line"
        )
    return Trace(tuple(times))


def synthetic_trace(*, mean_bits_per_second: float, seconds: int, seed: int) -> Trace:
    """An invented trace whose rate wanders around its mean as a moving phone's does.

    Each 100 ms the rate follows a first-order autoregression of its logarithm (0.9, spread 0.25);
    the whole is then scaled, so that the total is that of `mean_bits_per_second` to one opportunity.
    """
    chance = random.Random(seed)
    state, levels = 0.0, []
    for _ in range(seconds * 10):
        state = 0.9 * state + chance.gauss(0, 0.25)
        levels.append(2.0**state)
    wanted = mean_bits_per_second * seconds / 8 / OPPORTUNITY_BYTES
    scale = wanted / sum(levels)
    times: list[int] = []
    credit = 0.0
    for slot, level in enumerate(levels):
        for millisecond in range(100):
            credit += level * scale / 100
            while credit >= 1:
                credit -= 1
                times.append(slot * 100 + millisecond)
    times.append(seconds * 1000)
    return Trace(tuple(times))


def write_trace(trace: Trace, path: Path) -> None:
    """`trace` as a file of one number on each line."""
    path.write_text("\n".join(map(str, trace.opportunities_ms)) + "\n", encoding="ascii")
