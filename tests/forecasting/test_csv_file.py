import gzip
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from forecasting.csv_file import read_csv, write_csv
from forecasting.simulate import SimulatedLink, simulate
from nhip.errors import SeriesError

GOOD = "timestamp,series_id,value\n2026-01-01 00:00:00,a,1\n2026-01-01 01:00:00,a,\n2026-01-01 02:00:00,a,3\n"

HEADERS = ("time,value\n", "timestamp,series_id,value,unit\n", "# unit: bit/s\ntime,value\n")


def written(tmp_path: Path, text: str, name: str = "links.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_empty_cell_is_a_gap_and_no_zero(tmp_path: Path) -> None:
    series = read_csv(written(tmp_path, GOOD)).frame.series("a")
    np.testing.assert_array_equal(series.values, [1, np.nan, 3])


def test_missing_zone_and_unit_are_assumed_and_said(tmp_path: Path) -> None:
    frame = read_csv(written(tmp_path, GOOD)).frame
    assert frame.unit == "bit/s"
    assert frame.series("a").times[0].to_pydatetime() == datetime(2026, 1, 1, tzinfo=UTC)
    said = " ".join(note.en for note in frame.notes)
    assert "read as UTC" in said and "read as bit/s" in said


def test_nothing_is_assumed_where_zone_and_unit_are_stated(tmp_path: Path) -> None:
    text = "# unit: Mbit/s\ntime,value\n2026-01-01T07:00:00+07:00,2\n2026-01-01T08:00:00+07:00,3\n"
    frame = read_csv(written(tmp_path, text, "vnix.csv")).frame
    series = frame.series("vnix")
    np.testing.assert_array_equal(series.values, [2e6, 3e6])
    assert series.times[0].to_pydatetime() == datetime(2026, 1, 1, tzinfo=UTC)
    assert frame.notes == ()


def test_gzip_is_recognised_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "renamed.csv"
    path.write_bytes(gzip.compress(GOOD.encode()))
    assert read_csv(path).frame.series_ids == ["a"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD.replace("02:00:00,a,3", "02:00:00,a,three"), "row 4, column 'value': 'three' is no number"),
        (GOOD.replace("02:00:00,a,3", "02:00:00,a,nan"), "row 4, column 'value': 'nan' is no number"),
        (GOOD.replace("02:00:00,a,3", "02:00:00,a,-3"), "row 4: value -3 is negative"),
        ("# made by hand\n" + GOOD.replace("a,3", "a,-3"), "row 5: value -3 is negative"),
        (
            GOOD.replace("2026-01-01 01:00:00", "1/1/26 1h"),
            "row 3, column 'timestamp': '1/1/26 1h' is no time",
        ),
        (GOOD.replace("timestamp", "when"), "no column 'timestamp' or 'time'.*found: when, series_id, value"),
        (GOOD.replace("value", "traffic"), "no column 'value'"),
        (GOOD.replace("01:00:00,a,", "00:00:00,a,5"), "two values for 2026-01-01T00:00:00.*rows 2 and 3"),
        ("", "is empty"),
        ("time,value,unit\n2026-01-01,1,Mbit/s\n2026-01-02,1,Gbit/s\n", "holds 'Gbit/s' and 'Mbit/s'"),
        ("# unit: furlong\n" + GOOD, "the unit 'furlong' is unknown"),
        (
            "# unit: bit/s\ntime,value,unit\n2026-01-01,1,Mbit/s\n2026-01-02,1,Mbit/s\n",
            "line '# unit:' says the unit is 'bit/s', the column 'unit' says 'Mbit/s'",
        ),
        *((header + end, "holds no row") for header in HEADERS for end in ("", "\n", "\n  \n\n")),
        (GOOD.replace("2026-01-01 01:00:00,a,", ""), "row 3, column 'timestamp': '' is no time"),
    ],
)
def test_wrong_file_is_refused_with_its_name_and_place(tmp_path: Path, text: str, says: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SeriesError, match=says) as caught:
        read_csv(path)
    assert str(path) in caught.value.what


@pytest.mark.parametrize("end", ["\n", "\n\n", "  \n\t\n", ",,\n"])
def test_blank_lines_at_the_end_say_nothing(tmp_path: Path, end: str) -> None:
    series = read_csv(written(tmp_path, GOOD + end)).frame.series("a")
    np.testing.assert_array_equal(series.values, [1, np.nan, 3])


@pytest.mark.parametrize(
    "text",
    [
        "# unit: Mbit/s\ntime,value\n2026-01-01,2\n2026-01-02,3\n",
        "time,value,unit\n2026-01-01,2,Mbit/s\n2026-01-02,3,Mbit/s\n",
    ],
)
def test_unit_that_contradicts_the_file_is_refused_and_names_both(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SeriesError, match=r"says the unit is 'Mbit/s', --unit says 'Gbit/s'") as caught:
        read_csv(path, unit="Gbit/s")
    assert caught.value.remedy
    # Another name of the same unit contradicts nothing.
    assert read_csv(path, unit="Mbps").frame.table["value"].tolist() == [2e6, 3e6]


def test_unit_of_the_caller_counts_where_the_file_names_none(tmp_path: Path) -> None:
    frame = read_csv(written(tmp_path, GOOD), unit="kbit/s").frame
    assert frame.series("a").values[0] == 1e3
    assert not any("unit" in note.en for note in frame.notes)


def test_absent_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SeriesError, match=r"gone\.csv: no such file"):
        read_csv(tmp_path / "gone.csv")


def test_simulated_history_is_still_simulated_after_a_round_trip(tmp_path: Path) -> None:
    frame = simulate(
        (SimulatedLink("a", 1e9), SimulatedLink("b", 2e9)), start=datetime(2026, 1, 1, tzinfo=UTC), days=2
    )
    path = tmp_path / "links.csv.gz"
    write_csv(frame, path)
    back = read_csv(path).frame
    assert back.series_ids == ["a", "b"]
    assert back.series("b").provenance == "simulated"
    assert "mô phỏng" in gzip.decompress(path.read_bytes()).decode()
    np.testing.assert_allclose(back.series("b").values, frame.series("b").values, rtol=1e-9)


def test_statistic_stated_on_top_of_the_file_is_handed_on(tmp_path: Path) -> None:
    assert read_csv(written(tmp_path, "# statistic: daily_p95\n" + GOOD)).statistic == "daily_p95"
    assert read_csv(written(tmp_path, GOOD)).statistic is None
