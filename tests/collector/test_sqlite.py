"""What is particular to the journal: its schema's number, its owner, and an fsync that fails."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from collector.admission import Reason, refusal_of
from collector.collector_config import Limits, ProbeEntry
from collector.store import sqlite
from collector.store.api import Entry, Fate, StoreSettings
from collector.store.schema import MIGRATIONS, migrate
from collector.store.sqlite import SqliteStore
from nhip.errors import StoreError
from nhip.wire import encode_record
from tests.lab.collector_process import ROOT
from tests.lab.collectors import PROBE
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


def test_a_journal_of_the_first_schema_keeps_what_it_knows(tmp_path: Path) -> None:
    one, item = spooled(1, 1)[0], b"odd"
    connection = sqlite3.connect(tmp_path / sqlite.FILE_NAME, isolation_level=None)
    migrate(connection, tmp_path / sqlite.FILE_NAME, MIGRATIONS[:1])
    connection.execute(
        "INSERT INTO record VALUES (1, ?, 'p1', 'icmp', 'server', ?, 77, 1, ?)",
        (one.record.record_id.bytes, one.record.started_wall_ns, one.body),
    )
    connection.execute("INSERT INTO cursor VALUES ('p1', 'e1', 1)")
    connection.execute("INSERT INTO aside VALUES (1, 'p1', 'time', '', ?, x'00', 5)", (item,))
    connection.close()
    store = opened(tmp_path)
    assert store.last_seen() == {"p1": 77}
    assert store.append([one]) == [Fate.DUPLICATE]
    connection = sqlite3.connect(tmp_path / sqlite.FILE_NAME)
    assert connection.execute("SELECT octets FROM aside").fetchone() == (3,)
    [(used_ns,)] = connection.execute("SELECT last_received_wall_ns FROM cursor").fetchall()
    assert used_ns > time.time_ns() - 60 * 10**9
    connection.close()
    store.close()


def epochs_in(directory: Path) -> set[str]:
    connection = sqlite3.connect(directory / sqlite.FILE_NAME)
    try:
        return {epoch for (epoch,) in connection.execute("SELECT epoch FROM cursor")}
    finally:
        connection.close()


def of_epoch(name: str, received_wall_ns: int, *, probe_id: str = "p1", sequence: int = 1) -> Entry:
    made = record(probe_id=probe_id, epoch=name, sequence=sequence)
    return Entry(made, encode_record(made), received_wall_ns)


def test_the_epochs_used_last_are_remembered_and_no_more(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.append([of_epoch("other", 0, probe_id="p2")])
    for number in range(100):
        store.append([of_epoch(f"e{number}", number), of_epoch("e0", number, sequence=number + 2)])
    assert epochs_in(tmp_path) == {"other", "e0", *(f"e{number}" for number in range(37, 100))}
    store.close()


def test_a_clock_set_back_makes_no_new_epoch_look_old(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for number in range(100):
        store.append([of_epoch(f"e{number}", 10**15 - number * 10**9)])
    assert epochs_in(tmp_path) == {f"e{number}" for number in range(36, 100)}
    store.close()


def test_an_epoch_not_used_for_longer_than_records_are_taken_is_forgotten(tmp_path: Path) -> None:
    day_ns = 86_400 * 10**9
    store = opened(tmp_path)
    store.append([of_epoch("old", 0), of_epoch("older-but-used", 0)])
    store.append([of_epoch("older-but-used", day_ns, sequence=2)])
    store.append([of_epoch("new", 8 * day_ns + 1)])
    assert epochs_in(tmp_path) == {"older-but-used", "new"}
    store.close()


def test_no_epoch_is_forgotten_whose_records_would_still_be_taken() -> None:
    """What of a forgotten epoch comes again started too long ago, as early as that can be."""
    limits, kept_days = Limits(), StoreSettings().remember_ids_days
    last_received_ns = 2 * 10**18
    made = record(epoch="old", started_wall_ns=last_received_ns + round(limits.record_ahead_seconds * 1e9))
    probe = msgspec.convert(PROBE, ProbeEntry)
    assert refusal_of(made, probe, limits, last_received_ns) is None
    forgotten_ns = last_received_ns + round(kept_days * 86_400e9) + 1
    refusal = refusal_of(made, probe, limits, forgotten_ns)
    assert refusal is not None and refusal[0] is Reason.TIME


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
    # The sync of an append in the middle is made to fail; its number is counted from the end of a run where
    # all goes well: two of close(), one of each append.
    plain = _traced(script, tmp_path / "plain", "")
    assert plain.split() == ["ok"] * 6
    number = (tmp_path / "plain").read_text().count("fdatasync(") - 2 - 3
    shutil.rmtree(tmp_path, ignore_errors=True)
    tmp_path.mkdir()
    outcomes = _traced(script, tmp_path / "failing", f":error=EIO:when={number}").split()
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
