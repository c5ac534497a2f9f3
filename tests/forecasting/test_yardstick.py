import numpy as np
import pandas as pd
import pytest

from forecasting import yardstick
from tests.lab.series import weekly

Q = np.array([0.025, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.975])


@pytest.mark.parametrize("name", ["seasonal_naive", "ets"])
def test_quantiles_come_as_rows_of_steps_and_ascending_columns(name: str) -> None:
    y = pd.Series(weekly(40), index=pd.date_range("2020-01-01", periods=280, freq="D"))
    found = getattr(yardstick, name)(y, h=30, m=7, seasons=(7,), q=Q, freq="D")
    assert found.shape == (30, len(Q))
    assert np.isfinite(found).all()
    assert (np.diff(found, axis=1) >= 0).all()


def test_season_given_is_the_season_used() -> None:
    y = pd.Series(np.tile(np.arange(1.0, 289.0), 4), index=pd.date_range("2020", periods=1152, freq="5min"))
    found = yardstick.seasonal_naive(y, h=288, m=288, seasons=(288,), q=Q, freq="5min")
    np.testing.assert_array_equal(found[:, 5], np.arange(1.0, 289.0))
