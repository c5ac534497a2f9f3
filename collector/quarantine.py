"""The quarantine as a person works with it: what lies there and why, and taking back what is good by now.

A record lands there because a list, a limit or a program was wrong, and that can be mended. What is taken
back is judged as every record is, by the configuration of now and the date it came; it is then stored exactly
once, also when the same record was stored in the meantime.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from collector.admission import refusal_of
from collector.collector_config import CollectorConfig
from collector.directory import sole_user_of
from collector.store.api import Aside, Entry, Fate, Store
from collector.store.registry import STORES
from nhip.errors import WireError
from nhip.wire import decode_record

_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """One record in quarantine."""

    probe_id: str
    reason: str
    """A word of :class:`collector.admission.Reason`."""
    detail: str
    received_wall_ns: int
    octets: int


@dataclass(frozen=True, slots=True)
class Readmission:
    """What became of the records in quarantine."""

    stored: int
    duplicate: int
    """Stored already, out of quarantine now."""
    left: int
    """Still refused, still in quarantine."""


def list_quarantine(config: CollectorConfig, probe_id: str | None = None) -> list[QuarantineRow]:
    """What lies in quarantine, of one probe or of all, oldest first; StoreError.

    Changes nothing and may run beside the collector.
    """
    if not Path(config.data_dir).exists():
        return []
    return [
        QuarantineRow(item.probe_id, item.reason, item.detail, item.received_wall_ns, len(item.body))
        for item in _store(config).quarantine()
        if probe_id in (None, item.probe_id)
    ]


def readmit(config: CollectorConfig, probe_id: str | None = None) -> Readmission:
    """Store what is good by now of one probe's quarantine, or of all; ConfigError, StoreError.

    The collector must not run meanwhile, which is a ConfigError: its pages and counts would not know.
    """
    with sole_user_of(Path(config.data_dir)):
        store = _store(config)
        try:
            store.start()
            return _readmit(config, store, probe_id)
        finally:
            store.close()


def _store(config: CollectorConfig) -> Store:
    return STORES.load(config.store.name)(Path(config.data_dir), config.store)


def _readmit(config: CollectorConfig, store: Store, probe_id: str | None) -> Readmission:
    stored = duplicate = 0
    good = _good(config, store, probe_id)
    while some := list(islice(good, _AT_ONCE)):
        fates = store.readmit(some)
        stored += fates.count(Fate.STORED)
        duplicate += fates.count(Fate.DUPLICATE)
    left = sum(probe_id in (None, item.probe_id) for item in store.quarantine())
    return Readmission(stored, duplicate, left)


def _good(config: CollectorConfig, store: Store, probe_id: str | None) -> Iterator[tuple[Aside, Entry]]:
    """The records in quarantine that would be taken in now, had they come when they came."""
    probes = {probe.id: probe for probe in config.probes}
    for item in store.quarantine():
        probe = probes.get(item.probe_id)
        if probe is None or probe_id not in (None, item.probe_id):
            continue
        try:
            record = decode_record(item.body)
        except WireError:
            continue
        if refusal_of(record, probe, config.limits, item.received_wall_ns) is None:
            yield item, Entry(record, item.body, item.received_wall_ns)
