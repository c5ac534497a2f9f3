"""Capacity of links: when each rule's limit is reached, how probable that is, how old the forecast is."""

from __future__ import annotations

from dashboards.grafana.panel import (
    BY_RULE,
    Column,
    Panel,
    Query,
    Row,
)
from dashboards.promql import select
from nhip.language import text

LINKS = Row(
    title=text("Dung lượng kênh", "Capacity of links"),
    panels=(
        Panel(
            title=text("Ngày kênh chạm ngưỡng", "When each link reaches its limit"),
            description=text(
                "Ngày trung vị chạm ngưỡng của từng quy tắc, xác suất chạm trước thời gian chuẩn bị, và kênh "
                "đã vượt hay chưa. Nguồn “simulated” là mô phỏng, không phải đo.",
                "Median date on which each rule's limit is reached, the probability of that before the lead "
                "time has passed, and whether the link is over already. Provenance “simulated” was not "
                "measured.",
            ),
            unit="none",
            style="table",
            width=24,
            queries=(
                # Grouped by the labels shown, so that the table can merge rows: a bare metric has a name too.
                *(
                    Query(expression=f"max {BY_RULE} ({select(name)}){scale}", instant=True)
                    for name, scale in (
                        ("nhip_link_forecast_limit_timestamp_seconds", " * 1000"),
                        ("nhip_link_forecast_limit_probability", ""),
                        ("nhip_link_forecast_lead_time_seconds", ""),
                        ("nhip_link_over_limit", ""),
                    )
                ),
            ),
            columns=(
                Column(source="link", title=text("Kênh", "Link")),
                Column(source="rule", title=text("Quy tắc", "Rule")),
                Column(source="provenance", title=text("Nguồn", "Provenance")),
                Column(source="A", title=text("Ngày chạm ngưỡng", "Limit date"), unit="dateTimeAsIso"),
                Column(source="B", title=text("Xác suất", "Probability"), unit="percentunit"),
                Column(source="C", title=text("Thời gian chuẩn bị", "Lead time"), unit="s"),
                Column(
                    source="D",
                    title=text("Đã vượt", "Over"),
                    words={"0": text("chưa", "no"), "1": text("đã vượt", "over")},
                ),
            ),
        ),
        Panel(
            title=text("Xác suất chạm ngưỡng trước hạn", "Probability before the lead time"),
            description=text(
                "Xác suất mà mỗi kênh chạm ngưỡng trước khi kịp bổ sung dung lượng.",
                "Probability that a link reaches its limit before capacity can be added.",
            ),
            unit="percentunit",
            maximum=1,
            queries=(
                Query(
                    expression=(f"max {BY_RULE} ({select('nhip_link_forecast_limit_probability')})"),
                    legend="{{link}} {{rule}} ({{provenance}})",
                ),
            ),
        ),
        Panel(
            title=text("Thời gian còn lại đến ngưỡng", "Time left to the limit"),
            description=text(
                "Từ bây giờ đến ngày trung vị chạm ngưỡng; âm là ngày đó đã qua. Không có đường khi kênh "
                "không chạm ngưỡng.",
                "From now to the median date of the limit; negative once that day has passed. No line where "
                "the link does not reach it.",
            ),
            unit="s",
            minimum=None,
            queries=(
                Query(
                    expression=(
                        f"min {BY_RULE} ({select('nhip_link_forecast_limit_timestamp_seconds')} - time())"
                    ),
                    legend="{{link}} {{rule}} ({{provenance}})",
                ),
            ),
        ),
        Panel(
            title=text("Dung lượng kênh", "Capacity of each link"),
            description=text(
                "Dung lượng đưa vào dự báo; thay đổi ở đây là kênh được nâng cấp.",
                "Capacity as given to the forecast; a step here is an upgrade.",
            ),
            unit="bps",
            queries=(
                Query(
                    expression=f"max by (link, provenance) ({select('nhip_link_capacity_bits_per_second')})",
                    legend="{{link}} ({{provenance}})",
                ),
            ),
        ),
        Panel(
            title=text("Tuổi của dự báo", "Age of the forecast"),
            description=text(
                "Thời gian từ khi lập dự báo gần nhất của từng kênh; dự báo cũ không nên dùng để quyết định.",
                "Time since each link's newest forecast was made; an old one is nothing to decide on.",
            ),
            unit="s",
            queries=(
                Query(
                    expression=(
                        "max by (link, provenance) "
                        f"(time() - {select('nhip_link_forecast_made_timestamp_seconds')})"
                    ),
                    legend="{{link}} ({{provenance}})",
                ),
            ),
        ),
    ),
)
