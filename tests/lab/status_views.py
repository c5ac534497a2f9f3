"""Status views for tests: one that is full, one that is empty, one whose every text is an attack."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec

from nhip.measurement import Outcome, Technology
from nhip.status import AccessRow, SeriesRow, StatusView, Truth, VerdictRow
from nhip.wire import LimitForecast, LinkForecast, Note

NOW_NS = int(datetime(2026, 11, 24, 13, 43, 17, tzinfo=UTC).timestamp()) * 1_000_000_000
MBIT = 1e6

_ACCESSES = (
    # operator, technology, province, delay ms, loss, trials, down, up, truth delay, loss, down, up
    ("alpha", Technology.FIXED, "01", 4.214, 0.0008, 12_500, 94.1, 47.0, 4.200, 0.001, 94.6, 47.2),
    ("alpha", Technology.MOBILE_4G, "01", 31.62, 0.0102, 11_800, 38.9, 14.2, 31.40, 0.010, 39.1, 14.5),
    ("alpha", Technology.MOBILE_3G, "01", 78.15, 0.0208, 9_900, 6.84, 1.91, 78.00, 0.020, 6.88, 1.93),
    ("beta", Technology.FIXED, "79", 9.871, 0.0000, 12_410, 188.3, 92.7, 9.860, 0.000, 189.1, 94.6),
    ("beta", Technology.MOBILE_4G, "79", 36.04, 0.0049, 11_730, 27.2, 9.60, 34.20, 0.005, 28.9, 9.65),
    ("beta", Technology.MOBILE_3G, "79", 92.47, 0.0313, 9_870, 4.10, 1.22, 92.40, 0.030, 4.12, 1.23),
    ("gamma", Technology.FIXED, "48", 12.33, 0.0021, 12_460, 47.4, 23.5, 12.30, 0.002, 47.3, 23.6),
    ("gamma", Technology.MOBILE_4G, "48", 44.90, 0.0198, 11_790, 18.8, 6.70, 44.80, 0.020, 18.9, 6.75),
)


def full_view() -> StatusView:
    """Everything a page can show: measured beside true, a silent probe, four verdicts, links of each kind."""
    accesses = [_access(*row) for row in _ACCESSES]
    silent = AccessRow(
        operator="gamma",
        technology=Technology.MOBILE_3G,
        province="48",
        probe_id="gamma-3g",
        last_seen_wall_ns=NOW_NS - 412_000_000_000,
        silent=True,
        delay_seconds=None,
        delay_count=0,
        loss_ratio=None,
        loss_interval=None,
        loss_count=0,
        down_bits_per_second=None,
        down_count=0,
        up_bits_per_second=None,
        up_count=0,
    )
    return StatusView(
        made_wall_ns=NOW_NS,
        window_seconds=600.0,
        software_version="0.1.0",
        simulated=True,
        accesses=(*accesses, silent),
        series=tuple(_series()),
        verdicts=tuple(_verdicts()),
        profile_title_vi="QCVN 34:2022/BTTTT – Dịch vụ truy nhập Internet băng rộng cố định mặt đất",
        profile_title_en="QCVN 34:2022/BTTTT – Terrestrial fixed broadband Internet access service",
        links=(
            link("quoc-te-aag", 0.62, 0.0035, provenance="simulated", crosses_in_days=74),
            link("ix-ha-noi", 0.41, 0.0004, provenance="simulated"),
            link("lien-mang-alpha-beta", 0.93, 0.0005, provenance="measured", over=True),
            link("trung-ke-da-nang", 0.3, 0.001, provenance="measured", capacity=None),
        ),
        records_stored=184_233,
        records_quarantined=2,
    )


def empty_view() -> StatusView:
    """A collector that was just started."""
    return StatusView(
        made_wall_ns=NOW_NS,
        window_seconds=90.0,
        software_version="0.1.0",
        simulated=False,
        accesses=(),
        series=(),
        verdicts=(),
        profile_title_vi="",
        profile_title_en="",
        links=(),
        records_stored=0,
        records_quarantined=0,
    )


def hostile_view(attack: str) -> StatusView:
    """The full view with `attack` in every text a probe, a file or a forecast could bring."""
    view = full_view()
    return replace(
        view,
        software_version=attack,
        profile_title_vi=attack,
        profile_title_en=attack,
        accesses=tuple(
            replace(row, operator=attack, province=attack, probe_id=attack) for row in view.accesses
        ),
        series=tuple(
            replace(row, probe_id=attack, kind=attack, target=attack, timestamp_source=attack)
            for row in view.series
        ),
        verdicts=tuple(
            replace(
                row,
                operator=attack,
                province=attack,
                indicator_id=attack,
                title_vi=attack,
                title_en=attack,
                clause=attack,
                unit=attack,
                interval_method=attack,
                comparison=attack,
                verdict=attack,
                source=attack,
                mark=attack,
            )
            for row in view.verdicts
        ),
        links=tuple(_hostile_link(found, attack) for found in view.links),
    )


def link(
    link_id: str,
    level: float,
    growth_per_day: float,
    *,
    provenance: str,
    capacity: float | None = 10e9,
    crosses_in_days: int | None = None,
    over: bool = False,
    days: int = 90,
) -> LinkForecast:
    """A forecast with a weekly beat that starts at `level` of the capacity and grows by the day."""
    start = datetime.fromtimestamp(NOW_NS / 1e9, tz=UTC).replace(hour=17, minute=0, second=0)
    base = capacity or 10e9
    median = [
        base * level * (1 + growth_per_day) ** day * (1 + 0.05 * math.sin(2 * math.pi * day / 7))
        for day in range(days)
    ]
    spread = [0.03 + 0.0035 * math.sqrt(day) * 3 for day in range(days)]
    limit_date = None
    interval: tuple[str | None, str | None] | None = None
    if crosses_in_days is not None:
        limit_date = (start + timedelta(days=crosses_in_days)).date().isoformat()
        interval = ((start + timedelta(days=crosses_in_days - 29)).date().isoformat(), None)
    verdict = "already_over" if over else "crosses" if crosses_in_days is not None else "never"
    if capacity is None:
        verdict = "no_capacity"
    limits = [
        LimitForecast(
            rule_id=rule,
            statistic=statistic,
            limit_ratio=ratio,
            limit_bits_per_second=None if capacity is None else ratio * capacity,
            verdict=verdict,
            median_date=limit_date,
            interval80=interval,
            probability_before_lead_time=(
                None if capacity is None else 1.0 if over else 0.64 if crosses_in_days is not None else 0.03
            ),
            lead_time_days=90,
            title_vi=title_vi,
            title_en=title_en,
            mark="V-old",
            horizon_days=90,
            produced_by="ets log AAN(7)" if statistic == "busy_hour" else "seasonal_naive(7)",
        )
        for rule, statistic, ratio, title_vi, title_en in (
            (
                "fx.bw.intl",
                "daily_mean",
                0.9,
                "Mức chiếm dụng băng thông trung bình, hướng kết nối đến Internet quốc tế",
                "Mean bandwidth occupancy, links to the international Internet",
            ),
            (
                "fx.bw.other",
                "daily_mean",
                0.8,
                "Mức chiếm dụng băng thông trung bình của mỗi hướng kết nối khác",
                "Mean bandwidth occupancy, each other direction",
            ),
            (
                "cap.intl.peak90",
                "busy_hour",
                0.9,
                "Mức sử dụng giờ cao điểm so với dung lượng kết nối quốc tế",
                "Peak-hour use of the international capacity",
            ),
        )
    ]
    return LinkForecast(
        link_id=link_id,
        series_id=f"{link_id}/daily_peak",
        produced_by="ets log AAN(7)",
        made_at_wall_ns=NOW_NS - 3_600_000_000_000,
        unit="bit/s",
        step_seconds=86_400,
        statistic="daily_peak",
        provenance=provenance,
        capacity_bits_per_second=capacity,
        limits=limits,
        times=[(start + timedelta(days=day)).strftime("%Y-%m-%dT%H:%M:%SZ") for day in range(days)],
        median=median,
        quantiles={
            "0.1": [value * (1 - width) for value, width in zip(median, spread, strict=True)],
            "0.9": [value * (1 + width) for value, width in zip(median, spread, strict=True)],
        },
        notes=[Note(vi="lịch sử kết thúc cách đây 4 ngày", en="the history ended 4 days ago")]
        if over
        else [],
    )


def _access(
    operator: str,
    technology: Technology,
    province: str,
    delay_ms: float,
    loss: float,
    trials: int,
    down: float,
    up: float,
    true_delay_ms: float,
    true_loss: float,
    true_down: float,
    true_up: float,
) -> AccessRow:
    return AccessRow(
        operator=operator,
        technology=technology,
        province=province,
        probe_id=f"{operator}-{technology}",
        last_seen_wall_ns=NOW_NS - 3_000_000_000,
        silent=False,
        delay_seconds=delay_ms / 1e3,
        delay_count=120,
        loss_ratio=loss,
        loss_interval=(max(0.0, loss - 0.0018), loss + 0.0019),
        loss_count=trials,
        down_bits_per_second=down * MBIT,
        down_count=24,
        up_bits_per_second=up * MBIT,
        up_count=23,
        truth=Truth(
            delay_seconds=true_delay_ms / 1e3,
            loss_ratio=true_loss,
            down_bits_per_second=true_down * MBIT,
            up_bits_per_second=true_up * MBIT,
        ),
    )


def _series() -> list[SeriesRow]:
    rows = []
    for operator in ("alpha", "beta"):
        for index, (kind, outcome) in enumerate(
            (
                ("stamp", Outcome.RECEIVED),
                ("icmp", Outcome.RECEIVED),
                ("dns", Outcome.NOT_RESOLVED if operator == "beta" else Outcome.RECEIVED),
                ("file_transfer", Outcome.RECEIVED),
            )
        ):
            rows.append(
                SeriesRow(
                    probe_id=f"{operator}-fixed",
                    kind=kind,
                    target="may-chu-do",
                    outcome=outcome,
                    started_wall_ns=NOW_NS - (index + 2) * 1_700_000_000,
                    delay_seconds=0.0042 if outcome is Outcome.RECEIVED and index < 3 else None,
                    loss_ratio=0.0 if index < 2 else None,
                    timestamp_source="kernel" if index < 2 else "user",
                )
            )
    return rows


def _verdicts() -> list[VerdictRow]:
    delay = ("fx.delay.mean", "Thời gian trễ trung bình", "Mean delay", "seconds", "<=", 0.05)
    down = (
        "fx.speed.down.mean",
        "Tốc độ tải xuống trung bình (Pd)",
        "Mean download speed (Pd)",
        "bits_per_second",
        ">=",
        80 * MBIT,
    )
    rows = []
    for operator, indicator, value, samples, verdict in (
        ("alpha", delay, 0.004214, 1_204, "limit_unverified"),
        ("alpha", down, 94.1e6, 1_010, "conforming"),
        ("beta", delay, 0.00987, 412, "too_few_samples"),
        ("beta", down, 74.2e6, 1_044, "not_conforming"),
        ("gamma", delay, None, 0, "too_few_samples"),
    ):
        identifier, title_vi, title_en, unit, comparison, limit = indicator
        rows.append(
            VerdictRow(
                operator=operator,
                technology=Technology.FIXED,
                province="01",
                indicator_id=identifier,
                title_vi=title_vi,
                title_en=title_en,
                clause="QCVN 34:2022, 2.1",
                unit=unit,
                value=value,
                interval=None if value is None else (value * 0.985, value * 1.015),
                interval_method="Student t, 95 %, independent samples",
                limit=limit,
                comparison=comparison,
                samples=samples,
                samples_required=1_000,
                failures=3,
                verdict=verdict,
                source="QCVN 34:2022, 2.1 as quoted by the ministry",
                mark="V" if indicator is down else "V-old",
            )
        )
    return rows


def _hostile_link(found: LinkForecast, attack: str) -> LinkForecast:
    return msgspec.structs.replace(
        found,
        link_id=attack,
        series_id=attack,
        produced_by=attack,
        unit=attack,
        statistic=attack,
        provenance=attack,
        times=[attack] * len(found.times),
        notes=[Note(vi=attack, en=attack)],
        limits=[
            msgspec.structs.replace(
                limit,
                rule_id=attack,
                title_vi=attack,
                title_en=attack,
                mark=attack,
                produced_by=attack,
                statistic=attack,
                verdict=attack,
                median_date=attack,
                interval80=(attack, attack),
            )
            for limit in found.limits
        ],
    )
