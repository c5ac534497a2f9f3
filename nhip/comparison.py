"""Measured beside true: how far apart they are, and whether that is within what the lab allows.

Only a lab knows the truth. A median delay may differ by a fixed step or by a share of the truth, whichever is
larger; a speed by a share; a loss ratio must have the truth inside its own Wilson interval.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """What still counts as the same."""

    delay_seconds: float = 0.3e-3
    delay_ratio: float = 0.02
    speed_ratio: float = 0.03


LAB_TOLERANCE = Tolerance()


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`difference` is measured minus true, in the quantity's unit."""

    difference: float
    agrees: bool


def compare_delay(measured: float | None, true: float | None, tolerance: Tolerance) -> Comparison | None:
    """Two delays in seconds; None when either is missing."""
    if measured is None or true is None:
        return None
    difference = measured - true
    allowed = max(tolerance.delay_seconds, tolerance.delay_ratio * abs(true))
    return Comparison(difference=difference, agrees=abs(difference) <= allowed)


def compare_speed(measured: float | None, true: float | None, tolerance: Tolerance) -> Comparison | None:
    """Two speeds in bits per second; None when either is missing."""
    if measured is None or true is None:
        return None
    difference = measured - true
    return Comparison(difference=difference, agrees=abs(difference) <= tolerance.speed_ratio * abs(true))


def compare_loss(
    measured: float | None, interval: tuple[float, float] | None, true: float | None
) -> Comparison | None:
    """Two loss ratios, the measured one with its Wilson interval; None when any is missing."""
    if measured is None or interval is None or true is None:
        return None
    low, high = interval
    return Comparison(difference=measured - true, agrees=low <= true <= high)
