from __future__ import annotations

import json
from pathlib import Path

import yaml

from dashboards.grafana import provision
from dashboards.grafana.build import build
from dashboards.grafana.publish import FOLDER_UID
from nhip.language import Language

ROOT = Path(__file__).resolve().parents[2]


def test_second_run_changes_nothing(tmp_path: Path) -> None:
    first = provision.write(tmp_path)
    assert len(first) == 4
    assert provision.write(tmp_path) == []
    first[0].write_text("changed", encoding="utf-8")
    assert provision.write(tmp_path) == [first[0]]


def test_committed_example_is_what_the_code_writes(tmp_path: Path) -> None:
    provision.write(tmp_path)
    for written in (tmp_path / "provisioning").rglob("*.yaml"):
        committed = ROOT / "configs/grafana" / written.relative_to(tmp_path)
        assert committed.read_text(encoding="utf-8") == written.read_text(encoding="utf-8")


def test_files_say_what_grafana_reads(tmp_path: Path) -> None:
    provision.write(tmp_path, prometheus_url='http://p:9090/"x"', dashboards_path="/a b/ủ: #1")
    source = yaml.safe_load((tmp_path / "provisioning/datasources/nhip.yaml").read_text(encoding="utf-8"))
    (datasource,) = source["datasources"]
    assert datasource["uid"] == provision.DATASOURCE_UID and datasource["type"] == "prometheus"
    assert datasource["url"] == 'http://p:9090/"x"' and datasource["jsonData"]["timeInterval"] == "30s"
    providers = yaml.safe_load((tmp_path / "provisioning/dashboards/nhip.yaml").read_text(encoding="utf-8"))
    (provider,) = providers["providers"]
    assert provider["options"]["path"] == "/a b/ủ: #1" and provider["folderUid"] == FOLDER_UID
    for language in Language:
        placed = tmp_path / "dashboards" / f"nhip-overview.{language}.json"
        assert json.loads(placed.read_text(encoding="utf-8")) == build(language)
