"""What a Prometheus is told to scrape: the collector itself and the probes that have a page of their own.

The form is Prometheus' HTTP service discovery: a JSON array of groups of targets and labels.
"""

from __future__ import annotations

from typing import TypedDict
from urllib.parse import urlsplit

from collector.collector_config import CollectorConfig


class Group(TypedDict):
    """Targets that share their labels."""

    targets: list[str]
    labels: dict[str, str]


def groups(config: CollectorConfig, port: int) -> list[Group]:
    """One group for the collector, listening on `port`, and one for each probe that states a metrics_url."""
    host = config.listen.host
    own = config.listen.advertised or (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    found: list[Group] = [{"targets": [own], "labels": {"nhip_role": "collector"}}]
    for probe in config.probes:
        if probe.metrics_url is None:
            continue
        url = urlsplit(probe.metrics_url)
        found.append(
            {
                "targets": [url.netloc],
                "labels": {
                    "nhip_role": "probe",
                    "probe": probe.id,
                    "operator": probe.operator,
                    "province": probe.province,
                    "technology": probe.technologies[0],
                    "__scheme__": url.scheme,
                    "__metrics_path__": url.path or "/metrics",
                },
            }
        )
    return found
