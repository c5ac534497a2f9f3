"""The spool: what was appended is on the disk, oldest goes first when it is full, and damage is put aside."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nhip import wire
from nhip.clock import SystemClock
from nhip.errors import StoreError
from probes.packing import pack, unpack
from probes.spool import MOST_REFUSED, Spool
from tests.lab import records
from tests.lab.disks import NEEDS_ROOT, CuttableDisk, small_disk
from tests.lab.fake_clock import FakeClock

LARGE = 1 << 26


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    found = opened(tmp_path / "spool.sqlite")
    yield found
    found.close()


def opened(path: Path, maximum_octets: int = LARGE, clock: FakeClock | None = None) -> Spool:
    found = Spool(path, maximum_octets, clock or FakeClock())
    found.start()
    return found


def sequences(spool: Spool, count: int = 100_000) -> list[int]:
    spooled = spool.oldest(count, LARGE)
    return [wire.decode_record(body).sequence for body in spooled.bodies] if spooled else []


def append(spool: Spool, count: int, *, note: str = "") -> list[wire.Record]:
    return [spool.append(records.record(notes=[note] if note else [])) for _ in range(count)]


# Order and numbers


def test_records_come_back_in_order_with_rising_numbers_of_one_epoch(spool: Spool) -> None:
    kept = append(spool, 5)
    spooled = spool.oldest(100, LARGE)
    assert spooled is not None
    assert [wire.decode_record(body) for body in spooled.bodies] == kept
    assert [record.sequence for record in kept] == [1, 2, 3, 4, 5]
    assert len({record.epoch for record in kept}) == 1
    assert spooled.through == 5


def test_many_records_are_kept_with_one_commit_and_numbered_like_any_other(spool: Spool) -> None:
    before = append(spool, 2)
    commits: list[str] = []
    spool._require().set_trace_callback(
        lambda statement: commits.append(statement) if statement.startswith("COMMIT") else None
    )
    kept = spool.append_all([records.record() for _ in range(100)])
    assert len(commits) == 1
    # The twin: one by one they cost a write to the disk each.
    after = append(spool, 3)
    assert len(commits) == 4
    assert [record.sequence for record in kept] == list(range(3, 103))
    spooled = spool.oldest(1000, LARGE)
    assert spooled is not None
    assert [wire.decode_record(body) for body in spooled.bodies] == [*before, *kept, *after]
    sizes = sum(len(pack(wire.encode_record(record))) for record in (*before, *kept, *after))
    assert spool.state().octets == sizes
    assert spool.append_all([]) == []


def test_of_many_records_all_are_kept_or_none(spool: Spool) -> None:
    append(spool, 2)
    with spool._require() as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON record WHEN NEW.sequence = 50 "
            "BEGIN SELECT raise(ABORT, 'the disk'); END"
        )
    with pytest.raises(StoreError, match="the disk"):
        spool.append_all([records.record() for _ in range(100)])
    assert sequences(spool) == [1, 2]
    assert spool.state().records == 2
    assert [record.sequence for record in spool.append_all([records.record()] * 3)] == [3, 4, 5]


def test_many_records_at_once_push_out_the_oldest_counted_like_any_other(tmp_path: Path) -> None:
    size = len(pack(wire.encode_record(records.record())))
    spool = opened(tmp_path / "s", 20 * size)
    append(spool, 5)
    spool.append_all([records.record() for _ in range(60)])
    state = spool.state()
    assert state.records + state.dropped_total == 65
    assert sequences(spool)[-1] == 65
    assert state.octets <= 20 * size
    spool.close()


def test_an_empty_spool_has_nothing(spool: Spool) -> None:
    assert spool.oldest(10, LARGE) is None
    assert spool.state().records == 0
    assert spool.state().oldest_age_seconds is None


def test_a_batch_keeps_to_both_limits_but_always_has_one(spool: Spool) -> None:
    kept = append(spool, 5)
    size = len(wire.encode_record(kept[0]))
    assert sequences(spool, 2) == [1, 2]
    spooled = spool.oldest(100, round(2.5 * size))
    assert spooled is not None
    assert (len(spooled.bodies), spooled.through) == (2, 2)
    smallest = spool.oldest(100, 1)
    assert smallest is not None
    assert len(smallest.bodies) == 1


def test_only_what_was_acknowledged_is_removed(spool: Spool) -> None:
    append(spool, 5)
    spool.remove_through(3)
    assert sequences(spool) == [4, 5]
    spool.remove_through(3)
    assert sequences(spool) == [4, 5]
    assert spool.state().octets == sum(len(pack(body)) for body in spool.oldest(9, LARGE).bodies)  # type: ignore[union-attr]
    spool.remove_through(5)
    assert (spool.state().records, spool.state().octets) == (0, 0)


def test_numbers_go_on_and_the_epoch_changes_at_every_start(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    first = opened(path)
    before = append(first, 3)
    first.close()
    second = opened(path)
    after = append(second, 2)
    assert sequences(second) == [1, 2, 3, 4, 5]
    assert before[0].epoch != after[0].epoch
    second.close()


def test_a_spool_restored_from_a_copy_never_gives_a_number_twice(tmp_path: Path) -> None:
    path, copy = tmp_path / "spool.sqlite", tmp_path / "backup.sqlite"
    first = opened(path)
    append(first, 2)
    first.close()
    copy.write_bytes(path.read_bytes())
    one, other = opened(path), opened(copy)
    given = [(record.epoch, record.sequence) for spool in (one, other) for record in append(spool, 3)]
    assert len(set(given)) == 6
    one.close()
    other.close()


def test_the_age_is_that_of_the_oldest_and_never_negative(tmp_path: Path) -> None:
    clock = FakeClock()
    spool = opened(tmp_path / "s", clock=clock)
    append(spool, 1)
    clock.advance(90)
    append(spool, 1)
    assert spool.state().oldest_age_seconds == 90
    clock.step(-3600)
    assert spool.state().oldest_age_seconds == 0
    spool.close()


# Full


def test_a_full_spool_drops_its_oldest_and_counts_them(tmp_path: Path) -> None:
    size = max(len(pack(wire.encode_record(records.record(epoch="0" * 16)))) for _ in range(20)) + 16
    spool = opened(tmp_path / "s", maximum_octets=10 * size + 5)
    append(spool, 25)
    state = spool.state()
    assert state.octets <= 10 * size + 5
    assert state.records + state.dropped_total == 25
    assert state.dropped_total >= 15
    left = sequences(spool)
    assert left == list(range(left[0], 26))
    spool.close()


def test_the_count_of_dropped_records_survives_a_restart(tmp_path: Path) -> None:
    spool = opened(tmp_path / "s", maximum_octets=1)
    append(spool, 4)
    assert spool.state().dropped_total == 3
    spool.close()
    again = opened(tmp_path / "s", maximum_octets=1)
    assert again.state().dropped_total == 3
    again.close()


def test_the_file_stays_bounded_too(tmp_path: Path) -> None:
    spool = opened(tmp_path / "s", maximum_octets=100_000)
    append(spool, 600, note="x" * 150)
    assert spool.state().dropped_total > 0
    spool.close()
    assert (tmp_path / "s").stat().st_size < 200_000


@settings(max_examples=25)
@given(steps=st.lists(st.sampled_from(["append", "remove", "restart"]), max_size=40), data=st.data())
def test_the_books_of_the_spool_always_agree(steps: list[str], data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        spool = opened(Path(folder) / "s", maximum_octets=1_200)
        expected: list[int] = []
        made = 0
        for step in steps:
            if step == "append":
                made = spool.append(records.record()).sequence
                expected.append(made)
            elif step == "remove" and made:
                through = data.draw(st.integers(0, made))
                spool.remove_through(through)
                expected = [number for number in expected if number > through]
            elif step == "restart":
                spool.close()
                spool = opened(Path(folder) / "s", maximum_octets=1_200)
            found = sequences(spool)
            assert found == expected[len(expected) - len(found) :]
            expected = found
            spooled = spool.oldest(1000, LARGE)
            octets = sum(len(pack(body)) for body in spooled.bodies) if spooled else 0
            assert spool.state().octets == octets <= 1_200
        spool.close()


# Put aside


def refused(path: Path) -> list[tuple[int, str, bytes]]:
    """What lies in the table of refused records: number in its epoch, reason, record."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT sequence, reason, body FROM refused ORDER BY number").fetchall()
    return [(sequence, reason, unpack(body)) for sequence, reason, body in rows]


