"""What the tests learnt on the way: certificates, resolvers, reflectors, and the line they used."""

from __future__ import annotations

from dashboards.grafana.panel import TEST_LEGEND, Panel, Query, Row, results
from nhip.language import Text, text


def _query(metric: str, label: str = "", word: Text | None = None, function: str = "max") -> Query:
    by = f"by (operator, technology, kind{', ' + label if label else ''})"
    legend = f"{TEST_LEGEND} {{{{{label}}}}}" if label else TEST_LEGEND
    return Query(expression=f"{function} {by} ({results(metric)})", legend=legend, word=word)


REACH = Row(
    title=text(
        "Chứng thư, phân giải tên, bộ phản xạ, đường truyền", "Certificates, resolvers, reflectors, line"
    ),
    panels=(
        Panel(
            title=text("Chứng thư còn hiệu lực", "Certificates still valid for"),
            description=text(
                "Thời gian đến khi chứng thư sớm nhất hết hạn; âm là đã hết hạn.",
                "Time until the earliest certificate expires; below zero it has expired.",
            ),
            unit="s",
            minimum=None,
            queries=(
                Query(
                    expression=(
                        "min by (operator, technology, kind) "
                        f"({results('nhip_probe_last_certificate_expiry_timestamp_seconds')}) - time()"
                    ),
                    legend=TEST_LEGEND,
                ),
            ),
        ),
        Panel(
            title=text("Phiên bản TLS và HTTP", "TLS and HTTP versions"),
            description=text(
                "Số chuỗi đo theo phiên bản đã thỏa thuận trong lần đo gần nhất.",
                "Series by the versions agreed on in the last test.",
            ),
            unit="short",
            queries=(
                Query(
                    expression=(
                        "count by (operator, technology, tls_version, http_version) "
                        f"({results('nhip_probe_last_tls_info')})"
                    ),
                    legend="{{operator}} {{technology}} {{tls_version}} {{http_version}}",
                ),
            ),
        ),
        Panel(
            title=text("Bắt tay TCP theo IPv4 và IPv6", "TCP handshake over IPv4 and IPv6"),
            description=text(
                "Trung vị lần đo gần nhất khi cho hai phiên bản chạy đua (RFC 8305).",
                "Median of the last test, where both versions were raced (RFC 8305).",
            ),
            unit="s",
            queries=(_query("nhip_probe_last_tcp_connect_seconds", "ip_version", text("IP", "IP")),),
        ),
        Panel(
            title=text("Câu trả lời DNS", "DNS answers"),
            description=text(
                "Theo mã trả lời, số bị cắt (bit TC) và số máy chủ khác nhau (NSID) của lần đo gần nhất.",
                "By response code, those truncated (TC bit), and how many server instances (NSID) answered "
                "the last test.",
            ),
            unit="short",
            queries=(
                _query("nhip_probe_last_dns_answers", "rcode", function="sum"),
                _query("nhip_probe_last_dns_cut_answers", "", text("bị cắt", "truncated"), "sum"),
                _query("nhip_probe_last_dns_server_instances", "", text("máy chủ", "instances")),
            ),
        ),
        Panel(
            title=text("Bộ phản xạ STAMP", "STAMP reflectors"),
            description=text(
                "Thời gian từ T3 đến lúc gói thật sự rời đi (đã loại khỏi trễ), và lệch đồng hồ khi "
                "giả định hai chiều bằng nhau.",
                "From T3 to the answer's true departure (taken out of the delay), and the clocks' difference "
                "if both directions take equally long.",
            ),
            unit="s",
            minimum=None,
            queries=(
                _query("nhip_probe_last_reflector_send_lag_seconds", "", text("gửi chậm", "send lag")),
                _query("nhip_probe_last_reflector_clock_offset_seconds", "", text("lệch", "offset")),
            ),
        ),
        Panel(
            title=text("Sai thứ tự theo chiều", "Reordering by direction"),
            description=text(
                "Tỷ lệ gói bị vượt trong từng chiều của lần đo gần nhất, theo số thứ tự của bộ phản xạ.",
                "Share of packets overtaken in each direction of the last test, by the far end's numbering.",
            ),
            unit="percentunit",
            queries=(_query("nhip_probe_last_directional_reordered_ratio", "direction"),),
        ),
        Panel(
            title=text("Lưu lượng trên giao diện của phép đo", "Octets on the test's interface"),
            description=text(
                "Theo bộ đếm của giao diện trong lần đo gần nhất: gồm cả tiêu đề và lưu lượng khác, là phần "
                "SIM bị tính cước.",
                "By the interface's own counters during the last test: headers and other traffic too, which "
                "is what a SIM is charged for.",
            ),
            unit="decbytes",
            width=24,
            queries=(_query("nhip_probe_last_interface_bytes", "direction", function="sum"),),
        ),
    ),
)
