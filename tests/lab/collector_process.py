"""A collector as a process of its own: ``python -m tests.lab.collector_process CONFIG [early]``.

``early`` takes the fsync out of the journal's commit, so that batches are acknowledged before they are on
disk: the twin that a test of durability must catch.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from collector.collector_config import CollectorConfig
from collector.service import run
from collector.store.sqlite import SqliteStore
from nhip import config
from tests.lab.collectors import plain_page

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def collector_process(settings: Path, *, early: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """The process, killed at the end if it still runs."""
    command = [sys.executable, "-m", "tests.lab.collector_process", str(settings)]
    with (settings.parent / "collector.log").open("ab") as output:
        process = subprocess.Popen(
            command + ["early"] * early, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def free_port() -> int:
    """A TCP port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    if sys.argv[2:] == ["early"]:
        SqliteStore.synchronous = "OFF"
    run(config.load(Path(sys.argv[1]), CollectorConfig), plain_page)


if __name__ == "__main__":
    main()
