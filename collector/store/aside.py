"""The quarantine's table: the same bytes once, and of each probe no more than there is room for."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence

from collector.store.api import Aside, StoreSettings


def put_aside(
    connection: sqlite3.Connection, aside: Sequence[Aside], settings: StoreSettings
) -> tuple[int, int]:
    """Put records in quarantine; how many are new in it, and how many left it because it was full."""
    added = 0
    for item in aside:
        added += connection.execute(
            "INSERT INTO aside (probe_id, reason, detail, body, body_sha256, octets, received_wall_ns)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (probe_id, body_sha256) DO NOTHING",
            (
                item.probe_id,
                item.reason,
                item.detail,
                item.body,
                _sha256(item),
                len(item.body),
                item.received_wall_ns,
            ),
        ).rowcount
    evicted = 0
    for probe_id in {item.probe_id for item in aside}:
        evicted += connection.execute(
            "DELETE FROM aside WHERE id IN (SELECT id FROM"
            " (SELECT id, row_number() OVER newest AS place, sum(octets) OVER newest AS octets_so_far"
            "  FROM aside WHERE probe_id = ? WINDOW newest AS (ORDER BY id DESC))"
            " WHERE place > ? OR octets_so_far > ?)",
            (probe_id, settings.quarantine_records_per_probe, settings.quarantine_octets_per_probe),
        ).rowcount
    return added, evicted


def take_back(connection: sqlite3.Connection, item: Aside) -> bool:
    """Take a record out of quarantine; whether it was still there."""
    deleted = connection.execute(
        "DELETE FROM aside WHERE probe_id = ? AND body_sha256 = ?", (item.probe_id, _sha256(item))
    ).rowcount
    return deleted > 0


def _sha256(item: Aside) -> bytes:
    return hashlib.sha256(item.body).digest()
