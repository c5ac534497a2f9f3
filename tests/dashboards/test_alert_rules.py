from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards import promql
from dashboards.prometheus import rules
from dashboards.prometheus.alerts import Thresholds, declared_speed_factor, groups
from nhip import config
from nhip.errors import UnknownNameError
from nhip.language import Language
from tests.lab.collector_process import free_port
from tests.lab.prometheus_server import needs_prometheus, wait_for

ROOT = Path(__file__).resolve().parents[2]
CASES = sorted((Path(__file__).parent / "rules").glob("*.yml"))
ALERTMANAGER_YML = ROOT / "configs/alertmanager/alertmanager.yml"
ALERTS = [alert for found in groups(Thresholds(), declared_speed_factor()).values() for alert in found]


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_committed_file_is_what_the_code_makes() -> None:
    made = rules.encode(rules.build())
    assert rules.path().read_text(encoding="utf-8") == made, "run: python -m dashboards.prometheus.rules"
    assert yaml.safe_load(made) == rules.build()


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_every_alert_follows_the_rules(alert: Any) -> None:
    assert re.fullmatch(r"Nhip[A-Z][A-Za-z]+", alert.name)
    assert alert.severity in {"critical", "warning", "none"}
    promql.check(alert.expression)
    assert re.search(r"[<>]|==", alert.expression), "an alert compares"
    for both in (alert.summary, alert.description):
        assert set(both) == set(Language) and both[Language.VIETNAMESE] != both[Language.ENGLISH]
    assert "{{" not in alert.summary[Language.ENGLISH], "a summary is the same for the whole group"
    runbook = ROOT / alert.runbook
    text = runbook.read_text(encoding="utf-8")
    assert text.startswith(f"# {alert.name}\n")
    assert "**Ý nghĩa.**" in text and "**What it means.**" in text


def test_no_runbook_is_left_of_an_alert_that_is_gone() -> None:
    assert {path.stem for path in (ROOT / "docs/runbooks").glob("*.md")} == {alert.name for alert in ALERTS}


def test_every_alert_has_a_test_that_fires_and_one_that_stays_silent() -> None:
    fires, silent = set(), set()
    for path in CASES:
        for case in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for asked in case["alert_rule_test"]:
                (fires if asked.get("exp_alerts") else silent).add(asked["alertname"])
    names = {alert.name for alert in ALERTS}
    assert fires == names
    assert silent == names


def test_share_of_the_declared_speed_comes_from_the_regulation() -> None:
    profile = config.read_toml(config.shipped("regulations/qcvn34_2022.toml"))
    factors = [entry["factor"] for entry in profile["indicator"] if entry["limit"] == "declared"]
    assert factors and all(declared_speed_factor() == factor for factor in factors)


def test_rule_that_names_an_unknown_metric_is_not_written() -> None:
    with pytest.raises(UnknownNameError, match="nhip_probe_los"):
        rules._rule(replace(ALERTS[0], expression="rate(nhip_probe_los[5m]) > 1"))


@pytest.mark.servers
def test_promtool_finds_nothing_to_complain_about() -> None:
    needs_prometheus()
    said = run("promtool", "check", "rules", "--lint=all", "--lint-fatal", str(rules.path()))
    assert f"SUCCESS: {len(ALERTS)} rules found" in said


@pytest.mark.servers
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_alert_fires_when_it_should_and_stays_silent_otherwise(case: Path) -> None:
    needs_prometheus()
    assert "SUCCESS" in run("promtool", "test", "rules", str(case))


@pytest.mark.servers
@pytest.mark.parametrize(
    ("alert", "threshold"),
    [
        ("loss", {"loss_ratio": 0.01}),
        ("loss", {"loss_packets": 1}),
        ("loss", {"loss_least_lost": 1}),
        ("loss", {"loss_windows": ("15m",)}),
        ("loss", {"loss_windows": ("6h",)}),
        ("unreachable", {"unreachable_windows": ("5m",)}),
        ("unreachable", {"unreachable_windows": ("6h",)}),
        ("delay", {"delay_ratio": 1.1}),
        ("delay", {"delay_step_seconds": 0.001}),
        ("fleet", {"silent_seconds": 3_600}),
        ("capacity", {"probability": 0.8}),
        ("capacity", {"forecast_days": 7}),
        ("capacity", {"forecast_days": 9}),
    ],
)
def test_rule_test_notices_a_wrong_threshold(alert: str, threshold: dict[str, Any], tmp_path: Path) -> None:
    """The twin: with another threshold the same promtool test must fail."""
    needs_prometheus()
    assert_notices(alert, rules.encode(rules.build(Thresholds(**threshold))), tmp_path)


@pytest.mark.servers
@pytest.mark.parametrize(
    ("alert", "defence", "without"),
    [
        # A single failed test, and a result that has expired, must not look like an outage.
        ("unreachable", "increase(nhip_probe_test_failures_total[20m]) > 0", "nhip_probe_success == 0"),
        ("unreachable", "nhip_probe_success == 0\n      and (", "("),
        # Refused packets are part of what was sent and no part of a loss ratio.
        ("loss", "nhip_probe_packets_received_total", "nhip_probe_packets_sent_total"),
        ("loss", "unless sum", "or sum"),
        ("fleet", "nhip_probe_configured unless", "nhip_probe_configured and"),
        ("capacity", 'nhip_link_forecast_made_timestamp_seconds{provenance="measured"}', "vector(0)"),
    ],
)
def test_rule_test_notices_a_rule_without_its_defence(
    alert: str, defence: str, without: str, tmp_path: Path
) -> None:
    needs_prometheus()
    made = rules.encode(rules.build())
    assert defence in made
    assert_notices(alert, made.replace(defence, without), tmp_path)


