"""The journal's tables, and how a database of an older program becomes one of this.

The schema has a number (``user_version``). A change is one more script in :data:`MIGRATIONS`, run in one
transaction together with the new number, so that a crash leaves the old form or the new, never half of one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from nhip.errors import StoreError

APPLICATION_ID = 0x6E686970  # "nhip", so that `file` and we can tell whose database this is

MIGRATIONS = (
    """
    CREATE TABLE record (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        record_id BLOB NOT NULL UNIQUE,
        probe_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        target_id TEXT NOT NULL,
        started_wall_ns INTEGER NOT NULL,
        received_wall_ns INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        body BLOB NOT NULL
    ) STRICT;
    CREATE INDEX record_by_start ON record (started_wall_ns, record_id);
    CREATE TABLE cursor (
        probe_id TEXT NOT NULL,
        epoch TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        PRIMARY KEY (probe_id, epoch)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE archived_id (
        record_id BLOB NOT NULL PRIMARY KEY,
        started_wall_ns INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE aside (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        probe_id TEXT NOT NULL,
        reason TEXT NOT NULL,
        detail TEXT NOT NULL,
        body BLOB NOT NULL,
        body_sha256 BLOB NOT NULL,
        received_wall_ns INTEGER NOT NULL,
        UNIQUE (probe_id, body_sha256)
    ) STRICT;
    CREATE TABLE fact (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    """,
    # An epoch of before counts as used at the moment of the change: forgotten early it could double a record.
    """
    ALTER TABLE cursor ADD COLUMN last_received_wall_ns INTEGER NOT NULL DEFAULT 0;
    UPDATE cursor SET last_received_wall_ns = CAST(strftime('%s', 'now') AS INTEGER) * 1000000000;
    ALTER TABLE aside ADD COLUMN octets INTEGER NOT NULL DEFAULT 0;
    UPDATE aside SET octets = length(body);
    CREATE INDEX aside_of_probe ON aside (probe_id, id, octets);
    CREATE TABLE seen (probe_id TEXT NOT NULL PRIMARY KEY, wall_ns INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO seen SELECT probe_id, max(received_wall_ns) FROM record GROUP BY probe_id;
    """,
)


def migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring the database at `path` to the newest schema; StoreError when it is newer or somebody else's."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    if version and owner != APPLICATION_ID:
        raise StoreError(
            f"{path}: is a database of another program", remedy="give the collector its own data_dir"
        )
    if version > len(migrations):
        raise StoreError(
            f"{path}: has schema {version}, this program knows {len(migrations)}",
            remedy="run the newer version that wrote it",
        )
    for number, script in enumerate(migrations[version:], start=version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE; {script}"
            f" PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number}; COMMIT;"
        )
