"""What people would notice: how calls sound, and how ready each line is for groups of services."""

from __future__ import annotations

from dashboards.grafana.panel import ACCESS_LEGEND, BY_ACCESS, Panel, Query, Row, access
from nhip.language import Text, text

_BY_CALL = "by (operator, technology, codec, direction)"
_CALL_LEGEND = f"{ACCESS_LEGEND} {{{{codec}}}} {{{{direction}}}}"


def _call(function: str, metric: str, word: Text | None = None) -> Query:
    return Query(expression=f"{function} {_BY_CALL} ({access(metric)})", legend=_CALL_LEGEND, word=word)


EXPERIENCE = Row(
    title=text("Thoại và mức sẵn sàng cho dịch vụ", "Calls, and readiness for services"),
    panels=(
        Panel(
            title=text("Điểm MOS ước tính", "Estimated mean opinion score"),
            description=text(
                "E-model băng hẹp (ITU-T G.107) trên luồng thoại giả lập, theo mã hóa và chiều; lấy giá trị "
                "thấp nhất.",
                "Narrowband E-model (ITU-T G.107) over a voice-like stream, by codec and direction; the "
                "lowest counts.",
            ),
            unit="short",
            minimum=1,
            maximum=4.5,
            queries=(_call("min", "nhip_probe_last_mean_opinion_score"),),
        ),
        Panel(
            title=text("Hệ số R", "Rating R"),
            description=text(
                "Hệ số truyền dẫn R của E-model; dưới 60 là kém.",
                "Transmission rating R of the E-model; below 60 is poor.",
            ),
            unit="short",
            maximum=100,
            queries=(_call("min", "nhip_probe_last_voice_rating_score"),),
        ),
        Panel(
            title=text("Trễ từ miệng đến tai và biến thiên RTP", "Mouth-to-ear delay and RTP jitter"),
            description=text(
                "Trễ gồm mạng, bộ đệm, đóng gói và mã hóa; biến thiên thời gian đến theo RFC 3550.",
                "Delay of network, buffer, packetisation and codec; interarrival jitter of RFC 3550.",
            ),
            unit="s",
            queries=(
                _call("max", "nhip_probe_last_mouth_to_ear_seconds", text("trễ", "delay")),
                _call("max", "nhip_probe_last_rtp_jitter_seconds", text("RFC 3550", "RFC 3550 jitter")),
            ),
        ),
        Panel(
            title=text("Gói thoại không phát được", "Voice packets not played"),
            description=text(
                "Tỷ lệ mất hoặc bị loại, và phần đến quá muộn bị bộ đệm loại bỏ.",
                "Lost or discarded, and the part that the jitter buffer discarded as too late.",
            ),
            unit="percentunit",
            queries=(
                _call("max", "nhip_probe_last_voice_loss_ratio", text("không phát", "not played")),
                _call("max", "nhip_probe_last_jitter_buffer_discard_ratio", text("bị loại", "discarded")),
            ),
        ),
        Panel(
            title=text("Mức sẵn sàng cho mười nhóm dịch vụ", "Readiness for ten groups of services"),
            description=text(
                "Điểm QoO thấp nhất, 0–100, theo ngưỡng riêng của Nhịp cho các nhóm của Chỉ thị 16; không có "
                "điểm khi thiếu số liệu.",
                "Lowest QoO score, 0 to 100, by Nhịp's own thresholds for the groups of Directive 16; no "
                "score where a part is not measured.",
            ),
            unit="short",
            maximum=100,
            width=24,
            queries=(
                Query(
                    expression=(
                        f"min {BY_ACCESS.replace(')', ', service)')} "
                        f"({access('nhip_probe_last_service_readiness_score')})"
                    ),
                    legend=f"{ACCESS_LEGEND} {{{{service}}}}",
                ),
            ),
        ),
    ),
)
