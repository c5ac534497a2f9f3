"""Files of a Delta Lake table made durable, and mended after a crash.

delta-rs renames files into place and never calls fsync, so after a power cut a commit can be there with an
empty data file, a log entry can be empty, and ``_last_checkpoint`` can name a checkpoint that is not there,
which makes the whole table impossible to open. Hence two things, both by plain file operations:

* :func:`sync_commits` puts a range of commits on disk: data files, log entries, directories;
* :func:`mend` moves aside, before the table is opened, whatever the last cut left broken. Only commits that
  were never synced can be broken, and their records are still in the journal; nothing is deleted.

::

    table/part-….parquet
    table/_delta_log/00000000000000000007.json                  one commit: lines of JSON, "add" names a file
    table/_delta_log/00000000000000000007.checkpoint.parquet    all commits so far
    table/_delta_log/_last_checkpoint                           {"version": 7, …}
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from collector.directory import sync_directory
from nhip.errors import StoreError

LOG = "_delta_log"
HINT = "_last_checkpoint"


@dataclass(frozen=True, slots=True)
class _DataFile:
    path: Path
    octets: int


def entry_path(table: Path, version: int) -> Path:
    """The log entry of commit `version`."""
    return table / LOG / f"{version:020}.json"


def last_commit(table: Path) -> int | None:
    """The highest commit in the log; None when there is no table."""
    return max(_versions(table), default=None)


def last_checkpoint(table: Path) -> int | None:
    """The commit whose checkpoint ``_last_checkpoint`` names; None when it names none."""
    hint = table / LOG / HINT
    return _hinted_version(hint) if hint.exists() else None


def sync_commits(table: Path, first: int, last: int) -> None:
    """Return when commits `first` to `last` and every file they add would survive the loss of power."""
    for version in range(first, last + 1):
        entry = entry_path(table, version)
        for data_file in _added(table, entry):
            _sync_file(data_file.path)
        _sync_file(entry)
    sync_directory(table)
    sync_directory(table / LOG)
    sync_directory(table.parent)


def sync_checkpoint(table: Path, version: int) -> None:
    """The same for the checkpoint of `version`, the file before the hint that names it."""
    for path in (table / LOG).glob(f"{version:020}.checkpoint*.parquet"):
        _sync_file(path)
    sync_directory(table / LOG)
    _sync_file(table / LOG / HINT)
    sync_directory(table / LOG)


def mend(table: Path, synced_version: int | None, aside: Path) -> list[str]:
    """Move to `aside` what a crash broke; a line for each thing moved.

    `synced_version` is the last commit known to be on disk. StoreError when something at or before it is
    broken: that is no crash but a failing disk, and nobody but a person should decide what then.
    """
    if not (table / LOG).is_dir():
        return []
    moved = [_move(path, aside, "unfinished commit") for path in (table / LOG).glob("_commit_*")]
    moved += _mend_checkpoints(table, aside)
    broken = next(_broken_commits(table, synced_version), None)
    if broken is not None:
        for version in sorted(_versions(table)):
            if version >= broken:
                moved.append(_move(entry_path(table, version), aside, "commit that is not whole"))
    if moved:
        sync_directory(table / LOG)
    return moved


def _mend_checkpoints(table: Path, aside: Path) -> list[str]:
    moved = []
    for path in sorted((table / LOG).glob("*.checkpoint*.parquet")):
        if not _is_whole_parquet(path):
            moved.append(_move(path, aside, "torn checkpoint"))
    hint = table / LOG / HINT
    if hint.exists():
        version = _hinted_version(hint)
        if version is None or not list((table / LOG).glob(f"{version:020}.checkpoint*.parquet")):
            moved.append(_move(hint, aside, "hint at a checkpoint that is not there"))
    return moved


def _broken_commits(table: Path, synced_version: int | None) -> Iterator[int]:
    """Commits that cannot be used, ascending: empty or torn entries, missing or torn data files, a gap."""
    expected = 0
    for version in sorted(_versions(table)):
        synced = synced_version is not None and version <= synced_version
        whole = version == expected and (
            entry_path(table, version).stat().st_size > 0 if synced else _is_whole_commit(table, version)
        )
        if not whole and synced:
            raise StoreError(
                f"{entry_path(table, version)}: is broken although it had been synced",
                remedy="the disk lost data; restore the archive from a backup",
            )
        if not whole:
            yield version
        expected = version + 1


def _is_whole_commit(table: Path, version: int) -> bool:
    try:
        files = list(_added(table, entry_path(table, version)))
    except (ValueError, KeyError, TypeError):
        return False
    return all(
        data_file.path.exists()
        and data_file.path.stat().st_size == data_file.octets
        and _is_whole_parquet(data_file.path)
        for data_file in files
    )


def _added(table: Path, entry: Path) -> Iterator[_DataFile]:
    """The data files a log entry adds; ValueError when it is empty or torn."""
    text = entry.read_text(encoding="utf-8")
    if not text.strip():
        raise ValueError("an empty log entry")
    for line in text.splitlines():
        action = json.loads(line)
        if "add" in action:
            yield _DataFile(table / unquote(action["add"]["path"]), int(action["add"]["size"]))


def _is_whole_parquet(path: Path) -> bool:
    """Whether every page of the file can be read: a cut leaves the right size with nothing inside, too."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            for _ in file.iter_batches():
                pass
    except (OSError, arrow.ArrowException):
        return False
    return True


def _hinted_version(hint: Path) -> int | None:
    try:
        version = json.loads(hint.read_text(encoding="utf-8"))["version"]
    except (ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, int) else None


def _versions(table: Path) -> list[int]:
    return [
        int(match[1])
        for path in (table / LOG).glob("*.json")
        if (match := re.fullmatch(r"(\d{20})\.json", path.name))
    ]


def _move(path: Path, aside: Path, what: str) -> str:
    aside.mkdir(parents=True, exist_ok=True, mode=0o700)
    number = sum(1 for _ in aside.iterdir())
    path.rename(aside / f"{number:04}-{path.name}")
    sync_directory(aside)
    return f"{what}: {path.name}"


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
