"""What the closed lists of the vocabulary are called for people, in both languages."""

from __future__ import annotations

from collections.abc import Mapping

from nhip.language import Language, Text, text
from nhip.measurement import Outcome, StampSource

OUTCOME_WORDS: Mapping[str, Text] = {
    Outcome.RECEIVED: text("có phản hồi", "received"),
    Outcome.LOST: text("mất gói", "lost"),
    Outcome.LATE: text("đến muộn", "late"),
    Outcome.DUPLICATE: text("trùng lặp", "duplicate"),
    Outcome.CORRUPT: text("sai nội dung", "corrupt"),
    Outcome.TRUNCATED: text("đứt giữa chừng", "truncated"),
    Outcome.REFUSED: text("bị từ chối", "refused"),
    Outcome.UNREACHABLE: text("không có đường đến", "unreachable"),
    Outcome.RESET: text("kết nối bị ngắt", "reset"),
    Outcome.REJECTED: text("máy chủ không phục vụ", "rejected"),
    Outcome.BUSY: text("máy chủ đo bận", "server busy"),
    Outcome.TLS_FAILED: text("lỗi TLS", "TLS failed"),
    Outcome.NOT_RESOLVED: text("không phân giải được tên", "name not resolved"),
    Outcome.NOT_SENT: text("chưa gửi được", "not sent"),
}

STAMP_WORDS: Mapping[str, Text] = {
    StampSource.HARDWARE: text("phần cứng", "hardware"),
    StampSource.KERNEL: text("nhân hệ điều hành", "kernel"),
    StampSource.USER: text("chương trình", "user space"),
}

