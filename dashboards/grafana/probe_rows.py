"""The tests and the probes that run them: how many, how many without an answer, who is silent."""

from __future__ import annotations

from dashboards.grafana.panel import (
    BY_TEST,
    TEST_LEGEND,
    Column,
    Panel,
    Query,
    Row,
    access,
    rate,
    results,
)
from nhip.language import text

TESTS = Row(
    title=text("Phép đo", "Tests"),
    panels=(
        Panel(
            title=text("Lần đo và lần không có phản hồi", "Tests, and those without an answer"),
            description=text(
                "Số lần đo mỗi giây bộ thu nhận được và trong đó số lần không có phản hồi nào. Đo thất bại "
                "vẫn là một kết quả.",
                "Tests a second the collector received, and those of them that got no answer at all. A "
                "failed test is a result too.",
            ),
            unit="ops",
            queries=(
                Query(
                    expression=f"sum {BY_TEST} ({rate('nhip_probe_tests_total')})",
                    legend=TEST_LEGEND,
                    word=text("đã đo", "tests"),
                ),
                Query(
                    expression=f"sum {BY_TEST} ({rate('nhip_probe_test_failures_total')})",
                    legend=TEST_LEGEND,
                    word=text("không phản hồi", "no answer"),
                ),
            ),
        ),
        Panel(
            title=text("Tỷ lệ chuỗi đo có phản hồi", "Share of series with an answer"),
            description=text(
                "1 khi lần đo gần nhất của mọi chuỗi đều có phản hồi.",
                "1 when the last test of every series got an answer.",
            ),
            unit="percentunit",
            maximum=1,
            queries=(
                Query(expression=f"avg {BY_TEST} ({results('nhip_probe_success')})", legend=TEST_LEGEND),
            ),
        ),
        Panel(
            title=text("Kết cục của các gói", "What became of the packets"),
            description=text(
                "Số gói hoặc lượt thử mỗi giây: đã gửi, có phản hồi, bị từ chối hoặc lỗi. Phần còn lại của "
                "số đã gửi là mất.",
                "Packets or attempts a second: sent, answered, refused or in error. The rest of those sent "
                "was lost.",
            ),
            unit="pps",
            queries=tuple(
                Query(expression=f"sum {BY_TEST} ({rate(name)})", legend=TEST_LEGEND, word=word)
                for name, word in (
                    ("nhip_probe_packets_sent_total", text("đã gửi", "sent")),
                    ("nhip_probe_packets_received_total", text("có phản hồi", "answered")),
                    ("nhip_probe_packets_failed_total", text("bị từ chối hoặc lỗi", "refused or in error")),
                )
            ),
        ),
        Panel(
            title=text("Gói trùng lặp và sai thứ tự", "Duplicate and reordered packets"),
            description=text(
                "Số gói mỗi giây nhận trùng và nhận sai thứ tự (RFC 4737).",
                "Packets a second that came twice, or out of order (RFC 4737).",
            ),
            unit="pps",
            queries=(
                Query(
                    expression=f"sum {BY_TEST} ({rate('nhip_probe_packets_duplicate_total')})",
                    legend=TEST_LEGEND,
                    word=text("trùng lặp", "duplicate"),
                ),
                Query(
                    expression=f"sum {BY_TEST} ({rate('nhip_probe_packets_reordered_total')})",
                    legend=TEST_LEGEND,
                    word=text("sai thứ tự", "reordered"),
                ),
            ),
        ),
        Panel(
            title=text("Dữ liệu các phép đo đã dùng", "Data the tests consumed"),
            description=text(
                "Octet tải tin mỗi giây, cả hai chiều: chi phí của việc đo, quan trọng với SIM có hạn mức.",
                "Payload octets a second, both directions: what measuring costs; capped SIMs care.",
            ),
            unit="Bps",
            queries=(
                Query(
                    expression=f"sum {BY_TEST} ({rate('nhip_probe_volume_bytes_total')})",
                    legend=TEST_LEGEND,
                ),
            ),
        ),
    ),
)

