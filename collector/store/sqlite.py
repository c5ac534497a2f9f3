"""Records in one SQLite file: the journal of every collector, and by itself a whole store.

::

    record       one row for each record, in the order of arrival (`id` is never reused)
    cursor       (probe, epoch) → highest sequence stored, see :mod:`collector.store.cursors`
    archived_id  identifiers of records without a sequence that moved on to an archive
    aside        the quarantine
    seen         when each probe was last heard
    fact         small facts of whoever owns the file

One append is one transaction, and ``synchronous=FULL`` in WAL mode means that ``COMMIT`` returns after
the disk has it. Nothing here is cached between appends: after a rollback memory and disk cannot differ.
The tables are in :mod:`collector.store.schema`.
"""

from __future__ import annotations

import contextlib
import errno
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from uuid import UUID

from collector.directory import make_private, sync_directory
from collector.store.api import Aside, Entry, Fate, StoreCounts, StoreFullError, StoreSettings
from collector.store.aside import put_aside, take_back
from collector.store.cursors import Cursors
from collector.store.schema import migrate
from nhip.errors import StoreError
from nhip.wire import decode_record

FILE_NAME = "journal.sqlite"


class SqliteStore:
    """A store in ``directory/journal.sqlite``; see :class:`collector.store.api.Store`."""

    synchronous = "FULL"
    """NORMAL and OFF lose acknowledged records in a power cut; the tests prove it with a subclass."""

    def __init__(self, directory: Path, settings: StoreSettings) -> None:
        self.path = directory / FILE_NAME
        self._settings = settings
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._distrusted = False
        self._records = 0
        self._quarantined = 0
        self._evicted = 0

    def start(self) -> None:
        with self._lock:
            if self._connection is None:
                self._open()

    def append(self, entries: Sequence[Entry], aside: Sequence[Aside] = ()) -> list[Fate]:
        with self._lock, self._transaction() as connection:
            fates = _insert_entries(connection, entries, self._settings.remember_ids_days)
            added, evicted = put_aside(connection, aside, self._settings)
        # Only now is it on disk; a failed transaction has left these counts alone.
        self._records += fates.count(Fate.STORED)
        self._quarantined += added - evicted
        self._evicted += evicted
        return fates

    def records(
        self, start_wall_ns: int, end_wall_ns: int, *, probe_id: str | None = None, kind: str | None = None
    ) -> Iterator[Entry]:
        numbered = self.numbered(start_wall_ns, end_wall_ns, probe_id=probe_id, kind=kind)
        return (entry for _number, entry in numbered)

    def latest(self, since_wall_ns: int) -> list[Entry]:
        with contextlib.closing(self.reader()) as reader:
            # SQLite defines a bare column beside max() as that of the row that holds the maximum.
            rows = reader.execute(
                "SELECT body, received_wall_ns FROM record WHERE id IN"
                " (SELECT id FROM (SELECT id, max(started_wall_ns) FROM record"
                "  WHERE started_wall_ns >= ? GROUP BY probe_id, kind, target_id))"
                " ORDER BY started_wall_ns, record_id",
                (since_wall_ns,),
            )
            return [Entry(decode_record(body), body, received) for body, received in rows]

    def quarantine(self) -> Iterator[Aside]:
        with contextlib.closing(self.reader()) as reader:
            for probe_id, reason, detail, body, received_wall_ns in reader.execute(
                "SELECT probe_id, reason, detail, body, received_wall_ns FROM aside ORDER BY id"
            ):
                yield Aside(
                    probe_id=probe_id,
                    reason=reason,
                    detail=detail,
                    body=body,
                    received_wall_ns=received_wall_ns,
                )

    def counts(self) -> StoreCounts:
        return StoreCounts(
            records=self._records,
            journal_records=self._records,
            quarantined=self._quarantined,
            quarantine_evicted=self._evicted,
        )

    def readmit(
        self, found_good: Sequence[tuple[Aside, Entry]], *, archived: Collection[UUID] = ()
    ) -> list[Fate]:
        """As every store's; `archived` names those of these records that an archive behind this has."""
        fates, left = [], 0
        with self._lock, self._transaction() as connection:
            cursors = Cursors(connection)
            for item, entry in found_good:
                was_there = take_back(connection, item)
                left += was_there
                known = not was_there or entry.record.record_id in archived
                fates.append(Fate.DUPLICATE if known else _insert(connection, entry))
                if entry.record.sequence:
                    # The probe has its acknowledgement, so nothing below this sequence is still to come.
                    cursors.raise_to(entry)
            cursors.write(self._settings.remember_ids_days)
        self._records += fates.count(Fate.STORED)
        self._quarantined -= left
        return fates

    def remember_seen(self, wall_ns: Mapping[str, int]) -> None:
        with self._lock, self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?)", wall_ns.items())

    def last_seen(self) -> dict[str, int]:
        with contextlib.closing(self.reader()) as reader:
            return dict(reader.execute("SELECT probe_id, wall_ns FROM seen").fetchall())

    def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    # What an archive behind this journal needs.

    def reader(self) -> sqlite3.Connection:
        """A connection of the caller's own that can only read; the caller closes it."""
        try:
            connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=ro",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise _store_error(self.path, error) from error
        connection.execute("PRAGMA busy_timeout = 10000")
        return connection

    def numbered(
        self, start_wall_ns: int, end_wall_ns: int, *, probe_id: str | None = None, kind: str | None = None
    ) -> Iterator[tuple[int, Entry]]:
        """As ``records``, each with its number in the order of arrival."""
        reader = self.reader()
        # The first step of the query is taken here and now: what the caller sees is the moment of the call.
        rows = reader.execute(
            "SELECT id, body, received_wall_ns FROM record"
            " WHERE started_wall_ns >= ? AND started_wall_ns < ?"
            " AND (? IS NULL OR probe_id = ?) AND (? IS NULL OR kind = ?)"
            " ORDER BY started_wall_ns, record_id",
            (start_wall_ns, end_wall_ns, probe_id, probe_id, kind, kind),
        )
        return _read_entries(reader, rows)

    def oldest(self, limit: int) -> Iterator[tuple[int, Entry]]:
        """Up to `limit` records in the order of arrival, each with its number in it."""
        reader = self.reader()
        rows = reader.execute("SELECT id, body, received_wall_ns FROM record ORDER BY id LIMIT ?", (limit,))
        return _read_entries(reader, rows)

    def count_up_to(self, number: int) -> int:
        """How many records have a number up to `number`."""
        with contextlib.closing(self.reader()) as reader:
            return int(reader.execute("SELECT count(*) FROM record WHERE id <= ?", (number,)).fetchone()[0])

    def remember(self, facts: Mapping[str, int]) -> None:
        """Write facts durably."""
        with self._lock, self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO fact VALUES (?, ?)", facts.items())

    def release(self, up_to_id: int, facts: Mapping[str, int], forget_before_wall_ns: int) -> int:
        """Delete the records up to `up_to_id`, which the archive has on disk; how many those were.

        In the same transaction the identifiers no cursor covers are kept, those of records started before
        `forget_before_wall_ns` are dropped, and `facts` are written.
        """
        with self._lock, self._transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO archived_id SELECT record_id, started_wall_ns FROM record"
                " WHERE id <= ? AND sequence = 0",
                (up_to_id,),
            )
            deleted = connection.execute("DELETE FROM record WHERE id <= ?", (up_to_id,)).rowcount
            connection.execute("DELETE FROM archived_id WHERE started_wall_ns < ?", (forget_before_wall_ns,))
            connection.executemany("INSERT OR REPLACE INTO fact VALUES (?, ?)", facts.items())
        self._records -= deleted
        return deleted

    def fact(self, name: str) -> int | None:
        """A fact written by ``remember`` or ``release``; None when there is none."""
        with contextlib.closing(self.reader()) as reader:
            row = reader.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
            return None if row is None else int(row[0])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction that is on disk when the block has ended, or never was."""
        if self._distrusted:
            self._reopen()
        connection = self._connection
        if connection is None:
            raise StoreError(f"{self.path}: is not open", remedy="call start() first")
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._rollback(connection)
            # After a failed fsync the kernel may count pages as clean that never reached the disk, so this
            # file is opened anew, and its log copied over and synced, before it is believed again.
            self._distrusted = _primary_code(error) == sqlite3.SQLITE_IOERR
            raise _store_error(self.path, error) from error
        except BaseException:
            self._rollback(connection)
            raise

    def _rollback(self, connection: sqlite3.Connection) -> None:
        # A full disk makes SQLite roll back by itself; a second ROLLBACK would raise and hide the cause.
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error:
                self._distrusted = True

    def _reopen(self) -> None:
        self.close()
        self._open()
        assert self._connection is not None  # noqa: S101 - _open either sets it or raises
        busy, *_ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StoreError(
                f"{self.path}: is being read while it has to be mended", remedy="send again later"
            )
        self._distrusted = False

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            make_private(self.path)
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise _store_error(self.path, error) from error
        try:
            connection.execute("PRAGMA busy_timeout = 10000")
            connection.execute(f"PRAGMA synchronous = {self.synchronous}")
            migrate(connection, self.path)
            connection.execute("PRAGMA journal_mode = WAL")
            # A checkpoint costs two more syncs inside some commit: seldom, at 40 MB, rather than at 4.
            connection.execute("PRAGMA wal_autocheckpoint = 10000")
            connection.execute("PRAGMA journal_size_limit = 67108864")
            (self._records,) = connection.execute("SELECT count(*) FROM record").fetchone()
            (self._quarantined,) = connection.execute("SELECT count(*) FROM aside").fetchone()
            if self.synchronous == "FULL":
                sync_directory(self.path.parent)
        except (OSError, sqlite3.Error) as error:
            connection.close()
            raise _store_error(self.path, error) from error
        except BaseException:
            connection.close()
            raise
        self._connection = connection


def _insert_entries(
    connection: sqlite3.Connection, entries: Sequence[Entry], remember_days: float
) -> list[Fate]:
    """Insert what is new, move the cursors, and say for each entry which it was."""
    fates = [Fate.DUPLICATE] * len(entries)
    cursors = Cursors(connection)
    # Ascending sequence, so that a batch in disorder is not taken for a repetition of itself.
    for position in sorted(range(len(entries)), key=lambda position: entries[position].record.sequence):
        entry = entries[position]
        if entry.record.sequence:
            if entry.record.sequence <= cursors.top(entry):
                continue
            cursors.raise_to(entry)
        fates[position] = _insert(connection, entry)
    cursors.write(remember_days)
    return fates


def _insert(connection: sqlite3.Connection, entry: Entry) -> Fate:
    """Insert one record unless its identifier is known."""
    record = entry.record
    identifier = record.record_id.bytes
    if (
        not record.sequence
        and connection.execute("SELECT 1 FROM archived_id WHERE record_id = ?", (identifier,)).fetchone()
    ):
        return Fate.DUPLICATE
    inserted = connection.execute(
        "INSERT INTO record (record_id, probe_id, kind, target_id, started_wall_ns, received_wall_ns,"
        " sequence, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (record_id) DO NOTHING",
        (
            identifier,
            record.probe_id,
            record.kind,
            record.target.id,
            record.started_wall_ns,
            entry.received_wall_ns,
            record.sequence,
            entry.body,
        ),
    ).rowcount
    return Fate.STORED if inserted else Fate.DUPLICATE


def _read_entries(reader: sqlite3.Connection, rows: sqlite3.Cursor) -> Iterator[tuple[int, Entry]]:
    with contextlib.closing(reader):
        for number, body, received_wall_ns in rows:
            yield number, Entry(decode_record(body), body, received_wall_ns)


def _primary_code(error: BaseException) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _store_error(path: Path, error: Exception) -> StoreError:
    full = isinstance(error, OSError) and error.errno in _NO_ROOM
    if full or _primary_code(error) == sqlite3.SQLITE_FULL:
        return StoreFullError(f"{path}: the disk is full", remedy="free space on it; collecting then goes on")
    return StoreError(f"{path}: {error}", remedy="look at the disk; nothing of this delivery was kept")


_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
