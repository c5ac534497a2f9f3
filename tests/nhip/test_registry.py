"""Registries: names without imports, other distributions' entries, and no silent replacement."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nhip.errors import NhipError, UnknownNameError
from nhip.registry import Registry
from probes.registry import PROBES

GROUP = "nhip.test_things"


@pytest.fixture
def other_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution that adds entries to the group; gives its entry_points.txt."""
    folder = tmp_path / "other-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder / "entry_points.txt"


def test_two_registries_share_nothing() -> None:
    builtin = {"a": "json:loads"}
    first, second = Registry("thing", builtin), Registry("thing", {})
    builtin["b"] = "json:dumps"
    assert first.names() == ["a"]
    assert second.names() == []


def test_an_entry_is_the_object_behind_its_path() -> None:
    import json

    assert Registry("thing", {"a": "json:loads"}).load("a") is json.loads


def test_an_unknown_name_is_answered_with_the_nearest_and_all_known() -> None:
    with pytest.raises(UnknownNameError, match="'tcp_conect' is no known probe type") as raised:
        PROBES.load("tcp_conect")
    assert "did you mean 'tcp_connect'?" in raised.value.remedy
    for name in ("dns", "file_transfer", "http", "icmp", "stamp", "tcp_connect"):
        assert name in raised.value.remedy


def test_a_name_like_no_other_is_answered_with_all_known() -> None:
    with pytest.raises(UnknownNameError) as raised:
        Registry("thing", {"one": "a:b", "two": "a:c"}).path("zzz")
    assert raised.value.remedy == "known: one, two"


def test_another_distribution_adds_an_entry(other_distribution: Path) -> None:
    other_distribution.write_text(f"[{GROUP}]\nextra = json:dumps\n")
    registry: Registry[object] = Registry("thing", {"a": "json:loads"}, group=GROUP)
    assert registry.names() == ["a", "extra"]
    assert registry.path("extra") == "json:dumps"
    assert "extra" in registry


def test_a_clash_is_refused_with_both_places(other_distribution: Path) -> None:
    other_distribution.write_text(f"[{GROUP}]\na = evil:loads\n")
    registry: Registry[object] = Registry("thing", {"a": "json:loads"}, group=GROUP)
    with pytest.raises(UnknownNameError, match="json:loads and evil:loads"):
        registry.load("a")


def test_the_same_entry_given_twice_is_no_clash(other_distribution: Path) -> None:
    other_distribution.write_text(f"[{GROUP}]\na = json:loads\n")
    assert Registry("thing", {"a": "json:loads"}, group=GROUP).names() == ["a"]


def test_an_entry_whose_module_is_not_installed_says_what_to_install() -> None:
    with pytest.raises(NhipError, match="needs the module 'absent_module_x'") as raised:
        Registry("thing", {"a": "absent_module_x:y"}).load("a")
    assert "pip" in raised.value.remedy


def test_listing_imports_nothing() -> None:
    code = (
        "import sys; from probes.registry import PROBES; names = PROBES.names(); "
        "print(len(names), [m for m in ('probes.icmp', 'probes.http', 'dns', 'h11') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "9 []"


@pytest.mark.parametrize("name", PROBES.names())
def test_every_entry_calls_itself_by_its_name(name: str) -> None:
    assert PROBES.load(name).kind == name
