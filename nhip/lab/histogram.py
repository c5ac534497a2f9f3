"""Quantiles of many small durations at a fixed cost: two additions for each."""

from __future__ import annotations

from array import array
from typing import Any

# 512 bins of 1024 ns, then 512 bins of 512 times that (0.52 ms); what is longer falls in the last.
_FINE_BITS, _COARSE_BITS, _BINS = 10, 19, 512


class Histogram:
    """Durations in nanoseconds; quantiles to 1 us below half a millisecond and to 0.5 ms above."""

    def __init__(self) -> None:
        self._bins = array("Q", bytes(8 * 2 * _BINS))
        self._most_ns = 0

    def add(self, duration_ns: int) -> None:
        """Count one duration; what is negative counts as 0."""
        if duration_ns > self._most_ns:
            self._most_ns = duration_ns
        place = duration_ns >> _FINE_BITS
        if place >= _BINS:
            place = _BINS + min(duration_ns >> _COARSE_BITS, _BINS - 1)
        self._bins[place if place > 0 else 0] += 1

    def summary(self) -> dict[str, Any]:
        """count, p50_seconds, p90_seconds, p99_seconds (upper edges of their bins) and max_seconds."""
        bins = self._bins
        count = sum(bins)
        quantiles: dict[str, float | None] = {}
        for percent in (50, 90, 99):
            quantiles[f"p{percent}_seconds"] = self._quantile(percent * count / 100) if count else None
        return {"count": count, **quantiles, "max_seconds": self._most_ns / 1e9 if count else None}

    def _quantile(self, rank: float) -> float:
        passed = 0
        for place, number in enumerate(self._bins):
            passed += number
            if number and passed >= rank:
                fine = place < _BINS
                edge_ns = (place + 1) << _FINE_BITS if fine else (place - _BINS + 1) << _COARSE_BITS
                return min(edge_ns, self._most_ns) / 1e9
        return self._most_ns / 1e9
