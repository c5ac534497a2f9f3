"""The data directory: one collector's alone, its files readable by nobody else, its names durable."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from nhip.errors import ConfigError


@contextlib.contextmanager
def sole_user_of(directory: Path) -> Iterator[None]:
    """Hold the data directory against a second user for as long as the block runs; ConfigError."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"data_dir: {str(directory)!r}: {error.strerror}", remedy="name a directory this user may write"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"data_dir: {str(directory)!r}: another collector is using it",
                remedy="stop that one, or give this one its own data_dir",
            ) from error
        yield
    finally:
        os.close(descriptor)


def make_private(path: Path) -> None:
    """Make an empty file only its owner can read, unless there is one; SQLite's own files follow its mode."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` durable: a synced file whose name is lost is lost as well."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
