"""Quality of Outcome: how far between unusable and perfect a network is for a service, 0 to 100.

draft-ietf-ippm-qoo (2026-05-19). For each delay percentile and for loss the score is 100 at the good value, 0
at the unusable one and linear between; throughput is 100 or 0; the whole is the worst part. Pure functions on
numbers already measured.

What was not measured is never passed over. A part that cannot be assessed leaves the whole without a score,
unless another part alone makes it 0, which no further measurement could raise. Too few samples is one way of
not having measured: of 100 packets nobody knows the 99.9th percentile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nhip.language import Text, text
from nhip.measurement import Sample
from nhip.service_profiles import (
    PERCENTILES,
    Band,
    DelayRequirement,
    LossRequirement,
    Service,
    ServiceProfile,
    ThroughputRequirement,
)
from nhip.statistics import NANOSECONDS_PER_SECOND, wilson_interval

DRAFT = "draft-ietf-ippm-qoo (2026-05-19)"

NOT_ASSESSED = text("chưa đủ số liệu", "not enough data")
"""The verdict of a service without a score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What the draft obliges a score to be published with (section "Reporting measurement results")."""

    method: str
    measurement_class: str
    """active, passive or hybrid (RFC 7799)."""
    protocol: str
    packet_size_octets: int | None
    dscp: int | None
    sampling: str
    interval_seconds: float | None
    """Mean time between samples; `None` when there is no such thing."""
    source: str
    destination: str
    direction: str
    """round_trip, up or down."""
    first_wall_ns: int
    duration_seconds: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What is known of a network. `None` is not measured."""

    delay_seconds: Sequence[float] | None = None
    """The delay at each of PERCENTILES."""
    delay_count: int = 0
    """How many delays they were taken from."""
    loss_ratio: float | None = None
    loss_count: int = 0
    """How many packets could tell."""
    down_bits_per_second: float | None = None
    up_bits_per_second: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One requirement and how it was met."""

    id: str
    """delay_p95, loss, down, up."""
    score: float | None
    """0 to 100; `None` when it cannot be assessed."""
    at_most: float
    """The score, or what it certainly does not exceed."""
    reason: Text | None = None
    """Why it cannot be assessed."""

    @property
    def title(self) -> Text:
        """Its name for people."""
        return part_title(self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceReadiness:
    """How ready a network is for one service."""

    service: str
    title: Text
    score: float | None
    """0 to 100; `None` when a part is not assessed and no other is 0."""
    at_most: float
    """The score, or what it certainly does not exceed."""
    band: Band | None
    limiting: str | None
    """The part that decides: the lowest of those assessed; `None` when none is, or all are perfect."""
    parts: tuple[Part, ...]
    profile: str
    """Id and version of the requirements."""
    verified: bool
    """Whether every number of the requirements was read in its source."""
    notes: tuple[Text, ...] = ()
    metadata: Metadata | None = None

    @property
    def not_assessed(self) -> tuple[Part, ...]:
        """The parts that are missing."""
        return tuple(part for part in self.parts if part.score is None)

    @property
    def verdict(self) -> Text:
        """The band's name, or that there is not enough data."""
        return NOT_ASSESSED if self.band is None else self.band.title


def readiness(
    profile: ServiceProfile,
    quantiles_seconds: Sequence[float] | None,
    delay_count: int,
    loss_ratio: float | None,
    loss_count: int,
    down_bits_per_second: float | None,
    up_bits_per_second: float | None,
    *,
    metadata: Metadata | None = None,
) -> list[ServiceReadiness]:
    """How ready a network is for each service of `profile`, in its order.

    `quantiles_seconds` are the delays at PERCENTILES, in the direction the profile speaks of, `delay_count`
    of them; `loss_count` packets could tell of loss. ValueError when these are no such quantiles, or when
    `metadata` is of another direction.
    """
    measured = Measured(
        delay_seconds=quantiles_seconds,
        delay_count=delay_count,
        loss_ratio=loss_ratio,
        loss_count=loss_count,
        down_bits_per_second=down_bits_per_second,
        up_bits_per_second=up_bits_per_second,
    )
    if metadata is not None and metadata.direction != profile.direction:
        raise ValueError(
            f"{profile.id} requires delays {profile.direction}, measured were {metadata.direction}"
        )
    return [assess(service, measured, profile, metadata) for service in profile.service]