def test_a_refused_record_is_kept_aside_with_its_reason_and_offered_no_more(tmp_path: Path) -> None:
    spool = opened(tmp_path / "s")
    kept = append(spool, 3)
    spool.refuse(2, "400 malformed")
    assert sequences(spool) == [1, 3]
    assert (spool.state().records, spool.state().refused_total, spool.state().dropped_total) == (2, 1, 0)
    assert spool.state().octets == sum(len(pack(wire.encode_record(record))) for record in (kept[0], kept[2]))
    spool.close()
    assert refused(tmp_path / "s") == [(2, "400 malformed", wire.encode_record(kept[1]))]
    again = opened(tmp_path / "s")
    assert again.state().refused_total == 1
    again.close()


def test_what_is_put_aside_is_bounded_and_still_counted(tmp_path: Path) -> None:
    spool = opened(tmp_path / "s")
    spool._require().execute("PRAGMA synchronous = OFF")
    for number in range(1, MOST_REFUSED + 4):
        spool.append(records.record())
        spool.refuse(number, "no")
    assert spool.state().refused_total == MOST_REFUSED + 3
    spool.close()
    assert [row[0] for row in refused(tmp_path / "s")] == list(range(4, MOST_REFUSED + 4))


@pytest.mark.parametrize("position", [1, 2, 3])
def test_a_record_damaged_on_the_disk_does_not_block_those_behind_it(tmp_path: Path, position: int) -> None:
    spool = opened(tmp_path / "s")
    append(spool, 3)
    with spool._require() as connection:
        connection.execute(
            "UPDATE record SET body = CAST(x'01' || substr(body, 9) AS BLOB) WHERE sequence = ?", (position,)
        )
    delivered = []
    while (spooled := spool.oldest(10, LARGE)) is not None:
        delivered += [wire.decode_record(body).sequence for body in spooled.bodies]
        spool.remove_through(spooled.through)
    assert delivered == [number for number in (1, 2, 3) if number != position]
    assert spool.state().refused_total == 1
    spool.close()


