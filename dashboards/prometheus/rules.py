"""The rule file of Prometheus, made from :mod:`dashboards.prometheus.alerts`.

``python -m dashboards.prometheus.rules`` writes configs/prometheus/rules/nhip.yml, which is committed; a test
fails when it differs from what the code makes. YAML is written with a developer's library, absent where Nhịp
is merely used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dashboards import promql
from dashboards.prometheus.alerts import Alert, Thresholds, declared_speed_factor, groups
from nhip import config
from nhip.language import Language

RULES = "prometheus/rules/nhip.yml"
COMMITTED = Path(__file__).resolve().parents[2] / "configs" / RULES
HEADER = (
    "# Alert rules of Nhịp. Made by `python -m dashboards.prometheus.rules`; change them there.\n"
    "# Check: promtool check rules --lint=all nhip.yml\n"
)


def path() -> Path:
    """Where the rule file lies, in the checkout and in the installed package."""
    return config.shipped(RULES)


def build(thresholds: Thresholds | None = None) -> dict[str, Any]:
    """The rule file as plain data. UnknownNameError when a rule names what the catalog does not have."""
    found = groups(thresholds or Thresholds(), declared_speed_factor())
    return {
        "groups": [
            {"name": name, "rules": [_rule(alert) for alert in alerts]} for name, alerts in found.items()
        ]
    }


def encode(rules: dict[str, Any]) -> str:
    """The text of the rule file."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes an expression of several lines as one, so that people can read it."""

    def literal(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, literal)
    return HEADER + yaml.dump(rules, Dumper=Dumper, allow_unicode=True, sort_keys=False, width=110)


def write(target: Path = COMMITTED) -> Path:
    """Write the file that is committed; where it lies."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(encode(build()), encoding="utf-8")
    return target


def _rule(alert: Alert) -> dict[str, Any]:
    promql.check(alert.expression)
    vietnamese, english = Language.VIETNAMESE, Language.ENGLISH
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": alert.wait,
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary[english],
            "summary_vi": alert.summary[vietnamese],
            "description": alert.description[english],
            "description_vi": alert.description[vietnamese],
            "runbook_url": alert.runbook,
        },
    }


if __name__ == "__main__":
    write()
