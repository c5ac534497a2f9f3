"""The alerts as data: what a subscriber feels, a probe that went quiet, a link about to fill, a dead watcher.

Every alert has a severity (critical: act now; warning: look today; none: the heartbeat), a summary that is
the same for a whole group, a description for each instance, both in two languages, and a runbook. Thresholds
are Nhịp's own defaults for operation; the one that comes from a regulation, the share of the declared speed,
is read from its profile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dashboards.promql import select
from nhip import config
from nhip.errors import ConfigError
from nhip.language import Text, text

SPEED_PROFILE = "regulations/qcvn34_2022.toml"
SPEED_INDICATOR = "fx.speed.down.mean"
RUNBOOKS = "docs/runbooks"

SERIES_LABELS = "probe, operator, province, technology, kind, target"
SPEED_LABELS = "probe, operator, province, technology, direction"
SUBSCRIBER_TARGETS = 'target_class=~"domestic|on_net"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """When an alert speaks. Durations as Prometheus writes them."""

    loss_ratio: float = 0.05
    loss_packets: int = 100
    """Fewer packets in the window say nothing about so small a ratio."""
    loss_window: str = "15m"
    delay_ratio: float = 1.5
    delay_step_seconds: float = 0.010
    """Both must be exceeded: half as much again of 2 ms is no news."""
    delay_window: str = "30m"
    speed_window: str = "6h"
    silent_seconds: int = 300
    probability: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alerting rule."""

    name: str
    expression: str
    wait: str
    severity: str
    summary: Text
    description: Text

    @property
    def runbook(self) -> str:
        """Where the rule's runbook lies, from the root of the checkout."""
        return f"{RUNBOOKS}/{self.name}.md"


def groups(thresholds: Thresholds, speed_factor: float) -> Mapping[str, tuple[Alert, ...]]:
    """The alerts by rule group."""
    return {
        "nhip-access": (
            _loss(thresholds),
            _delay_above_baseline(thresholds),
            _speed_below_declared(thresholds, speed_factor),
        ),
        "nhip-fleet": (_probe_silent(thresholds), _collector_absent(), _dead_man()),
        "nhip-capacity": (_forecast_capacity(thresholds),),
    }


def declared_speed_factor() -> float:
    """The share of the declared speed a regulation asks for, from its profile; ConfigError without one."""
    path = config.shipped(SPEED_PROFILE)
    for indicator in config.read_toml(path).get("indicator", ()):
        if indicator.get("id") == SPEED_INDICATOR and isinstance(indicator.get("factor"), float):
            factor: float = indicator["factor"]
            return factor
    raise ConfigError(f"{path}:indicator: none is {SPEED_INDICATOR} with a factor", remedy="restore the file")


def _loss(thresholds: Thresholds) -> Alert:
    window = f"[{thresholds.loss_window}]"
    lost = select("nhip_probe_packets_lost_total")
    sent = select("nhip_probe_packets_sent_total")
    return Alert(
        name="NhipLoss",
        expression=(
            f"sum by ({SERIES_LABELS}) (increase({lost}{window}))\n"
            f"/ (sum by ({SERIES_LABELS}) (increase({sent}{window})) >= {thresholds.loss_packets})\n"
            f"> {thresholds.loss_ratio:g}"
        ),
        wait="5m",
        severity="critical",
        summary=text("Mất gói cao", "High packet loss"),
        description=text(
            "{{ $labels.operator }} {{ $labels.technology }}, tỉnh {{ $labels.province }}: đầu đo "
            "{{ $labels.probe }} mất {{ $value | humanizePercentage }} số gói đến {{ $labels.target }} "
            f"({{{{ $labels.kind }}}}) trong {thresholds.loss_window}.",
            "{{ $labels.operator }} {{ $labels.technology }}, province {{ $labels.province }}: probe "
            "{{ $labels.probe }} lost {{ $value | humanizePercentage }} of its packets to "
            f"{{{{ $labels.target }}}} ({{{{ $labels.kind }}}}) in {thresholds.loss_window}.",
        ),
    )


def _delay_above_baseline(thresholds: Thresholds) -> Alert:
    delay = select("nhip_probe_last_round_trip_delay_seconds")
    now = f"quantile_over_time(0.5, {delay}[{thresholds.delay_window}])"
    # One hour around this very time a week ago: traffic has a daily and a weekly beat.
    then = f"quantile_over_time(0.5, {delay}[1h] offset 6d23h30m)"
    return Alert(
        name="NhipDelayAboveBaseline",
        expression=(
            f"({now}\n  > {thresholds.delay_ratio:g} * {then})\n"
            f"and ({now}\n  - {then} > {thresholds.delay_step_seconds:g})"
        ),
        wait="10m",
        severity="warning",
        summary=text(
            "Trễ cao hơn cùng giờ tuần trước", "Delay above its own baseline of the same hour last week"
        ),
        description=text(
            "{{ $labels.operator }} {{ $labels.technology }}, tỉnh {{ $labels.province }}: trễ của đầu đo "
            "{{ $labels.probe }} đến {{ $labels.target }} ({{ $labels.kind }}) là "
            "{{ $value | humanizeDuration }}, cao hơn rõ rệt cùng giờ tuần trước.",
            "{{ $labels.operator }} {{ $labels.technology }}, province {{ $labels.province }}: the delay of "
            "probe {{ $labels.probe }} to {{ $labels.target }} ({{ $labels.kind }}) is "
            "{{ $value | humanizeDuration }}, well above the same hour last week.",
        ),
    )


