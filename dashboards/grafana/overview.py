"""The overview: which rows it has, in which order, and the variables on top of it."""

from __future__ import annotations

from dashboards.grafana.access_row import QUALITY
from dashboards.grafana.catalog_rows import ENGINE, SERVER
from dashboards.grafana.collector_row import COLLECTOR
from dashboards.grafana.experience_row import EXPERIENCE
from dashboards.grafana.latency_row import LATENCY
from dashboards.grafana.link_row import LINKS
from dashboards.grafana.probe_rows import PROBES, TESTS
from dashboards.grafana.reach_row import REACH
from nhip.language import text

TITLE = text("Nhịp – tổng quan", "Nhịp – overview")
DESCRIPTION = text(
    "Chất lượng mạng theo doanh nghiệp và công nghệ, tình trạng đầu đo và bộ thu, ngày các kênh chạm ngưỡng.",
    "Network quality by operator and technology, health of probes and collector, dates on which links reach "
    "their limits.",
)
VARIABLE_LABELS = {
    "datasource": text("Nguồn dữ liệu", "Data source"),
    "operator": text("Doanh nghiệp", "Operator"),
    "technology": text("Công nghệ", "Technology"),
    "province": text("Tỉnh, thành phố", "Province"),
    "kind": text("Loại phép đo", "Kind of test"),
}
# A metric that has all of a variable's values as long as anything was ever measured.
VARIABLE_SOURCE = "nhip_probe_tests_total"
_ALL = (QUALITY, LATENCY, EXPERIENCE, REACH, TESTS, PROBES, LINKS, COLLECTOR, SERVER, ENGINE)
ROWS = tuple(row for row in _ALL if row.panels)
