"""Whether an indicator conforms: four verdicts, the first that applies.

1. ``too_few_samples``: below the profile's minimum nothing is said either way.
2. ``limit_unverified``: the limit is not known, was never held against the regulation's text, or is that of
   an edition that is not in force today.
3. ``conforming`` / ``not_conforming``: the mean against the limit, as the regulation compares them.

The confidence interval is shown beside the mean; the regulation compares the mean alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from collector.kpi.profile import Indicator


class Verdict(StrEnum):
    CONFORMING = "conforming"
    NOT_CONFORMING = "not_conforming"
    TOO_FEW_SAMPLES = "too_few_samples"
    LIMIT_UNVERIFIED = "limit_unverified"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, how sure it is, and what it rests on."""

    mean: float | None
    interval: tuple[float, float] | None
    interval_method: str
    samples: int


INTERVAL_METHOD = "Student t, 95 %, independent samples"


def estimate(values: Sequence[float]) -> Estimate:
    """The arithmetic mean of `values` with its two-sided 95 % interval, which needs two samples."""
    count = len(values)
    if count == 0:
        return Estimate(None, None, INTERVAL_METHOD, 0)
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(mean, None, INTERVAL_METHOD, 1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = student_t_quantile(0.975, count - 1) * math.sqrt(variance / count)
    return Estimate(mean, (mean - half, mean + half), INTERVAL_METHOD, count)


def limit_of(indicator: Indicator, declared: float | None) -> float | None:
    """The limit in the indicator's unit; None when it hangs on a declared value nobody has given."""
    if indicator.limit == "declared":
        return None if declared is None else indicator.factor * declared
    return indicator.limit


def judge(
    indicator: Indicator, found: Estimate, declared: float | None = None, *, in_force: bool = True
) -> Verdict:
    """The verdict on `found`, `declared` being what the operator declares."""
    if found.mean is None or found.samples < indicator.minimum_samples:
        return Verdict.TOO_FEW_SAMPLES
    limit = limit_of(indicator, declared)
    if limit is None or not indicator.verified or not in_force:
        return Verdict.LIMIT_UNVERIFIED
    met = found.mean <= limit if indicator.comparison == "<=" else found.mean >= limit
    return Verdict.CONFORMING if met else Verdict.NOT_CONFORMING


def student_t_quantile(probability: float, degrees: int) -> float:
    """The quantile of Student's t distribution for a probability above 0.5, by bisection of its integral."""
    if not 0.5 < probability < 1 or degrees < 1:
        raise ValueError(f"no t quantile for probability {probability} and {degrees} degrees of freedom")
    low, high = 0.0, 1.0
    while _student_t_cdf(high, degrees) < probability:
        low, high = high, high * 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _student_t_cdf(middle, degrees) < probability else (low, middle)
    return (low + high) / 2


def _student_t_cdf(t: float, degrees: int) -> float:
    """P(T <= t) for t >= 0: 1 - I_x(degrees/2, 1/2)/2 with x = degrees/(degrees + t²)."""
    return 1 - _regularised_beta(degrees / (degrees + t * t), degrees / 2, 0.5) / 2


def _regularised_beta(x: float, a: float, b: float) -> float:
    """I_x(a, b) by its continued fraction (Abramowitz and Stegun 26.5.8)."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on this side only
        return 1 - _regularised_beta(1 - x, b, a)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    fraction, numerator, denominator = 1.0, 1.0, 1 - (a + b) * x / (a + 1)
    denominator = 1 / denominator
    fraction = denominator
    for m in range(1, 500):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            denominator = 1 / (1 + term * denominator)
            numerator = 1 + term / numerator
            step = denominator * numerator
            fraction *= step
        if abs(step - 1) < 1e-15:
            break
    return front * fraction / a
