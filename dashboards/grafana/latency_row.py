"""Delay in depth: its distribution, its variation, where packets are lost, and what the probe itself adds."""

from __future__ import annotations

from dashboards.grafana.panel import TEST_LEGEND, Panel, Query, Row, results
from nhip.language import Text, text

_BY_PERCENTILE = "by (operator, technology, kind, percentile)"
_BY_DIRECTION = "by (operator, technology, kind, direction)"
_BY_TEST = "by (operator, technology, kind)"


def _query(metric: str, by: str, legend: str, word: Text | None = None, function: str = "max") -> Query:
    """The largest of the last tests: what one bad access shows must not drown in a mean."""
    return Query(
        expression=f"{function} {by} ({results(metric)})", legend=f"{TEST_LEGEND}{legend}", word=word
    )


LATENCY = Row(
    title=text("Trễ và mất gói chi tiết", "Delay and loss in depth"),
    panels=(
        Panel(
            title=text("Phân bố trễ khứ hồi", "Distribution of the round-trip delay"),
            description=text(
                "Trung vị, trên các chuỗi đo, của từng phân vị trễ khứ hồi lần đo gần nhất.",
                "Median over series of each percentile of the last test's round-trip delay.",
            ),
            unit="s",
            queries=(
                Query(
                    expression=(
                        f"quantile {_BY_PERCENTILE} "
                        f"(0.5, {results('nhip_probe_last_round_trip_delay_percentile_seconds')})"
                    ),
                    legend=f"{TEST_LEGEND} p{{{{percentile}}}}",
                ),
            ),
        ),
        Panel(
            title=text("PDV và |IPDV| theo phân vị", "PDV and |IPDV| by percentile"),
            description=text(
                "PDV: trễ trên mức nhỏ nhất của mẫu (RFC 5481). |IPDV|: chênh lệch giữa hai gói gửi liên "
                "tiếp (RFC 3393). Không gọi chung là jitter.",
                "PDV: delay above the sample's smallest (RFC 5481). |IPDV|: difference of two packets sent "
                "one after the other (RFC 3393). Neither is called jitter.",
            ),
            unit="s",
            queries=(
                _query(
                    "nhip_probe_last_pdv_percentile_seconds",
                    _BY_PERCENTILE,
                    " p{{percentile}}",
                    text("PDV", "PDV"),
                ),
                _query(
                    "nhip_probe_last_ipdv_percentile_seconds",
                    _BY_PERCENTILE,
                    " p{{percentile}}",
                    text("IPDV", "IPDV"),
                ),
            ),
        ),
        Panel(
            title=text("Trễ một chiều và sai số đồng hồ", "One-way delay and the error of its clocks"),
            description=text(
                "Chỉ có khi cả hai đồng hồ cho biết sai số (RFC 7679); trễ thật nằm trong khoảng cộng trừ.",
                "Only where both clocks tell their error (RFC 7679); the true delay lies within plus or "
                "minus.",
            ),
            unit="s",
            minimum=None,
            queries=(
                _query(
                    "nhip_probe_last_one_way_delay_seconds",
                    _BY_DIRECTION,
                    " {{direction}}",
                    text("trễ", "delay"),
                ),
                _query(
                    "nhip_probe_last_one_way_error_seconds",
                    _BY_DIRECTION,
                    " {{direction}}",
                    text("sai số", "error"),
                ),
            ),
        ),
        Panel(
            title=text("Mất gói theo chiều và theo cụm", "Loss by direction and in a row"),
            description=text(
                "Số gói mất ở mỗi chiều theo số thứ tự của đầu xa, và chuỗi mất liên tiếp dài nhất "
                "(RFC 3357), của lần đo gần nhất.",
                "Packets lost in each direction as the far end's numbering tells, and the longest run of "
                "losses (RFC 3357), of the last test.",
            ),
            unit="short",
            queries=(
                _query("nhip_probe_last_directional_lost_packets", _BY_DIRECTION, " {{direction}}"),
                _query(
                    "nhip_probe_last_longest_loss_period_packets",
                    _BY_TEST,
                    "",
                    text("cụm dài nhất", "longest run"),
                ),
            ),
        ),
        Panel(
            title=text("Sai thứ tự và trùng lặp", "Reordering and duplicates"),
            description=text(
                "Tỷ lệ trên số gói nhận được của lần đo gần nhất (RFC 4737, RFC 5560).",
                "Share of what the last test received (RFC 4737, RFC 5560).",
            ),
            unit="percentunit",
            queries=(
                _query("nhip_probe_last_reordered_ratio", _BY_TEST, "", text("sai thứ tự", "reordered")),
                _query("nhip_probe_last_duplicate_ratio", _BY_TEST, "", text("trùng", "duplicate")),
            ),
        ),
        Panel(
            title=text("Đầu đo tự gây ra bao nhiêu", "What the probe itself adds"),
            description=text(
                "Phân vị 99: gửi chậm so với lịch và thời gian giữa chương trình và đường truyền (không nằm "
                "trong trễ), sai số của trễ do chính đầu đo.",
                "99th percentiles: sent after due, and time between program and wire (neither is part of the "
                "delay); error of the delay by the probe's own doing.",
            ),
            unit="s",
            queries=(
                _query("nhip_probe_last_send_lag_seconds", _BY_TEST, "", text("gửi chậm", "send lag")),
                _query(
                    "nhip_probe_last_queueing_seconds",
                    _BY_DIRECTION,
                    " {{direction}}",
                    text("xếp hàng", "queueing"),
                ),
                _query("nhip_probe_last_own_error_seconds", _BY_TEST, "", text("sai số", "own error")),
            ),
        ),
        Panel(
            title=text("Trễ đáng ngờ và nguồn dấu thời gian", "Doubtful delays and who stamped"),
            description=text(
                "Số chuỗi đo có trễ mà sai số của đầu đo vượt tỷ lệ cho phép, và số chuỗi theo nguồn dấu "
                "thời gian.",
                "Series whose delay the probe's own error exceeds the stated share of, and series by who "
                "stamped their packets.",
            ),
            unit="short",
            queries=(
                _query(
                    "nhip_probe_last_delay_doubtful",
                    _BY_TEST,
                    "",
                    text("đáng ngờ", "doubtful"),
                    function="sum",
                ),
                _query(
                    "nhip_probe_last_timestamp_source_info",
                    "by (operator, technology, kind, source)",
                    " {{source}}",
                    function="count",
                ),
            ),
        ),
    ),
)