def assess(
    service: Service, measured: Measured, profile: ServiceProfile, metadata: Metadata | None = None
) -> ServiceReadiness:
    """How ready a network is for one service of `profile`."""
    _check(measured)
    parts = (
        *(delay_part(requirement, measured) for requirement in service.delay),
        *([loss_part(service.loss, measured)] if service.loss else ()),
        *([throughput_part("down", service.down, measured.down_bits_per_second)] if service.down else ()),
        *([throughput_part("up", service.up, measured.up_bits_per_second)] if service.up else ()),
    )
    at_most = min(part.at_most for part in parts)
    settled = at_most == 0 or all(part.score is not None for part in parts)
    score = at_most if settled else None
    known = [part for part in parts if part.score is not None or part.at_most == 0]
    worst = min(known, key=lambda part: part.at_most, default=None)
    return ServiceReadiness(
        service=service.id,
        title=service.title,
        score=score,
        at_most=at_most,
        band=None if score is None else profile.verdict(score),
        limiting=worst.id if worst and worst.at_most < 100 else None,
        parts=parts,
        profile=f"{profile.id}/{profile.version}",
        verified=service.verified,
        notes=_notes(metadata),
        metadata=metadata,
    )


def part_title(part_id: str) -> Text:
    """What a part is called for people; `part_id` as in :class:`Part`."""
    percentile = part_id.removeprefix("delay_p")
    if percentile == part_id:
        return _PART_TITLES[part_id]
    return text(f"độ trễ, phân vị {percentile.replace('.', ',')}", f"delay, percentile {percentile}")


def delay_part(requirement: DelayRequirement, measured: Measured) -> Part:
    """The score at one percentile.

    With too few samples for it the part is not assessed; the delay at a lower percentile that can be
    assessed bounds it from above, for a higher percentile is never faster.
    """
    part_id = f"delay_p{requirement.percentile:g}"
    if measured.delay_seconds is None or measured.delay_count == 0:
        return Part(id=part_id, score=None, at_most=100.0, reason=_NOT_MEASURED)
    of = dict(zip(PERCENTILES, measured.delay_seconds, strict=True))
    needed = samples_needed(requirement.percentile)
    if measured.delay_count >= needed:
        score = _between(of[requirement.percentile], requirement.good_seconds, requirement.unusable_seconds)
        return Part(id=part_id, score=score, at_most=score)
    lower = max(
        (
            of[percentile]
            for percentile in PERCENTILES
            if percentile < requirement.percentile and measured.delay_count >= samples_needed(percentile)
        ),
        default=0.0,
    )
    return Part(
        id=part_id,
        score=None,
        at_most=_between(lower, requirement.good_seconds, requirement.unusable_seconds),
        reason=_too_few(measured.delay_count, needed),
    )


def loss_part(requirement: LossRequirement, measured: Measured) -> Part:
    """The score of loss.

    Not assessed with fewer packets than it takes to see the good ratio at all; the lower end of the Wilson
    interval then bounds it from above.
    """
    if measured.loss_ratio is None or measured.loss_count == 0:
        return Part(id="loss", score=None, at_most=100.0, reason=_NOT_MEASURED)
    good, unusable = requirement.good_ratio, requirement.unusable_ratio
    needed = _at_least(1 / good) if good else 1
    if measured.loss_count >= needed:
        score = _between(measured.loss_ratio, good, unusable)
        return Part(id="loss", score=score, at_most=score)
    interval = wilson_interval(round(measured.loss_ratio * measured.loss_count), measured.loss_count)
    lowest = interval[0] if interval else 0.0
    return Part(
        id="loss",
        score=None,
        at_most=_between(lowest, good, unusable),
        reason=_too_few(measured.loss_count, needed),
    )


