"""What is particular to the journal: its schema's number, its owner, and an fsync that fails."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from collector.store import sqlite
from collector.store.api import Entry, Fate, StoreSettings
from collector.store.schema import MIGRATIONS, migrate
from collector.store.sqlite import SqliteStore
from nhip.errors import StoreError
from nhip.wire import encode_record
from tests.lab.collector_process import ROOT
from tests.lab.records import record


def opened(directory: Path) -> SqliteStore:
    store = SqliteStore(directory, StoreSettings())
    store.start()
    return store


def spooled(first: int, count: int) -> list[Entry]:
    made = [record(epoch="e1", sequence=number) for number in range(first, first + count)]
    return [Entry(one, encode_record(one), 0) for one in made]


def test_commits_are_synced_and_the_journal_is_a_write_ahead_log(tmp_path: Path) -> None:
    store = opened(tmp_path)
    connection = store._connection
    assert connection is not None
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.close()


def test_a_file_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).close()
    connection = sqlite3.connect(tmp_path / sqlite.FILE_NAME)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(StoreError, match="newer"):
        opened(tmp_path)


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / sqlite.FILE_NAME)
    connection.executescript("CREATE TABLE theirs (x); PRAGMA user_version = 7; PRAGMA application_id = 1")
    connection.close()
    with pytest.raises(StoreError, match="another program"):
        opened(tmp_path)


def test_what_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / sqlite.FILE_NAME).write_bytes(b"not a database, but somebody's" * 100)
    with pytest.raises(StoreError, match="not a database"):
        opened(tmp_path)
    assert (tmp_path / sqlite.FILE_NAME).read_bytes().startswith(b"not a database")


def test_a_migration_that_fails_leaves_the_old_form(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.append(spooled(1, 3))
    store.close()
    broken = (*MIGRATIONS, "ALTER TABLE record ADD COLUMN colour TEXT; CREATE TABLE record (x);")
    connection = sqlite3.connect(tmp_path / sqlite.FILE_NAME, isolation_level=None)
    with pytest.raises(sqlite3.Error):
        migrate(connection, tmp_path / sqlite.FILE_NAME, broken)
    connection.close()
    again = opened(tmp_path)
    assert len(list(again.records(0, 2**62))) == 3
    again.close()


def test_a_migration_brings_an_older_database_along(tmp_path: Path) -> None:
    opened(tmp_path).close()
    connection = sqlite3.connect(tmp_path / sqlite.FILE_NAME, isolation_level=None)
    migrate(
        connection, tmp_path / sqlite.FILE_NAME, (*MIGRATIONS, "ALTER TABLE record ADD COLUMN colour TEXT;")
    )
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
    assert "colour" in [row[1] for row in connection.execute("PRAGMA table_info(record)")]
    connection.close()


def test_an_append_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    store = opened(tmp_path)
    good = spooled(1, 2)
    broken = Entry(good[1].record, None, 0)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="NOT NULL"):
        store.append([good[0], broken])
    assert store.counts().records == 0
    assert store.append(good) == [Fate.STORED] * 2
    store.close()


@pytest.mark.skipif(shutil.which("strace") is None, reason="failing an fsync needs strace")
def test_after_a_failed_sync_nothing_is_acknowledged_until_the_file_was_opened_anew(tmp_path: Path) -> None:
    """The kernel may call pages clean that it failed to write; the next append starts from the disk again."""
    script = f"""
import sys
from pathlib import Path
from tests.collector.test_sqlite import opened, spooled
from nhip.errors import StoreError
store = opened(Path({str(tmp_path)!r}))
outcomes = []
for number in range(6):
    try:
        store.append(spooled(1 + 5 * number, 5))
        outcomes.append("ok")
    except StoreError:
        outcomes.append("refused")
store.close()
print(*outcomes)
"""
    # The second sync after the opening is made to fail: the count of those before it is taken first.
    plain = _traced(script, tmp_path / "plain", "")
    assert plain.split() == ["ok"] * 6
    shutil.rmtree(tmp_path, ignore_errors=True)
    tmp_path.mkdir()
    outcomes = _traced(script, tmp_path / "failing", ":error=EIO:when=9").split()
    assert outcomes.count("refused") == 1
    assert outcomes[-1] == "ok"
    store = opened(tmp_path)
    stored = {entry.record.sequence for entry in store.records(0, 2**62)}
    promised = {
        number
        for place, outcome in enumerate(outcomes)
        if outcome == "ok"
        for number in range(1 + 5 * place, 6 + 5 * place)
    }
    assert promised <= stored
    store.close()


def _traced(script: str, output: Path, fault: str) -> str:
    inject = ["-e", f"inject=fdatasync{fault}"] if fault else []
    done = subprocess.run(
        [
            "strace",
            "-f",
            "-o",
            str(output),
            "-e",
            "trace=fsync,fdatasync",
            *inject,
            sys.executable,
            "-c",
            script,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout
