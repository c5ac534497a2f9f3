"""Which extra brings which module: so that a missing one is an answer and not a traceback."""

from __future__ import annotations

import importlib.util
import traceback

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
# What two roles need is asked for by a folder of one of them.
_EXTRA_OF_FOLDER = {("forecasting", "numpy"): "forecast"}


class MissingExtraError(NhipError):
    """A module of a role that is not installed on this host."""


def missing_extra(error: ModuleNotFoundError) -> MissingExtraError:
    """What to tell a person about `error`: the module, and the extra that brings it."""
    module = (error.name or "").partition(".")[0]
    return _without(module, _extra_of(module, error))


def absent(module: str) -> MissingExtraError | None:
    """What to tell a person when `module` is not installed; `None` when it is. Imports nothing."""
    try:
        found = importlib.util.find_spec(module)
    except (ValueError, ModuleNotFoundError):  # somebody forbade the module to be imported
        found = None
    return _without(module, _EXTRA_OF.get(module)) if found is None else None


def _extra_of(module: str, error: ModuleNotFoundError) -> str | None:
    """The extra of the role that asked for `module`, where several roles need it."""
    frames = traceback.walk_tb(error.__traceback__)
    folders = {str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame, _line in frames}
    for folder in folders:
        if (folder, module) in _EXTRA_OF_FOLDER:
            return _EXTRA_OF_FOLDER[folder, module]
    return _EXTRA_OF.get(module)


def _without(module: str, extra: str | None) -> MissingExtraError:
    return MissingExtraError(
        f"this needs the module {module!r}, which is not installed",
        remedy=f"install it with: pip install 'nhip[{extra}]'" if extra else "install it with pip",
    )
