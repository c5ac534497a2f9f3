"""Files a Grafana reads at start: data source and dashboards by file provisioning, no network and no token.

::

    FOLDER/provisioning/datasources/nhip.yaml    the Prometheus, under a fixed uid
    FOLDER/provisioning/dashboards/nhip.yaml     where the dashboards lie
    FOLDER/dashboards/nhip-overview.{vi,en}.json

Put the first two below Grafana's own provisioning directory, the dashboards where the second file says.
"""

from __future__ import annotations

import json
from pathlib import Path

from dashboards.grafana import build
from dashboards.grafana.publish import FOLDER_TITLE, FOLDER_UID
from nhip.language import Language

DATASOURCE_UID = "nhip-prometheus"
DEFAULT_PROMETHEUS_URL = "http://127.0.0.1:9090"
DEFAULT_DASHBOARDS_PATH = "/var/lib/grafana/dashboards/nhip"
DEFAULT_SCRAPE_INTERVAL_SECONDS = 30


def write(
    folder: Path,
    *,
    prometheus_url: str = DEFAULT_PROMETHEUS_URL,
    dashboards_path: str = DEFAULT_DASHBOARDS_PATH,
    scrape_interval_seconds: int = DEFAULT_SCRAPE_INTERVAL_SECONDS,
) -> list[Path]:
    """Write the files below `folder`; those that were new or different, none on a second run."""
    files = {
        "provisioning/datasources/nhip.yaml": datasource(prometheus_url, scrape_interval_seconds),
        "provisioning/dashboards/nhip.yaml": provider(dashboards_path),
        **{
            f"dashboards/{build.path(language).name}": build.path(language).read_text(encoding="utf-8")
            for language in Language
        },
    }
    changed = []
    for name, content in files.items():
        target = folder / name
        if target.exists() and target.read_text(encoding="utf-8") == content:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")
        changed.append(target)
    return changed


def datasource(prometheus_url: str, scrape_interval_seconds: int) -> str:
    """The data source file. The scrape interval is what Grafana makes ``$__rate_interval`` of."""
    return f"""\
# Data source of Nhịp for Grafana's file provisioning.
apiVersion: 1
datasources:
  - name: {_quoted(FOLDER_TITLE)}
    uid: {DATASOURCE_UID}
    type: prometheus
    access: proxy
    url: {_quoted(prometheus_url)}
    editable: false
    jsonData:
      httpMethod: POST
      timeInterval: {scrape_interval_seconds}s
"""


def provider(dashboards_path: str) -> str:
    """The file that tells Grafana where the dashboards lie."""
    return f"""\
# Dashboards of Nhịp for Grafana's file provisioning.
apiVersion: 1
providers:
  - name: nhip
    folder: {_quoted(FOLDER_TITLE)}
    folderUid: {FOLDER_UID}
    type: file
    disableDeletion: true
    allowUiUpdates: false
    updateIntervalSeconds: 30
    options:
      path: {_quoted(dashboards_path)}
"""


def _quoted(text: str) -> str:
    """A YAML string; JSON's are such."""
    return json.dumps(text, ensure_ascii=False)
