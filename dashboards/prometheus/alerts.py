"""The alerts as data: what a subscriber feels, a probe that went quiet, a link about to fill, a dead watcher.

An alert on tests must work for a test of every five seconds and for one of every six hours. So it looks
through several windows and lets the shortest one decide that has seen enough: runs for reachability, packets
for loss. One long window would keep an alert for hours after the trouble; one short one would never see a
slow test.

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
# A simulated forecast is for demonstration and wakes nobody.
MEASURED = 'provenance="measured"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """When an alert speaks. Durations as Prometheus writes them."""

    unreachable_windows: tuple[str, ...] = ("5m", "20m", "1h", "6h")
    """Shortest first; a test is judged by the windows in which it ran twice."""
    loss_ratio: float = 0.05
    loss_packets: int = 100
    """Packets from which on a window's ratio is believed; with fewer the next longer window is asked."""
    loss_least_lost: int = 5
    """Packets that must have been lost in the longest window when even it has few: one or two are chance."""
    loss_windows: tuple[str, ...] = ("15m", "1h", "6h")
    """Shortest first."""
    delay_ratio: float = 1.5
    delay_step_seconds: float = 0.010
    """Both must be exceeded: half as much again of 2 ms is no news."""
    delay_window: str = "30m"
    speed_window: str = "6h"
    silent_seconds: int = 300
    probability: float = 0.5
    forecast_days: int = 8
    """One day more than the collector shows the limits of a forecast (its ``status.forecast_days``)."""


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
            _unreachable(thresholds),
            _loss(thresholds),
            _delay_above_baseline(thresholds),
            _speed_below_declared(thresholds, speed_factor),
        ),
        "nhip-fleet": (_probe_silent(thresholds), _collector_absent(), _dead_man()),
        "nhip-capacity": (_forecast_capacity(thresholds), _forecast_stale(thresholds)),
    }


def declared_speed_factor() -> float:
    """The share of the declared speed a regulation asks for, from its profile; ConfigError without one."""
    path = config.shipped(SPEED_PROFILE)
    for indicator in config.read_toml(path).get("indicator", ()):
        if indicator.get("id") == SPEED_INDICATOR and isinstance(indicator.get("factor"), float):
            factor: float = indicator["factor"]
            return factor
    raise ConfigError(f"{path}:indicator: none is {SPEED_INDICATOR} with a factor", remedy="restore the file")


def _unreachable(thresholds: Thresholds) -> Alert:
    success = select("nhip_probe_success")
    failures = select("nhip_probe_test_failures_total")
    # Both come from one scrape: when every look at the window shows a failed test and yet the count of failed
    # tests moved within it, there were two of them or more.
    twice = "\n  or ".join(
        f"(max_over_time({success}[{window}]) == 0 and increase({failures}[{window}]) > 0)"
        for window in thresholds.unreachable_windows
    )
    return Alert(
        name="NhipUnreachable",
        # The result of now is asked too: a range still holds what has expired and vanished.
        expression=f"{success} == 0\nand (\n  {twice}\n)",
        wait="2m",
        severity="critical",
        summary=text("Không đo được đến đích", "Target unreachable"),
        description=text(
            "{{ $labels.operator }} {{ $labels.technology }}, tỉnh {{ $labels.province }}: từ hai lần đo "
            "liên tiếp trở lên, đầu đo {{ $labels.probe }} không có phản hồi nào từ {{ $labels.target }} "
            "({{ $labels.kind }}).",
            "{{ $labels.operator }} {{ $labels.technology }}, province {{ $labels.province }}: in two or "
            "more tests in a row probe {{ $labels.probe }} got no answer from {{ $labels.target }} "
            "({{ $labels.kind }}).",
        ),
    )


