"""The overview dashboard as JSON for Grafana, a file per language, from :mod:`dashboards.grafana.overview`.

``python -m dashboards.grafana.build`` writes the two files that are committed beside this one; a test fails
when they differ from what the code makes. The Foundation SDK it is built with is needed by developers only:
a server is given the files.

Every reference to the data source is the variable ``${datasource}``, so that the dashboard works in any
Grafana from version 10 on, whatever its data source is called.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dashboards import promql
from dashboards.grafana import overview
from dashboards.grafana.panel import VARIABLES, WINDOW, Column, Panel, Query, Row
from nhip.errors import UnknownNameError
from nhip.language import Language

FOLDER = Path(__file__).parent
DATASOURCE = "${datasource}"
GRID_WIDTH = 24
MULTI_VARIABLE_ALL = ".+"


def uid(language: Language) -> str:
    """The dashboard's fixed identifier; a link to it survives every new version."""
    return f"nhip-overview-{language}"


def path(language: Language) -> Path:
    """Where the built dashboard lies, in the checkout and in the installed package."""
    return FOLDER / f"nhip-overview.{language}.json"


def build(language: Language) -> dict[str, Any]:
    """The dashboard as plain data. UnknownNameError when a panel names what the catalog does not have."""
    for row in overview.ROWS:
        for panel in row.panels:
            check(panel)
    with warnings.catch_warnings():
        # The SDK recommends the second version of the format, which only Grafana 12 and later read.
        warnings.filterwarnings("ignore", "Prefer using dashboardv2", DeprecationWarning)
        return _Maker(language).dashboard()


def check(panel: Panel) -> None:
    """Hold a panel against the catalog and the rules every panel follows; UnknownNameError otherwise."""
    where = panel.title[Language.ENGLISH]
    for query in panel.queries:
        promql.check(query.expression, legend=query.legend)
        if "[" in query.expression and WINDOW not in query.expression:
            raise UnknownNameError(
                f"{where}: {query.expression!r} has a fixed window", remedy=f"use {WINDOW}"
            )
    labels = {
        label
        for query in panel.queries
        for found in promql.selectors(query.expression)
        for label in (*found.metric.labels, *promql.SCRAPE_LABELS)
    }
    references = {_reference(position) for position in range(len(panel.queries))}
    for column in panel.columns:
        if column.source not in labels | references:
            raise UnknownNameError(
                f"{where}: column {column.source!r} is no label and no query of this panel",
                remedy=f"use one of {', '.join(sorted(labels | references))}",
            )


def encode(dashboard: dict[str, Any]) -> str:
    """The text of a dashboard file: sorted by nothing, indented, Vietnamese as it is."""
    return json.dumps(dashboard, ensure_ascii=False, indent=2) + "\n"


def write(folder: Path = FOLDER) -> list[Path]:
    """Write both files into `folder`; where they lie."""
    written = []
    for language in Language:
        target = folder / path(language).name
        target.write_text(encode(build(language)), encoding="utf-8")
        written.append(target)
    return written


