"""Rows made from the catalog: one panel for each part and unit of what has a page of its own.

A measurement server or an engine is asked about when a test fails, not every day; so its panels need no words
beyond those of the catalog. Each shows its metrics itself, on its own page; where none is scraped the row is
blank.
"""

from __future__ import annotations

from collections.abc import Iterable

from dashboards.catalog_words import SECTIONS, UNITS, section_of
from dashboards.grafana.panel import WINDOW, Panel, Query, Row
from nhip.catalog import CATALOG, Metric, MetricKind
from nhip.language import Language, Text, text

SERVER_SECTIONS = frozenset({"server", "reflector", "dns"})
ENGINE_SECTIONS = frozenset({"engine"})
# Units of Grafana: for a value, and for a counter a second.
_VALUE_UNITS = {"seconds": "s", "bytes": "decbytes", "bits per second": "bps", "ratio": "percentunit"}
_RATE_UNITS = {"bytes": "Bps", "packets": "pps"}


def server_row(metrics: Iterable[Metric]) -> Row:
    """A row with every metric of the measurement server in `metrics`; without any it has no panels."""
    return _row(metrics, SERVER_SECTIONS, text("Máy chủ đo", "Measurement server"))


def engine_row(metrics: Iterable[Metric]) -> Row:
    """A row with every metric of the engine for many targets in `metrics`."""
    return _row(metrics, ENGINE_SECTIONS, text("Bộ đo nhiều đích", "The engine for many targets"))


def _row(metrics: Iterable[Metric], sections: frozenset[str], title: Text) -> Row:
    groups: dict[tuple[str, MetricKind, str], list[Metric]] = {}
    for metric in metrics:
        section = section_of(metric)
        if section in sections:
            groups.setdefault((section, metric.kind, metric.unit), []).append(metric)
    return Row(
        title=title,
        panels=tuple(_panel(*key, found) for key, found in groups.items()),
    )


def _panel(section: str, kind: MetricKind, unit: str, metrics: list[Metric]) -> Panel:
    counts = kind is MetricKind.COUNTER
    return Panel(
        title=_both(
            SECTIONS[section],
            UNITS[unit],
            text(" ({} mỗi giây)", " ({} a second)") if counts else text(" ({})", " ({})"),
        ),
        description=text(
            " ".join(metric.help_vi for metric in metrics), " ".join(metric.help_en for metric in metrics)
        ),
        unit=_RATE_UNITS.get(unit, "ops") if counts else _VALUE_UNITS.get(unit, "short"),
        queries=tuple(_query(metric) for metric in metrics),
    )


def _query(metric: Metric) -> Query:
    labels = ("instance", *metric.labels)
    legend = " ".join(f"{{{{{label}}}}}" for label in labels)
    by = ", ".join(labels)
    if metric.kind is MetricKind.COUNTER:
        expression = f"sum by ({by}) (rate({metric.name}{WINDOW}))"
    elif metric.kind is MetricKind.HISTOGRAM:
        buckets = f"rate({metric.name}_bucket{WINDOW})"
        expression = f"histogram_quantile(0.95, sum by (le, {by}) ({buckets}))"
    else:
        expression = f"max by ({by}) ({metric.name})"
    return Query(
        expression=expression,
        legend=legend,
        word=text(metric.help_vi.rstrip(".") + ":", metric.help_en.rstrip(".") + ":"),
    )


def _both(section: Text, unit: Text, pattern: Text) -> Text:
    vietnamese, english = (
        section[language] + pattern[language].format(unit[language])
        for language in (Language.VIETNAMESE, Language.ENGLISH)
    )
    return text(vietnamese, english)


SERVER = server_row(CATALOG.values())
ENGINE = engine_row(CATALOG.values())