def _loss(thresholds: Thresholds) -> Alert:
    windows = thresholds.loss_windows
    branches = []
    for position, window in enumerate(windows):
        lost, counted = _lost(window), _counted(window)
        if position < len(windows) - 1:
            counted = f"({counted} >= {thresholds.loss_packets})"
        else:
            lost = f"({lost} >= {thresholds.loss_least_lost})"
        branch = f"{lost}\n  / {counted}\n  > {thresholds.loss_ratio:g}"
        if position:
            # A shorter window that has seen enough knows better.
            branch += f"\n  unless {_counted(windows[position - 1])} >= {thresholds.loss_packets}"
        branches.append(f"(\n  {branch}\n)")
    return Alert(
        name="NhipLoss",
        expression=" or ".join(branches),
        wait="5m",
        severity="critical",
        summary=text("Mất gói cao", "High packet loss"),
        description=text(
            "{{ $labels.operator }} {{ $labels.technology }}, tỉnh {{ $labels.province }}: đầu đo "
            "{{ $labels.probe }} mất {{ $value | humanizePercentage }} số gói đến {{ $labels.target }} "
            f"({{{{ $labels.kind }}}}) trong khoảng gần nhất có đủ gói ({windows[0]} đến {windows[-1]}).",
            "{{ $labels.operator }} {{ $labels.technology }}, province {{ $labels.province }}: probe "
            "{{ $labels.probe }} lost {{ $value | humanizePercentage }} of its packets to "
            "{{ $labels.target }} ({{ $labels.kind }}) over the last span with enough of them "
            f"({windows[0]} to {windows[-1]}).",
        ),
    )


def _lost(window: str) -> str:
    lost = select("nhip_probe_packets_lost_total")
    return f"sum by ({SERIES_LABELS}) (increase({lost}[{window}]))"


def _counted(window: str) -> str:
    """Lost or received: what a loss ratio is a ratio of (RFC 7680); refused and failed ones are neither."""
    lost = select("nhip_probe_packets_lost_total")
    received = select("nhip_probe_packets_received_total")
    return f"sum by ({SERIES_LABELS}) (increase({lost}[{window}]) + increase({received}[{window}]))"


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
    configured = select("nhip_probe_configured")
    return Alert(
        name="NhipProbeSilent",
        # A probe that was never heard has no time of silence; it is below zero, which the words look at.
        expression=(
            f"time() - {seen} > {thresholds.silent_seconds}\n"
            f"or (-{configured} unless on (probe, instance) {seen})"
        ),
        wait="2m",
        severity="warning",
        summary=text("Đầu đo im lặng", "Probe silent"),
        description=text(
            "Đầu đo {{ $labels.probe }} ({{ $labels.operator }} {{ $labels.technology }}, tỉnh "
            "{{ $labels.province }}) {{ if lt $value 0.0 }}chưa từng gửi tin{{ else }}không gửi tin đã "
            "{{ $value | humanizeDuration }}{{ end }}.",
            "Probe {{ $labels.probe }} ({{ $labels.operator }} {{ $labels.technology }}, province "
            "{{ $labels.province }}) has {{ if lt $value 0.0 }}never been heard{{ else }}not been heard for "
            "{{ $value | humanizeDuration }}{{ end }}.",
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
    probability = select("nhip_link_forecast_limit_probability", MEASURED)
    limit = select("nhip_link_forecast_limit_timestamp_seconds", MEASURED)
    lead = select("nhip_link_forecast_lead_time_seconds", MEASURED)
    over = select("nhip_link_over_limit", MEASURED)
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


def _forecast_stale(thresholds: Thresholds) -> Alert:
    made = select("nhip_link_forecast_made_timestamp_seconds", MEASURED)
    return Alert(
        name="NhipForecastStale",
        expression=f"time() - {made} > {thresholds.forecast_days * 86_400}",
        wait="1h",
        severity="warning",
        summary=text("Dự báo dung lượng đã cũ", "Capacity forecast out of date"),
        description=text(
            "Dự báo của kênh {{ $labels.link }} lập cách đây {{ $value | humanizeDuration }}; bộ thu không "
            "còn hiển thị ngưỡng của nó, nên cảnh báo dung lượng của kênh này không hoạt động.",
            "The forecast of link {{ $labels.link }} was made {{ $value | humanizeDuration }} ago; the "
            "collector no longer shows its limits, so nothing watches the capacity of this link.",
        ),
    )
