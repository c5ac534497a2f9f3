"""The four traps of a Delta Lake table on a local disk, each with what happens without our guard.

The first, that deltalake never syncs, is in test_power_cut.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as arrow
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from collector.store import delta_log
from collector.store.api import Entry, Fate, StoreSettings
from collector.store.delta import DeltaStore
from collector.store.sqlite import FILE_NAME
from nhip.errors import StoreError
from nhip.wire import encode_record
from tests.lab.collector_process import ROOT
from tests.lab.deliverer import until
from tests.lab.disks import NEEDS_ROOT, small_disk
from tests.lab.records import SECOND_NS, record

EVER = 2**62
SETTINGS = StoreSettings(flush_interval_seconds=3600, checkpoint_commits=2)


class CrashesAfterCommit(DeltaStore):
    """Stands for a process killed between the Delta commit and the delete from the journal."""

    def _release(self, up_to_number: int, now_wall_ns: int) -> int:
        raise StoreError("killed")


def spooled(first: int, count: int) -> list[Entry]:
    made = [record(epoch="e1", sequence=number) for number in range(first, first + count)]
    return [Entry(one, encode_record(one), 0) for one in made]


def filled(directory: Path, flushes: int) -> DeltaStore:
    store = DeltaStore(directory, SETTINGS)
    store.start()
    for number in range(flushes):
        store.append(spooled(1 + 10 * number, 10))
        store.flush()
    return store


def crashed_after_commit(directory: Path) -> None:
    """Twenty records archived and released, ten more committed to the archive and still in the journal."""
    filled(directory, 2).close()
    store = CrashesAfterCommit(directory, SETTINGS)
    store.start()
    store.append(spooled(21, 10))
    with pytest.raises(StoreError, match="killed"):
        store.flush()
    store.close()


def opened(directory: Path) -> DeltaStore:
    store = DeltaStore(directory, SETTINGS)
    store.start()
    return store


def found(store: DeltaStore) -> list[int]:
    return sorted(entry.record.sequence for entry in store.records(0, EVER))


def raw_rows(table: Path) -> int:
    return DeltaTable(str(table)).count()


def test_a_hint_at_a_missing_checkpoint_is_moved_away_and_the_table_opens(tmp_path: Path) -> None:
    filled(tmp_path, 4).close()
    table = tmp_path / "archive"
    for path in (table / "_delta_log").glob("*.checkpoint.parquet"):
        path.unlink()
    with pytest.raises(Exception, match=r"(?i)checkpoint"):
        DeltaTable(str(table))  # what everybody else sees

    store = opened(tmp_path)
    assert found(store) == list(range(1, 41))
    assert [path.name for path in (tmp_path / "archive-broken").iterdir()] == ["0000-_last_checkpoint"]
    store.close()


def test_a_torn_checkpoint_is_moved_away_and_the_table_opens(tmp_path: Path) -> None:
    filled(tmp_path, 4).close()
    table = tmp_path / "archive"
    for path in (table / "_delta_log").glob("*.checkpoint.parquet"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(Exception):  # noqa: B017 - whatever it is called, nobody can open this
        DeltaTable(str(table))

    store = opened(tmp_path)
    assert found(store) == list(range(1, 41))
    store.append(spooled(41, 10))
    assert store.flush() == 10
    assert store.counts().records == 50
    store.close()


def test_checkpoints_are_made_by_us_alone(tmp_path: Path) -> None:
    store = filled(tmp_path, 5)
    names = sorted(path.name for path in (store.path / "_delta_log").glob("*.checkpoint.parquet"))
    assert [int(name[:20]) for name in names] == [2, 4]
    assert delta_log.last_checkpoint(store.path) == 4
    store.close()


def test_a_commit_whose_rows_are_still_in_the_journal_is_not_counted_twice(tmp_path: Path) -> None:
    crashed_after_commit(tmp_path)
    assert raw_rows(tmp_path / "archive") == 30
    store = opened(tmp_path)
    assert found(store) == list(range(1, 31))
    assert store.counts().records == 30
    assert store.flush() == 10
    assert (store.counts().records, store.counts().journal_records) == (30, 0)
    assert raw_rows(store.path) == 30
    assert found(store) == list(range(1, 31))
    store.close()


def test_without_reading_the_version_first_the_same_rows_are_committed_again(tmp_path: Path) -> None:
    """The twin: a fresh handle takes a transaction version that it has already."""
    path = str(tmp_path / "table")
    rows = arrow.table({"number": [1, 2, 3]})
    for _ in range(2):
        write_deltalake(
            path,
            rows,
            mode="append",
            commit_properties=CommitProperties(app_transactions=[Transaction("app", 3)]),
        )
    assert DeltaTable(path).count() == 6


@pytest.mark.parametrize("damage", ["empty log entry", "torn log entry", "empty data file", "torn data file"])
def test_a_commit_broken_by_a_crash_is_moved_away_and_made_anew(tmp_path: Path, damage: str) -> None:
    crashed_after_commit(tmp_path)
    entry = delta_log.entry_path(tmp_path / "archive", 3)
    victim = entry
    if "data file" in damage:
        added = [
            json.loads(line)["add"]["path"] for line in entry.read_text().splitlines() if '"add"' in line
        ]
        victim = tmp_path / "archive" / added[0]
    victim.write_bytes(b"" if "empty" in damage else victim.read_bytes()[: victim.stat().st_size // 2])

    store = opened(tmp_path)
    assert found(store) == list(range(1, 31))
    assert store.counts().records == 30
    assert [path.name[5:] for path in (tmp_path / "archive-broken").iterdir()] == [entry.name]
    assert store.flush() == 10
    assert raw_rows(store.path) == 30
    store.close()


def test_a_commit_that_had_been_synced_and_is_broken_is_nobodys_to_repair(tmp_path: Path) -> None:
    filled(tmp_path, 2).close()
    entry = delta_log.entry_path(tmp_path / "archive", 2)
    entry.write_bytes(b"")
    with pytest.raises(StoreError, match="although it had been synced"):
        opened(tmp_path)
    assert entry.exists()


def test_a_journal_that_starts_anew_does_not_take_its_records_for_archived(tmp_path: Path) -> None:
    filled(tmp_path, 3).close()
    for path in tmp_path.glob(f"{FILE_NAME}*"):
        path.unlink()
    store = opened(tmp_path)
    fresh = [record(probe_id="p2", epoch="e9", sequence=number) for number in range(1, 6)]
    store.append([Entry(one, encode_record(one), 0) for one in fresh])
    assert store.counts().records == 35
    assert store.flush() == 5
    assert len(list(store.records(0, EVER))) == 35
    store.close()


def test_a_forked_child_is_told_so(tmp_path: Path) -> None:
    script = f"""
