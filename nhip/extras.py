"""Which extra brings which module: so that a missing one is an answer and not a traceback."""

from __future__ import annotations

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
    module = (error.name or "").partition(".")[0]
    extra = _EXTRA_OF.get(module)
    return MissingExtraError(
        f"this needs the module {module!r}, which is not installed",
        remedy=f"install it with: pip install 'nhip[{extra}]'" if extra else "install it with pip",
    )
