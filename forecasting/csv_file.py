"""Traffic history from and to CSV.

The file, plain or gzip, has a header line with ``timestamp`` (or ``time``) and ``value``, and may have
``series_id``, ``unit`` and ``provenance``. Lines before the header that start with ``#`` may state what
holds for the whole file::

    # unit: bit/s
    # provenance: simulated
    # statistic: daily_peak
    timestamp,series_id,value
    2026-01-01T00:00:00Z,hanoi-hcm,4100000000
    2026-01-01T01:00:00Z,hanoi-hcm,
                                    ↑ nothing was measured

A time without a zone is read as UTC and a value without a unit as bit/s; a note of the frame says so.
"""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from forecasting.frame import OffGrid, SeriesFrame, checked
from forecasting.notes import Note
from forecasting.units import Unit, parse_unit
from nhip.errors import SeriesError

DEFAULT_UNIT = "bit/s"
TIME_COLUMNS = ("timestamp", "time")


@dataclass(frozen=True, slots=True)
class SeriesFile:
    """What a CSV held: the frame, and the statistic its values are when the file states one."""

    frame: SeriesFrame
    statistic: str | None


def read_csv(
    path: Path, *, unit: str | None = None, step_seconds: int | None = None, off_grid: OffGrid = "refuse"
) -> SeriesFile:
    """The history in a CSV file; `unit` is for a file that names none, and may not contradict one that does.

    SeriesError names file, row (counted from the first line of the file), column and remedy.
    """
    text = _text_of(path)
    stated, lines_before_header = _stated_on_top(text)
    table = _table_of(text, path, lines_before_header)
    first_row = lines_before_header + 2
    notes: list[Note] = []
    out = pd.DataFrame({"time": _times(table, path, first_row, notes)})
    out["value"] = _values(table["value"], path, first_row)
    out["series_id"] = table["series_id"] if "series_id" in table else path.name.split(".")[0]
    inside, factor = _unit(table, path, stated.get("unit"), unit, notes)
    out["value"] *= factor
    if "provenance" in table:
        out["provenance"] = table["provenance"]
    else:
        out["provenance"] = stated.get("provenance", "measured")
    frame = checked(
        out,
        unit=inside,
        step_seconds=step_seconds,
        off_grid=off_grid,
        source=str(path),
        first_row=first_row,
        notes=notes,
    )
    return SeriesFile(frame, stated.get("statistic"))


