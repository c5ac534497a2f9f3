"""A role that is not installed says which extra to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nhip.extras import missing_extra

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
    ],
)
def test_a_missing_module_is_named_with_its_extra(
    modules: tuple[str, ...], arguments: tuple[str, ...], extra: str
) -> None:
    result = run_without(modules, *arguments)
    assert result.returncode == 2
    assert f"pip install 'nhip[{extra}]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_module_of_no_extra_is_still_named() -> None:
    assert "'elsewhere'" in str(missing_extra(ModuleNotFoundError("no", name="elsewhere.inner")))
