"""Gaps: filled with the value of the same phase one season back, and counted, never hidden."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from forecasting.frame import Floats, Series
from forecasting.notes import Note
from nhip.errors import SeriesError

# With more than half of the steps missing the filling would outweigh what was measured.
GAP_RATIO_AT_MOST = 0.5


def fill_gaps(series: Series, season_steps: int) -> Series:
    """The same series without gaps; a note says how many steps were filled.

    A gap takes the value one season earlier (itself perhaps filled), a gap in the first season the next
    value of its phase. SeriesError when more than half of the steps are gaps or a phase was never measured.
    """
    gaps = series.gap_count
    if gaps == 0:
        return series
    name = series.series_id
    if gaps > GAP_RATIO_AT_MOST * len(series):
        raise SeriesError(
            f"series {name!r} has gaps in {gaps} of {len(series)} steps",
            remedy="give a more complete history",
        )
    filled = _backwards_one_season(series.values, season_steps)
    if np.isnan(filled).any():
        raise SeriesError(
            f"series {name!r}: part of the season was never measured",
            remedy="give a history in which every phase of the season was measured once",
        )
    note = Note(
        en=f"{gaps} of {len(series)} steps held no value; filled from the same time one season before",
        vi=f"{gaps} trong {len(series)} bước không có số liệu; lấy giá trị cùng thời điểm của chu kỳ trước",
    )
    return replace(series, values=filled, notes=(*series.notes, note))


def _backwards_one_season(values: Floats, season_steps: int) -> Floats:
    """Rows are seasons and columns phases, so a gap is filled from the row above, the first from below."""
    rows = -(-len(values) // season_steps)
    padded = np.full(rows * season_steps, np.nan)
    padded[: len(values)] = values
    grid = padded.reshape(rows, season_steps)
    for row in range(1, rows):
        grid[row] = np.where(np.isnan(grid[row]), grid[row - 1], grid[row])
    for row in range(rows - 2, -1, -1):
        grid[row] = np.where(np.isnan(grid[row]), grid[row + 1], grid[row])
    return grid.ravel()[: len(values)]