FINDING_WORDS: Mapping[str, Text] = {
    # Statistics
    "mos": text("Điểm MOS ước tính", "Estimated MOS"),
    "r_factor": text("Hệ số R", "Rating R"),
    "mouth_to_ear_seconds": text("Trễ từ miệng đến tai", "Mouth-to-ear delay"),
    "rtp_jitter_seconds": text("Biến thiên RTP (RFC 3550)", "RTP jitter (RFC 3550)"),
    "one_way_pdv_p95_seconds": text("PDV một chiều, p95", "One-way PDV, p95"),
    "jitter_buffer_discard_ratio": text("Bộ đệm loại bỏ", "Discarded by the buffer"),
    "jitter_buffer_delay_seconds": text("Trễ của bộ đệm", "Delay of the buffer"),
    "jitter_buffer_underruns": text("Bộ đệm cạn", "Buffer underruns"),
    "voice_loss_ratio": text("Gói thoại không phát", "Voice packets not played"),
    "voice_burst_ratio": text("Mức dồn cụm BurstR", "BurstR"),
    "certificate_expiry_timestamp": text("Chứng thư hết hạn", "Certificate expires"),
    "tcp_connect_ipv4": text("Bắt tay TCP qua IPv4", "TCP handshake over IPv4"),
    "tcp_connect_ipv6": text("Bắt tay TCP qua IPv6", "TCP handshake over IPv6"),
    "dns_answers": text("Câu trả lời", "Answers"),
    "dns_truncated_answers": text("Câu trả lời bị cắt", "Answers cut short"),
    "dns_answer_octets": text("Cỡ câu trả lời (octet)", "Answer size (octets)"),
    "dns_server_instances": text("Số máy chủ khác nhau", "Server instances"),
    "dns_connections": text("Số kết nối", "Connections"),
    "dns_query_seconds": text("Thời gian hỏi", "Query time"),
    "interface_octets_sent": text("Octet gửi qua giao diện", "Octets sent by the interface"),
    "interface_octets_received": text("Octet nhận qua giao diện", "Octets received by the interface"),
    "reflector_send_lag_seconds": text("Bộ phản xạ gửi chậm sau T3", "Reflector's lag after T3"),
    "reflector_clock_offset_seconds": text("Lệch đồng hồ bộ phản xạ", "Reflector's clock offset"),
    "reflector_holding_seconds": text("Bộ phản xạ giữ gói", "Reflector's holding time"),
    "reflector_received_packets": text("Bộ phản xạ đã nhận", "Received by the reflector"),
    "reflector_sent_packets": text("Bộ phản xạ đã gửi", "Sent by the reflector"),
    "follow_up_corrected_ratio": text("Trễ đã hiệu chỉnh T3", "Delays with T3 corrected"),
    "directional_reordered_ratio": text("Sai thứ tự theo chiều", "Reordered by direction"),
    # Facts
    "tls_version": text("Phiên bản TLS", "TLS version"),
    "tls_cipher": text("Bộ mã TLS", "TLS cipher"),
    "alpn": text("Giao thức chọn (ALPN)", "Protocol agreed on (ALPN)"),
    "certificate_verified": text("Chứng thư được xác minh", "Certificate verified"),
    "certificate_subject": text("Chủ thể chứng thư", "Certificate subject"),
    "certificate_issuer": text("Nơi cấp chứng thư", "Certificate issuer"),
    "certificate_names": text("Tên trong chứng thư", "Names in the certificate"),
    "certificate_name_matches": text("Tên khớp", "Name matches"),
    "certificate_not_before": text("Hiệu lực từ", "Valid from"),
    "certificate_not_after": text("Hiệu lực đến", "Valid until"),
    "certificate_unreadable": text("Chứng thư không đọc được", "Certificate unreadable"),
    "certificates_seen": text("Số chứng thư đã thấy", "Certificates seen"),
    "http_version": text("Phiên bản HTTP", "HTTP version"),
    "http_status": text("Mã trạng thái HTTP", "HTTP status"),
    "alt_svc": text("Dịch vụ thay thế (Alt-Svc)", "Alternative service (Alt-Svc)"),
    "redirects": text("Chuyển hướng", "Redirects"),
    "final_url": text("Địa chỉ cuối", "Final address"),
    "happy_eyeballs": text("Phiên bản IP thắng", "IP version that won"),
    "happy_eyeballs_ipv4": text("Chạy đua: IPv4", "Race: IPv4"),
    "happy_eyeballs_ipv6": text("Chạy đua: IPv6", "Race: IPv6"),
    "rcode": text("Mã trả lời DNS", "DNS response code"),
    "nsid": text("Tên máy chủ (NSID)", "Server instance (NSID)"),
    "dnssec_authenticated": text("DNSSEC đã xác thực (AD)", "DNSSEC authenticated (AD)"),
    "way_interface": text("Giao diện đã dùng", "Interface used"),
    "stamp_reflector": text("Bộ phản xạ", "Reflector"),
    "stamp_clock": text("Đồng hồ bộ phản xạ", "Reflector's clock"),
    "stamp_time_format": text("Dạng thời gian", "Time format"),
    "stamp_extensions": text("Phần mở rộng STAMP", "STAMP extensions"),
    "stamp_unrecognised": text("Phần mở rộng không nhận ra", "Extensions not recognised"),
    "stamp_malformed": text("Phần mở rộng hỏng", "Extensions malformed"),
    "stamp_integrity": text("Toàn vẹn", "Integrity"),
    "stamp_sync_source": text("Nguồn đồng bộ", "Synchronisation source"),
    "stamp_method_in": text("Dấu thời gian đến", "Arrival stamped by"),
    "stamp_method_out": text("Dấu thời gian đi", "Departure stamped by"),
    "stamp_dscp_received": text("DSCP khi đến", "DSCP as received"),
    "stamp_dscp_returned": text("DSCP khi về", "DSCP as returned"),
    "stamp_nat": text("Đổi địa chỉ (NAT)", "Address translation (NAT)"),
    "stamp_seen_address": text("Địa chỉ bộ phản xạ thấy", "Address the reflector saw"),
    "stamp_seen_port": text("Cổng bộ phản xạ thấy", "Port the reflector saw"),
}
"""What the statistics and facts of single kinds of test are called; one that is new shows its own name."""


def word(table: Mapping[str, Text], code: str, language: Language) -> str:
    """The word for a code; the code itself when it has none, for a newer sender may know more of them."""
    found = table.get(code)
    return code if found is None else found[language]
