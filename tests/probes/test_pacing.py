"""When the packets of a stream leave."""

from __future__ import annotations

import random
import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.pacing import Spacing, offsets_ns

SECOND = 1_000_000_000


def gaps(spacing: Spacing, *, count: int = 20_000, seed: int = 1) -> list[float]:
    offsets = offsets_ns(count, 1.0, spacing, random.Random(seed))
    return [(later - earlier) / SECOND for earlier, later in pairwise(offsets)]


@pytest.mark.parametrize("spacing", list(Spacing))
@given(count=st.integers(1, 200), interval=st.floats(0.001, 3600), seed=st.integers())
def test_offsets_begin_at_zero_and_never_go_back(
    spacing: Spacing, count: int, interval: float, seed: int
) -> None:
    offsets = offsets_ns(count, interval, spacing, random.Random(seed))
    assert len(offsets) == count
    assert offsets[0] == 0
    assert offsets == sorted(offsets)


def test_periodic_gaps_are_equal_to_the_end() -> None:
    offsets = offsets_ns(10_000, 0.1, Spacing.PERIODIC, random.Random())
    assert all(abs(offset - number * SECOND // 10) <= 1 for number, offset in enumerate(offsets))


def test_poisson_gaps_have_the_mean_and_the_spread_of_an_exponential() -> None:
    found = gaps(Spacing.POISSON)
    assert statistics.fmean(found) == pytest.approx(1, rel=0.03)
    assert statistics.stdev(found) == pytest.approx(1, rel=0.05)


def test_poisson_gaps_follow_the_exponential_distribution() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    assert scipy_stats.kstest(gaps(Spacing.POISSON, count=5000), "expon").pvalue > 0.001
    # The twin: equal gaps do not.
    assert scipy_stats.kstest(gaps(Spacing.PERIODIC, count=5000), "expon").pvalue < 1e-9


def test_poisson_offsets_do_not_repeat_from_test_to_test() -> None:
    assert gaps(Spacing.POISSON, seed=1, count=10) != gaps(Spacing.POISSON, seed=2, count=10)
