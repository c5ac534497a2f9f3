"""Every Prometheus metric of Nhịp, in one table that exporter, rules, dashboards and docs all read.

Names follow prometheus.io/docs/practices/naming and the exporter guide: prefix ``nhip_``, base unit last,
``_total`` on counters, no label name inside a metric name, no series that sums others. A gauge that holds
the last result of a scheduled test is called ``last`` and vanishes when the test is overdue.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class MetricKind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric: its name as exposed, its labels, and what it says in both languages."""

    name: str
    kind: MetricKind
    unit: str
    labels: tuple[str, ...]
    help_en: str
    help_vi: str


# Where a probe stands; the collector sets these from its own list, never from what a probe says.
PROBE = ("probe", "operator", "province", "technology")
# One scheduled test of a probe.
SERIES = (*PROBE, "kind", "target", "target_class")
LINK = ("link", "provenance")
RULE = (*LINK, "rule")

# Edges of the delay histogram in seconds: fine where fixed access lives, on the limits regulations use
# (50 ms) and on the loss threshold (2 s).
DELAY_BUCKETS_SECONDS = (
    *(0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0),
)
COMMIT_BUCKETS_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

_C, _G, _H = MetricKind.COUNTER, MetricKind.GAUGE, MetricKind.HISTOGRAM


def _metric(
    name: str, kind: MetricKind, unit: str, labels: tuple[str, ...], help_en: str, help_vi: str
) -> Metric:
    return Metric(name=name, kind=kind, unit=unit, labels=labels, help_en=help_en, help_vi=help_vi)


