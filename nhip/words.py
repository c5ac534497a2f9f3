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


def word(table: Mapping[str, Text], code: str, language: Language) -> str:
    """The word for a code; the code itself when it has none, for a newer sender may know more of them."""
    found = table.get(code)
    return code if found is None else found[language]
