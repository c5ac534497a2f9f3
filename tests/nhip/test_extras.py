"""A role that is not installed says which extra to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nhip.extras import absent, missing_extra

BLOCKED = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {modules!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv = ["nhip", *{arguments!r}]
from nhip.cli import main
main()
"""


def run_without(modules: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess[str]:
    code = BLOCKED.format(modules=set(modules), arguments=arguments)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("modules", "arguments", "extra"),
    [
        (("numpy", "pandas"), ("forecast", "x.csv"), "forecast"),
        (("uvicorn",), ("collector", "--config", "configs/collector.toml"), "collector"),
        (("uvicorn",), ("demo", "--for", "30"), "collector"),
        (("h11",), ("measure", "http", "127.0.0.1"), "probe"),
        (("numpy",), ("sweep", "README.md"), "engine"),
    ],
)
def test_a_missing_module_is_named_with_its_extra(
    modules: tuple[str, ...], arguments: tuple[str, ...], extra: str
) -> None:
    result = run_without(modules, *arguments)
    assert result.returncode == 2
    assert f"pip install 'nhip[{extra}]'" in result.stderr
    assert "Traceback" not in result.stderr


AGENT = """
format = "nhip-probe/1"
probe_id = "p"
access = {{ operator = "alpha", technology = "fixed", province = "01" }}
collector = {{ url = "http://127.0.0.1:1", key = "k" }}
spool = {{ path = "{spool}" }}
target = [{{ id = "a", host = "127.0.0.1" }}]
"""
HTTP = """
[[task]]
kind = "http"
target = "a"
interval_seconds = 60
settings = {{ http_version = "{version}" }}
"""
GROUP = """
[[icmp_group]]
id = "g"
targets = [{ id = "b", host = "127.0.0.1" }]
"""


@pytest.mark.parametrize(
    ("tasks", "module", "extra", "key"),
    [
        (GROUP, "numpy", "engine", "icmp_group"),
        (HTTP.format(version="http3"), "aioquic", "http3", "task[0].settings.http_version"),
        (HTTP.format(version="http2"), "h2", "probe", "task[0].settings.http_version"),
        (HTTP.format(version="auto"), "h2", "probe", "task[0].settings.http_version"),
    ],
)
def test_a_file_that_needs_an_extra_is_right_but_warned_of_and_no_agent_starts_with_it(
    tasks: str, module: str, extra: str, key: str, tmp_path: Path
) -> None:
    file = tmp_path / "probe.toml"
    file.write_text(AGENT.format(spool=tmp_path / "spool.sqlite") + tasks, encoding="utf-8")
    checked = run_without((module,), "check", str(file))
    assert checked.returncode == 0
    assert checked.stdout == f"{file}: nhip-probe/1\n"
    (warning,) = checked.stderr.splitlines()
    assert warning.startswith(f"nhip: warning: {file}:{key}: this needs the module '{module}'")
    assert f"pip install 'nhip[{extra}]'" in warning
    started = run_without((module,), "probe", "--config", str(file))
    assert started.returncode == 2
    assert f"pip install 'nhip[{extra}]'" in started.stderr
    assert "Traceback" not in started.stderr
    assert not (tmp_path / "spool.sqlite").exists()
    # The twin: with the module nobody is warned.
    assert run_without((), "check", str(file)).stderr == ""


def test_a_file_that_needs_no_extra_is_not_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "probe.toml"
    text = AGENT.format(spool=tmp_path / "spool.sqlite") + HTTP.format(version="http1")
    file.write_text(text, encoding="utf-8")
    assert run_without(("numpy", "aioquic", "h2"), "check", str(file)).stderr == ""


def test_an_installed_module_is_not_absent() -> None:
    assert absent("json") is None
    assert "'no_such_module'" in str(absent("no_such_module"))


def test_a_module_of_no_extra_is_still_named() -> None:
    assert "'elsewhere'" in str(missing_extra(ModuleNotFoundError("no", name="elsewhere.inner")))