# fmt: off
_METRICS = (
    # What the probes measured.
    _metric("nhip_probe_success", _G, "boolean", SERIES,
            "1 when the last test got an answer, 0 when it got none.",
            "1 khi lần đo gần nhất có phản hồi, 0 khi không có."),
    _metric("nhip_probe_last_run_timestamp_seconds", _G, "seconds", SERIES,
            "When the last test of this series started.",
            "Thời điểm bắt đầu lần đo gần nhất."),
    _metric("nhip_probe_last_round_trip_delay_seconds", _G, "seconds", SERIES,
            "Median round-trip delay of the last test (RFC 2681).",
            "Trung vị thời gian trễ khứ hồi của lần đo gần nhất (RFC 2681)."),
    _metric("nhip_probe_last_pdv_seconds", _G, "seconds", SERIES,
            "95th percentile of packet delay variation of the last test (RFC 5481).",
            "Phân vị 95 của biến thiên trễ gói trong lần đo gần nhất (RFC 5481)."),
    _metric("nhip_probe_last_loss_ratio", _G, "ratio", SERIES,
            "Loss ratio of the last test, 0 to 1 (RFC 7680).",
            "Tỷ lệ mất gói của lần đo gần nhất, 0 đến 1 (RFC 7680)."),
    _metric("nhip_probe_last_phase_seconds", _G, "seconds", (*SERIES, "phase"),
            "Duration of one phase of the last test (name look-up, connect, TLS, first byte, transfer).",
            "Thời gian của một pha trong lần đo gần nhất (tra tên, kết nối, TLS, byte đầu, truyền)."),
    _metric("nhip_probe_last_speed_bits_per_second", _G, "bits per second", (*SERIES, "direction"),
            "Mean speed of the transfers of the last test, payload bits over seconds.",
            "Tốc độ trung bình của các lượt truyền trong lần đo gần nhất, bit tải tin trên giây."),
    _metric("nhip_probe_declared_speed_bits_per_second", _G, "bits per second", (*PROBE, "direction"),
            "Speed the operator declares for this access, from the collector's configuration.",
            "Tốc độ doanh nghiệp công bố cho truy nhập này, theo cấu hình bộ thu."),
    _metric("nhip_probe_round_trip_delay_seconds", _H, "seconds", SERIES,
            "Median round-trip delay of each test, every test counted once.",
            "Trung vị thời gian trễ khứ hồi của từng lần đo, mỗi lần đo đếm một lần."),
    _metric("nhip_probe_tests_total", _C, "tests", SERIES,
            "Tests received from this series.",
            "Số lần đo đã nhận của chuỗi này."),
    _metric("nhip_probe_test_failures_total", _C, "tests", SERIES,
            "Tests that got no answer at all.",
            "Số lần đo không có phản hồi nào."),
    _metric("nhip_probe_packets_sent_total", _C, "packets", SERIES,
            "Packets or attempts sent.",
            "Số gói hoặc lượt thử đã gửi."),
    _metric("nhip_probe_packets_received_total", _C, "packets", SERIES,
            "Packets or attempts answered within the loss threshold.",
            "Số gói hoặc lượt thử có phản hồi trong ngưỡng thời gian."),
    _metric("nhip_probe_packets_failed_total", _C, "packets", SERIES,
            "Packets or attempts answered by a refusal or an error; neither received nor lost.",
            "Số gói hoặc lượt thử bị từ chối hoặc lỗi; không tính là nhận hay mất."),
    _metric("nhip_probe_packets_lost_total", _C, "packets", SERIES,
            "Packets lost, late ones included.",
            "Số gói mất, kể cả gói đến muộn."),
    _metric("nhip_probe_packets_duplicate_total", _C, "packets", SERIES,
            "Duplicate answers.",
            "Số phản hồi trùng lặp."),
    _metric("nhip_probe_packets_reordered_total", _C, "packets", SERIES,
            "Answers out of order (RFC 4737).",
            "Số phản hồi sai thứ tự (RFC 4737)."),
    _metric("nhip_probe_volume_bytes_total", _C, "bytes", SERIES,
            "Payload octets the tests consumed, both directions.",
            "Số octet tải tin mà các lần đo đã dùng, cả hai chiều."),
    # The probes themselves.
    _metric("nhip_probe_info", _G, "boolean", (*PROBE, "environment", "software_version"),
            "Facts about a probe; always 1.",
            "Thông tin về đầu đo; luôn bằng 1."),
    _metric("nhip_probe_configured", _G, "boolean", PROBE,
            "1 for every probe in the collector's list, heard or not.",
            "Bằng 1 với mọi đầu đo trong danh sách của bộ thu, dù đã có tin hay chưa."),
    _metric("nhip_probe_last_seen_timestamp_seconds", _G, "seconds", PROBE,
            "When the collector last heard from this probe.",
            "Lần gần nhất bộ thu nhận được tin từ đầu đo này."),
    _metric("nhip_agent_spool_records", _G, "records", PROBE,
            "Records waiting on the probe's disk.",
            "Số bản ghi đang chờ trên đĩa của đầu đo."),
    _metric("nhip_agent_spool_bytes", _G, "bytes", PROBE,
            "Octets of records waiting on the probe's disk.",
            "Số octet bản ghi đang chờ trên đĩa của đầu đo."),
    _metric("nhip_agent_spool_oldest_age_seconds", _G, "seconds", PROBE,
            "Age of the oldest record waiting on the probe's disk.",
            "Tuổi của bản ghi cũ nhất đang chờ trên đĩa của đầu đo."),
    _metric("nhip_agent_spool_dropped_total", _C, "records", PROBE,
            "Records the probe dropped because its spool was full.",
            "Số bản ghi đầu đo phải bỏ vì vùng đệm đầy."),
    _metric("nhip_agent_tests_total", _C, "tests", PROBE,
            "Tests the probe ran.",
            "Số lần đo đầu đo đã thực hiện."),
    _metric("nhip_agent_tests_missed_total", _C, "tests", PROBE,
            "Tests the probe did not start in time.",
            "Số lần đo đầu đo không bắt đầu đúng hạn."),
    _metric("nhip_agent_tests_failed_to_run_total", _C, "tests", PROBE,
            "Tests the probe could not run at all.",
            "Số lần đo đầu đo không thực hiện được."),
    _metric("nhip_agent_ship_failures_total", _C, "batches", PROBE,
            "Deliveries that failed and were retried.",
            "Số lần gửi thất bại và phải gửi lại."),
    _metric("nhip_agent_schedule_lag_seconds", _G, "seconds", PROBE,
            "Largest lateness of a test's start since the last delivery.",
            "Độ trễ lịch lớn nhất kể từ lần gửi trước."),
    _metric("nhip_agent_clock_offset_seconds", _G, "seconds", PROBE,
            "Probe's wall clock minus the collector's at the last delivery, network delay included.",
            "Đồng hồ đầu đo trừ đồng hồ bộ thu ở lần gửi gần nhất, gồm cả trễ mạng."),
    # The collector.
    _metric("nhip_collector_batches_total", _C, "batches", (),
            "Batches acknowledged.",
            "Số lô đã xác nhận."),
    _metric("nhip_collector_batches_refused_total", _C, "batches", ("reason",),
            "Batches refused, by reason.",
            "Số lô bị từ chối, theo lý do."),
    _metric("nhip_collector_records_stored_total", _C, "records", (),
            "Records stored.",
            "Số bản ghi đã lưu."),
    _metric("nhip_collector_records_duplicate_total", _C, "records", (),
            "Records that were already stored.",
            "Số bản ghi đã có sẵn."),
    _metric("nhip_collector_records_quarantined_total", _C, "records", ("reason",),
            "Records put in quarantine, by reason.",
            "Số bản ghi bị cách ly, theo lý do."),
    _metric("nhip_collector_quarantine_evicted_total", _C, "records", (),
            "Records that left the full quarantine for newer ones.",
            "Số bản ghi bị đẩy khỏi vùng cách ly đầy để nhường chỗ cho bản ghi mới."),
    _metric("nhip_collector_observer_failures_total", _C, "batches", (),
            "Stored batches that could not be shown on pages and metrics.",
            "Số lô đã lưu nhưng không hiển thị được trên trang và số đo."),
    _metric("nhip_collector_commit_seconds", _H, "seconds", (),
            "Time of one commit to the journal, disk included.",
            "Thời gian một lần ghi vào nhật ký, gồm cả đĩa."),
    _metric("nhip_collector_journal_records", _G, "records", (),
            "Records in the journal not yet in the archive.",
            "Số bản ghi trong nhật ký chưa vào kho lưu trữ."),
    _metric("nhip_collector_archive_failures_total", _C, "flushes", (),
            "Moves from journal to archive that failed and will be retried.",
            "Số lần chuyển từ nhật ký sang kho thất bại và sẽ thử lại."),
    _metric("nhip_collector_series", _G, "series", (),
            "Series shown now.",
            "Số chuỗi đang hiển thị."),
    _metric("nhip_collector_series_refused_total", _C, "series", (),
            "Series not shown because the limit is reached.",
            "Số chuỗi không hiển thị vì đã đạt giới hạn."),
    _metric("nhip_collector_info", _G, "boolean", ("software_version",),
            "Facts about the collector; always 1.",
            "Thông tin về bộ thu; luôn bằng 1."),
    # Capacity.
    _metric("nhip_link_capacity_bits_per_second", _G, "bits per second", LINK,
            "Capacity of a link, as given to the forecast.",
            "Dung lượng kênh, theo dữ liệu đưa vào dự báo."),
    _metric("nhip_link_forecast_made_timestamp_seconds", _G, "seconds", LINK,
            "When the link's forecast was made.",
            "Thời điểm lập dự báo của kênh."),
    _metric("nhip_link_forecast_limit_timestamp_seconds", _G, "seconds", RULE,
            "Median date on which the link reaches the rule's limit; absent when it does not.",
            "Ngày trung vị kênh chạm ngưỡng của quy tắc; không có khi không chạm."),
    _metric("nhip_link_forecast_limit_probability", _G, "ratio", RULE,
            "Probability that the limit is reached before the lead time has passed.",
            "Xác suất chạm ngưỡng trước khi hết thời gian chuẩn bị."),
    _metric("nhip_link_forecast_lead_time_seconds", _G, "seconds", RULE,
            "Time it takes to add capacity to this link.",
            "Thời gian cần để bổ sung dung lượng cho kênh này."),
    _metric("nhip_link_over_limit", _G, "boolean", RULE,
            "1 when the link is already over the rule's limit.",
            "1 khi kênh đã vượt ngưỡng của quy tắc."),
    # The measurement server, on its own page.
    _metric("nhip_server_transfers_total", _C, "transfers", ("direction",),
            "File transfers begun, by direction as the subscriber sees it.",
            "Số lượt truyền tệp đã bắt đầu, theo chiều nhìn từ thuê bao."),
    _metric("nhip_server_transfers_refused_total", _C, "transfers", (),
            "Connections and transfers told that the server is busy.",
            "Số kết nối và lượt truyền bị báo máy chủ bận."),
    _metric("nhip_server_payload_bytes_total", _C, "bytes", ("direction",),
            "File octets moved, by direction as the subscriber sees it.",
            "Số octet tệp đã truyền, theo chiều nhìn từ thuê bao."),
    _metric("nhip_reflector_packets_received_total", _C, "packets", (),
            "Packets that reached the STAMP reflector.",
            "Số gói đã đến bộ phản xạ STAMP."),
    _metric("nhip_reflector_packets_reflected_total", _C, "packets", (),
            "Test packets the STAMP reflector answered.",
            "Số gói đo mà bộ phản xạ STAMP đã trả lời."),
    _metric("nhip_reflector_packets_refused_total", _C, "packets", ("reason",),
            "Packets the STAMP reflector left unanswered, by reason.",
            "Số gói mà bộ phản xạ STAMP không trả lời, theo lý do."),
    _metric("nhip_dns_responder_questions_total", _C, "questions", (),
            "Datagrams that reached the test zone's DNS responder.",
            "Số gói tin đã đến bộ trả lời DNS của vùng thử."),
    _metric("nhip_dns_responder_answers_total", _C, "answers", (),
            "Answers the test zone's DNS responder gave.",
            "Số câu trả lời mà bộ trả lời DNS của vùng thử đã gửi."),
)
# fmt: on

CATALOG: dict[str, Metric] = {metric.name: metric for metric in _METRICS}
