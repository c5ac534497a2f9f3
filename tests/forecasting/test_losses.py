"""Known answers worked out by hand from the definitions."""

import numpy as np
import pytest

from forecasting import losses

HISTORY = np.array([1.0, 2.0, 3.0, 5.0, 6.0, 7.0])  # lag 3: |5-1|, |6-2|, |7-3| = 4, 4, 4


def test_mase_is_the_error_over_that_of_the_seasonal_naive() -> None:
    """Errors 2 and 6 have the mean 4; the seasonal naive erred by 4 within the history."""
    assert losses.mase(np.array([10.0, 10.0]), np.array([8.0, 16.0]), HISTORY, 3) == 1.0


def test_rmsse_weighs_large_errors_more() -> None:
    """Squares 4 and 36 have the mean 20; over 16 that is 1.25, and its root 1.118."""
    assert losses.rmsse(np.array([10.0, 10.0]), np.array([8.0, 16.0]), HISTORY, 3) == pytest.approx(1.25**0.5)


def test_pinball_charges_the_side_that_the_quantile_promised() -> None:
    actual = np.array([12.0, 8.0])
    quantile = np.array([10.0, 10.0])
    assert losses.pinball(actual, quantile, 0.9) == pytest.approx((0.9 * 2 + 0.1 * 2) / 2)
    assert losses.pinball(actual[:1], quantile[:1], 0.9) == pytest.approx(1.8)


def test_crps_of_a_certain_forecast_is_its_absolute_error() -> None:
    certain = {p: np.array([10.0, 10.0]) for p in (0.025, 0.1, 0.5, 0.9, 0.975)}
    assert losses.scaled_crps(np.array([14.0, 6.0]), certain, HISTORY, 3) == pytest.approx(1.0)


def test_crps_of_a_normal_forecast_approaches_the_closed_form() -> None:
    """At its own mean a standard normal has the CRPS 2 phi(0) - 1/sqrt(pi) = 0.23369."""
    from statistics import NormalDist

    probabilities = np.round(np.linspace(0.005, 0.995, 199), 6)
    quantiles = {float(p): np.array([NormalDist().inv_cdf(p)]) for p in probabilities}
    crps = losses.scaled_crps(np.array([0.0]), quantiles, HISTORY, 3)
    assert crps is not None
    assert crps * 4 == pytest.approx(0.23369, abs=2e-3)


def test_coverage_counts_the_bounds_as_inside() -> None:
    actual = np.array([1.0, 2.0, 3.0, 4.0])
    assert losses.coverage(actual, np.full(4, 2.0), np.full(4, 3.0)) == 0.5


def test_step_that_was_not_measured_is_left_out() -> None:
    actual = np.array([10.0, np.nan, 10.0])
    forecast = np.array([8.0, 1e9, 16.0])
    assert losses.mase(actual, forecast, HISTORY, 3) == 1.0
    assert losses.coverage(actual, np.full(3, 0.0), np.full(3, 11.0)) == 1.0


def test_no_number_where_the_definition_gives_none() -> None:
    constant = np.ones(9)
    assert losses.mase(np.ones(2), np.zeros(2), constant, 3) is None
    assert losses.coverage(np.full(2, np.nan), np.zeros(2), np.ones(2)) is None
    assert losses.geometric_mean([]) is None


def test_halving_and_doubling_cancel_out() -> None:
    assert losses.geometric_mean([0.5, 2.0]) == pytest.approx(1.0)