def test_a_spool_of_plain_records_from_before_packing_is_read(tmp_path: Path) -> None:
    spool = opened(tmp_path / "s")
    record = append(spool, 1)[0]
    with spool._require() as connection:
        connection.execute("UPDATE record SET body = ?", (wire.encode_record(record),))
    spool.close()
    again = opened(tmp_path / "s")
    spooled = again.oldest(1, LARGE)
    assert spooled is not None
    assert wire.decode_record(spooled.bodies[0]) == record
    again.close()


# Who may read it


def test_nobody_else_may_read_the_spool_or_its_log(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        spool = opened(tmp_path / "state" / "spool.sqlite")
        append(spool, 1)
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()}
        spool.close()
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600}, modes
    assert len(modes) == 3
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_a_spool_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    opened(path).close()
    path.chmod(0o644)
    opened(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


# Crashes

_WRITER = """
import sys
import threading
from pathlib import Path
from nhip.clock import SystemClock
from probes.spool import Spool
from tests.lab import records
spool = Spool(Path(sys.argv[1]), 1 << 30, SystemClock())
spool.start()
if sys.argv[2] == "unsafe":
    spool._connection.execute("PRAGMA synchronous = OFF")
while True:
    print(spool.append(records.record()).sequence, flush=True)
"""


@contextlib.contextmanager
def writer(path: Path, mode: str = "safe") -> Iterator[subprocess.Popen[str]]:
    """A process that appends for ever and says each number once it is kept; killed in the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path), mode], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def said(process: subprocess.Popen[str], count: int) -> int:
    """Wait until `count` appends were told; the last number read."""
    assert process.stdout is not None
    last = 0
    for _ in range(count):
        last = int(process.stdout.readline())
    return last


@pytest.mark.parametrize("round_", range(5))
def test_what_was_appended_is_there_after_a_kill(tmp_path: Path, round_: int) -> None:
    path = tmp_path / "spool.sqlite"
    with writer(path) as process:
        said(process, 20 + 13 * round_)
        process.kill()
        rest, _ = process.communicate()
    # A line cut in the middle by the kill was not told.
    told = [int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    last = max(told, default=20 + 13 * round_)
    spool = opened(path)
    found = sequences(spool)
    assert spool.quarantined is None
    assert found[:last] == list(range(1, last + 1))
    assert len(found) in (last, last + 1)
    spool.close()


def lost_in_power_cut(disk: CuttableDisk, mode: str) -> int:
    """How many records that were told as appended are not on the disk after the cut."""
    path = disk.mounted / f"{mode}.sqlite"
    with writer(path, mode) as process:
        last = said(process, 30)
        os.kill(process.pid, signal.SIGSTOP)
        with disk.after_power_cut() as after:
            if not (after / path.name).exists():
                return last
            spool = opened(after / path.name)
            found = sequences(spool)
            spool.close()
    return last - len([number for number in found if number <= last])


@NEEDS_ROOT
@pytest.mark.lab
def test_what_was_appended_is_there_after_a_power_cut(tmp_path: Path) -> None:
    with CuttableDisk(tmp_path, megabytes=32) as disk:
        assert lost_in_power_cut(disk, "safe") == 0
        # The twin: the same cut without the sync loses records, so the test above proves something.
        assert lost_in_power_cut(disk, "unsafe") > 0


# Damage


def test_a_file_that_is_no_spool_is_put_aside_and_a_new_one_begun(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    path.write_bytes(b"This was never a database. " * 100)
    spool = opened(path)
    assert spool.quarantined is not None
    assert spool.quarantined.read_bytes().startswith(b"This was never")
    assert append(spool, 1)[0].sequence == 1
    spool.close()


def test_a_damaged_spool_is_put_aside_and_a_new_epoch_begins(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    first = opened(path)
    epoch = append(first, 300)[0].epoch
    first.close()
    octets = bytearray(path.read_bytes())
    octets[4096 : len(octets) - 4096] = b"\xa5" * (len(octets) - 8192)
    path.write_bytes(octets)
    second = opened(path)
    assert second.quarantined is not None
    assert second.quarantined.read_bytes() == bytes(octets)
    assert sequences(second) == []
    assert append(second, 1)[0].epoch != epoch
    second.close()


def test_a_cut_file_is_put_aside_or_read_and_never_makes_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    first = opened(path)
    append(first, 60)
    first.close()
    whole = path.read_bytes()
    for length in (0, 1, 15, 100, 4095, 4096, 4097, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        spool = opened(path)
        assert append(spool, 1)
        spool.close()


def test_a_folder_that_cannot_be_made_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be opened") as raised:
        opened(tmp_path / "file" / "spool.sqlite")
    assert "spool.path" in raised.value.remedy


def test_a_spool_that_is_not_open_says_so() -> None:
    spool = Spool(Path("never"), LARGE, SystemClock())
    for act in (spool.state, lambda: spool.oldest(1, 1), lambda: spool.append(records.record())):
        with pytest.raises(StoreError, match="not open"):
            act()
    spool.close()


# Disks


@NEEDS_ROOT
@pytest.mark.lab
def test_a_full_disk_loses_the_oldest_counted_or_refuses_and_works_again_with_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        spool = opened(disk / "spool.sqlite")
        kept, refused = [], 0
        ballast = disk / "ballast"
        for _ in range(400):
            try:
                kept.append(spool.append(records.record(notes=["x" * 190] * 10)).sequence)
            except StoreError as error:
                refused += 1
                assert "free space" in error.remedy
        state = spool.state()
        assert state.dropped_total + refused > 0
        found = sequences(spool)
        assert len(found) + state.dropped_total == len(kept), "what was taken is there or counted as dropped"
        assert found == kept[len(kept) - len(found) :]
        del ballast
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        after = append(spool, 50)
        assert sequences(spool)[-50:] == [record.sequence for record in after]
        spool.close()


@NEEDS_ROOT
@pytest.mark.lab
def test_a_disk_that_turned_read_only_refuses_and_drops_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4 << 20) as disk:
        spool = opened(disk / "spool.sqlite")
        append(spool, 10)
        spool.close()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(StoreError, match=r"(?i)read-?only|unable to open"):
            opened(disk / "spool.sqlite")
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        spool = opened(disk / "spool.sqlite")
        assert sequences(spool) == list(range(1, 11))
        spool.close()


def test_a_spool_locked_by_somebody_else_drops_nothing(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    spool = opened(path)
    append(spool, 10)
    spool._require().execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(path)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        append(spool, 1)
    with pytest.raises(StoreError, match="locked"):
        spool.remove_through(5)
    other.rollback()
    other.close()
    assert sequences(spool) == list(range(1, 11))
    assert spool.state().dropped_total == 0
    assert append(spool, 1)[0].sequence == 11
    spool.close()


def test_a_lock_that_ends_in_between_drops_nothing_either(tmp_path: Path) -> None:
    """Only a full disk may cost records; making room for any other reason would throw them away."""
    path = tmp_path / "spool.sqlite"
    spool = opened(path)
    append(spool, 10)
    spool._require().execute("PRAGMA busy_timeout = 300")
    other = sqlite3.connect(path, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.45, other.rollback)
    release.start()
    with pytest.raises(StoreError, match="locked"):
        append(spool, 1)
    release.join()
    other.close()
    assert sequences(spool) == list(range(1, 11))
    assert spool.state().dropped_total == 0
    spool.close()
