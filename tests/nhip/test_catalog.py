"""The catalog of metrics against the naming rules of prometheus.io and the habits of its users."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from nhip.catalog import CATALOG, COMMIT_BUCKETS_SECONDS, DELAY_BUCKETS_SECONDS, Metric, MetricKind
from nhip.measurement import Direction, Outcome, TargetClass, Technology

METRICS = list(CATALOG.values())
each_metric = pytest.mark.parametrize("metric", METRICS, ids=[metric.name for metric in METRICS])

# What a name ends with, for each unit the catalog speaks of.
ENDINGS = {
    "seconds": ("_seconds",),
    "bytes": ("_bytes",),
    "bits per second": ("_bits_per_second",),
    "ratio": ("_ratio", "_probability"),
    "score": ("_score",),
    "probes per second": ("_probes_per_second",),
    # Things that are counted or asked have no unit in their name, only what they are.
    "boolean": ("_info", "_success", "_over_limit", "_configured", "_doubtful"),
}
# Vietnamese letters that English has not.
DIACRITICS = re.compile(
    r"[ăâđêôơưàảãáạằẳẵắặầẩẫấậèẻẽéẹềểễếệìỉĩíịòỏõóọồổỗốộờởỡớợùủũúụừửữứựỳỷỹýỵ]", re.IGNORECASE
)


def stem(metric: Metric) -> str:
    return metric.name.removesuffix("_total")


@each_metric
def test_a_name_has_the_prefix_and_only_lower_case_words(metric: Metric) -> None:
    assert re.fullmatch(
        r"nhip_(probe|agent|engine|collector|link|server|reflector|dns_responder)(_[a-z]+[0-9]*)+",
        metric.name,
    )
    assert "__" not in metric.name


@each_metric
def test_counters_and_only_counters_end_in_total(metric: Metric) -> None:
    assert metric.name.endswith("_total") == (metric.kind is MetricKind.COUNTER)


@each_metric
def test_a_name_ends_with_its_base_unit(metric: Metric) -> None:
    endings = ENDINGS.get(metric.unit, (f"_{metric.unit}",))
    if metric.unit in (
        "tests",
        "batches",
        "records",
        "series",
        "packets",
        "flushes",
        "transfers",
        "questions",
        "answers",
        "instances",
        "targets",
        "probes",
        "replies",
        "stamps",
        "delays",
        "steps",
        "changes",
        "windows",
        "restarts",
        "sessions",
    ):
        assert metric.unit.rstrip("es") in metric.name or any(
            word in metric.name for word in ("failures", "dropped", "evicted", "errors")
        )
    else:
        assert stem(metric).endswith(endings), f"{metric.name} is in {metric.unit}"


@each_metric
def test_no_name_uses_a_unit_that_is_not_a_base_unit(metric: Metric) -> None:
    words = metric.name.split("_")
    assert not {"ms", "milliseconds", "minutes", "percent", "kilobytes", "mbps", "megabits"} & set(words)


@each_metric
def test_no_name_holds_what_a_label_says(metric: Metric) -> None:
    values = {str(value) for kind in (Direction, Technology, TargetClass, Outcome) for value in kind}
    values -= {"lost", "duplicate", "received", "refused"}  # counted apart on purpose
    assert not values & set(metric.name.split("_"))
    assert "_by_" not in metric.name


@each_metric
def test_labels_are_names_and_none_is_reserved(metric: Metric) -> None:
    assert len(set(metric.labels)) == len(metric.labels)
    for label in metric.labels:
        assert re.fullmatch(r"[a-z][a-z_]*", label)
        assert label not in {"job", "instance", "le", "quantile"}
    # An address, a free text or an identifier of one record would make series without end.
    assert not {"address", "host", "detail", "record_id", "epoch", "sequence"} & set(metric.labels)


@each_metric
def test_both_languages_say_it(metric: Metric) -> None:
    for text in (metric.help_en, metric.help_vi):
        assert text.endswith(".")
        assert text == text.strip()
        assert len(text) > 10
        assert "\n" not in text
    assert DIACRITICS.search(metric.help_vi)
    assert not DIACRITICS.search(metric.help_en)


def test_no_two_metrics_say_the_same() -> None:
    assert len({metric.help_en for metric in METRICS}) == len(METRICS)
    assert len({metric.help_vi for metric in METRICS}) == len(METRICS)


def test_no_name_collides_with_what_a_histogram_or_counter_makes_of_another() -> None:
    made = [
        f"{metric.name}{ending}"
        for metric in METRICS
        for ending in (
            ("", "_bucket", "_sum", "_count", "_created") if metric.kind is MetricKind.HISTOGRAM else ("",)
        )
    ]
    assert len(made) == len(set(made))


def test_the_client_library_takes_every_metric() -> None:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

    registry = CollectorRegistry()
    kinds = {MetricKind.COUNTER: Counter, MetricKind.GAUGE: Gauge, MetricKind.HISTOGRAM: Histogram}
    for metric in METRICS:
        made = kinds[metric.kind](metric.name, metric.help_en, metric.labels, registry=registry)
        if metric.labels:
            made.labels(*metric.labels)
    exposed = generate_latest(registry).decode()
    for metric in METRICS:
        assert f"# HELP {metric.name} {metric.help_en}" in exposed


@pytest.mark.parametrize("edges", [DELAY_BUCKETS_SECONDS, COMMIT_BUCKETS_SECONDS])
def test_bucket_edges_rise(edges: tuple[float, ...]) -> None:
    assert all(low < high for low, high in pairwise(edges))


def test_the_delay_buckets_have_an_edge_at_each_limit_people_ask_about() -> None:
    assert {0.05, 0.1, 0.15, 2.0} <= set(DELAY_BUCKETS_SECONDS)
