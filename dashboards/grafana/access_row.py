"""Access quality: delay, loss, PDV, HTTP phases, and speed beside what the operator declares."""

from __future__ import annotations

from dashboards.grafana.panel import (
    ACCESS_LEGEND,
    BY_ACCESS,
    BY_TEST,
    TEST_LEGEND,
    Panel,
    Query,
    Row,
    access,
    rate,
    results,
)
from nhip.language import Text, text


def _speed_panel(direction: str, title: Text, description: Text) -> Panel:
    match = f'direction="{direction}"'
    return Panel(
        title=title,
        description=description,
        unit="bps",
        queries=(
            Query(
                expression=f"avg {BY_ACCESS} ({results('nhip_probe_last_speed_bits_per_second', match)})",
                legend=ACCESS_LEGEND,
                word=text("đo", "measured"),
            ),
            Query(
                expression=(
                    f"avg {BY_ACCESS} ({access('nhip_probe_declared_speed_bits_per_second', match)})"
                ),
                legend=ACCESS_LEGEND,
                word=text("công bố", "declared"),
            ),
        ),
    )


def delay_quantile(probability: float) -> str:
    buckets = rate("nhip_probe_round_trip_delay_seconds", suffix="_bucket")
    return f"histogram_quantile({probability}, sum by (le, operator, technology, kind) ({buckets}))"


_HTTP = 'kind="http"'

QUALITY = Row(
    title=text("Chất lượng truy nhập", "Access quality"),
    panels=(
        Panel(
            title=text("Trễ khứ hồi, trung vị", "Round-trip delay, median"),
            description=text(
                "Trung vị, trên các chuỗi đo, của trung vị lần đo gần nhất (RFC 2681). Mỗi loại phép đo một "
                "đường: trễ TCP hay DNS không so được với trễ ICMP.",
                "Median over series of the last test's median (RFC 2681). One line for each kind of test: "
                "the delay of TCP or DNS is not that of ICMP.",
            ),
            unit="s",
            queries=(
                Query(
                    expression=(
                        f"quantile {BY_TEST} (0.5, {results('nhip_probe_last_round_trip_delay_seconds')})"
                    ),
                    legend=TEST_LEGEND,
                ),
            ),
        ),
        Panel(
            title=text("Trễ khứ hồi, phân vị 50 và 95", "Round-trip delay, 50th and 95th percentile"),
            description=text(
                "Phân vị của trung vị các lần đo trong khoảng thời gian, mỗi lần đo đếm một lần. Nội suy "
                "giữa các mốc của biểu đồ tần suất nên chỉ gần đúng.",
                "Percentiles of the tests' medians over the window, every test counted once. "
                "Interpolated between the histogram's edges, hence approximate.",
            ),
            unit="s",
            queries=tuple(
                Query(expression=delay_quantile(level), legend=f"p{level * 100:.0f} {TEST_LEGEND}")
                for level in (0.5, 0.95)
            ),
        ),
        Panel(
            title=text("Tỷ lệ mất gói", "Loss ratio"),
            description=text(
                "Số gói mất (kể cả đến muộn) chia số gói mất và nhận trong khoảng thời gian (RFC 7680). Gói "
                "bị từ chối không tính.",
                "Packets lost, late ones included, over packets lost and received in the window (RFC 7680). "
                "Refused ones are neither.",
            ),
            unit="percentunit",
            queries=(
                Query(
                    expression=(
                        f"sum {BY_TEST} ({rate('nhip_probe_packets_lost_total')}) / "
                        f"(sum {BY_TEST} ({rate('nhip_probe_packets_lost_total')} + "
                        f"{rate('nhip_probe_packets_received_total')}) > 0)"
                    ),
                    legend=TEST_LEGEND,
                ),
            ),
        ),
        Panel(
            title=text("Mất gói của lần đo gần nhất", "Loss of the last test"),
            description=text(
                "Tỷ lệ mất gói lớn nhất trong các lần đo gần nhất: một truy nhập hỏng không chìm trong "
                "trung bình.",
                "Largest loss ratio among the last tests: one broken access does not drown in a mean.",
            ),
            unit="percentunit",
            queries=(
                Query(
                    expression=f"max {BY_TEST} ({results('nhip_probe_last_loss_ratio')})",
                    legend=TEST_LEGEND,
                ),
            ),
        ),
        Panel(
            title=text("Biến thiên trễ gói (PDV)", "Packet delay variation (PDV)"),
            description=text(
                "Trung vị, trên các chuỗi đo, của phân vị 95 PDV lần đo gần nhất (RFC 5481): trễ trừ trễ nhỏ "
                "nhất của cùng lần đo.",
                "Median over series of the last test's 95th percentile of PDV (RFC 5481): delay above the "
                "smallest of the same test.",
            ),
            unit="s",
            queries=(
                Query(
                    expression=f"quantile {BY_TEST} (0.5, {results('nhip_probe_last_pdv_seconds')})",
                    legend=TEST_LEGEND,
                ),
            ),
        ),
        Panel(
            title=text("Các pha của HTTP", "HTTP phases"),
            description=text(
                "Trung bình của từng pha trong lần đo gần nhất: tra tên, kết nối TCP, TLS, byte đầu tiên, "
                "truyền. Chồng lên nhau thành thời gian tải trang.",
                "Mean of each phase of the last test: name look-up, TCP connect, TLS, first byte, transfer. "
                "Stacked they make the time to load.",
            ),
            unit="s",
            style="stacked",
            queries=(
                Query(
                    expression=(
                        "avg by (operator, technology, phase) "
                        f"({access('nhip_probe_last_phase_seconds', _HTTP)})"
                    ),
                    legend="{{operator}} {{technology}} {{phase}}",
                ),
            ),
        ),
        _speed_panel(
            "down",
            text("Tốc độ tải xuống và mức công bố", "Download speed beside the declared one"),
            text(
                "Trung bình tốc độ lần đo gần nhất (bit tải tin chia thời gian) bên cạnh tốc độ doanh nghiệp "
                "công bố trong cấu hình bộ thu.",
                "Mean speed of the last tests (payload bits over seconds) beside what the operator declares "
                "in the collector's configuration.",
            ),
        ),
        _speed_panel(
            "up",
            text("Tốc độ tải lên và mức công bố", "Upload speed beside the declared one"),
            text(
                "Trung bình tốc độ lần đo gần nhất bên cạnh tốc độ doanh nghiệp công bố.",
                "Mean speed of the last tests beside what the operator declares.",
            ),
        ),
    ),
)
