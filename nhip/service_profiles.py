"""What a network must offer for a service to work: requirement profiles, as versioned data.

A profile holds services, and for each the conditions of draft-ietf-ippm-qoo: delay at some percentiles and
loss, each with the value at which the service is as good as it gets and the one at which it is unusable, and
the least throughput. The draft sets no numbers of its own; each number here names where it is from.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal

import msgspec

from nhip import config
from nhip.errors import ConfigError
from nhip.language import Text, text

PERCENTILES = (0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 100.0)
"""Those at which delays are reported, as the draft recommends (section "Measurement considerations")."""

_Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]
_Ratio = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Words = Annotated[str, msgspec.Meta(min_length=1)]
_Id = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]+$")]


class DelayRequirement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """So much delay at a percentile is good, so much is unusable."""

    percentile: Annotated[float, msgspec.Meta(ge=0, le=100)]
    good_seconds: _Seconds
    unusable_seconds: _Seconds
    source: _Words
    verified: bool
    """True only where both numbers were read in what `source` names."""


class LossRequirement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """So much loss is good, so much is unusable."""

    good_ratio: _Ratio
    unusable_ratio: _Ratio
    source: _Words
    verified: bool


class ThroughputRequirement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The service needs at least so much, in one direction."""

    minimum_bits_per_second: Annotated[float, msgspec.Meta(gt=0)]
    source: _Words
    verified: bool


class Service(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One service, or group of services, and what it needs."""

    id: _Id
    title_vi: _Words
    title_en: _Words
    delay: list[DelayRequirement] = []
    loss: LossRequirement | None = None
    down: ThroughputRequirement | None = None
    up: ThroughputRequirement | None = None

    def __post_init__(self) -> None:
        if not (self.delay or self.loss or self.down or self.up):
            raise ConfigError(f"service.{self.id}: requires nothing", remedy="give delay, loss, down or up")
        key, seen = f"service.{self.id}", set[float]()
        for requirement in self.delay:
            if requirement.percentile not in PERCENTILES:
                raise ConfigError(
                    f"{key}.delay.percentile: {requirement.percentile:g} is not reported",
                    remedy="use one of " + ", ".join(f"{percentile:g}" for percentile in PERCENTILES),
                )
            if requirement.percentile in seen:
                raise ConfigError(
                    f"{key}.delay.percentile: {requirement.percentile:g} is there twice",
                    remedy="keep one of the two",
                )
            seen.add(requirement.percentile)
            _require_order(
                f"{key}.delay.unusable_seconds", requirement.good_seconds, requirement.unusable_seconds
            )
        if self.loss:
            _require_order(f"{key}.loss.unusable_ratio", self.loss.good_ratio, self.loss.unusable_ratio)

    @property
    def title(self) -> Text:
        """Its name for people."""
        return text(self.title_vi, self.title_en)

    @property
    def verified(self) -> bool:
        """Whether every number was read in its source."""
        parts = (*self.delay, self.loss, self.down, self.up)
        return all(part.verified for part in parts if part is not None)


class Band(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a score from `minimum_score` on is called."""

    id: _Id
    minimum_score: Annotated[float, msgspec.Meta(ge=0, le=100)]
    title_vi: _Words
    title_en: _Words

    @property
    def title(self) -> Text:
        """Its name for people."""
        return text(self.title_vi, self.title_en)


class ServiceProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of services, as in configs/services/*.toml; scores of different versions are not compared."""

    format: Literal["nhip-service-profiles/1"]
    id: _Id
    version: _Words
    title_vi: _Words
    title_en: _Words
    document: _Words
    """What names these services, and how it was read."""
    direction: Literal["round_trip", "up", "down"]
    """What the delays are of; measurements of another direction are refused."""
    note_vi: _Words
    note_en: _Words
    band: Annotated[list[Band], msgspec.Meta(min_length=1)]
    """Best first; the last begins at 0."""
    service: Annotated[list[Service], msgspec.Meta(min_length=1)]

    def __post_init__(self) -> None:
        starts = [band.minimum_score for band in self.band]
        if starts != sorted(set(starts), reverse=True) or starts[-1] != 0:
            raise ConfigError(
                "band.minimum_score: bands do not fall from the best to 0",
                remedy="list the best band first and let the last begin at 0",
            )
        for what, ids in (
            ("band", [band.id for band in self.band]),
            ("service", [service.id for service in self.service]),
        ):
            twice = sorted({name for name in ids if ids.count(name) > 1})
            if twice:
                raise ConfigError(f"{what}.{twice[0]}: is there twice", remedy="give each its own id")

    @property
    def title(self) -> Text:
        """Its name for people."""
        return text(self.title_vi, self.title_en)

    @property
    def note(self) -> Text:
        """What a reader must know of its numbers."""
        return text(self.note_vi, self.note_en)

    def verdict(self, score: float) -> Band:
        """The band that `score` falls into."""
        return next((band for band in self.band if score >= band.minimum_score), self.band[-1])


@lru_cache(maxsize=1)
def directive16() -> ServiceProfile:
    """The profile Nhịp ships: the ten groups of services of Directive 16/CT-BTTTT."""
    return config.load(config.shipped("services/directive16.toml"), ServiceProfile, environment={})


def _require_order(key: str, good: float, unusable: float) -> None:
    # Equal values would leave nothing to divide by, and no room between good and unusable.
    if not unusable > good:
        raise ConfigError(
            f"{key}: {unusable:g} is not above the good value {good:g}", remedy="unusable is the worse one"
        )
