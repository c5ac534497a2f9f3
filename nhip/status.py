"""What a status page shows: data only, gathered by the collector, drawn by dashboards.

The collector fills these rows and the page renders them; neither imports the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nhip.measurement import Outcome, Technology
from nhip.wire import LinkForecast


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What the lab knows of the same quantity; absent outside a lab."""

    delay_seconds: float | None = None
    loss_ratio: float | None = None
    down_bits_per_second: float | None = None
    up_bits_per_second: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRow:
    """One operator's access of one technology, over the window the page names."""

    operator: str
    technology: Technology
    province: str
    probe_id: str
    last_seen_wall_ns: int | None
    silent: bool
    delay_seconds: float | None
    delay_count: int
    loss_ratio: float | None
    loss_interval: tuple[float, float] | None
    loss_count: int
    down_bits_per_second: float | None
    down_count: int
    up_bits_per_second: float | None
    up_count: int
    truth: Truth | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRow:
    """The last result of one scheduled test."""

    probe_id: str
    kind: str
    target: str
    outcome: Outcome
    started_wall_ns: int
    delay_seconds: float | None
    loss_ratio: float | None
    timestamp_source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow:
    """One indicator of one operator held against a regulation profile."""

    operator: str
    technology: Technology
    province: str
    indicator_id: str
    title_vi: str
    title_en: str
    clause: str
    unit: str
    value: float | None
    interval: tuple[float, float] | None
    interval_method: str
    limit: float | None
    comparison: str
    samples: int
    samples_required: int | None
    failures: int
    """Tests or transfers of the period that failed and so are in no mean."""
    verdict: str
    """``conforming``, ``not_conforming``, ``too_few_samples`` or ``limit_unverified``."""
    source: str
    mark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusView:
    """Everything on the status page at one moment."""

    made_wall_ns: int
    window_seconds: float
    software_version: str
    simulated: bool
    """True when any figure shown was not measured on a real network."""
    accesses: tuple[AccessRow, ...]
    series: tuple[SeriesRow, ...]
    verdicts: tuple[VerdictRow, ...]
    profile_title_vi: str
    profile_title_en: str
    links: tuple[LinkForecast, ...]
    records_stored: int
    records_quarantined: int


Render = Callable[[StatusView, str], str]
"""Draws a view as HTML in a language, ``vi`` or ``en``."""
