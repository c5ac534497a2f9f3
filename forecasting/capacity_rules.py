"""The capacity rules a link is held to, read from configs/regulations/capacity_rules.toml.

A rule is a statistic of the traffic and the fraction of the capacity it must not pass. Rules are data: a
regulation changes without a release of Nhịp, and a limit that nobody has checked against the legal text
says so wherever it is shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from forecasting.resample import Statistic
from nhip.config import load, shipped
from nhip.errors import ConfigError

LinkClass = Literal["international", "domestic", "interconnection"]
# Where the limit was read. V: this very document; V-old: a predecessor; V-sec: a second-hand page;
# D: a draft; U: nowhere yet.
Mark = Literal["V", "V-old", "V-sec", "D", "U"]


class CapacityRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One rule: `statistic` of the traffic stays at or below `limit_ratio` of the capacity."""

    id: str
    title_vi: str
    title_en: str
    statistic: Statistic
    source: str
    mark: Mark
    verified: bool
    valid_from: date
    valid_to: date | None = None
    # Absent where the document is known and its number is not: such a rule is shown and never judged.
    limit_ratio: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    link_classes: tuple[LinkClass, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        if self.verified and self.mark != "V":
            raise ConfigError(
                f"verified: {self.id} is marked {self.mark} and verified at once",
                remedy="set verified = false until the legal text was read",
            )

    def in_force(self, day: date) -> bool:
        """Whether the rule held on `day`."""
        return self.valid_from <= day and (self.valid_to is None or day <= self.valid_to)


class CapacityRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    format: Literal["nhip-capacity-rules/1"]
    rules: tuple[CapacityRule, ...]

    def __post_init__(self) -> None:
        ids = [rule.id for rule in self.rules]
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            raise ConfigError(f"rules: {twice[0]!r} is there twice", remedy="give each rule an id of its own")


def read_capacity_rules(path: Path | None = None) -> tuple[CapacityRule, ...]:
    """The rules of a file, of the shipped one by default; ConfigError names file, key and remedy."""
    return load(path or shipped("regulations/capacity_rules.toml"), CapacityRules).rules


def rules_for(
    rules: Iterable[CapacityRule], *, day: date, link_class: LinkClass | None = None
) -> tuple[CapacityRule, ...]:
    """The rules in force on `day` for a class of link; all classes when none is named."""
    return tuple(
        rule
        for rule in rules
        if rule.in_force(day)
        and (link_class is None or not rule.link_classes or link_class in rule.link_classes)
    )
