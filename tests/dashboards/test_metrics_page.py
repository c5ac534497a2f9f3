from __future__ import annotations

import re
from dataclasses import replace

import pytest

from dashboards import metrics_page
from dashboards.catalog_words import section_of, unit_of
from nhip.catalog import CATALOG, Metric, MetricKind
from nhip.errors import UnknownNameError
from nhip.language import Language


def test_committed_page_is_what_the_catalog_says() -> None:
    assert metrics_page.COMMITTED.read_text(encoding="utf-8") == metrics_page.build(), (
        "run: python -m dashboards.metrics_page"
    )


@pytest.mark.parametrize("metric", CATALOG.values(), ids=CATALOG)
def test_every_metric_stands_once_in_each_language(metric: Metric) -> None:
    rows = [line for line in metrics_page.build().splitlines() if line.startswith(f"| `{metric.name}` |")]
    assert len(rows) == len(Language)
    assert metric.help_vi in rows[0] and metric.help_en in rows[1]
    assert all(f"`{label}`" in row for row in rows for label in metric.labels)


def test_every_row_has_as_many_cells_as_the_headings() -> None:
    rows = [line for line in metrics_page.build().splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {len(metrics_page.HEADINGS) + 1}


def test_metric_without_a_section_or_a_word_for_its_unit_is_refused() -> None:
    metric = next(iter(CATALOG.values()))
    with pytest.raises(UnknownNameError, match="nhip_moon_phase belongs to no section"):
        section_of(replace(metric, name="nhip_moon_phase"))
    with pytest.raises(UnknownNameError, match="'furlongs', which has no word"):
        unit_of(replace(metric, unit="furlongs"))


def test_every_kind_of_metric_has_a_word() -> None:
    assert set(metrics_page.KINDS) == set(MetricKind)
