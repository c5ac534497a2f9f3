"""What a panel is: rows, panels and queries as data in both languages, no word of Grafana's own format.

A query is written with :func:`dashboards.promql.select`, so that it only names metrics of nhip/catalog.py and
follows the dashboard's variables. Samples of two kinds of test are never mixed in one line.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dashboards.promql import select
from nhip.language import Text

ACCESS_VARIABLES = ("operator", "technology", "province")
VARIABLES = (*ACCESS_VARIABLES, "kind")
WINDOW = "[$__rate_interval]"
BY_ACCESS = "by (operator, technology)"
BY_TEST = "by (operator, technology, kind)"
BY_RULE = "by (link, rule, provenance)"
ACCESS_LEGEND = "{{operator}} {{technology}}"
TEST_LEGEND = "{{operator}} {{technology}} {{kind}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One PromQL query; `word` stands before the legend, `instant` asks for the newest value only."""

    expression: str
    legend: str = ""
    word: Text | None = None
    instant: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table: the field it comes from (a label, or ``A`` for query A), its title and unit."""

    source: str
    title: Text
    unit: str = ""
    words: dict[str, Text] = field(default_factory=dict)
    """Words instead of numbers, such as ``{"1": text("đã vượt", "over")}``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel. `style` is lines, stacked, table or value; widths are of Grafana's 24."""

    title: Text
    description: Text
    unit: str
    queries: tuple[Query, ...]
    style: str = "lines"
    width: int = 12
    height: int = 8
    columns: tuple[Column, ...] = ()
    minimum: float | None = 0
    maximum: float | None = None
    warn_above: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Panels under one heading."""

    title: Text
    panels: tuple[Panel, ...]


def results(name: str, *matchers: str) -> str:
    """A metric of one kind of test, following every variable of the dashboard."""
    return select(name, *matchers, variables=VARIABLES)


def access(name: str, *matchers: str) -> str:
    """A metric of a probe or an access, following the variables that are not about kinds of test."""
    return select(name, *matchers, variables=ACCESS_VARIABLES)


def rate(name: str, *matchers: str, function: str = "rate", suffix: str = "") -> str:
    """A counter per second over Grafana's own window, or another `function` of it."""
    return f"{function}({select(name, *matchers, variables=VARIABLES, suffix=suffix)}{WINDOW})"
