from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from forecasting.frame import checked
from nhip.errors import SeriesError
from tests.lab.series import series_of


def table(times: list[str], values: list[float], series_id: str = "a") -> pd.DataFrame:
    return pd.DataFrame({"series_id": series_id, "time": pd.to_datetime(times, utc=True), "value": values})


def test_missing_step_becomes_a_row_of_its_own_and_is_counted() -> None:
    frame = checked(
        table(["2026-01-01T00:00Z", "2026-01-01T01:00Z", "2026-01-01T03:00Z"], [1, 2, 4]), unit="bit/s"
    )
    series = frame.series("a")
    assert frame.step_seconds == 3600
    np.testing.assert_array_equal(series.values, [1, 2, np.nan, 4])
    assert frame.table["gap"].tolist() == [False, False, True, False]
    assert series.gap_count == 1


def test_times_of_another_zone_become_utc() -> None:
    times = pd.date_range("2026-01-01", periods=3, freq="D", tz="Asia/Ho_Chi_Minh")
    frame = checked(pd.DataFrame({"series_id": "a", "time": times, "value": 1.0}), unit="bit/s")
    assert frame.series("a").times[0].to_pydatetime() == datetime(2025, 12, 31, 17, tzinfo=UTC)


def test_times_without_a_zone_are_refused() -> None:
    naive = pd.DataFrame({"series_id": "a", "time": pd.to_datetime(["2026-01-01"]), "value": [1.0]})
    with pytest.raises(SeriesError, match="name no zone"):
        checked(naive, unit="bit/s")


def test_two_values_for_one_time_are_refused_with_series_and_rows() -> None:
    with pytest.raises(SeriesError, match=r"series 'a' has two values for 2026-01-01T00:00:00.*rows 1 and 3"):
        checked(
            table(["2026-01-01T00:00Z", "2026-01-01T01:00Z", "2026-01-01T00:00Z"], [1, 2, 3]), unit="bit/s"
        )


@pytest.mark.parametrize(("value", "word"), [(-1.0, "negative"), (float("inf"), "infinite")])
def test_impossible_value_is_refused_with_its_row(value: float, word: str) -> None:
    with pytest.raises(SeriesError, match=rf"row 12: value \S+ is {word}"):
        checked(table(["2026-01-01T00:00Z", "2026-01-01T01:00Z"], [1, value]), unit="bit/s", first_row=11)


def test_poll_a_little_late_belongs_to_its_step_and_is_noted() -> None:
    times = ["2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z", "2026-01-01T00:10:07Z", "2026-01-01T00:15:00Z"]
    series = checked(table(times, [1, 2, 3, 4]), unit="bit/s").series("a")
    np.testing.assert_array_equal(series.values, [1, 2, 3, 4])
    assert "1 times moved to their step, by at most 7 s" in series.notes[0].en


def test_polls_that_all_jitter_are_put_on_the_step_they_mean() -> None:
    random = np.random.default_rng(4)
    seconds = np.arange(2016) * 300 + 120 + random.integers(-12, 13, 2016)
    times = pd.to_datetime(seconds + 1_767_225_600, unit="s", utc=True)
    frame = checked(pd.DataFrame({"series_id": "a", "time": times, "value": 1.0}), unit="bit/s")
    assert frame.step_seconds == 300
    assert (len(frame.series("a")), frame.series("a").gap_count) == (2016, 0)
    assert frame.series("a").times[0].second in (0, 1, 59)


def test_time_between_two_steps_is_refused_or_averaged_as_asked() -> None:
    times = ["2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z", "2026-01-01T00:07:00Z", "2026-01-01T00:10:00Z"]
    with pytest.raises(SeriesError, match=r"row 3.*on no step of 300 s"):
        checked(table(times, [1, 2, 4, 8]), unit="bit/s", step_seconds=300)
    series = checked(table(times, [1, 2, 4, 8]), unit="bit/s", step_seconds=300, off_grid="average").series(
        "a"
    )
    np.testing.assert_array_equal(series.values, [1, 3, 8])
    assert "kept no step" in series.notes[0].en


def test_stray_year_is_refused_before_it_becomes_millions_of_rows() -> None:
    times = ["1970-01-01T00:00Z", "2026-01-01T00:00Z", "2026-01-01T00:05Z", "2026-01-01T00:10Z"]
    with pytest.raises(SeriesError, match="gaps at a step of 300 s") as caught:
        checked(table(times, [1, 2, 3, 4]), unit="bit/s", step_seconds=300)
    assert "stray date" in caught.value.remedy


def test_series_that_mixes_measured_and_simulated_rows_is_refused() -> None:
    rows = table(["2026-01-01T00:00Z", "2026-01-01T01:00Z"], [1, 2])
    rows["provenance"] = ["measured", "simulated"]
    with pytest.raises(SeriesError, match="mixes measured and simulated"):
        checked(rows, unit="bit/s")


def test_provenance_stays_with_its_series() -> None:
    rows = pd.concat(
        [
            table(["2026-01-01T00:00Z", "2026-01-01T01:00Z"], [1, 2]).assign(provenance="measured"),
            table(["2026-01-01T00:00Z", "2026-01-01T01:00Z"], [1, 2], "b").assign(provenance="simulated"),
        ]
    )
    frame = checked(rows, unit="bit/s")
    assert (frame.series("a").provenance, frame.series("b").provenance) == ("measured", "simulated")
    assert frame.series("b").first(1).provenance == "simulated"


def test_unknown_series_is_answered_with_the_known_names() -> None:
    frame = checked(table(["2026-01-01T00:00Z", "2026-01-01T01:00Z"], [1, 2]), unit="bit/s")
    with pytest.raises(SeriesError, match="no series 'z'") as caught:
        frame.series("z")
    assert "a" in caught.value.remedy


def test_times_ahead_cross_the_end_of_a_month_and_a_leap_day() -> None:
    series = series_of([1.0] * 20, start=datetime(2028, 2, 8, tzinfo=UTC))
    ahead = series.times_ahead(4)
    assert [time.strftime("%d/%m/%Y") for time in ahead] == [
        "28/02/2028",
        "29/02/2028",
        "01/03/2028",
        "02/03/2028",
    ]


def test_empty_table_and_lonely_value_are_refused() -> None:
    with pytest.raises(SeriesError, match="holds no row"):
        checked(table([], []), unit="bit/s")
    with pytest.raises(SeriesError, match="no step"):
        checked(table(["2026-01-01T00:00Z"], [1.0]), unit="bit/s")
