"""The collector's own health: commits, records, batches, journal, series."""

from __future__ import annotations

from dashboards.grafana.panel import (
    Column,
    Panel,
    Query,
    Row,
    rate,
)
from dashboards.promql import select
from nhip.language import text


def commit_quantile(probability: float) -> str:
    buckets = rate("nhip_collector_commit_seconds", suffix="_bucket")
    return f"histogram_quantile({probability}, sum by (le) ({buckets}))"


COLLECTOR = Row(
    title=text("Bộ thu", "Collector"),
    panels=(
        Panel(
            title=text("Thời gian ghi nhật ký", "Time of a commit"),
            description=text(
                "Phân vị thời gian một lần ghi bền vững xuống đĩa; mọi xác nhận đều đợi nó.",
                "Percentiles of the time one durable commit takes; every acknowledgement waits for it.",
            ),
            unit="s",
            queries=tuple(
                Query(expression=commit_quantile(level), legend=f"p{level * 100:.0f}")
                for level in (0.5, 0.95, 0.99)
            ),
        ),
        Panel(
            title=text("Bản ghi đã lưu, trùng, cách ly", "Records stored, duplicate, quarantined"),
            description=text(
                "Bản ghi mỗi giây. Trùng là gửi lại sau khi mất xác nhận, không mất gì; cách ly là bản ghi "
                "không hiểu được, kèm lý do. Bị đẩy khỏi vùng cách ly là đã mất hẳn.",
                "Records a second. Duplicates are re-sent after a lost acknowledgement and harm nothing; "
                "quarantined ones could not be understood, with the reason. Those pushed out of the "
                "quarantine are gone.",
            ),
            unit="ops",
            queries=(
                Query(
                    expression=f"sum ({rate('nhip_collector_records_stored_total')})",
                    word=text("đã lưu", "stored"),
                ),
                Query(
                    expression=f"sum ({rate('nhip_collector_records_duplicate_total')})",
                    word=text("trùng", "duplicate"),
                ),
                Query(
                    expression=f"sum by (reason) ({rate('nhip_collector_records_quarantined_total')})",
                    legend="{{reason}}",
                    word=text("cách ly:", "quarantined:"),
                ),
                Query(
                    expression=f"sum ({rate('nhip_collector_quarantine_evicted_total')})",
                    word=text("bị đẩy khỏi vùng cách ly", "pushed out of the quarantine"),
                ),
            ),
        ),
        Panel(
            title=text("Lô đã xác nhận và bị từ chối", "Batches acknowledged and refused"),
            description=text(
                "Lô mỗi giây; lô bị từ chối ghi theo lý do (sai khóa, quá lớn, quá tải). Không hiển thị được "
                "là đã lưu nhưng trang và số liệu này chưa tính đến.",
                "Batches a second; refused ones by reason (wrong key, too large, overload). Not shown are "
                "those that are stored but missing on pages and in these figures.",
            ),
            unit="ops",
            queries=(
                Query(
                    expression=f"sum ({rate('nhip_collector_batches_total')})",
                    word=text("đã xác nhận", "acknowledged"),
                ),
                Query(
                    expression=f"sum by (reason) ({rate('nhip_collector_batches_refused_total')})",
                    legend="{{reason}}",
                    word=text("từ chối:", "refused:"),
                ),
                Query(
                    expression=f"sum ({rate('nhip_collector_observer_failures_total')})",
                    word=text("không hiển thị được", "not shown"),
                ),
            ),
        ),
        Panel(
            title=text("Nhật ký và kho lưu trữ", "Journal and archive"),
            description=text(
                "Bản ghi trong nhật ký chưa vào kho, và số lần chuyển kho thất bại (sẽ thử lại).",
                "Records in the journal not yet in the archive, and moves to the archive that failed (they "
                "are retried).",
            ),
            unit="short",
            queries=(
                Query(
                    expression=f"max ({select('nhip_collector_journal_records')})",
                    word=text("trong nhật ký", "in the journal"),
                ),
                Query(
                    expression=f"sum ({rate('nhip_collector_archive_failures_total', function='increase')})",
                    word=text("chuyển kho thất bại", "moves failed"),
                ),
            ),
        ),
        Panel(
            title=text("Chuỗi đo đang hiển thị", "Series shown"),
            description=text(
                "Số chuỗi trên trang số liệu, và số chuỗi bị từ chối vì đã đạt giới hạn.",
                "Series on the metrics page, and those refused because the limit is reached.",
            ),
            unit="short",
            queries=(
                Query(
                    expression=f"max ({select('nhip_collector_series')})",
                    word=text("đang hiển thị", "shown"),
                ),
                Query(
                    expression=f"sum ({rate('nhip_collector_series_refused_total', function='increase')})",
                    word=text("bị từ chối", "refused"),
                ),
            ),
        ),
        Panel(
            title=text("Phiên bản bộ thu", "Collector version"),
            description=text("Phần mềm đang chạy trên từng bộ thu.", "Software that runs on each collector."),
            unit="none",
            style="table",
            queries=(Query(expression=select("nhip_collector_info"), instant=True),),
            columns=(
                Column(source="instance", title=text("Bộ thu", "Collector")),
                Column(source="software_version", title=text("Phiên bản", "Version")),
            ),
        ),
    ),
)