def write_csv(frame: SeriesFrame, path: Path) -> None:
    """Write a frame so that :func:`read_csv` gives it back, provenance and unit included."""
    table = pd.DataFrame(
        {
            "timestamp": frame.table["time"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "series_id": frame.table["series_id"],
            "value": frame.table["value"],
            "provenance": frame.table["provenance"],
        }
    )
    head = f"# unit: {frame.unit}\n"
    if (frame.table["provenance"] == "simulated").all():
        head += "# provenance: simulated\n# mô phỏng: made by a traffic model, nothing here was measured\n"
    body = (head + table.to_csv(index=False, float_format="%.10g")).encode()
    path.write_bytes(gzip.compress(body) if path.suffix == ".gz" else body)


def _text_of(path: Path) -> str:
    try:
        content = path.read_bytes()
        # The first bytes tell, not the name: a file may be renamed on its way.
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise SeriesError(f"{path}: no such file", remedy="give the path of a CSV file") from error
    except (OSError, EOFError) as error:
        raise SeriesError(f"{path}: cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise SeriesError(f"{path}: is no UTF-8 text", remedy="save it as UTF-8") from error


def _stated_on_top(text: str) -> tuple[dict[str, str], int]:
    """The ``# key: value`` lines before the header, and how many lines there are of them."""
    stated: dict[str, str] = {}
    count = 0
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        key, _, value = line.lstrip("# ").partition(":")
        stated[key.strip()] = value.strip()
        count += 1
    return stated, count


def _table_of(text: str, path: Path, lines_before_header: int) -> pd.DataFrame:
    try:
        table = pd.read_csv(
            io.StringIO(text),
            dtype=str,
            keep_default_na=False,
            skiprows=lines_before_header,
            # Blank lines are kept so that a row number in a message is a line number in the file.
            skip_blank_lines=False,
        )
    except pd.errors.EmptyDataError as error:
        raise SeriesError(f"{path}: is empty", remedy="give a header line and values") from error
    except pd.errors.ParserError as error:
        raise SeriesError(f"{path}: is no CSV: {error}") from error
    table.columns = [str(column).strip() for column in table.columns]
    found = ", ".join(table.columns)
    if not any(column in table for column in TIME_COLUMNS):
        raise SeriesError(
            f"{path}: has no column 'timestamp' or 'time' (found: {found})", remedy="add or rename it"
        )
    if "value" not in table:
        raise SeriesError(f"{path}: has no column 'value' (found: {found})", remedy="add or rename it")
    table = _without_blank_end(table)
    if table.empty:
        raise SeriesError(f"{path}: holds no row", remedy="give at least two weeks of values")
    return table


def _without_blank_end(table: pd.DataFrame) -> pd.DataFrame:
    """The table without the blank lines editors and spreadsheets leave at the end of a file."""
    end = len(table)
    while end and not any(str(cell).strip() for cell in table.iloc[end - 1].fillna("")):
        end -= 1
    return table.iloc[:end]


def _times(table: pd.DataFrame, path: Path, first_row: int, notes: list[Note]) -> pd.Series[pd.Timestamp]:
    column = next(name for name in TIME_COLUMNS if name in table)
    texts = table[column].str.strip()
    times = pd.to_datetime(texts, utc=True, errors="coerce", format="ISO8601")
    if times.isna().any():
        at = int(np.argmax(times.isna().to_numpy()))
        raise SeriesError(
            f"{path}: row {first_row + at}, column {column!r}: {texts.iloc[at]!r} is no time",
            remedy="write it as 2026-01-31T23:00:00Z",
        )
    if not texts.iloc[:1].str.contains(r"(?:Z|[+-]\d\d:?\d\d)$").any():
        notes.append(
            Note(
                en="times without a zone were read as UTC", vi="thời điểm không ghi múi giờ được hiểu là UTC"
            )
        )
    return times


def _values(column: pd.Series[str], path: Path, first_row: int) -> pd.Series[float]:
    texts = column.str.strip()
    values = pd.to_numeric(texts, errors="coerce")
    # An empty cell is an honest gap; the word "nan" is a number somebody failed to make.
    wrong = (values.isna() & (texts != "")).to_numpy()
    if wrong.any():
        at = int(np.argmax(wrong))
        raise SeriesError(
            f"{path}: row {first_row + at}, column 'value': {texts.iloc[at]!r} is no number",
            remedy="leave the cell empty where nothing was measured",
        )
    return values.astype("float64")


def _unit(
    table: pd.DataFrame, path: Path, stated: str | None, asked: str | None, notes: list[Note]
) -> tuple[Unit, float]:
    """What the values are in; column, line on top and caller may each say it, and must agree."""
    said = {"the line '# unit:'": stated, "the column 'unit'": _unit_column(table, path), "--unit": asked}
    found: tuple[str, str, tuple[Unit, float]] | None = None
    for who, text in said.items():
        if not text:
            continue
        try:
            meant = parse_unit(text)
        except SeriesError as error:
            raise SeriesError(f"{path}: {error.what}", remedy=error.remedy) from error
        if found is not None and found[2] != meant:
            raise SeriesError(
                f"{path}: {found[0]} says the unit is {found[1]!r}, {who} says {text!r}",
                remedy="leave out the one that is wrong: the values would be off by their ratio",
            )
        found = found or (who, text, meant)
    if found is None:
        notes.append(
            Note(
                en=f"the file names no unit; read as {DEFAULT_UNIT}",
                vi=f"tệp không ghi đơn vị; hiểu là {DEFAULT_UNIT}",
            )
        )
        return parse_unit(DEFAULT_UNIT)
    return found[2]


def _unit_column(table: pd.DataFrame, path: Path) -> str | None:
    if "unit" not in table:
        return None
    kinds = sorted(set(table["unit"].str.strip()))
    if len(kinds) > 1:
        raise SeriesError(
            f"{path}: column 'unit' holds {kinds[0]!r} and {kinds[1]!r}",
            remedy="write all values of one file in one unit",
        )
    return str(kinds[0])
