"""TOML in, a checked and typed configuration out.

Every message reads ``file:key: what is wrong; remedy``. Unknown keys are refused with the nearest valid
one, because a misspelt key that is ignored is a probe that measures something else than its owner
thinks. A secret can come from the environment: a field whose schema names a variable takes it from there.

The first key of every file is ``format``, for example ``format = "nhip-probe/1"``; it names what the
file is and which version of its form it follows, so that ``nhip check FILE`` knows what to hold it against.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from nhip.errors import ConfigError
from nhip.registry import Registry

T = TypeVar("T")

FORMATS: Registry[type[msgspec.Struct]] = Registry(
    "configuration format",
    {
        "nhip-probe/1": "probes.agent_config:AgentConfig",
        "nhip-server/1": "probes.server_config:MeasurementServerConfig",
        "nhip-collector/1": "collector.collector_config:CollectorConfig",
        "nhip-regulation/1": "collector.kpi.profile:RegulationProfile",
        "nhip-capacity-rules/1": "forecasting.capacity_rules:CapacityRules",
        "nhip-provinces/1": "nhip.geography:ProvinceTable",
        "nhip-service-profiles/1": "nhip.service_profiles:ServiceProfile",
        "nhip-voice-codecs/1": "nhip.voice_codecs:CodecTable",
    },
)


def load(path: Path, into: type[T], *, environment: Mapping[str, str] | None = None) -> T:
    """The file at `path` as an `into`; ConfigError names file, key, value and remedy.

    `environment` (this process's by default) overrides the fields that name a variable in their schema:
    ``Annotated[str, msgspec.Meta(extra={"environment": "NHIP_PROBE_KEY"})]``.
    """
    return convert(read_toml(path), into, str(path), environment=environment)


def read_toml(path: Path) -> dict[str, Any]:
    """The raw table of a TOML file; ConfigError when it is absent, unreadable or no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file", remedy="see configs/ for examples") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no UTF-8 text", remedy="save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is no valid TOML: {error}") from error


def convert(
    table: Mapping[str, Any], into: type[T], name: str, *, environment: Mapping[str, str] | None = None
) -> T:
    """A table already read, checked against `into`; `name` stands for the file in messages."""
    filled = _with_environment(dict(table), into, os.environ if environment is None else environment)
    try:
        return msgspec.convert(filled, into, strict=True, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise _explain(str(error), filled, into, name) from error
    except ConfigError as error:
        # Raised by a __post_init__ that knows the key but not the file.
        raise ConfigError(f"{name}:{error.what}", remedy=error.remedy) from error


def check(path: Path) -> str:
    """Hold a file against the format it names; returns that format, raises ConfigError otherwise."""
    return read(path)[0]


def read(path: Path) -> tuple[str, msgspec.Struct]:
    """The format a file names, and the file read as that; ConfigError when it does not follow it."""
    table = read_toml(path)
    format_name = table.get("format")
    known = ", ".join(FORMATS.names())
    if not isinstance(format_name, str):
        raise ConfigError(f"{path}:format: is missing", remedy=f"name one of {known}")
    if format_name not in FORMATS:
        raise ConfigError(f"{path}:format: {format_name!r} is unknown", remedy=f"name one of {known}")
    return format_name, convert(table, FORMATS.load(format_name), str(path))


def json_schema(into: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON Schema of a configuration type, for editors and for configs/schema/."""
    schema = msgspec.json.schema(into, schema_hook=_schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def shipped(relative: str) -> Path:
    """Where a file of configs/ lies: in the checkout, or inside the installed package."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / "configs" / relative
    return checkout if checkout.exists() else package / "_configs" / relative


def _decode(into: type, value: Any) -> Any:
    """A path, the one type of ours that TOML has no word for."""
    if into is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"{into} has no form in TOML")


def _schema(into: type) -> dict[str, Any]:
    if into is Path:
        return {"type": "string", "description": "a path in the file system"}
    raise TypeError(f"{into} has no form in TOML")


# msgspec words its findings as "Expected `int`, got `str` - at `$.tasks[0].count`".
_WHERE = re.compile(r"^(?P<finding>.*?)(?: - at `(?P<path>\$.*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<key>[^`]*)`$")
_MISSING = re.compile(r"^Object missing required field `(?P<key>[^`]*)`$")


def _explain(message: str, table: Mapping[str, Any], into: type, name: str) -> ConfigError:
    match = _WHERE.match(message)
    finding, path = (match["finding"], match["path"] or "$") if match else (message, "$")
    key = path.removeprefix("$").removeprefix(".")
    if unknown := _UNKNOWN.match(finding):
        wrong = unknown["key"]
        valid = _keys_at(into, path)
        near = difflib.get_close_matches(wrong, valid, n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(sorted(valid))}"
        return ConfigError(f"{name}:{_join(key, wrong)}: is no key of this file", remedy=remedy)
    if missing := _MISSING.match(finding):
        return ConfigError(f"{name}:{_join(key, missing['key'])}: is missing", remedy="add it")
    value = None if _is_secret(into, path) else _value_at(table, path)
    shown = "" if value is None else f"{value!r}: "
    return ConfigError(f"{name}:{key}: {shown}{finding[:1].lower()}{finding[1:]}", remedy="correct it")


def _join(parent: str, key: str) -> str:
    return f"{parent}.{key}" if parent else key


def _steps(path: str) -> list[str]:
    return [key or index for key, index in re.findall(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]", path)]


def _value_at(table: Any, path: str) -> Any:
    for step in _steps(path):
        try:
            table = table[int(step)] if isinstance(table, list) else table[step]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return table if isinstance(table, str | int | float | bool) else None


def _keys_at(into: Any, path: str) -> list[str]:
    """The valid keys of the structure that `path` leads to, as far as the types tell."""
    for step in _steps(path):
        fields = _fields(into)
        if step in fields:
            into = fields[step]
        elif not step.isdigit() and step != "...":
            return []
    return list(_fields(into))


def _is_secret(into: Any, path: str) -> bool:
    """Whether `path` leads to a value that may come from the environment, and must not stand in a message."""
    for step in _steps(path):
        into = _fields(into).get(step, into)
    return _variable(into) is not None


def _variable(hint: Any) -> str | None:
    """The environment variable that the schema of a field names, anywhere inside its type."""
    for inner in get_args(hint):
        found: str | None = (getattr(inner, "extra", None) or {}).get("environment") or _variable(inner)
        if found:
            return found
    return None


def _fields(into: Any) -> dict[str, Any]:
    """Key → type of the structure inside `into`, looking through Annotated, lists and optionals."""
    if isinstance(into, type) and issubclass(into, msgspec.Struct):
        hints = get_type_hints(into, include_extras=True)
        return {field.encode_name: hints[field.name] for field in msgspec.structs.fields(into)}
    for inner in get_args(into):
        if found := _fields(inner):
            return found
    return {}


def _with_environment(table: dict[str, Any], into: Any, environment: Mapping[str, str]) -> dict[str, Any]:
    for key, hint in _fields(into).items():
        variable = _variable(hint)
        if variable is not None and variable in environment:
            table[key] = environment[variable]
        if isinstance(table.get(key), dict):
            table[key] = _with_environment(dict(table[key]), hint, environment)
    return table
