"""Records wait here, on disk, until the collector says it has them.

One SQLite file in WAL mode with ``synchronous=FULL``: an appended record survives a power cut. Each record
gets the next number of this run's epoch; the collector remembers the highest number it has of each epoch,
which is what makes a repeated delivery harmless. Every start begins a new epoch, so that a file restored
from a backup can never give a number twice. When the spool is full the oldest records go first and are
counted: news of the network now is worth more than news of last week, and the gap stays visible.

A record lies there packed (:mod:`probes.packing`). One that the collector refuses for good, or that the disk
damaged, is put aside in a table of its own with the reason, so that it blocks nothing behind it.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nhip.clock import Clock
from nhip.errors import StoreError, WireError
from nhip.wire import Record, encode_record
from probes.packing import pack, unpack

log = logging.getLogger("nhip.probe")

_FILE_MODE, _FOLDER_MODE = 0o600, 0o700
# Kept for a person to look at; the newest stay.
MOST_REFUSED = 1_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
    sequence INTEGER PRIMARY KEY,
    made_wall_ns INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS meta (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    epoch TEXT NOT NULL,
    last_sequence INTEGER NOT NULL,
    octets INTEGER NOT NULL,
    dropped INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS refused (
    number INTEGER PRIMARY KEY,
    refused_wall_ns INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    reason TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Spooled:
    """The oldest records, ready to be delivered, and the number of the last of them."""

    through: int
    bodies: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolState:
    """How full the spool is."""

    records: int
    octets: int
    """As they lie on the disk, packed."""
    oldest_age_seconds: float | None
    dropped_total: int
    refused_total: int
    """Records ever put aside because the collector refused them or the disk damaged them."""


class Spool:
    """A bounded queue of records on disk. One thread at a time."""

    def __init__(self, path: Path, maximum_octets: int, clock: Clock) -> None:
        self._path = path
        self._maximum_octets = maximum_octets
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self.quarantined: Path | None = None
        """Where a damaged spool file was put aside at start, if one was."""

    def start(self) -> None:
        """Open or make the file. A damaged one is renamed, never deleted, and a new epoch begins."""
        try:
            self._path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            try:
                self._connection = self._open()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
                    raise
                self.quarantined = self._put_aside()
                self._connection = self._open()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"the spool {self._path} cannot be opened: {error}",
                remedy="give spool.path a folder this user may write to, on a local disk",
            ) from error

    def close(self) -> None:
        """Close the file; what is in it stays."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def append(self, record: Record) -> Record:
        """Keep `record`; on return it is on the disk. Gives it back with its epoch and number.

        On a full disk the oldest half of what waits makes room, which is counted. StoreError when the disk
        refuses even then, or for any other reason; nothing is dropped for those.
        """
        return self.append_all([record])[0]

    def append_all(self, records: Sequence[Record]) -> list[Record]:
        """Keep `records` with one write to the disk, as :meth:`append` does one: all of them or none."""
        connection = self._require()
        try:
            with connection:
                return self._append(connection, records)
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            if not full or not self._drop_oldest_half(connection):
                raise self._refusal(error) from error
        try:
            with connection:
                return self._append(connection, records)
        except sqlite3.Error as error:
            raise self._refusal(error) from error

    def oldest(self, maximum_records: int, maximum_octets: int) -> Spooled | None:
        """The oldest records within both limits, at least one, or `None` when nothing waits."""
        connection = self._require()
        while True:
            through, octets = 0, 0
            bodies: list[bytes] = []
            damaged: tuple[int, str] | None = None
            with self._explained():
                rows = connection.execute(
                    "SELECT sequence, body FROM record ORDER BY sequence LIMIT ?", (maximum_records,)
                )
                for sequence, packed in rows:
                    try:
                        body = unpack(packed)
                    except WireError as error:
                        damaged = (sequence, str(error))
                        break
                    octets += len(body)
                    if bodies and octets > maximum_octets:
                        break
                    through = sequence
                    bodies.append(body)
                rows.close()
            if bodies:
                return Spooled(through, tuple(bodies))
            if damaged is None:
                return None
            log.error("record %d put aside: %s", *damaged)
            self.refuse(*damaged)

    def remove_through(self, sequence: int) -> None:
        """Forget the records up to `sequence`, which the collector has."""
        connection = self._require()
        with self._explained(), connection:
            connection.execute(
                "UPDATE meta SET octets = octets - "
                "(SELECT coalesce(sum(length(body)), 0) FROM record WHERE sequence <= ?)",
                (sequence,),
            )
            connection.execute("DELETE FROM record WHERE sequence <= ?", (sequence,))

    def refuse(self, sequence: int, reason: str) -> None:
        """Put the record `sequence` aside with the reason; it is offered no more and stays on the disk."""
        connection = self._require()
        with self._explained(), connection:
            connection.execute(
                "INSERT INTO refused (refused_wall_ns, sequence, reason, body) "
                "SELECT ?, sequence, ?, body FROM record WHERE sequence = ?",
                (self._clock.wall_ns(), reason, sequence),
            )
            connection.execute(
                "DELETE FROM refused WHERE number <= (SELECT max(number) FROM refused) - ?", (MOST_REFUSED,)
            )
            connection.execute(
                "UPDATE meta SET octets = octets - "
                "(SELECT coalesce(sum(length(body)), 0) FROM record WHERE sequence = ?)",
                (sequence,),
            )
            connection.execute("DELETE FROM record WHERE sequence = ?", (sequence,))

    def state(self) -> SpoolState:
        """How many records wait, how old the oldest is, and how many were ever dropped or put aside."""
        connection = self._require()
        with self._explained():
            count, oldest = connection.execute("SELECT count(*), min(made_wall_ns) FROM record").fetchone()
            octets, dropped = connection.execute("SELECT octets, dropped FROM meta").fetchone()
            # Only the oldest ever leave that table, so its last number is how many there were.
            refused = connection.execute("SELECT coalesce(max(number), 0) FROM refused").fetchone()[0]
        age = None if oldest is None else max(0.0, (self._clock.wall_ns() - oldest) / 1e9)
        return SpoolState(
            records=count,
            octets=octets,
            oldest_age_seconds=age,
            dropped_total=dropped,
            refused_total=refused,
        )

    def _append(self, connection: sqlite3.Connection, records: Sequence[Record]) -> list[Record]:
        epoch, last, octets, dropped = connection.execute(
            "SELECT epoch, last_sequence, octets, dropped FROM meta"
        ).fetchone()
        kept = []
        for sequence, record in enumerate(records, start=last + 1):
            numbered = msgspec.structs.replace(record, epoch=epoch, sequence=sequence)
            body = pack(encode_record(numbered))
            while octets + len(body) > self._maximum_octets:
                row = connection.execute(
                    "DELETE FROM record WHERE sequence = (SELECT min(sequence) FROM record) "
                    "RETURNING length(body)"
                ).fetchone()
                if row is None:
                    break
                octets, dropped = octets - row[0], dropped + 1
            connection.execute("INSERT INTO record VALUES (?, ?, ?)", (sequence, self._clock.wall_ns(), body))
            octets += len(body)
            kept.append(numbered)
        connection.execute(
            "UPDATE meta SET last_sequence = ?, octets = ?, dropped = ?", (last + len(kept), octets, dropped)
        )
        return kept

    def _drop_oldest_half(self, connection: sqlite3.Connection) -> bool:
        """Make room on a full disk; True when there was something to drop."""
        try:
            with connection:
                half = connection.execute("SELECT count(*) / 2 FROM record").fetchone()[0]
                if not half:
                    return False
                connection.execute(
                    "DELETE FROM record WHERE sequence IN "
                    "(SELECT sequence FROM record ORDER BY sequence LIMIT ?)",
                    (half,),
                )
                connection.execute(
                    "UPDATE meta SET dropped = dropped + ?, "
                    "octets = (SELECT coalesce(sum(length(body)), 0) FROM record)",
                    (half,),
                )
        except sqlite3.Error:
            return False
        return True

    def _put_aside(self) -> Path:
        """Rename a damaged file and its log, which may hold its newest records; gives the new name."""
        aside = self._path.with_name(f"{self._path.name}.damaged-{self._clock.wall_ns()}")
        # The log first: found beside a new file, it would be taken for that file's own.
        for suffix in ("-wal", ""):
            part = self._path.with_name(self._path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        self._path.with_name(self._path.name + "-shm").unlink(missing_ok=True)
        return aside

    def _open(self) -> sqlite3.Connection:
        # Made before SQLite would make it, for this user alone; its log and index take over the mode.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE))
        if self._path.stat().st_mode & 0o077:
            self._path.chmod(_FILE_MODE)
        connection = sqlite3.connect(self._path, timeout=10, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_SCHEMA)
            if connection.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("database disk image is malformed")
            with connection:
                connection.execute(
                    "INSERT INTO meta VALUES (1, ?, 0, 0, 0) "
                    "ON CONFLICT DO UPDATE SET epoch = excluded.epoch",
                    (secrets.token_hex(8),),
                )
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._refusal(error) from error

    def _refusal(self, error: sqlite3.Error) -> StoreError:
        return StoreError(
            f"the spool {self._path} does not work: {error}", remedy="check that disk and its free space"
        )

    def _require(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError("the spool is not open", remedy="call start first")
        return self._connection
