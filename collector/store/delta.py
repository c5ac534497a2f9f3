"""Journal and archive: SQLite takes every record at once, a Delta Lake table keeps it for years.

::

    append ──> journal.sqlite ──flush, every few minutes──> archive/ (Delta) ──> delete from the journal
                    │                                           │
                    └────────────── records(), latest() ────────┘    the union, nothing twice

A flush is one Delta commit that carries the journal's highest row number as its transaction version. Version
and rows become visible together, so at any moment "up to this number" is in the archive and the rest is in
the journal: a crash between commit and delete cannot double a record, a reader in between cannot either.
The commit is synced to disk (delta-rs does not do that) before the journal lets go of the rows.

The transaction's name holds the journal's own random number: a journal that starts anew, its numbers at 1
again, does not take its rows for archived ones.
"""

from __future__ import annotations

import heapq
import logging
import os
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import UUID

from collector.store import delta_log
from collector.store.api import Aside, Entry, Fate, StoreCounts, StoreSettings
from collector.store.sqlite import SqliteStore
from nhip.errors import StoreError
from nhip.wire import decode_record

log = logging.getLogger("nhip.collector.store.delta")

ARCHIVE, BROKEN = "archive", "archive-broken"
_FOR_EVER_NS = 2**63 - 1
_SYNCED, _JOURNAL = "archive_synced_version", "journal_number"


