"""The forecast models Nhịp knows by name; another distribution adds its own through ``nhip.models``."""

from __future__ import annotations

from collections.abc import Callable

from forecasting.api import Model
from nhip.registry import Registry

# Each entry is called without arguments and gives a model with its default settings.
MODELS: Registry[Callable[[], Model]] = Registry(
    "forecast model",
    {
        "ets": "forecasting.models.ets:Ets",
        "seasonal_naive": "forecasting.models.seasonal_naive:SeasonalNaive",
    },
    group="nhip.models",
)
