"""The wheel: five packages and nothing else at its top, with everything they read at run time."""

from __future__ import annotations

import email
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = {"nhip", "probes", "collector", "forecasting", "dashboards"}
# What is read at run time beside Python.
DATA_SUFFIXES = {".typed", ".json", ".html", ".css", ".js", ".svg", ".j2", ".toml", ".sql", ".csv"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    if shutil.which(str(Path(sys.executable).with_name("hatchling"))) is None:
        pytest.skip("hatchling is not installed (extra dev)")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [Path(sys.executable).with_name("hatchling"), "build", "--target", "wheel", "--directory", folder],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_top_level_is_exactly_the_five_packages(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == PACKAGES
    assert len(top) == len(PACKAGES) + 1


def test_every_package_says_that_it_is_typed(wheel: zipfile.ZipFile) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(wheel.namelist())


def test_everything_a_package_reads_is_shipped(wheel: zipfile.ZipFile) -> None:
    shipped = set(wheel.namelist())
    for package in PACKAGES:
        for path in (CHECKOUT / package).rglob("*"):
            if path.suffix in {".py", *DATA_SUFFIXES} and "__pycache__" not in path.parts:
                assert str(path.relative_to(CHECKOUT)) in shipped


def test_the_configuration_that_code_reads_is_shipped(wheel: zipfile.ZipFile) -> None:
    """``nhip.config.shipped`` looks beside the package when there is no checkout."""
    shipped = set(wheel.namelist())
    for path in (CHECKOUT / "configs").rglob("*.toml"):
        assert f"nhip/_configs/{path.relative_to(CHECKOUT / 'configs')}" in shipped


def test_no_test_cache_or_secret_is_shipped(wheel: zipfile.ZipFile) -> None:
    for name in wheel.namelist():
        assert not name.endswith((".pyc", ".key", ".pem", ".sqlite"))
        assert "tests/" not in name


def test_the_command_and_the_licence_are_in_the_metadata(wheel: zipfile.ZipFile) -> None:
    (folder,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    assert b"nhip = nhip.cli:main" in wheel.read(f"{folder}/entry_points.txt")
    metadata = email.message_from_bytes(wheel.read(f"{folder}/METADATA"))
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    required = metadata.get_all("Requires-Dist") or []
    always = {line.split(">")[0].split("<")[0].strip() for line in required if "extra ==" not in line}
    assert always == {"click", "msgspec", "prometheus-client"}


def test_the_wheel_runs_where_there_is_no_checkout(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, 'site'); import nhip; from nhip.config import shipped, check;"
        "print(nhip.__file__); print(check(shipped('probe.toml')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "nhip-probe/1" in done.stdout
    assert str(tmp_path / "site") in done.stdout
