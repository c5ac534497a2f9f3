"""Configuration: every message names file, key, value and remedy; secrets come from the environment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from nhip import config
from nhip.errors import ConfigError

CONFIGS = Path(config.__file__).resolve().parent.parent / "configs"
EXAMPLES = sorted(CONFIGS.rglob("*.toml"))


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    interface: str
    speed_bits_per_second: Annotated[float, msgspec.Meta(gt=0)] = 1e6
    tags: list[str] = []


class Host(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    count: Annotated[int, msgspec.Meta(ge=1, le=10)] = 1
    secret: Annotated[str, msgspec.Meta(extra={"environment": "TEST_SECRET"})] | None = None
    plain_secret: Annotated[str, msgspec.Meta(extra={"environment": "TEST_PLAIN"})] = ""
    folder: Path | None = None


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: str
    host: Host
    line: list[Line] = []
    backup: Line | None = None


GOOD: dict[str, Any] = {"format": "test/1", "host": {"name": "a"}}


def refusal(table: dict[str, Any], environment: dict[str, str] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        config.convert(table, File, "file.toml", environment=environment or {})
    return raised.value


# Messages


def test_an_unknown_key_is_refused_with_the_nearest_valid_one() -> None:
    error = refusal({**GOOD, "hots": {}})
    assert error.what == "file.toml:hots: is no key of this file"
    assert error.remedy == "did you mean 'host'?"


@pytest.mark.parametrize(
    ("table", "key", "nearest"),
    [
        ({"host": {"name": "a", "coutn": 3}}, "host.coutn", "count"),
        (
            {"line": [{"interface": "a"}, {"interface": "b", "speed_bits": 1}]},
            "line[1].speed_bits",
            "speed_bits_per_second",
        ),
        ({"backup": {"interfaec": "a"}}, "backup.interfaec", "interface"),
    ],
)
def test_an_unknown_key_at_depth_is_refused_with_its_place(
    table: dict[str, Any], key: str, nearest: str
) -> None:
    error = refusal({**GOOD, **table})
    assert error.what == f"file.toml:{key}: is no key of this file"
    assert error.remedy == f"did you mean {nearest!r}?"


def test_a_key_like_no_other_is_answered_with_all_valid_ones() -> None:
    assert refusal({**GOOD, "zzz": 1}).remedy == "valid keys: backup, format, host, line"


def test_a_wrong_value_is_shown_with_key_and_range() -> None:
    error = refusal({**GOOD, "host": {"name": "a", "count": 11}})
    assert error.what == "file.toml:host.count: 11: expected `int` <= 10"
    assert error.remedy


@pytest.mark.parametrize("value", [True, "3", 1.5, [1], 0])
def test_a_value_of_another_type_or_range_is_refused(value: object) -> None:
    assert "file.toml:host.count" in refusal({**GOOD, "host": {"name": "a", "count": value}}).what


@pytest.mark.parametrize("value", [float("nan"), -float("inf"), 0.0])
def test_toml_words_that_are_no_speed_are_refused(value: float) -> None:
    table = {**GOOD, "line": [{"interface": "a", "speed_bits_per_second": value}]}
    assert "speed_bits_per_second" in refusal(table).what


def test_a_missing_key_is_named() -> None:
    error = refusal({"format": "test/1", "host": {}})
    assert error.what == "file.toml:host.name: is missing"
    assert error.remedy == "add it"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: no such file") as raised:
        config.load(tmp_path / "absent.toml", File)
    assert raised.value.remedy


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"a = = 1", "no valid TOML"), (b"a = '\xff'", "no UTF-8"), (b"a = 1\na = 2", "TOML")],
)
def test_a_file_that_is_no_toml_is_named_with_the_place(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=what) as raised:
        config.load(path, File)
    assert str(path) in raised.value.what


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path, File)


# Environment


def test_the_environment_wins_over_the_file() -> None:
    table = {**GOOD, "host": {"name": "a", "secret": "from file", "plain_secret": "from file"}}
    found = config.convert(
        table, File, "f", environment={"TEST_SECRET": "from outside", "TEST_PLAIN": "also"}
    )
    assert (found.host.secret, found.host.plain_secret) == ("from outside", "also")


def test_the_environment_gives_what_the_file_leaves_out() -> None:
    assert config.convert(GOOD, File, "f", environment={"TEST_SECRET": "s"}).host.secret == "s"
    assert config.convert(GOOD, File, "f", environment={}).host.secret is None


def test_the_environment_changes_no_other_key() -> None:
    found = config.convert(GOOD, File, "f", environment={"name": "x", "host": "y", "NHIP_NAME": "z"})
    assert found.host.name == "a"


def test_the_table_handed_in_stays_as_it_was() -> None:
    table = {"format": "test/1", "host": {"name": "a"}}
    config.convert(table, File, "f", environment={"TEST_SECRET": "s"})
    assert table == {"format": "test/1", "host": {"name": "a"}}


def test_a_secret_of_the_wrong_type_is_not_shown() -> None:
    error = refusal({**GOOD, "host": {"name": "a", "secret": 31415926}})
    assert "file.toml:host.secret" in error.what
    assert "31415926" not in str(error)


def test_a_path_is_read_as_a_path() -> None:
    found = config.convert({**GOOD, "host": {"name": "a", "folder": "/var/lib"}}, File, "f", environment={})
    assert found.host.folder == Path("/var/lib")
    assert "folder" in refusal({**GOOD, "host": {"name": "a", "folder": 3}}).what


# Whole files


@pytest.mark.parametrize("path", EXAMPLES, ids=[str(path.relative_to(CONFIGS)) for path in EXAMPLES])
def test_every_shipped_file_holds_what_its_format_wants(path: Path) -> None:
    assert config.check(path) in config.FORMATS


def test_there_are_shipped_files() -> None:
    assert {"probe.toml", "collector.toml"} <= {path.name for path in EXAMPLES}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("a = 1", ":format: is missing"),
        ("format = 3", ":format: is missing"),
        ('format = "nhip-prob/1"', ":format: 'nhip-prob/1' is unknown"),
    ],
)
def test_a_file_that_does_not_say_what_it_is_is_refused(tmp_path: Path, content: str, what: str) -> None:
    path = tmp_path / "file.toml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=what) as raised:
        config.check(path)
    assert "nhip-probe/1" in raised.value.remedy


@pytest.mark.parametrize("name", config.FORMATS.names())
def test_every_format_has_a_json_schema(name: str) -> None:
    schema = json.loads(json.dumps(config.json_schema(config.FORMATS.load(name))))
    assert schema["$schema"].startswith("https://json-schema.org/")
    root = schema["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    assert "format" in root["required"]
    assert root["additionalProperties"] is False, "an editor must flag a misspelt key as the program does"


def test_the_published_schemas_are_those_of_the_code() -> None:
    published = CONFIGS / "schema"
    if not published.is_dir():
        pytest.skip("configs/schema/ is not written yet: nhip schema configs/schema")
    for name in config.FORMATS:
        path = published / f"{name.replace('/', '-')}.json"
        current = json.loads(json.dumps(config.json_schema(config.FORMATS.load(name))))
        assert json.loads(path.read_text(encoding="utf-8")) == current, f"run: nhip schema {published}"
