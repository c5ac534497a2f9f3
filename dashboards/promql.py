"""PromQL built from and held against the metric catalog: a query can only name what the exporters expose.

This is no parser of the language (Prometheus is, and the tests ask it); it finds every metric and every label
an expression names, which is enough to stop a misspelt one before anybody looks at an empty panel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nhip.catalog import CATALOG, Metric, MetricKind
from nhip.errors import UnknownNameError

# Labels Prometheus adds itself, and the one of histogram buckets.
SCRAPE_LABELS = frozenset({"job", "instance"})
BUCKET_LABEL = "le"
_HISTOGRAM_SUFFIXES = ("_bucket", "_sum", "_count")

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"' + r"|'(?:[^'\\]|\\.)*'")
_METRIC = re.compile(r"\b(?P<name>nhip_[a-z0-9_]*)\b\s*(?P<matchers>\{[^}]*\})?")
_MATCHER = re.compile(r"(?P<label>[a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)")
_LABEL_LIST = re.compile(
    r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\((?P<labels>[^)]*)\)", re.IGNORECASE
)
_COUNTER_FUNCTION = re.compile(r"\b(?:rate|irate|increase|resets)\s*\(\s*$")


@dataclass(frozen=True, slots=True)
class Selector:
    """One metric as an expression names it: its catalog entry, the name as written, its label matchers."""

    metric: Metric
    written: str
    labels: frozenset[str]
    in_rate: bool


def select(name: str, *matchers: str, variables: Iterable[str] = (), suffix: str = "") -> str:
    """A selector of `name` with `matchers` (``kind="http"``) and a matcher for each Grafana variable.

    A variable whose label the metric does not have is left out. UnknownNameError for an unknown metric.
    """
    metric = _known(name)
    found = [f'{variable}=~"${variable}"' for variable in variables if variable in metric.labels]
    inner = ",".join([*matchers, *found])
    return f"{name}{suffix}{{{inner}}}" if inner else f"{name}{suffix}"


def selectors(expression: str) -> Iterator[Selector]:
    """Every Nhịp metric in `expression`; UnknownNameError for one the catalog does not have."""
    bare = _STRING.sub('""', expression)
    for match in _METRIC.finditer(bare):
        labels = frozenset(_MATCHER.findall(match["matchers"] or ""))
        in_rate = _COUNTER_FUNCTION.search(bare[: match.start()]) is not None
        yield Selector(_resolve(match["name"]), match["name"], labels, in_rate)


def check(expression: str, *, legend: str = "") -> None:
    """Raise UnknownNameError unless every metric and label that `expression` and `legend` name exists.

    Counters, and the counting parts of histograms, must stand inside rate, irate or increase.
    """
    found = list(selectors(expression))
    if not found:
        raise UnknownNameError(f"{expression!r} names no metric", remedy="use one of nhip/catalog.py")
    available = set(SCRAPE_LABELS)
    for selector in found:
        own = {*selector.metric.labels, *SCRAPE_LABELS}
        if selector.metric.kind is MetricKind.HISTOGRAM:
            own.add(BUCKET_LABEL)
        available |= own
        _refuse(selector.labels - own, f"{selector.written} in {expression!r}", own)
        counts = selector.metric.kind in (MetricKind.COUNTER, MetricKind.HISTOGRAM)
        if counts and not selector.in_rate:
            raise UnknownNameError(
                f"{selector.written} in {expression!r} is a counter outside rate or increase",
                remedy="wrap it: its value by itself only says when the process started",
            )
    bare = _STRING.sub('""', expression)
    grouped = {
        label.strip()
        for match in _LABEL_LIST.finditer(bare)
        for label in match["labels"].split(",")
        if label.strip()
    }
    _refuse(grouped - available, repr(expression), available)
    shown = set(re.findall(r"\{\{\s*([a-z_]+)\s*\}\}", legend))
    _refuse(shown - available, f"legend {legend!r}", available)


def _known(name: str) -> Metric:
    try:
        return CATALOG[name]
    except KeyError:
        raise UnknownNameError(
            f"{name!r} is no metric of the catalog", remedy="add it to nhip/catalog.py or correct the name"
        ) from None


def _resolve(written: str) -> Metric:
    for suffix in _HISTOGRAM_SUFFIXES:
        metric = CATALOG.get(written.removesuffix(suffix)) if written.endswith(suffix) else None
        if metric is not None and metric.kind is MetricKind.HISTOGRAM:
            return metric
    metric = _known(written)
    if metric.kind is MetricKind.HISTOGRAM:
        raise UnknownNameError(
            f"{written!r} is a histogram", remedy=f"use {written}_bucket, {written}_sum or {written}_count"
        )
    return metric


def _refuse(unknown: set[str] | frozenset[str], where: str, known: Iterable[str]) -> None:
    if unknown:
        raise UnknownNameError(
            f"label {', '.join(sorted(unknown))} of {where} does not exist",
            remedy=f"known: {', '.join(sorted(known))}",
        )
