"""docs/metrics.md, made from the metric catalog in both languages.

``python -m dashboards.metrics_page`` writes it; it is committed, and a test fails when it differs from what
the catalog says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dashboards.catalog_words import SECTIONS, section_of, unit_of
from nhip.catalog import CATALOG, Metric, MetricKind
from nhip.language import Language, Text, text

COMMITTED = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"

TITLE = text("Các số đo Prometheus của Nhịp", "Prometheus metrics of Nhịp")
NOTE = text(
    "Trang này do `python -m dashboards.metrics_page` tạo từ `nhip/catalog.py`; hãy sửa ở đó. Không có số "
    "liệu thì không có chuỗi: không bao giờ là 0. Đầu đo, doanh nghiệp, tỉnh và công nghệ lấy từ danh sách "
    "của bộ thu.",
    "Made by `python -m dashboards.metrics_page` from `nhip/catalog.py`; change it there. Where there is no "
    "data there is no series, never a 0. Probe, operator, province and technology come from the collector's "
    "own list.",
)
HEADINGS = (
    text("số đo", "metric"),
    text("loại", "kind"),
    text("đơn vị", "unit"),
    text("nhãn", "labels"),
    text("ý nghĩa", "meaning"),
)
KINDS: Mapping[MetricKind, Text] = {
    MetricKind.COUNTER: text("bộ đếm", "counter"),
    MetricKind.GAUGE: text("giá trị hiện tại", "gauge"),
    MetricKind.HISTOGRAM: text("biểu đồ tần suất", "histogram"),
}


def build() -> str:
    """The page: Vietnamese first, then English; UnknownNameError for a metric that has no section or unit."""
    return "\n\n---\n\n".join(_part(language) for language in Language) + "\n"


def write(target: Path = COMMITTED) -> Path:
    """Write the page that is committed; where it lies."""
    target.write_text(build(), encoding="utf-8")
    return target


def _part(language: Language) -> str:
    blocks = [f"# {TITLE[language]}", NOTE[language]]
    found: dict[str, list[Metric]] = {section: [] for section in SECTIONS}
    for metric in CATALOG.values():
        found[section_of(metric)].append(metric)
    for section, metrics in found.items():
        if metrics:
            blocks += [f"## {SECTIONS[section][language]}", _table(metrics, language)]
    return "\n\n".join(blocks)


def _table(metrics: list[Metric], language: Language) -> str:
    rows = [
        [heading[language] for heading in HEADINGS],
        ["---"] * len(HEADINGS),
        *(_cells(metric, language) for metric in metrics),
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _cells(metric: Metric, language: Language) -> list[str]:
    labels = ", ".join(f"`{label}`" for label in metric.labels) or "–"
    meaning = metric.help_vi if language is Language.VIETNAMESE else metric.help_en
    return [f"`{metric.name}`", KINDS[metric.kind][language], unit_of(metric)[language], labels, meaning]


if __name__ == "__main__":
    write()
