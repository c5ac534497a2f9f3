"""The list of stores; another distribution adds its own through the group ``nhip.stores``."""

from __future__ import annotations

from collector.store.api import StoreFactory
from nhip.registry import Registry

STORES: Registry[StoreFactory] = Registry(
    "store",
    {
        "sqlite": "collector.store.sqlite:SqliteStore",
        "delta": "collector.store.delta:DeltaStore",
    },
    group="nhip.stores",
)
