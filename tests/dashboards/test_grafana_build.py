from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from dashboards import promql
from dashboards.grafana import overview
from dashboards.grafana.build import DATASOURCE, build, check, encode, path, uid
from dashboards.grafana.catalog_rows import server_row
from dashboards.grafana.panel import VARIABLES, Panel, Query
from nhip.catalog import CATALOG, Metric, MetricKind
from nhip.errors import UnknownNameError
from nhip.language import Language, text

LANGUAGES = list(Language)
PANELS = [panel for row in overview.ROWS for panel in row.panels]
# Units of Grafana 10 that the overview uses (packages/grafana-data/src/valueFormats/categories.ts).
GRAFANA_UNITS = {
    "none", "short", "percentunit", "s", "bps", "Bps", "decbytes", "pps", "ops", "dateTimeAsIso",
}  # fmt: skip


def committed(language: Language) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path(language).read_text(encoding="utf-8"))
    return found


def shown(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """The panels that show something, rows left out."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def key_paths(node: object, prefix: str = "$") -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}.{key}"
            yield from key_paths(value, f"{prefix}.{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from key_paths(value, f"{prefix}[{index}]")


def through_the_sdk(dashboard: dict[str, Any]) -> dict[str, Any]:
    with warnings.catch_warnings():
        # Said on import: the second version of the format is one that Grafana 10 and 11 cannot read.
        warnings.filterwarnings("ignore", "Prefer using dashboardv2", DeprecationWarning)
        from grafana_foundation_sdk.cog.encoder import JSONEncoder
        from grafana_foundation_sdk.cog.plugins import register_default_plugins
        from grafana_foundation_sdk.models.dashboard import Dashboard

        register_default_plugins()
        found: dict[str, Any] = json.loads(json.dumps(Dashboard.from_json(dashboard), cls=JSONEncoder))
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_committed_file_is_what_the_code_makes(language: Language) -> None:
    assert path(language).read_text(encoding="utf-8") == encode(build(language)), (
        "run: python -m dashboards.grafana.build"
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_key_is_lost_on_the_way_through_the_sdk(language: Language) -> None:
    dashboard = committed(language)
    lost = set(key_paths(dashboard)) - set(key_paths(through_the_sdk(dashboard)))
    assert lost == set()


@pytest.mark.parametrize(
    ("where", "misspelt"),
    [
        (lambda found: found, "refresch"),
        (lambda found: shown(found)[0], "gridpos"),
        (lambda found: shown(found)[0]["targets"][0], "exprr"),
        (lambda found: shown(found)[0]["options"]["legend"], "displayMod"),
        (lambda found: shown(found)[0]["fieldConfig"]["defaults"], "uint"),
    ],
)
def test_misspelt_key_is_lost_at_every_level(where: Any, misspelt: str) -> None:
    dashboard = committed(Language.ENGLISH)
    where(dashboard)[misspelt] = 1
    lost = set(key_paths(dashboard)) - set(key_paths(through_the_sdk(dashboard)))
    assert [found.rsplit(".", 1)[1] for found in lost] == [misspelt]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_panel_follows_the_rules(language: Language) -> None:
    for panel in shown(committed(language)):
        where = panel["title"]
        assert panel["title"] and len(panel["description"]) > 20, where
        assert panel["fieldConfig"]["defaults"]["unit"] in GRAFANA_UNITS, where
        assert panel["datasource"] == {"type": "prometheus", "uid": DATASOURCE}, where
        assert panel["targets"], where
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == DATASOURCE, where
            promql.check(target["expr"], legend=target.get("legendFormat", ""))
            for window in target["expr"].split("[")[1:]:
                assert window.startswith("$__rate_interval]"), where


@pytest.mark.parametrize("language", LANGUAGES)
def test_dashboard_is_read_only_and_reloads_its_variables(language: Language) -> None:
    dashboard = committed(language)
    assert dashboard["uid"] == uid(language)
    assert dashboard["editable"] is False
    assert "id" not in dashboard
    source, *variables = dashboard["templating"]["list"]
    assert (source["type"], source["query"]) == ("datasource", "prometheus")
    assert [variable["name"] for variable in variables] == list(VARIABLES)
    for variable in variables:
        assert variable["refresh"] == 2, "on time range change"
        assert variable["multi"] and variable["includeAll"] and variable["label"]
        assert variable["datasource"]["uid"] == DATASOURCE


def test_ids_are_unique_and_panels_do_not_overlap() -> None:
    panels = committed(Language.VIETNAMESE)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells


def test_both_languages_show_the_same_with_other_words() -> None:
    vietnamese, english = (shown(committed(language)) for language in (Language.VIETNAMESE, Language.ENGLISH))
    assert [panel["gridPos"] for panel in vietnamese] == [panel["gridPos"] for panel in english]
    for vi, en in zip(vietnamese, english, strict=True):
        assert [target["expr"] for target in vi["targets"]] == [target["expr"] for target in en["targets"]]
        assert vi["description"] != en["description"]


def test_every_metric_of_the_catalog_is_on_the_dashboard() -> None:
    named = {
        selector.metric.name
        for panel in PANELS
        for query in panel.queries
        for selector in promql.selectors(query.expression)
    }
    assert named == set(CATALOG)


@pytest.mark.parametrize("kind", MetricKind)
def test_metric_of_the_measurement_server_gets_a_panel_without_being_asked(kind: MetricKind) -> None:
    metric = Metric(
        name="nhip_dns_responder_misses_total" if kind is MetricKind.COUNTER else "nhip_server_lag_seconds",
        kind=kind,
        unit="questions" if kind is MetricKind.COUNTER else "seconds",
        labels=("reason",),
        help_en="What was asked.",
        help_vi="Những gì được hỏi.",
    )
    (panel,) = server_row([metric, *(known for known in CATALOG.values() if "_link_" in known.name)]).panels
    (query,) = panel.queries
    assert metric.name in query.expression and "{{reason}}" in query.legend
    assert panel.unit in GRAFANA_UNITS
    assert set(panel.title) == set(panel.description) == set(Language)


def test_row_without_panels_is_not_on_the_dashboard() -> None:
    assert server_row([]).panels == ()
    assert all(row.panels for row in overview.ROWS)


def _panel_with(expression: str, legend: str = "") -> Panel:
    return replace(
        PANELS[0], title=text("x", "x"), queries=(Query(expression=expression, legend=legend),), columns=()
    )


@pytest.mark.parametrize(
    ("expression", "legend", "complaint"),
    [
        ("nhip_probe_succes", "", "no metric of the catalog"),
        ('nhip_probe_success{operater="a"}', "", "operater"),
        ("sum by (operater) (nhip_probe_success)", "", "operater"),
        ("nhip_probe_success", "{{operater}}", "operater"),
        ("nhip_collector_journal_records", "{{operator}}", "operator"),
        ("nhip_probe_tests_total", "", "outside rate"),
        ("rate(nhip_probe_tests_total[5m])", "", "fixed window"),
        ("nhip_collector_commit_seconds", "", "is a histogram"),
        ("up == 0", "", "names no metric"),
    ],
)
def test_panel_that_names_what_does_not_exist_is_refused(
    expression: str, legend: str, complaint: str
) -> None:
    with pytest.raises(UnknownNameError, match=complaint):
        check(_panel_with(expression, legend))


def test_matchers_in_text_are_no_labels() -> None:
    check(_panel_with('nhip_probe_success{kind="nhip_nothing{a=1}"}'))
