"""Regulation profiles, ``format = "nhip-regulation/1"``: limits as data, each saying how sure we are of it.

No number of a regulation stands in code. A limit nobody has held against the text of the regulation is marked
``verified = false`` and can never yield "conforming".
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from nhip.errors import ConfigError
from nhip.measurement import TargetClass, Technology
from nhip.wire import Identifier

Formula = Literal["mean_delay", "mean_speed_down", "mean_speed_up"]
"""The formulas of :mod:`collector.kpi.qcvn34`."""


class Indicator(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One indicator: what is computed, what it is held against, and where that is written."""

    id: Annotated[str, Meta(pattern=r"^[a-z0-9]+(\.[a-z0-9]+)*$")]
    title_vi: str
    title_en: str
    clause: str
    formula: Formula
    kinds: Annotated[list[Identifier], Meta(min_length=1)]
    """Kinds of test whose records are samples of this indicator."""
    target_classes: Annotated[list[TargetClass], Meta(min_length=1)]
    comparison: Literal["<=", ">="]
    limit: Annotated[float, Meta(gt=0)] | Literal["declared"]
    """In `unit`; ``"declared"`` is `factor` times what the operator declares."""
    factor: Annotated[float, Meta(gt=0)] = 1.0
    unit: Literal["seconds", "bits_per_second"]
    minimum_samples: Annotated[int, Meta(ge=1)]
    method: str
    source: str
    mark: Literal["V", "V-old", "V-sec", "D", "U"]
    """V read in the text in force, V-old in an older edition, V-sec second-hand, D in a draft, U recalled."""
    verified: bool
    """Whether limit, comparison and minimum were all read in the text in force."""
    note_vi: str = ""
    note_en: str = ""

    def __post_init__(self) -> None:
        if self.verified and self.mark != "V":
            raise ConfigError(
                f"indicator {self.id}: verified = true with mark {self.mark!r}",
                remedy="only a limit read in the text in force (mark V) is verified",
            )


class RegulationProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One edition of one regulation."""

    format: Literal["nhip-regulation/1"]
    id: Identifier
    document: str
    title_vi: str
    title_en: str
    in_force_from: date | None = None
    in_force_to: date | None = None
    """The first and the last day; absent where the edition has none that is known."""
    technologies: Annotated[list[Technology], Meta(min_length=1)]
    source: str
    note_vi: str = ""
    note_en: str = ""
    indicators: Annotated[list[Indicator], Meta(min_length=1)] = msgspec.field(name="indicator")

    def __post_init__(self) -> None:
        if self.in_force_from and self.in_force_to and self.in_force_to < self.in_force_from:
            raise ConfigError(
                f"in_force_to: {self.in_force_to}: is before in_force_from", remedy="exchange the two dates"
            )
        ids = [indicator.id for indicator in self.indicators]
        for repeated in {identifier for identifier in ids if ids.count(identifier) > 1}:
            raise ConfigError(f"indicator.id: {repeated!r}: appears twice", remedy="keep one of them")

    def in_force_on(self, day: date) -> bool:
        """Whether this edition judges `day`."""
        return (self.in_force_from is None or self.in_force_from <= day) and (
            self.in_force_to is None or day <= self.in_force_to
        )
