"""The demo as a user starts it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nhip import config
from nhip.demo import files
from tests.lab.network import needs_namespaces


def access(variant: files.Variant) -> files.AccessPlan:
    return files.AccessPlan(
        host="alpha-4g",
        operator="alpha",
        technology="4g",
        province="01",
        down_bits_per_second=40e6,
        up_bits_per_second=15e6,
        server_address="198.18.0.2",
        international_address="198.18.1.2" if variant.international else None,
        variant=variant,
        key=files.new_key(),
    )


@pytest.mark.parametrize("variant", [files.NAMESPACES, files.LOOPBACK], ids=["namespaces", "loopback"])
def test_every_file_the_demo_writes_is_a_valid_configuration(variant: files.Variant, tmp_path: Path) -> None:
    plan = access(variant)
    written = {
        "probe.toml": files.probe_toml(tmp_path, plan),
        "server.toml": files.server_toml("198.18.0.2", variant),
        "collector.toml": files.collector_toml(
            tmp_path, [plan], port=8642, forecast_key="secret", truth_file=tmp_path / "truth.json"
        ),
    }
    for name, text in written.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        config.check(tmp_path / name)


def test_keys_are_in_no_file_the_collector_reads(tmp_path: Path) -> None:
    plan = access(files.NAMESPACES)
    text = files.collector_toml(tmp_path, [plan], port=1, forecast_key="secret", truth_file=tmp_path)
    assert plan.key not in text and "secret" not in text
    assert files.sha256(plan.key) in text


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nhip.cli", "--lang", "en", "demo", "--port", "0", *arguments],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def namespaces() -> set[str]:
    folder = Path("/run/netns")
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.mark.lab
@pytest.mark.slow
def test_the_demo_measures_the_lab_within_tolerance_and_leaves_nothing() -> None:
    needs_namespaces()
    before = namespaces()
    result = run_demo("--for", "60")
    assert result.returncode == 0, result.stdout + result.stderr
    assert (found := re.search(r"Every access has its figures after (\d+) seconds", result.stdout))
    assert int(found[1]) <= 60
    rows = re.findall(r"^(?:alpha|beta|gamma) (?:fixed|4g|3g) .*$", result.stdout, re.MULTILINE)
    assert len(rows) == 9
    assert len(re.findall(r"\[simulated\]", result.stdout)) == 10
    assert "Every figure is within its tolerance" in result.stdout
    assert not {name for name in namespaces() - before if name.startswith("demo")}


@pytest.mark.slow
def test_without_root_the_demo_measures_the_loopback_lab_and_says_what_is_missing() -> None:
    result = run_demo("--for", "45", "--unprivileged")
    assert "No root" in result.stdout and "no ICMP" in result.stdout
    rows = re.findall(r"^(?:alpha|beta|gamma) (?:fixed|4g|3g) .*$", result.stdout, re.MULTILINE)
    assert len(rows) == 9
    assert not any("?" in row for row in rows), result.stdout
