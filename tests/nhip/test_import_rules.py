"""Who may import whom: the four folders stand apart, and heavy or foreign packages sit behind one door."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("nhip", "probes", "collector", "forecasting", "dashboards")
MODULES = sorted(path for package in PACKAGES for path in (CHECKOUT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The top-level packages a file imports anywhere in it, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            first = node.args[0] if node.args else None
            if name in ("import_module", "__import__") and isinstance(first, ast.Constant):
                found.add(str(first.value).split(".")[0])
    return found


def test_the_contracts_of_the_project_file_hold() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    if not command.exists():
        pytest.skip("import-linter is not installed (extra dev)")
    done = subprocess.run([command, "--no-cache"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("package", ["scapy", "pyshark", "grafana_api"])
def test_a_package_behind_one_door_is_imported_in_one_module_at_most(package: str) -> None:
    doors = [str(path.relative_to(CHECKOUT)) for path in MODULES if package in imported(path)]
    assert len(doors) <= 1, doors


@pytest.mark.parametrize("folder", PACKAGES[1:])
def test_a_folder_imports_nhip_and_no_other_folder(folder: str) -> None:
    others = set(PACKAGES[1:]) - {folder}
    guilty = {
        str(path.relative_to(CHECKOUT)): imported(path) & others
        for path in (CHECKOUT / folder).rglob("*.py")
        if imported(path) & others
    }
    assert not guilty


def test_the_scan_sees_an_import_wherever_it_hides(tmp_path: Path) -> None:
    path = tmp_path / "guilty.py"
    for line in (
        "import collector.ingest",
        "def f():\n    from collector import ingest",
        "from importlib import import_module\nimport_module('collector.ingest')",
        "if 0:\n    __import__('collector')",
    ):
        path.write_text(line)
        assert "collector" in imported(path), line


def test_probes_run_where_nothing_of_the_collector_or_forecasting_is_installed() -> None:
    code = (
        "import sys\n"
        "for name in ('pandas', 'statsmodels', 'numpy', 'scipy', 'duckdb', 'deltalake', 'pyarrow',\n"
        "             'jinja2', 'uvicorn', 'httptools', 'scapy', 'pyshark', 'grafana_api'):\n"
        "    sys.modules[name] = None\n"
        "from probes.registry import PROBES\n"
        "import probes.agent, probes.reflector, nhip.wire, nhip.measure, nhip.config\n"
        "print([PROBES.load(name).kind for name in PROBES.names()])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'icmp'" in done.stdout


def test_no_module_calls_a_shell() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                for keyword in node.keywords:
                    shell = keyword.arg == "shell" and getattr(keyword.value, "value", True) is not False
                    assert not shell, f"{path}:{node.lineno}"


def test_git_tracks_no_binary_model_or_wheel() -> None:
    if shutil.which("git") is None or not (CHECKOUT / ".git").exists():
        pytest.skip("no git checkout")
    files = subprocess.run(
        ["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    assert not [name for name in files if name.endswith((".pkl", ".so", ".whl", ".pyc", ".npy"))]