def throughput_part(part_id: str, requirement: ThroughputRequirement, measured: float | None) -> Part:
    """100 when the rate reaches the least the service needs, else 0."""
    if measured is None:
        return Part(id=part_id, score=None, at_most=100.0, reason=_NOT_MEASURED)
    score = 100.0 if measured >= requirement.minimum_bits_per_second else 0.0
    return Part(id=part_id, score=score, at_most=score)


def samples_needed(percentile: float) -> int:
    """The fewest samples of which one lies beyond the percentile: 20 for the 95th, 1000 for the 99.9th."""
    beyond = min(percentile, 100 - percentile)
    return _at_least(100 / beyond) if beyond else 1


def metadata_of(sample: Sample) -> Metadata:
    """The obligatory metadata of one test's round-trip delays."""
    first = next((one.sent for one in sample.singletons if one.sent is not None), sample.started)
    interval = sample.parameters.get("interval_seconds")
    spacing = sample.parameters.get("spacing", "unknown")
    return Metadata(
        method=f"{sample.method.name}/{sample.method.version}",
        measurement_class="active",
        protocol=sample.type_p.protocol,
        packet_size_octets=sample.type_p.size_octets,
        dscp=sample.type_p.dscp,
        sampling=f"{spacing}, one each {interval} s" if interval is not None else str(spacing),
        interval_seconds=float(interval) if isinstance(interval, int | float) else None,
        source=sample.source_address or "this host",
        destination=sample.address or sample.target.host,
        direction="round_trip",
        first_wall_ns=first.wall_ns,
        duration_seconds=(sample.ended.mono_ns - sample.started.mono_ns) / NANOSECONDS_PER_SECOND,
        count=len(sample.singletons),
    )


_PART_TITLES = {
    "loss": text("tỷ lệ mất gói", "loss"),
    "down": text("tốc độ tải xuống", "download speed"),
    "up": text("tốc độ tải lên", "upload speed"),
}
_NOT_MEASURED = text("chưa đo", "not measured")
_NO_METADATA = text(
    "Công bố thiếu thông tin về phép đo mà dự thảo QoO bắt buộc.",
    "Given without the metadata that the QoO draft obliges.",
)
_SLOW_SAMPLING = text(
    "Lấy mẫu thưa hơn 1 lần mỗi giây: điểm có thể cao hơn thực tế.",
    "Sampled less than once a second: the score may be optimistic.",
)


def _notes(metadata: Metadata | None) -> tuple[Text, ...]:
    if metadata is None:
        return (_NO_METADATA,)
    slow = metadata.interval_seconds is not None and metadata.interval_seconds > 1
    return (_SLOW_SAMPLING,) if slow else ()


def _too_few(count: int, needed: int) -> Text:
    return text(f"{count} mẫu, cần {needed}", f"{count} samples, {needed} are needed")


def _between(value: float, good: float, unusable: float) -> float:
    return 100 * min(max(1 - (value - good) / (unusable - good), 0.0), 1.0)


def _at_least(value: float) -> int:
    """The next whole number up, taking what floating point leaves above a whole number for that number."""
    return math.ceil(round(value, 6))


def _check(measured: Measured) -> None:
    quantiles = measured.delay_seconds
    if quantiles is not None:
        if len(quantiles) != len(PERCENTILES):
            raise ValueError(f"{len(quantiles)} quantiles where {len(PERCENTILES)} percentiles are reported")
        if any(not math.isfinite(value) or value < 0 for value in quantiles):
            raise ValueError("a delay quantile is finite and not negative; what is not measured is None")
        if list(quantiles) != sorted(quantiles):
            raise ValueError("delay quantiles that fall are no quantiles")
    if measured.loss_ratio is not None and not 0 <= measured.loss_ratio <= 1:
        raise ValueError(f"{measured.loss_ratio} is no loss ratio")
