"""Disks that fill up and disks whose power is cut; both need root and a loop device or tmpfs."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")


@contextlib.contextmanager
def small_disk(at: Path, octets: int) -> Iterator[Path]:
    """A tmpfs of `octets` mounted at `at`."""
    at.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={octets}", "tmpfs", str(at))
    try:
        yield at
    finally:
        _run("umount", "-l", str(at))


class CuttableDisk:
    """An ext4 file system in a file, whose power can be cut while its writers stand still.

    What the page cache holds and nobody has synced is in neither the image nor, therefore, the copy of it
    that is mounted after the cut. ext4's own writing back is put off by a long commit interval, so that
    only what was asked for is on the disk.
    """

    def __init__(self, directory: Path, megabytes: int = 64) -> None:
        self.image = directory / "disk.img"
        self.mounted = directory / "disk"
        self._after = directory / "after"
        self._megabytes = megabytes
        self._cuts = 0

    def __enter__(self) -> CuttableDisk:
        with self.image.open("wb") as file:
            file.truncate(self._megabytes * 2**20)
        _run("mkfs.ext4", "-q", "-F", str(self.image))
        self.mounted.mkdir()
        _run("mount", "-o", "loop,commit=300", str(self.image), str(self.mounted))
        os.sync()
        return self

    def __exit__(self, *exception: object) -> None:
        _run("umount", "-l", str(self.mounted))

    @contextlib.contextmanager
    def after_power_cut(self) -> Iterator[Path]:
        """The file system as a machine finds it that lost its power now; its writers must be stopped."""
        self._cuts += 1
        copy = self.image.with_name(f"cut{self._cuts}.img")
        shutil.copyfile(self.image, copy)
        place = self._after / str(self._cuts)
        place.mkdir(parents=True)
        _run("mount", "-o", "loop", str(copy), str(place))
        try:
            yield place
        finally:
            _run("umount", "-l", str(place))
            copy.unlink()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
