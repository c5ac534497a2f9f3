"""The fate of each packet in one direction of a link: decided at arrival, from numbers and chance alone."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from nhip.errors import LabError
from nhip.lab.effects import PARETO_SHAPE, Effects
from nhip.lab.shaper import RateShaper, Shaper, TraceShaper
from nhip.lab.trace import load_trace

LOST: Final = 0
QUEUE_FULL: Final = 1
ONCE: Final = 2
TWICE: Final = 3
HELD: Final = 4


class Channel:
    """One direction of a link. Ask :meth:`admit` for each packet; change the effects at any time.

    `seed` fixes every decision: the same packets at the same times meet the same fates.
    """

    def __init__(self, effects: Effects, *, seed: str) -> None:
        # Loss and delay draw from two sources, so that switching one off leaves the other's fates alone.
        self._loss_chance = random.Random(f"{seed} loss")
        self._delay_chance = random.Random(f"{seed} delay")
        self._in_burst = False
        self._newest_deadline_ns = 0
        self._shaper: Shaper | None = None
        self._shaped_by: tuple[object, ...] | None = None
        self.effects = effects
        self.change(effects, now_ns=0)

    def change(self, effects: Effects, *, now_ns: int) -> None:
        """Apply `effects` to every packet that arrives from now on."""
        self.effects = effects
        self._delay_ns = round(effects.delay_seconds * 1e9)
        self._hold_ns = round(effects.reorder_seconds * 1e9)
        self._lossy = effects.loss_ratio > 0 or effects.burst_start_ratio > 0
        if effects.burst_start_ratio == 0:
            self._in_burst = False
        self._jitter_ns = _jitter(effects, self._delay_chance)
        shaped_by = (effects.rate_bits_per_second, effects.queue_bytes, effects.trace)
        if shaped_by != self._shaped_by:
            self._shaper = _shaper(effects, self._shaper, now_ns)
            self._shaped_by = shaped_by

    def change_some(self, changes: Any) -> Effects:
        """Change only the effects named in `changes`; LabError when one is unknown or impossible."""
        try:
            effects = msgspec.convert({**msgspec.to_builtins(self.effects), **changes}, Effects)
        except (msgspec.ValidationError, TypeError) as error:
            raise LabError(
                f"effects: {error}", remedy="see the fields of nhip.lab.effects.Effects"
            ) from error
        self.change(effects, now_ns=time.monotonic_ns())
        return effects

    def admit(self, now_ns: int, size: int) -> tuple[int, int]:
        """A packet's fate (LOST, QUEUE_FULL, ONCE, TWICE or HELD) and the moment it is to leave, in ns."""
        effects = self.effects
        if self._lossy and self._loses(effects):
            return LOST, 0
        deadline_ns = now_ns + self._delay_ns
        if self._shaper is not None:
            release_ns = self._shaper.release_ns(now_ns, size)
            if release_ns is None:
                return QUEUE_FULL, 0
            deadline_ns = release_ns + self._delay_ns
        if self._jitter_ns is not None:
            deadline_ns += self._jitter_ns()
        if effects.reorder_ratio and self._delay_chance.random() < effects.reorder_ratio:
            return HELD, deadline_ns + self._hold_ns
        if deadline_ns < self._newest_deadline_ns:
            deadline_ns = self._newest_deadline_ns
        else:
            self._newest_deadline_ns = deadline_ns
        if effects.duplicate_ratio and self._delay_chance.random() < effects.duplicate_ratio:
            return TWICE, deadline_ns
        return ONCE, deadline_ns

    def admit_stream(self, now_ns: int, size: int) -> int | None:
        """When `size` bytes of a stream are to leave, in ns; None when the queue has no room for them yet.

        A stream loses nothing, repeats nothing and keeps its order: only queue, rate, delay and jitter act.
        """
        release_ns: int | None = now_ns
        if self._shaper is not None:
            release_ns = self._shaper.release_ns(now_ns, size)
        if release_ns is None:
            return None
        deadline_ns = release_ns + self._delay_ns
        if self._jitter_ns is not None:
            deadline_ns += self._jitter_ns()
        self._newest_deadline_ns = max(deadline_ns, self._newest_deadline_ns)
        return self._newest_deadline_ns

    def _loses(self, effects: Effects) -> bool:
        draw = self._loss_chance.random
        if effects.burst_start_ratio:
            if self._in_burst:
                self._in_burst = draw() >= effects.burst_end_ratio
            else:
                self._in_burst = draw() < effects.burst_start_ratio
            if self._in_burst and draw() < effects.burst_loss_ratio:
                return True
        return effects.loss_ratio > 0 and draw() < effects.loss_ratio


def _jitter(effects: Effects, chance: random.Random) -> Callable[[], int] | None:
    """A function that draws the extra delay in nanoseconds; its mean is `jitter_seconds`."""
    mean_ns = effects.jitter_seconds * 1e9
    if effects.jitter_distribution == "uniform":
        return lambda: int(chance.random() * 2 * mean_ns)
    if effects.jitter_distribution == "normal":
        # The mean of |N(0, sigma)| is sigma * sqrt(2 / pi).
        sigma_ns = mean_ns / 0.7978845608028654
        return lambda: int(abs(chance.gauss(0, sigma_ns)))
    if effects.jitter_distribution == "pareto":
        scale_ns, most_ns = mean_ns * (PARETO_SHAPE - 1), 20 * mean_ns
        return lambda: int(min(most_ns, scale_ns * (chance.paretovariate(PARETO_SHAPE) - 1)))
    return None


def _shaper(effects: Effects, old: Shaper | None, now_ns: int) -> Shaper | None:
    """The queue these effects ask for; what waits in an old constant-rate queue keeps its time to leave."""
    if effects.trace is not None:
        return TraceShaper(load_trace(Path(effects.trace)), effects.queue_bytes, start_ns=now_ns)
    if effects.rate_bits_per_second is None:
        return None
    busy_until_ns = old.busy_until_ns if isinstance(old, RateShaper) else 0
    return RateShaper(effects.rate_bits_per_second, effects.queue_bytes, busy_until_ns=busy_until_ns)
