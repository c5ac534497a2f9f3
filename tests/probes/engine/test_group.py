"""Lists of targets: read from text, small in memory, refused with the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from nhip.errors import ConfigError
from nhip.measurement import Target, TargetClass
from probes.engine.group import Group, TargetList, parse_targets, read_targets


def test_a_line_is_an_id_a_host_and_perhaps_a_class(tmp_path: Path) -> None:
    path = tmp_path / "targets.txt"
    path.write_text("# homes\nhn-1 192.0.2.1\n\nhn-2 server.example.vn off_net # one\nhn-3 2001:db8::1\n")
    assert list(read_targets(path)) == [
        Target(id="hn-1", host="192.0.2.1"),
        Target(id="hn-2", host="server.example.vn", target_class=TargetClass.OFF_NET),
        Target(id="hn-3", host="2001:db8::1"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a", "list:2: has 1 words"),
        ("A 192.0.2.1", "list:2: 'A': is no id"),
        ("a 192.0.2.999", "list:2: '192.0.2.999': is neither"),
        ("a 192.0.2.1 near", "list:2: 'near': is no target class"),
        ("first 192.0.2.2", "list:2: 'first': stands there twice"),
    ],
)
def test_a_wrong_line_is_named(line: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_targets(["first 192.0.2.1", line], "list")
    assert str(caught.value).startswith(message)


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(ConfigError, match="holds no target"):
        parse_targets(["# nobody"], "list")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.txt: cannot be read"):
        read_targets(tmp_path / "nowhere.txt")


def test_a_host_alone_gets_an_id_where_that_is_allowed() -> None:
    found = parse_targets(["192.0.2.1", "Server.Example.VN", "2001:db8::1"], "list", bare=True)
    assert [target.id for target in found] == ["192.0.2.1", "server.example.vn", "2001-db8--1"]


def test_targets_survive_the_way_to_another_process() -> None:
    targets = TargetList(
        Target(id=f"t{n}", host=f"10.0.0.{n}", target_class=TargetClass.OFF_NET) for n in range(9)
    )
    assert list(parse_targets(targets.as_text().splitlines(), "again")) == list(targets)
    assert list(targets[2:4]) == [targets[2], targets[3]]
    assert targets[-1].id == "t8"
    with pytest.raises(IndexError):
        targets[9]


def test_a_window_has_at_least_one_probe() -> None:
    targets = TargetList([Target(id="t", host="::1")])
    assert Group(id="g", targets=targets, interval_seconds=120, window_seconds=60).window_rounds == 1
    assert Group(id="g", targets=targets, interval_seconds=0.5, window_seconds=60).window_rounds == 120