PROBES = Row(
    title=text("Đầu đo", "Probes"),
    panels=(
        Panel(
            title=text("Thời gian im lặng của đầu đo", "Silence of each probe"),
            description=text(
                "Thời gian từ lần cuối bộ thu nhận được tin của đầu đo, kể cả tin báo còn sống.",
                "Time since the collector last heard from the probe, signs of life included.",
            ),
            unit="s",
            warn_above=180,
            queries=(
                Query(
                    expression=(
                        "max by (probe, operator) "
                        f"(time() - {access('nhip_probe_last_seen_timestamp_seconds')})"
                    ),
                    legend="{{operator}} {{probe}}",
                ),
            ),
        ),
        Panel(
            title=text("Tuổi của kết quả gần nhất", "Age of the last result"),
            description=text(
                "Thời gian từ khi lần đo gần nhất bắt đầu. Kết quả quá hạn biến mất khỏi bảng này.",
                "Time since the last test started. A result that is overdue vanishes from here.",
            ),
            unit="s",
            queries=(
                Query(
                    expression=(
                        f"max by (probe, kind) (time() - {results('nhip_probe_last_run_timestamp_seconds')})"
                    ),
                    legend="{{probe}} {{kind}}",
                ),
            ),
        ),
        Panel(
            title=text("Đầu đo trong cấu hình và đã có tin", "Probes configured, and those ever heard"),
            description=text(
                "Số đầu đo trong danh sách của bộ thu, và trong đó số đầu đo bộ thu đã nhận được tin. Chênh "
                "lệch là đầu đo chưa từng gửi.",
                "Probes in the collector's list, and those of them the collector has heard from. The "
                "difference has never sent anything.",
            ),
            unit="short",
            queries=(
                Query(
                    # A probe of several technologies stands there once for each.
                    expression=(
                        "count by (operator) "
                        f"(group by (probe, operator) ({access('nhip_probe_configured')}))"
                    ),
                    legend="{{operator}}",
                    word=text("trong cấu hình", "configured"),
                ),
                Query(
                    expression=f"count by (operator) ({access('nhip_probe_last_seen_timestamp_seconds')})",
                    legend="{{operator}}",
                    word=text("đã có tin", "heard"),
                ),
            ),
        ),
        Panel(
            title=text("Lần đo đầu đo đã thực hiện", "Tests the probes ran"),
            description=text(
                "Số lần đo mỗi giây theo chính đầu đo đếm. Ít hơn ở bảng “Phép đo” là bản ghi còn chờ trên "
                "đĩa hoặc bị bỏ.",
                "Tests a second as the probes count them. Fewer under “Tests” means records that still wait "
                "on a disk or were dropped.",
            ),
            unit="ops",
            queries=(
                Query(expression=f"sum by (probe) ({rate('nhip_agent_tests_total')})", legend="{{probe}}"),
            ),
        ),
        Panel(
            title=text("Bản ghi chờ trên đĩa đầu đo", "Records waiting on the probes' disks"),
            description=text(
                "Số bản ghi trong vùng đệm của đầu đo; tăng mãi là bộ thu không nhận được.",
                "Records in a probe's spool; one that keeps growing cannot reach the collector.",
            ),
            unit="short",
            queries=(
                Query(
                    expression=f"max by (probe) ({access('nhip_agent_spool_records')})", legend="{{probe}}"
                ),
            ),
        ),
        Panel(
            title=text("Dung lượng vùng đệm đầu đo", "Size of the probes' spools"),
            description=text(
                "Octet bản ghi đang chờ trên đĩa của đầu đo; khi đầy, bản ghi cũ nhất bị bỏ.",
                "Octets of records waiting on a probe's disk; when it is full the oldest are dropped.",
            ),
            unit="decbytes",
            queries=(
                Query(expression=f"max by (probe) ({access('nhip_agent_spool_bytes')})", legend="{{probe}}"),
            ),
        ),
        Panel(
            title=text("Tuổi bản ghi chờ lâu nhất", "Age of the oldest waiting record"),
            description=text(
                "Tuổi của bản ghi cũ nhất trong vùng đệm; trống khi vùng đệm không có gì.",
                "Age of the oldest record in the spool; blank when nothing waits.",
            ),
            unit="s",
            queries=(
                Query(
                    expression=f"max by (probe) ({access('nhip_agent_spool_oldest_age_seconds')})",
                    legend="{{probe}}",
                ),
            ),
        ),
        Panel(
            title=text("Sự cố của đầu đo", "Troubles of the probes"),
            description=text(
                "Bản ghi bị bỏ vì đầy đĩa, lần đo lỡ hẹn, lần đo không thực hiện được, lần gửi thất bại. "
                "Bình thường bằng 0.",
                "Records dropped by a full spool, tests missed, tests that could not run, deliveries that "
                "failed. Normally 0.",
            ),
            unit="short",
            queries=tuple(
                Query(
                    expression=f"sum by (probe) ({rate(name, function='increase')})",
                    legend="{{probe}}",
                    word=word,
                )
                for name, word in (
                    ("nhip_agent_spool_dropped_total", text("bị bỏ", "dropped")),
                    ("nhip_agent_tests_missed_total", text("lỡ hẹn", "missed")),
                    ("nhip_agent_tests_failed_to_run_total", text("không chạy được", "could not run")),
                    ("nhip_agent_ship_failures_total", text("gửi thất bại", "delivery failed")),
                )
            ),
        ),
        Panel(
            title=text("Độ trễ lịch và lệch đồng hồ", "Lateness of starts, offset of clocks"),
            description=text(
                "Độ trễ lịch lớn nhất của các lần đo, và đồng hồ đầu đo trừ đồng hồ bộ thu (gồm trễ mạng).",
                "Largest lateness of a test's start, and the probe's clock minus the collector's (network "
                "delay included).",
            ),
            unit="s",
            minimum=None,
            queries=(
                Query(
                    expression=f"max by (probe) ({access('nhip_agent_schedule_lag_seconds')})",
                    legend="{{probe}}",
                    word=text("trễ lịch", "lateness"),
                ),
                Query(
                    expression=f"max by (probe) ({access('nhip_agent_clock_offset_seconds')})",
                    legend="{{probe}}",
                    word=text("lệch đồng hồ", "clock offset"),
                ),
            ),
        ),
        Panel(
            title=text("Danh sách đầu đo", "List of probes"),
            description=text(
                "Vị trí và phiên bản phần mềm của từng đầu đo đang gửi tin.",
                "Where each reporting probe stands and which software it runs.",
            ),
            unit="none",
            style="table",
            width=24,
            queries=(Query(expression=access("nhip_probe_info"), instant=True),),
            columns=(
                Column(source="probe", title=text("Đầu đo", "Probe")),
                Column(source="operator", title=text("Doanh nghiệp", "Operator")),
                Column(source="technology", title=text("Công nghệ", "Technology")),
                Column(source="province", title=text("Tỉnh, thành phố", "Province")),
                Column(source="environment", title=text("Môi trường", "Environment")),
                Column(source="software_version", title=text("Phiên bản", "Version")),
            ),
        ),
    ),
)
