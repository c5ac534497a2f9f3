"""Which extra brings which module: so that a missing one is an answer and not a traceback."""

from __future__ import annotations

import importlib.util

from nhip.errors import NhipError

_EXTRA_OF = {
    "aioquic": "http3",
    "dns": "probe",
    "h11": "probe",
    "h2": "probe",
    "deltalake": "collector",
    "duckdb": "collector",
    "httptools": "collector",
    "jinja2": "collector",
    "pyarrow": "collector",
    "uvicorn": "collector",
    "uvloop": "collector",
    "numpy": "engine",
    "pandas": "forecast",
    "statsmodels": "forecast",
    "grafana_api": "dashboards",
    "requests": "dashboards",
    "grafana_foundation_sdk": "dev",
}


class MissingExtraError(NhipError):
    """A module of a role that is not installed on this host."""


def missing_extra(error: ModuleNotFoundError) -> MissingExtraError:
    """What to tell a person about `error`: the module, and the extra that brings it."""
    return _without((error.name or "").partition(".")[0])


def absent(module: str) -> MissingExtraError | None:
    """What to tell a person when `module` is not installed; `None` when it is. Imports nothing."""
    try:
        found = importlib.util.find_spec(module)
    except (ValueError, ModuleNotFoundError):  # somebody forbade the module to be imported
        found = None
    return _without(module) if found is None else None


def _without(module: str) -> MissingExtraError:
    extra = _EXTRA_OF.get(module)
    return MissingExtraError(
        f"this needs the module {module!r}, which is not installed",
        remedy=f"install it with: pip install 'nhip[{extra}]'" if extra else "install it with pip",
    )