class DeltaStore:
    """A store in a directory's ``journal.sqlite`` and ``archive``; see :class:`collector.store.api.Store`."""

    syncs = True
    """Off only in the test that shows what a power cut then takes."""

    def __init__(self, directory: Path, settings: StoreSettings) -> None:
        self.path = directory / ARCHIVE
        self.journal = SqliteStore(directory, settings)
        self.archive_failures = 0
        self._broken = directory / BROKEN
        self._settings = settings
        self._flushing = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._flusher: threading.Thread | None = None
        self._process: int | None = None
        self._app = ""
        self._archived = 0
        """Rows of the archive that are not in the journal as well."""
        self._checkpointed = 0

    def start(self) -> None:
        self.journal.start()
        self._process = os.getpid()
        self._open_archive()
        self._stopping.clear()
        self._flusher = threading.Thread(target=self._flush_for_ever, name="nhip-archive", daemon=True)
        self._flusher.start()

    def append(self, entries: Sequence[Entry], aside: Sequence[Aside] = ()) -> list[Fate]:
        fates = self.journal.append(entries, aside)
        if self.journal.counts().records >= self._settings.flush_records:
            self._wake.set()
        return fates

    def records(
        self, start_wall_ns: int, end_wall_ns: int, *, probe_id: str | None = None, kind: str | None = None
    ) -> Iterator[Entry]:
        # Journal first: what leaves it after this moment is in the archive that is opened next.
        waiting = self.journal.numbered(start_wall_ns, end_wall_ns, probe_id=probe_id, kind=kind)
        table = self._table()
        archived_up_to = self._archived_up_to(table)
        archived = _query(
            self._files(table, start_wall_ns, end_wall_ns),
            "SELECT body, received_wall_ns FROM archive"
            " WHERE started_wall_ns >= $start AND started_wall_ns < $end"
            " AND ($probe IS NULL OR probe_id = $probe) AND ($kind IS NULL OR kind = $kind)"
            " ORDER BY started_wall_ns, record_id",
            {"start": start_wall_ns, "end": end_wall_ns, "probe": probe_id, "kind": kind},
        )
        fresh = (entry for number, entry in waiting if number > archived_up_to)
        return heapq.merge(fresh, archived, key=_place)

    def latest(self, since_wall_ns: int) -> list[Entry]:
        waiting = self.journal.latest(since_wall_ns)
        archived = _query(
            self._files(self._table(), since_wall_ns, _FOR_EVER_NS),
            "SELECT body, received_wall_ns FROM archive WHERE started_wall_ns >= $since"
            " QUALIFY row_number() OVER"
            " (PARTITION BY probe_id, kind, target_id ORDER BY started_wall_ns DESC, record_id DESC) = 1",
            {"since": since_wall_ns},
        )
        last: dict[tuple[str, str, str], Entry] = {}
        for entry in sorted((*waiting, *archived), key=_place):
            last[entry.record.probe_id, entry.record.kind, entry.record.target.id] = entry
        return sorted(last.values(), key=_place)

    def quarantine(self) -> Iterator[Aside]:
        return self.journal.quarantine()

    def counts(self) -> StoreCounts:
        waiting = self.journal.counts()
        return StoreCounts(
            records=self._archived + waiting.records,
            journal_records=waiting.records,
            quarantined=waiting.quarantined,
            archive_failures=self.archive_failures,
            quarantine_evicted=waiting.quarantine_evicted,
        )

    def readmit(self, found_good: Sequence[tuple[Aside, Entry]]) -> list[Fate]:
        with self._flushing:  # between the look into the archive and the journal's commit nothing moves
            return self.journal.readmit(found_good, archived=self._archived_among(found_good))

    def remember_seen(self, wall_ns: Mapping[str, int]) -> None:
        self.journal.remember_seen(wall_ns)

    def last_seen(self) -> dict[str, int]:
        return self.journal.last_seen()

    def close(self) -> None:
        self._stopping.set()
        self._wake.set()
        flusher, self._flusher = self._flusher, None
        if flusher is not None:
            flusher.join()
        self.journal.close()

    def flush(self) -> int:
        """Move the oldest records, up to ``flush_records``, to the archive; how many left the journal."""
        with self._flushing:
            table = self._table()
            archived_up_to = self._archived_up_to(table)
            columns, last_number = _columns(self.journal.oldest(self._settings.flush_records), archived_up_to)
            if last_number > archived_up_to:
                self._commit(table, columns, last_number)
            newest_wall_ns = max(columns["received_wall_ns"], default=0)
            return self._release(max(last_number, archived_up_to), newest_wall_ns)

    def _archived_among(self, found_good: Sequence[tuple[Aside, Entry]]) -> set[UUID]:
        started_wall_ns = [entry.record.started_wall_ns for _item, entry in found_good]
        if not started_wall_ns:
            return set()
        known = _query(
            self._files(self._table(), min(started_wall_ns), max(started_wall_ns) + 1),
            "SELECT body, received_wall_ns FROM archive WHERE list_contains($ids, record_id)",
            {"ids": [str(entry.record.record_id) for _item, entry in found_good]},
        )
        return {entry.record.record_id for entry in known}

    def _commit(self, table: Any, columns: dict[str, list[Any]], last_number: int) -> None:
        import pyarrow as arrow
        from deltalake import CommitProperties, Transaction, WriterProperties, write_deltalake

        write_deltalake(
            table,
            arrow.table(columns, schema=_schema()),
            mode="append",
            writer_properties=WriterProperties(compression="ZSTD", compression_level=3),
            commit_properties=CommitProperties(app_transactions=[Transaction(self._app, last_number)]),
            post_commithook_properties=_no_hooks(),
        )

    def _release(self, up_to_number: int, now_wall_ns: int) -> int:
        """Put the archive on disk, then delete from the journal what it holds."""
        version = delta_log.last_commit(self.path)
        assert version is not None  # noqa: S101 - start() created the table
        synced = self.journal.fact(_SYNCED)
        if self.syncs:
            delta_log.sync_commits(self.path, 0 if synced is None else synced + 1, version)
        remembered_ns = round(self._settings.remember_ids_days * 86_400e9)
        released = self.journal.release(up_to_number, {_SYNCED: version}, now_wall_ns - remembered_ns)
        self._archived += released
        if version - self._checkpointed >= self._settings.checkpoint_commits:
            self._table().create_checkpoint()
            if self.syncs:
                delta_log.sync_checkpoint(self.path, version)
            self._checkpointed = version
        return released

    def _open_archive(self) -> None:
        number = self.journal.fact(_JOURNAL)
        if number is None:
            number = secrets.randbits(63)
            self.journal.remember({_JOURNAL: number})
        self._app = f"collector-{self._settings.collector_id}-{number:016x}"
        for what in delta_log.mend(self.path, self.journal.fact(_SYNCED), self._broken):
            log.warning("archive mended: %s", what, extra={"moved_to": str(self._broken)})
        try:
            if delta_log.last_commit(self.path) is None:
                self._create()
            table = self._table()
            self._checkpointed = delta_log.last_checkpoint(self.path) or 0
            # A crash between commit and delete leaves rows in both; the next flush mends that.
            # Not now: a collector that starts on a full disk must still answer.
            in_both = self.journal.count_up_to(self._archived_up_to(table))
            self._archived = table.count() - in_both
        except Exception as error:
            raise StoreError(
                f"{self.path}: cannot be opened: {error}", remedy="restore it from a backup, or move it away"
            ) from error

    def _create(self) -> None:
        from deltalake import DeltaTable

        self.path.mkdir(mode=0o700, exist_ok=True)
        DeltaTable.create(
            str(self.path),
            _schema(),
            name="nhip",
            description="Records of Nhịp probes, one row each",
            # Also for whoever else writes here: no checkpoint that is not synced, no log entry removed.
            configuration={
                "delta.checkpointInterval": "1000000000",
                "delta.enableExpiredLogCleanup": "false",
            },
            post_commithook_properties=_no_hooks(),
        )

    def _table(self) -> Any:
        if os.getpid() != self._process:
            raise StoreError(
                "the archive was opened by another process",
                remedy="deltalake cannot be used after a fork; start the process with spawn",
            )
        from deltalake import DeltaTable

        return DeltaTable(str(self.path))

    def _archived_up_to(self, table: Any) -> int:
        return table.transaction_version(self._app) or 0

    def _files(self, table: Any, start_wall_ns: int, end_wall_ns: int) -> list[str]:
        """The table's files that can hold records started in [start, end), by the log's own statistics."""
        import pyarrow as arrow

        actions = arrow.table(table.get_add_actions(flatten=True)).to_pydict()
        nothing = [None] * len(actions["path"])
        lowest = actions.get("min.started_wall_ns", nothing)
        highest = actions.get("max.started_wall_ns", nothing)
        return [
            str(self.path / unquote(path))
            for path, low, high in zip(actions["path"], lowest, highest, strict=True)
            if (low is None or low < end_wall_ns) and (high is None or high >= start_wall_ns)
        ]

    def _flush_for_ever(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(self._settings.flush_interval_seconds)
            self._wake.clear()
            if self._stopping.is_set():
                return
            try:
                while self.flush() >= self._settings.flush_records and not self._stopping.is_set():
                    pass
            except BaseException as error:  # A full disk makes deltalake panic, which is no Exception.
                self.archive_failures += 1
                log.error("archive not written, will try again: %s", error)


def _place(entry: Entry) -> tuple[int, bytes]:
    return entry.record.started_wall_ns, entry.record.record_id.bytes


def _schema() -> Any:
    import pyarrow as arrow

    text, number = arrow.string(), arrow.int64()
    return arrow.schema(
        [
            arrow.field(name, kind, nullable=False)
            for name, kind in (
                ("record_id", text),
                ("probe_id", text),
                ("operator", text),
                ("province", text),
                ("technology", text),
                ("kind", text),
                ("target_id", text),
                ("target_class", text),
                ("outcome", text),
                ("started_wall_ns", number),
                ("received_wall_ns", number),
                ("body", text),
            )
        ]
    )


def _columns(numbered: Iterable[tuple[int, Entry]], archived_up_to: int) -> tuple[dict[str, list[Any]], int]:
    """The archive's columns of the rows it does not have yet, and the highest number among them."""
    columns: dict[str, list[Any]] = {name: [] for name in _schema().names}
    last_number = 0
    for number, entry in numbered:
        if number <= archived_up_to:
            continue
        last_number = number
        record = entry.record
        for name, value in (
            ("record_id", str(record.record_id)),
            ("probe_id", record.probe_id),
            ("operator", record.access.operator),
            ("province", record.access.province),
            ("technology", record.access.technology.value),
            ("kind", record.kind),
            ("target_id", record.target.id),
            ("target_class", record.target.target_class.value),
            ("outcome", record.outcome.value),
            ("started_wall_ns", record.started_wall_ns),
            ("received_wall_ns", entry.received_wall_ns),
            ("body", entry.body.decode()),
        ):
            columns[name].append(value)
    return columns, last_number


def _no_hooks() -> Any:
    from deltalake import PostCommitHookProperties

    return PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


def _query(files: list[str], sql: str, parameters: dict[str, Any]) -> Iterator[Entry]:
    """Entries that `sql` selects from ``archive``, the rows of `files`."""
    if not files:
        return iter(())
    import duckdb

    connection = duckdb.connect(
        config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    )
    result = connection.execute(
        f"WITH archive AS (SELECT * FROM read_parquet($files)) {sql}",  # noqa: S608 - constants of this file
        {"files": files, **parameters},
    )
    return _entries(connection, result)


def _entries(connection: Any, result: Any) -> Iterator[Entry]:
    try:
        while rows := result.fetchmany(1000):
            for body, received_wall_ns in rows:
                raw = body.encode()
                yield Entry(decode_record(raw), raw, received_wall_ns)
    finally:
        connection.close()