import os, sys
from pathlib import Path
from collector.store.api import StoreSettings
from collector.store.delta import DeltaStore
from nhip.errors import StoreError
store = DeltaStore(Path({str(tmp_path)!r}), StoreSettings(flush_interval_seconds=3600))
store.start()
child = os.fork()
if child == 0:
    try:
        store.flush()
    except StoreError as error:
        os._exit(3 if "spawn" in str(error) else 4)
    os._exit(5)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert _exit_code(script) == 3


def test_without_that_check_deltalake_panics_in_a_forked_child(tmp_path: Path) -> None:
    """The twin: what the check keeps from happening, which no `except Exception` would catch."""
    script = f"""
import os, sys
import pyarrow
from deltalake import write_deltalake
rows = pyarrow.table({{"number": [1]}})
write_deltalake({str(tmp_path / "table")!r}, rows)
child = os.fork()
if child == 0:
    try:
        write_deltalake({str(tmp_path / "table")!r}, rows, mode="append")
    except Exception:
        os._exit(3)
    except BaseException as panic:
        os._exit(6 if type(panic).__name__ == "PanicException" else 4)
    os._exit(5)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert _exit_code(script) == 6


def test_a_failing_archive_is_counted_and_the_journal_keeps_the_records(tmp_path: Path) -> None:
    store = DeltaStore(tmp_path, StoreSettings(flush_interval_seconds=3600, flush_records=10))
    store.start()
    blocked = store.path / "_delta_log" / f"{1:020}.json"
    blocked.mkdir()
    store.append(spooled(1, 10))  # enough to wake the flusher
    until(lambda: store.archive_failures > 0)
    assert store.counts().archive_failures > 0
    blocked.rmdir()
    store.flush()
    assert (store.counts().records, store.counts().journal_records) == (10, 0)
    store.close()


def test_a_range_reads_only_the_files_that_can_hold_it(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for day in range(1, 4):
        made = record(started_wall_ns=day * 86_400 * SECOND_NS)
        store.append([Entry(made, encode_record(made), 0)])
        store.flush()
    table = DeltaTable(str(store.path))
    day_ns = 86_400 * SECOND_NS
    assert len(store._files(table, 0, EVER)) == 3
    assert len(store._files(table, 2 * day_ns, 3 * day_ns)) == 1
    assert store._files(table, 4 * day_ns, EVER) == []
    store.close()


@NEEDS_ROOT
@pytest.mark.lab
def test_an_archive_on_a_full_disk_is_tried_again_and_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 4 * 2**20) as disk:
        store = opened(disk / "data")
        assert store.append(spooled(1, 300)) == [Fate.STORED] * 300
        ballast = disk / "ballast"
        with contextlib.suppress(OSError):
            ballast.write_bytes(bytes(8 * 2**20))
        with pytest.raises(BaseException):  # noqa: B017 - deltalake's panic is no Exception
            store.flush()
        assert found(store) == list(range(1, 301))
        ballast.unlink()
        assert store.flush() == 300
        assert found(store) == list(range(1, 301))
        assert store.counts().journal_records == 0
        store.close()


def _exit_code(script: str) -> int:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, timeout=60, check=False
    ).returncode
