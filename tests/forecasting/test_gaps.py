import numpy as np
import pytest

from forecasting.gaps import fill_gaps
from nhip.errors import SeriesError
from tests.lab.series import series_of


def test_gap_takes_the_value_of_the_same_weekday_one_week_before() -> None:
    values = np.arange(1.0, 22.0)
    values[[8, 15]] = np.nan  # the same weekday twice
    filled = fill_gaps(series_of(values), 7)
    assert filled.values[8] == filled.values[15] == 2.0
    assert "2 of 21 steps held no value" in filled.notes[0].en
    assert "2 trong 21 bước" in filled.notes[0].vi


def test_gap_in_the_first_week_takes_the_next_value_of_its_weekday() -> None:
    values = np.arange(1.0, 22.0)
    values[[1, 8]] = np.nan
    assert fill_gaps(series_of(values), 7).values[[1, 8]].tolist() == [16, 16]


def test_series_without_gaps_is_handed_back_untouched() -> None:
    series = series_of(np.arange(1.0, 22.0))
    assert fill_gaps(series, 7) is series


def test_filling_does_not_touch_the_measured_series() -> None:
    values = np.arange(1.0, 22.0)
    values[9] = np.nan
    series = series_of(values)
    fill_gaps(series, 7)
    assert series.gap_count == 1


def test_series_that_is_mostly_gaps_is_refused_by_name() -> None:
    values = np.full(28, np.nan)
    values[[0, 1, 2, 27]] = 1.0
    with pytest.raises(SeriesError, match="'han-hcm' has gaps in 24 of 28 steps"):
        fill_gaps(series_of(values), 7)


def test_weekday_that_was_never_measured_is_refused() -> None:
    values = np.arange(1.0, 29.0)
    values[3::7] = np.nan
    with pytest.raises(SeriesError, match="never measured"):
        fill_gaps(series_of(values), 7)