class _Maker:
    """Turns panels into the SDK's builders, in one language."""

    def __init__(self, language: Language) -> None:
        # Imported here: a developer's tool, absent where Nhịp is merely used.
        from grafana_foundation_sdk.builders import common as common_builders
        from grafana_foundation_sdk.builders import dashboard as builders
        from grafana_foundation_sdk.builders import prometheus, table, timeseries
        from grafana_foundation_sdk.cog.encoder import JSONEncoder
        from grafana_foundation_sdk.models import common, dashboard

        self._language = language
        self._builders, self._common_builders = builders, common_builders
        self._prometheus, self._table, self._timeseries = prometheus, table, timeseries
        self._models, self._common, self._encoder = dashboard, common, JSONEncoder
        self._source = common.DataSourceRef(type_val="prometheus", uid=DATASOURCE)
        self._next_id = 1

    def dashboard(self) -> dict[str, Any]:
        language, builders = self._language, self._builders
        made = (
            builders.Dashboard(overview.TITLE[language])
            .uid(uid(language))
            .description(overview.DESCRIPTION[language])
            .tags(["nhip", str(language)])
            .readonly()
            .timezone("browser")
            .tooltip(self._models.DashboardCursorSync.CROSSHAIR)
            .time("now-6h", "now")
            .refresh("30s")
            .variables(list(self._variables()))
        )
        y = 0
        for row in overview.ROWS:
            y = self._add_row(made, row, y)
        decoded: dict[str, Any] = json.loads(json.dumps(made.build(), cls=self._encoder))
        return decoded

    def _add_row(self, made: Any, row: Row, y: int) -> int:
        """Place a row and its panels from left to right; the first free line below them."""
        heading = self._builders.Row(row.title[self._language]).id(self._take_id())
        made.with_row(heading.grid_pos(self._models.GridPos(h=1, w=GRID_WIDTH, x=0, y=y)))
        y, x, height = y + 1, 0, 0
        for panel in row.panels:
            if x + panel.width > GRID_WIDTH:
                y, x, height = y + height, 0, 0
            place = self._models.GridPos(h=panel.height, w=panel.width, x=x, y=y)
            made.with_panel(self._panel(panel).id(self._take_id()).grid_pos(place))
            x, height = x + panel.width, max(height, panel.height)
        return y + height

    def _take_id(self) -> int:
        taken, self._next_id = self._next_id, self._next_id + 1
        return taken

    def _variables(self) -> Iterator[Any]:
        builders, language = self._builders, self._language
        yield (
            builders.DatasourceVariable("datasource")
            .label(overview.VARIABLE_LABELS["datasource"][language])
            .type("prometheus")
        )
        for name in VARIABLES:
            query = f"label_values({overview.VARIABLE_SOURCE}, {name})"
            yield (
                builders.QueryVariable(name)
                .label(overview.VARIABLE_LABELS[name][language])
                .datasource(self._source)
                .query({"query": query, "refId": f"Variable-{name}"})
                .definition(query)
                .refresh(self._models.VariableRefresh.ON_TIME_RANGE_CHANGED)
                .sort(self._models.VariableSort.ALPHABETICAL_ASC)
                .multi(True)
                .include_all(True)
                .all_value(MULTI_VARIABLE_ALL)
                .current(self._models.VariableOption(selected=True, text=["All"], value=["$__all"]))
            )

    def _panel(self, panel: Panel) -> Any:
        made = self._table_panel(panel) if panel.style == "table" else self._lines_panel(panel)
        made.title(panel.title[self._language]).description(panel.description[self._language])
        made.datasource(self._source).unit(panel.unit)
        for position, query in enumerate(panel.queries):
            made.with_target(self._target(query, position))
        return made

    def _lines_panel(self, panel: Panel) -> Any:
        legend = (
            self._common_builders.VizLegendOptions()
            .display_mode(self._common.LegendDisplayMode.TABLE)
            .placement(self._common.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        tooltip = self._common_builders.VizTooltipOptions().mode(self._common.TooltipDisplayMode.MULTI)
        made = self._timeseries.Panel().legend(legend).tooltip(tooltip).line_width(2).fill_opacity(6)
        if panel.style == "stacked":
            stacking = self._common_builders.StackingConfig().mode(self._common.StackingMode.NORMAL)
            made.stacking(stacking.group("A")).fill_opacity(30)
        if panel.minimum is not None:
            made.min(panel.minimum)
        if panel.maximum is not None:
            made.max(panel.maximum)
        if panel.warn_above is not None:
            thresholds = (
                self._builders.ThresholdsConfig()
                .mode(self._models.ThresholdsMode.ABSOLUTE)
                .steps(
                    [
                        self._models.Threshold(color="green", value=None),
                        self._models.Threshold(color="red", value=panel.warn_above),
                    ]
                )
            )
            style = self._common_builders.GraphThresholdsStyleConfig()
            made.thresholds(thresholds).thresholds_style(
                style.mode(self._common.GraphThresholdsStyleMode.DASHED)
            )
        return made

    def _table_panel(self, panel: Panel) -> Any:
        made = self._table.Panel()
        transformers = self._models.DataTransformerConfig
        if len(panel.queries) > 1:
            made.with_transformation(transformers(id_val="merge", options={}))
        fields = [_table_field(column, len(panel.queries)) for column in panel.columns]
        titles = [column.title[self._language] for column in panel.columns]
        made.with_transformation(
            transformers(id_val="filterFieldsByName", options={"include": {"names": fields}})
        )
        made.with_transformation(
            transformers(
                id_val="organize",
                options={
                    "excludeByName": {},
                    "indexByName": {name: place for place, name in enumerate(fields)},
                    "renameByName": dict(zip(fields, titles, strict=True)),
                },
            )
        )
        for column in panel.columns:
            properties = self._properties(column)
            if properties:
                made.override_by_name(column.title[self._language], properties)
        return made

    def _properties(self, column: Column) -> list[Any]:
        value = self._models.DynamicConfigValue
        properties = []
        if column.unit:
            properties.append(value(id_val="unit", value=column.unit))
        if column.words:
            options = {
                code: {"text": words[self._language], "index": index}
                for index, (code, words) in enumerate(column.words.items())
            }
            properties.append(value(id_val="mappings", value=[{"type": "value", "options": options}]))
        return properties

    def _target(self, query: Query, position: int) -> Any:
        made = (
            self._prometheus.Dataquery()
            .ref_id(_reference(position))
            .datasource(self._source)
            .expr(query.expression)
        )
        if query.instant:
            return made.instant().format(self._models_format().TABLE)
        word = "" if query.word is None else query.word[self._language]
        return made.range().legend_format(f"{word} {query.legend}".strip() or _reference(position))

    def _models_format(self) -> Any:
        from grafana_foundation_sdk.models.prometheus import PromQueryFormat

        return PromQueryFormat


def _reference(position: int) -> str:
    return chr(ord("A") + position)


def _table_field(column: Column, queries: int) -> str:
    """How Grafana calls the column before it is renamed: a label by itself, a value by its query."""
    if len(column.source) == 1:
        return "Value" if queries == 1 else f"Value #{column.source}"
    return column.source


if __name__ == "__main__":
    write()