def assert_notices(alert: str, made: str, folder: Path) -> None:
    """The promtool test of `alert` fails with the rules `made`."""
    (folder / "nhip.yml").write_text(made, encoding="utf-8")
    case = next(path for path in CASES if path.stem == alert).read_text(encoding="utf-8")
    (folder / "case.yml").write_text(
        case.replace("../../../configs/prometheus/rules/nhip.yml", "nhip.yml"), encoding="utf-8"
    )
    done = subprocess.run(
        ["promtool", "test", "rules", str(folder / "case.yml")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode != 0 and "FAILED" in done.stdout + done.stderr


@pytest.mark.servers
def test_example_configuration_of_prometheus_is_valid() -> None:
    needs_prometheus()
    assert "SUCCESS" in run("promtool", "check", "config", str(ROOT / "configs/prometheus/prometheus.yml"))


# Alertmanager


@contextmanager
def alertmanager(folder: Path, configuration: str) -> Iterator[int]:
    """A real Alertmanager on a free port."""
    program = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if program is None:
        pytest.skip("Alertmanager is not installed (apt install prometheus-alertmanager)")
    settings = folder / "alertmanager.yml"
    settings.write_text(configuration, encoding="utf-8")
    port = free_port()
    with (folder / "alertmanager.log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={settings}",
                f"--storage.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_for(lambda: _answers(port), 30, "Alertmanager is not ready", still=process)
            yield port
        finally:
            process.terminate()
            process.wait(timeout=20)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=2):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _ask(port: int, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
        text = answer.read()
    return json.loads(text) if text.strip() else None


def _raise(port: int, *alerts: dict[str, str]) -> None:
    _ask(port, "/api/v2/alerts", [{"labels": labels} for labels in alerts])


SILENT = {"alertname": "NhipProbeSilent", "probe": "a", "operator": "alpha"}
LOSS_A = {"alertname": "NhipLoss", "probe": "a", "operator": "alpha", "target": "hn"}
LOSS_B = {"alertname": "NhipLoss", "probe": "b", "operator": "alpha", "target": "hn"}


def _inhibited(port: int) -> set[str]:
    """Probes whose loss is held back."""
    return {
        alert["labels"]["probe"]
        for alert in _ask(port, "/api/v2/alerts")
        if alert["labels"]["alertname"] == "NhipLoss" and alert["status"]["inhibitedBy"]
    }


@pytest.mark.servers
def test_silent_probe_holds_back_its_own_alerts_and_no_others(tmp_path: Path) -> None:
    with alertmanager(tmp_path, ALERTMANAGER_YML.read_text(encoding="utf-8")) as port:
        _raise(port, SILENT, LOSS_A, LOSS_B)
        wait_for(lambda: _inhibited(port) == {"a"}, 20, "loss of the silent probe is not held back")


@pytest.mark.servers
def test_nothing_is_held_back_without_the_inhibit_rules(tmp_path: Path) -> None:
    settings = yaml.safe_load(ALERTMANAGER_YML.read_text(encoding="utf-8"))
    del settings["inhibit_rules"]
    with alertmanager(tmp_path, yaml.safe_dump(settings)) as port:
        _raise(port, SILENT, LOSS_A, LOSS_B)
        wait_for(lambda: len(_ask(port, "/api/v2/alerts")) == 3, 20, "alerts are not there")
        assert _inhibited(port) == set()


@pytest.mark.servers
def test_outage_holds_back_the_loss_and_delay_of_the_same_test_and_no_others(tmp_path: Path) -> None:
    outage = {**LOSS_A, "alertname": "NhipUnreachable", "kind": "icmp"}
    with alertmanager(tmp_path, ALERTMANAGER_YML.read_text(encoding="utf-8")) as port:
        _raise(port, outage, {**LOSS_A, "kind": "icmp"}, {**LOSS_B, "kind": "icmp"})
        wait_for(lambda: _inhibited(port) == {"a"}, 20, "loss of the target that is gone is not held back")


@pytest.mark.servers
def test_fifty_provinces_that_fail_at_once_are_few_messages(tmp_path: Path) -> None:
    with alertmanager(tmp_path, ALERTMANAGER_YML.read_text(encoding="utf-8")) as port:
        _raise(
            port,
            *(
                {
                    "alertname": name,
                    "operator": "alpha",
                    "province": f"{code:02d}",
                    "probe": f"p{code}",
                    "target": "hn",
                }
                for code in range(50)
                for name in ("NhipUnreachable", "NhipLoss", "NhipDelayAboveBaseline", "NhipProbeSilent")
            ),
        )

        def grouped() -> int:
            groups = _ask(port, "/api/v2/alerts/groups")
            return len(groups) if sum(len(group["alerts"]) for group in groups) == 200 else 0

        assert wait_for(grouped, 20, "alerts are not grouped") <= 4


@pytest.mark.servers
def test_example_configuration_of_alertmanager_is_valid() -> None:
    if shutil.which("amtool") is None:
        pytest.skip("amtool is not installed (apt install prometheus-alertmanager)")
    assert "SUCCESS" in run("amtool", "check-config", str(ALERTMANAGER_YML))
