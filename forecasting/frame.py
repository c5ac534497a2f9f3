"""The one long frame every forecast starts from: series_id, time, value, checked at the door.

::

    series_id   time (UTC)            value        gap     provenance
    hanoi-hcm   2026-01-01 00:00:00   4.1e9        False   measured
    hanoi-hcm   2026-01-01 01:00:00   NaN          True    measured      <- nothing was measured
    hanoi-hcm   2026-01-01 02:00:00   3.8e9        False   measured

After the door nobody asks again: times are UTC and regular, every missing step is a row of its own and
counted, values are finite and not negative, the unit is one of two, and each series knows whether it was
measured or simulated. A model receives one :class:`Series` of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from forecasting.notes import Note
from forecasting.units import Unit
from nhip.errors import SeriesError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Provenance = Literal["measured", "simulated"]
OffGrid = Literal["refuse", "average"]

# A poll that comes a little early or late belongs to its step; one further off belongs to none.
SNAP_RATIO = 0.1
USUAL_STEPS_SECONDS = (60, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 604_800)
# One stray year in a file would otherwise become millions of empty rows.
GAPS_PER_VALUE_AT_MOST = 20
GAPS_ALWAYS_FINE = 5_000

_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """The history of one link on a regular grid; a step in which nothing was measured holds NaN."""

    series_id: str
    times: pd.DatetimeIndex
    values: Floats
    unit: Unit
    step_seconds: int
    provenance: Provenance
    notes: tuple[Note, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def gap_count(self) -> int:
        """How many steps hold no measured value."""
        return int(np.isnan(self.values).sum())

    def first(self, steps: int) -> Series:
        """The oldest `steps` steps: what was known at an earlier origin."""
        return replace(self, times=self.times[:steps], values=self.values[:steps])

    def last(self, steps: int) -> Series:
        """The newest `steps` steps."""
        return replace(self, times=self.times[-steps:], values=self.values[-steps:])

    def times_ahead(self, horizon_steps: int) -> pd.DatetimeIndex:
        """The `horizon_steps` times that follow the last one, at the same step."""
        step = pd.Timedelta(seconds=self.step_seconds)
        return pd.date_range(self.times[-1] + step, periods=horizon_steps, freq=step)


@dataclass(frozen=True, slots=True, eq=False)
class SeriesFrame:
    """Many series in one long table that passed :func:`checked`; `notes` say what was mended on the way."""

    table: pd.DataFrame
    unit: Unit
    step_seconds: int
    notes: tuple[Note, ...] = ()

    @property
    def series_ids(self) -> list[str]:
        """The names of the series, in the order in which they came."""
        return [str(name) for name in self.table["series_id"].unique()]

    def series(self, series_id: str) -> Series:
        """One series of the frame; SeriesError lists the known names when there is none."""
        rows = self.table[self.table["series_id"] == series_id]
        if rows.empty:
            raise SeriesError(
                f"there is no series {series_id!r}", remedy=f"known: {', '.join(self.series_ids[:20])}"
            )
        return Series(
            series_id=series_id,
            times=pd.DatetimeIndex(rows["time"]),
            values=rows["value"].to_numpy(dtype=np.float64),
            unit=self.unit,
            step_seconds=self.step_seconds,
            provenance=cast(Provenance, rows["provenance"].iloc[0]),
            notes=self.notes,
        )


def checked(
    table: pd.DataFrame,
    *,
    unit: Unit,
    step_seconds: int | None = None,
    off_grid: OffGrid = "refuse",
    source: str = "table",
    first_row: int = 1,
    notes: Sequence[Note] = (),
) -> SeriesFrame:
    """A frame from a table with columns series_id, time, value and (optional) provenance.

    `step_seconds` is inferred from the distances of the times when not stated. A NaN value is a step in
    which nothing was measured. `off_grid="average"` puts values whose times keep no step into steps
    counted from midnight UTC and takes their mean. `source` and `first_row` are for messages only.

    SeriesError for a time without a zone, two rows for one time, a negative or infinite value, a series
    that mixes measured and simulated rows, and a time that is on no grid.
    """
    if table.empty:
        raise SeriesError(f"{source}: holds no row", remedy="give at least two weeks of values")
    work = _with_utc(table, source)
    _refuse_bad_values(work["value"].to_numpy(dtype=np.float64), source, first_row)
    if "provenance" not in work:
        work["provenance"] = "measured"
    work["row"] = np.arange(first_row, first_row + len(work))
    groups = [(name, rows.sort_values("time")) for name, rows in work.groupby("series_id", sort=False)]
    for name, rows in groups:
        _refuse_mixed(name, rows, source)
        _refuse_duplicates(name, rows, source)
    step = step_seconds or _infer_step([_seconds(rows) for _, rows in groups], source)
    mended = list(notes)
    parts = [_on_grid(name, rows, step, off_grid, source, mended) for name, rows in groups]
    return SeriesFrame(pd.concat(parts, ignore_index=True), unit, step, tuple(mended))


# ---------------------------------------------------------------------------------------------- the door


def _with_utc(table: pd.DataFrame, source: str) -> pd.DataFrame:
    missing = [column for column in ("series_id", "time", "value") if column not in table]
    if missing:
        raise SeriesError(
            f"{source}: has no column {missing[0]!r}", remedy="the columns are series_id, time and value"
        )
    if not isinstance(table["time"].dtype, pd.DatetimeTZDtype):
        raise SeriesError(
            f"{source}: its times name no zone", remedy="give times with a zone, for example in UTC"
        )
    work = table.copy()
    work["time"] = work["time"].dt.tz_convert("UTC")
    return work


def _refuse_bad_values(values: Floats, source: str, first_row: int) -> None:
    for bad, word in ((np.isinf(values), "infinite"), (values < 0, "negative")):
        if bad.any():
            at = int(np.argmax(bad))
            raise SeriesError(
                f"{source}: row {first_row + at}: value {values[at]:g} is {word}",
                remedy="leave the cell empty where nothing was measured",
            )


def _refuse_mixed(name: Hashable, rows: pd.DataFrame, source: str) -> None:
    kinds = set(rows["provenance"])
    if unknown := kinds - set(get_args(Provenance)):
        raise SeriesError(
            f"{source}: series {name!r}: provenance {sorted(map(str, unknown))[0]!r} is unknown",
            remedy="write measured or simulated",
        )
    if len(kinds) > 1:
        raise SeriesError(
            f"{source}: series {name!r} mixes measured and simulated rows",
            remedy="give the simulated part a series_id of its own",
        )


def _refuse_duplicates(name: Hashable, rows: pd.DataFrame, source: str) -> None:
    twice = rows["time"].duplicated(keep=False)
    if twice.any():
        pair = rows[twice].iloc[:2]
        raise SeriesError(
            f"{source}: series {name!r} has two values for {pair['time'].iloc[0].isoformat()} "
            f"(rows {pair['row'].iloc[0]} and {pair['row'].iloc[1]})",
            remedy="keep one of them",
        )


# ---------------------------------------------------------------------------------------------- the grid


def _seconds(rows: pd.DataFrame) -> Integers:
    """Times as whole seconds since 1970; counters are never polled more finely."""
    stamps = pd.DatetimeIndex(rows["time"]).as_unit("ns").asi8
    return np.asarray(stamps // _NS, dtype=np.int64)


def _infer_step(times: list[Integers], source: str) -> int:
    """The middle distance between two times, made round where polls that jitter left it a little off."""
    distances = np.sort(np.concatenate([np.diff(stamps) for stamps in times]))
    if len(distances) == 0:
        raise SeriesError(
            f"{source}: one value alone has no step", remedy="give at least two weeks of values"
        )
    middle = int(distances[(len(distances) - 1) // 2])
    usual = min(USUAL_STEPS_SECONDS, key=lambda step: abs(step - middle))
    return usual if abs(usual - middle) <= SNAP_RATIO * usual else middle


def _phase(stamps: Integers, step: int) -> int:
    """How long after a multiple of the step the polls come: what most do, or the middle when none agree."""
    after = stamps % step
    most, count = Counter(after.tolist()).most_common(1)[0]
    if 2 * count >= len(after):
        return int(most)
    # On a circle, so that polls around the turn of a step do not average to its middle.
    angles = after * (2 * np.pi / step)
    middle = np.arctan2(np.sin(angles).mean(), np.cos(angles).mean())
    return round(float(middle) / (2 * np.pi) * step) % step


def _on_grid(
    name: Hashable, rows: pd.DataFrame, step: int, off_grid: OffGrid, source: str, notes: list[Note]
) -> pd.DataFrame:
    stamps = _seconds(rows)
    values = rows["value"].to_numpy(dtype=np.float64)
    phase = _phase(stamps, step)
    slots = np.rint((stamps - phase) / step).astype(np.int64)
    error = np.abs(stamps - (slots * step + phase))
    far = error > SNAP_RATIO * step
    if (far.any() or len(np.unique(slots)) < len(slots)) and off_grid == "average":
        off, phase, slots = int(far.sum()), 0, stamps // step
        notes.append(
            Note(
                en=f"{name}: {off} of {len(stamps)} times kept no step; averaged per {step} s",
                vi=f"{name}: {off} trong {len(stamps)} thời điểm lệch bước; lấy trung bình mỗi {step} s",
            )
        )
    elif far.any():
        at = int(np.argmax(far))
        raise SeriesError(
            f"{source}: row {rows['row'].iloc[at]}: series {name!r}: {_iso(int(stamps[at]))} "
            f"is on no step of {step} s",
            remedy="state the step, or have the values averaged per step",
        )
    elif error.any():
        moved, furthest = int((error > 0).sum()), int(error.max())
        notes.append(
            Note(
                en=f"{name}: {moved} times moved to their step, by at most {furthest} s",
                vi=f"{name}: {moved} thời điểm được đưa về đúng bước, lệch nhiều nhất {furthest} s",
            )
        )
    first, last = int(slots.min()), int(slots.max())
    length = last - first + 1
    if length - len(slots) > max(GAPS_ALWAYS_FINE, GAPS_PER_VALUE_AT_MOST * len(slots)):
        raise SeriesError(
            f"{source}: series {name!r}: {len(slots)} values from {_iso(first * step + phase)} to "
            f"{_iso(last * step + phase)} leave {length - len(slots)} gaps at a step of {step} s",
            remedy="look for a stray date, or state a longer step",
        )
    filled = _mean_per_slot(slots - first, values, length, name, source)
    start = pd.Timestamp(first * step + phase, unit="s", tz="UTC")
    return pd.DataFrame(
        {
            "series_id": str(name),
            "time": pd.date_range(start, periods=length, freq=pd.Timedelta(seconds=step)),
            "value": filled,
            "gap": np.isnan(filled),
            "provenance": rows["provenance"].iloc[0],
        }
    )


def _mean_per_slot(slots: Integers, values: Floats, length: int, name: Hashable, source: str) -> Floats:
    """Mean of the measured values that fall into each slot; NaN where none does."""
    known = ~np.isnan(values)
    if not known.any():
        raise SeriesError(
            f"{source}: series {name!r} holds no value", remedy="give it values or leave it out"
        )
    sums = np.bincount(slots[known], weights=values[known], minlength=length)
    counts = np.bincount(slots[known], minlength=length)
    filled = np.full(length, np.nan)
    np.divide(sums, counts, out=filled, where=counts > 0)
    return filled


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat()
