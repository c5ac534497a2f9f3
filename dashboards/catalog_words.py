"""Words for what the metric catalog says in codes: the part of Nhịp a metric speaks of, and its unit."""

from __future__ import annotations

from collections.abc import Mapping

from nhip.catalog import Metric
from nhip.errors import UnknownNameError
from nhip.language import Text, text

# By the first word of a name after the prefix, in the order in which they are shown.
SECTIONS: Mapping[str, Text] = {
    "probe": text("Kết quả đo và đầu đo", "What the probes measured, and the probes"),
    "agent": text("Phần mềm trên đầu đo", "The software on a probe"),
    "engine": text("Bộ đo nhiều đích", "The engine for many targets"),
    "collector": text("Bộ thu", "The collector"),
    "link": text("Dung lượng kênh", "Capacity of links"),
    "server": text("Máy chủ đo: truyền tệp", "Measurement server: file transfer"),
    "reflector": text("Máy chủ đo: phản hồi STAMP", "Measurement server: STAMP reflector"),
    "dns": text("Máy chủ đo: DNS", "Measurement server: DNS"),
}
UNITS: Mapping[str, Text] = {
    "seconds": text("giây", "seconds"),
    "bytes": text("octet", "octets"),
    "bits per second": text("bit trên giây", "bits per second"),
    "ratio": text("tỷ lệ 0–1", "ratio 0–1"),
    "score": text("điểm", "score"),
    "boolean": text("0 hoặc 1", "0 or 1"),
    "tests": text("lần đo", "tests"),
    "packets": text("gói", "packets"),
    "records": text("bản ghi", "records"),
    "batches": text("lô", "batches"),
    "series": text("chuỗi", "series"),
    "flushes": text("lần chuyển", "moves"),
    "transfers": text("lượt truyền", "transfers"),
    "questions": text("câu hỏi", "questions"),
    "targets": text("đích", "targets"),
    "probes": text("gói đo", "probes"),
    "probes per second": text("gói đo trên giây", "probes per second"),
    "replies": text("phản hồi", "replies"),
    "stamps": text("dấu thời gian", "stamps"),
    "delays": text("giá trị trễ", "delays"),
    "steps": text("lần chỉnh", "steps"),
    "changes": text("lần đổi", "changes"),
    "windows": text("cửa sổ", "windows"),
    "restarts": text("lần khởi động lại", "restarts"),
    "instances": text("máy chủ", "instances"),
    "sessions": text("phiên", "sessions"),
    "answers": text("câu trả lời", "answers"),
}


def section_of(metric: Metric) -> str:
    """The key in SECTIONS of the part `metric` speaks of; UnknownNameError when there is none."""
    section = metric.name.split("_")[1]
    if section not in SECTIONS:
        raise UnknownNameError(f"{metric.name} belongs to no section", remedy="add one to SECTIONS")
    return section


def unit_of(metric: Metric) -> Text:
    """The unit of `metric` in words; UnknownNameError when it has none."""
    if metric.unit not in UNITS:
        raise UnknownNameError(
            f"{metric.name} is in {metric.unit!r}, which has no word", remedy="add it to UNITS"
        )
    return UNITS[metric.unit]