def _speed_below_declared(thresholds: Thresholds, factor: float) -> Alert:
    measured = select("nhip_probe_last_speed_bits_per_second", SUBSCRIBER_TARGETS)
    declared = select("nhip_probe_declared_speed_bits_per_second")
    return Alert(
        name="NhipSpeedBelowDeclared",
        expression=(
            f"avg by ({SPEED_LABELS}) "
            f"(quantile_over_time(0.5, {measured}[{thresholds.speed_window}]))\n"
            f"< {factor:g} * max by ({SPEED_LABELS}) ({declared})"
        ),
        wait="30m",
        severity="warning",
        summary=text("Tốc độ thấp hơn mức công bố", "Speed below the declared value"),
        description=text(
            "{{ $labels.operator }} {{ $labels.technology }}, tỉnh {{ $labels.province }}: tốc độ hướng "
            "{{ $labels.direction }} của đầu đo {{ $labels.probe }} là {{ $value | humanize }}bit/s, dưới "
            f"{factor:.0%} mức công bố trong {thresholds.speed_window} qua.",
            "{{ $labels.operator }} {{ $labels.technology }}, province {{ $labels.province }}: the "
            "{{ $labels.direction }} speed of probe {{ $labels.probe }} is {{ $value | humanize }}bit/s, "
            f"below {factor:.0%} of the declared value over the last {thresholds.speed_window}.",
        ),
    )


def _probe_silent(thresholds: Thresholds) -> Alert:
    seen = select("nhip_probe_last_seen_timestamp_seconds")
    return Alert(
        name="NhipProbeSilent",
        expression=f"time() - {seen} > {thresholds.silent_seconds}",
        wait="2m",
        severity="warning",
        summary=text("Đầu đo im lặng", "Probe silent"),
        description=text(
            "Đầu đo {{ $labels.probe }} ({{ $labels.operator }} {{ $labels.technology }}, tỉnh "
            "{{ $labels.province }}) không gửi tin đã {{ $value | humanizeDuration }}.",
            "Probe {{ $labels.probe }} ({{ $labels.operator }} {{ $labels.technology }}, province "
            "{{ $labels.province }}) has not been heard for {{ $value | humanizeDuration }}.",
        ),
    )


def _collector_absent() -> Alert:
    return Alert(
        name="NhipCollectorAbsent",
        expression=f"absent({select('nhip_collector_info')}) == 1",
        wait="3m",
        severity="critical",
        summary=text("Không đọc được bộ thu", "Collector cannot be read"),
        description=text(
            "Prometheus không đọc được trang số liệu của bộ thu nào; mọi cảnh báo khác của Nhịp đều mù.",
            "Prometheus reads the metrics of no collector; every other alert of Nhịp is blind.",
        ),
    )


def _dead_man() -> Alert:
    return Alert(
        name="NhipDeadMan",
        expression=f"max({select('nhip_collector_info')}) == 1",
        wait="0m",
        severity="none",
        summary=text("Nhịp tim của hệ thống cảnh báo", "Heartbeat of the alerting chain"),
        description=text(
            "Cảnh báo này luôn bật khi bộ thu, Prometheus và Alertmanager đều chạy; bên nhận phải báo động "
            "khi nó ngừng đến.",
            "This alert always fires while collector, Prometheus and Alertmanager all run; whoever receives "
            "it must raise the alarm when it stops coming.",
        ),
    )


def _forecast_capacity(thresholds: Thresholds) -> Alert:
    # A simulated forecast is for demonstration and wakes nobody.
    match = 'provenance="measured"'
    probability = select("nhip_link_forecast_limit_probability", match)
    limit = select("nhip_link_forecast_limit_timestamp_seconds", match)
    lead = select("nhip_link_forecast_lead_time_seconds", match)
    over = select("nhip_link_over_limit", match)
    return Alert(
        name="NhipForecastCapacity",
        expression=(
            f"({probability} >= {thresholds.probability:g}\n  and {limit} - time() < {lead})\nor {over} == 1"
        ),
        wait="1h",
        severity="warning",
        summary=text(
            "Kênh chạm ngưỡng trước khi kịp mở rộng", "Link reaches its limit before capacity can be added"
        ),
        description=text(
            "Kênh {{ $labels.link }}: xác suất {{ $value | humanizePercentage }} chạm ngưỡng quy tắc "
            "{{ $labels.rule }} trong thời gian chuẩn bị (100 % là đã vượt).",
            "Link {{ $labels.link }}: probability {{ $value | humanizePercentage }} of reaching the limit of "
            "rule {{ $labels.rule }} within its lead time (100 % means it is over already).",
        ),
    )
