"""Every query of the dashboard, asked of a real Prometheus that scrapes the real collector of real probes."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest

from dashboards.grafana.build import MULTI_VARIABLE_ALL, path
from dashboards.grafana.panel import VARIABLES
from nhip.catalog import CATALOG
from nhip.language import Language
from tests.lab.prometheus_server import Prometheus, wait_for
from tests.lab.stack import PROBES, Stack

pytestmark = pytest.mark.servers

DASHBOARD = json.loads(path(Language.ENGLISH).read_text(encoding="utf-8"))
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]
DEADLINE_SECONDS = 45.0


def as_grafana_sends(expression: str) -> str:
    """The query with every variable set to all, and the window Grafana takes for so short a scrape."""
    filled = expression.replace("$__rate_interval", "10s")
    for variable in VARIABLES:
        filled = filled.replace(f"${variable}", MULTI_VARIABLE_ALL)
    assert "$" not in filled
    return filled


def has_data(prometheus: Prometheus, expression: str) -> bool:
    return any(math.isfinite(float(found["value"][1])) for found in prometheus.query(expression))


@pytest.mark.parametrize("expression", QUERIES)
def test_query_returns_data(stack: Stack, expression: str) -> None:
    query = as_grafana_sends(expression)
    wait_for(lambda: has_data(stack.prometheus, query), DEADLINE_SECONDS, f"no data for {query}")


def test_check_for_data_fails_for_a_misspelt_metric(stack: Stack) -> None:
    right = as_grafana_sends(QUERIES[0].values[0])
    wait_for(lambda: has_data(stack.prometheus, right), DEADLINE_SECONDS, "no data")
    wrong = right.replace("round_trip_delay", "round_trip_delays")
    assert wrong != right
    assert not has_data(stack.prometheus, wrong)


@pytest.mark.parametrize("variable", VARIABLES)
def test_variable_offers_its_values(stack: Stack, variable: str) -> None:
    definition = next(
        found["definition"] for found in DASHBOARD["templating"]["list"] if found["name"] == variable
    )
    match = re.fullmatch(r"label_values\((\w+), (\w+)\)", definition)
    assert match is not None
    metric, label = match.groups()

    def offered() -> Any:
        found = stack.prometheus.get(f"/api/v1/label/{label}/values", **{"match[]": metric})
        return found if len(found) > 1 else None

    values = wait_for(offered, DEADLINE_SECONDS, f"no values for {variable}")
    if variable == "operator":
        assert set(values) == {operator for operator, _, _ in PROBES}


def test_pages_expose_nothing_but_the_catalog_and_all_of_it(stack: Stack) -> None:
    """Through Prometheus' own eyes: names, kinds and labels of everything it scraped."""
    kinds = wait_for(
        lambda: {
            # A page in OpenMetrics says the kind of a counter under its name without the ending.
            name if name in CATALOG else f"{name}_total": found[0]["type"]
            for name, found in stack.prometheus.get("/api/v1/metadata").items()
            if name.startswith("nhip_")
        },
        DEADLINE_SECONDS,
        "no metadata",
    )
    assert {name: CATALOG[name].kind for name in kinds} == kinds
    wait_for(
        lambda: set(CATALOG) <= exposed(stack.prometheus),
        DEADLINE_SECONDS,
        f"not exposed: {set(CATALOG) - exposed(stack.prometheus)}",
    )


def exposed(prometheus: Prometheus) -> set[str]:
    names = prometheus.get("/api/v1/label/__name__/values")
    return {re.sub(r"_(bucket|sum|count)$", "", name) if name not in CATALOG else name for name in names}


def test_prometheus_found_the_collector_by_its_discovery(stack: Stack) -> None:
    def found() -> list[tuple[str, str]]:
        targets = stack.prometheus.get("/api/v1/targets")["activeTargets"]
        return [(target["labels"]["instance"], target["health"]) for target in targets]

    # Servers and agents are no part of the discovery; their pages stand in Prometheus' own configuration.
    ports = sorted((stack.collector.port, stack.server_metrics_port, stack.agent_metrics_port))
    expected = sorted((f"127.0.0.1:{port}", "up") for port in ports)
    wait_for(lambda: sorted(found()) == expected, DEADLINE_SECONDS, "the collector was not found")


@pytest.mark.parametrize("language", ["vi", "en"])
def test_status_page_of_the_stack_shows_measured_values(stack: Stack, language: str) -> None:
    def page() -> str | None:
        found = stack.read.get(f"/{language}")
        assert found.status == 200, found.body
        shown = found.body.decode()
        return shown if shown.count("Mbit/s") + shown.count("Gbit/s") >= 4 else None

    shown = wait_for(page, DEADLINE_SECONDS, "no speeds on the page")
    for operator, _, _ in PROBES:
        assert operator in shown
    assert "quoc-te" in shown and {"vi": "mô phỏng", "en": "simulated"}[language] in shown
