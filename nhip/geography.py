"""Provinces by code and date: 63 until 30 June 2025, 34 since.

A code means something only together with a date, because a merged province keeps the code of one of its
parts; a series over twelve months crosses the merger.
"""

from __future__ import annotations

import datetime
from functools import lru_cache
from typing import Annotated, Literal

import msgspec

from nhip import config
from nhip.errors import ConfigError, UnknownNameError


class Province(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One area under one code for one span of time; `valid_to` is the first day it no longer holds."""

    code: Annotated[str, msgspec.Meta(pattern=r"^\d{2}$")]
    name: str
    valid_from: datetime.date | None = None
    valid_to: datetime.date | None = None
    successor: str | None = None

    def holds_on(self, day: datetime.date) -> bool:
        """Whether the row describes `day`."""
        return (self.valid_from is None or self.valid_from <= day) and (
            self.valid_to is None or day < self.valid_to
        )


class ProvinceTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All provinces of all times, as in configs/geography/provinces.toml."""

    format: Literal["nhip-provinces/1"]
    source: str
    mark: str
    province: list[Province]

    def __post_init__(self) -> None:
        for row in self.province:
            if row.successor is not None and row.valid_to is None:
                raise ConfigError(f"province.{row.code}.successor: needs a valid_to", remedy="add valid_to")
            if row.valid_to is not None and row.successor is not None:
                try:
                    self.on(row.successor, row.valid_to)
                except UnknownNameError as error:
                    raise ConfigError(f"province.{row.code}.successor: {error.what}") from error

    def on(self, code: str, day: datetime.date) -> Province:
        """The province `code` named on `day`; UnknownNameError when it named none."""
        for row in self.province:
            if row.code == code and row.holds_on(day):
                return row
        known = sorted(row.code for row in self.province if row.holds_on(day))
        raise UnknownNameError(
            f"{code!r} was no province code on {day.isoformat()}", remedy=f"known then: {', '.join(known)}"
        )

    def now_called(self, code: str, then: datetime.date, today: datetime.date) -> Province:
        """The province that holds on `today` the area `code` named `then`."""
        row = self.on(code, then)
        while not row.holds_on(today) and row.successor is not None and row.valid_to is not None:
            row = self.on(row.successor, row.valid_to)
        return row


@lru_cache(maxsize=1)
def provinces() -> ProvinceTable:
    """The table Nhịp ships."""
    return config.load(config.shipped("geography/provinces.toml"), ProvinceTable, environment={})
