"""Records wait here, on disk, until the collector says it has them.

One SQLite file in WAL mode with ``synchronous=FULL``: an appended record survives a power cut. Each record
gets the next number of this run's epoch; the collector remembers the highest number it has of each epoch,
which is what makes a repeated delivery harmless. Every start begins a new epoch, so that a file restored
from a backup can never give a number twice. When the spool is full the oldest records go first and are
counted: news of the network now is worth more than news of last week, and the gap stays visible.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nhip.clock import Clock
from nhip.errors import StoreError
from nhip.wire import Record, encode_record

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
    oldest_age_seconds: float | None
    dropped_total: int


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
            self._path.parent.mkdir(parents=True, exist_ok=True)
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
        connection = self._require()
        try:
            with connection:
                return self._append(connection, record)
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            if not full or not self._drop_oldest_half(connection):
                raise self._refusal(error) from error
        try:
            with connection:
                return self._append(connection, record)
        except sqlite3.Error as error:
            raise self._refusal(error) from error

    def oldest(self, maximum_records: int, maximum_octets: int) -> Spooled | None:
        """The oldest records within both limits, at least one, or `None` when nothing waits."""
        through, octets = 0, 0
        bodies: list[bytes] = []
        with self._explained():
            rows = self._require().execute(
                "SELECT sequence, body FROM record ORDER BY sequence LIMIT ?", (maximum_records,)
            )
            for sequence, body in rows:
                octets += len(body)
                if bodies and octets > maximum_octets:
                    break
                through = sequence
                bodies.append(body)
            rows.close()
        return Spooled(through, tuple(bodies)) if bodies else None

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

    def state(self) -> SpoolState:
        """How many records wait, how old the oldest is, and how many were ever dropped."""
        connection = self._require()
        with self._explained():
            count, oldest = connection.execute("SELECT count(*), min(made_wall_ns) FROM record").fetchone()
            octets, dropped = connection.execute("SELECT octets, dropped FROM meta").fetchone()
        age = None if oldest is None else max(0.0, (self._clock.wall_ns() - oldest) / 1e9)
        return SpoolState(records=count, octets=octets, oldest_age_seconds=age, dropped_total=dropped)

    def _append(self, connection: sqlite3.Connection, record: Record) -> Record:
        epoch, last, octets, dropped = connection.execute(
            "SELECT epoch, last_sequence, octets, dropped FROM meta"
        ).fetchone()
        numbered = msgspec.structs.replace(record, epoch=epoch, sequence=last + 1)
        body = encode_record(numbered)
        while octets + len(body) > self._maximum_octets:
            row = connection.execute(
                "DELETE FROM record WHERE sequence = (SELECT min(sequence) FROM record) "
                "RETURNING length(body)"
            ).fetchone()
            if row is None:
                break
            octets, dropped = octets - row[0], dropped + 1
        connection.execute("INSERT INTO record VALUES (?, ?, ?)", (last + 1, self._clock.wall_ns(), body))
        connection.execute(
            "UPDATE meta SET last_sequence = ?, octets = ?, dropped = ?",
            (last + 1, octets + len(body), dropped),
        )
        return numbered

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
