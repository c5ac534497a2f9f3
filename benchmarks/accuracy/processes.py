"""Children of a run: servers and peers that are ended with the block, and loops that keep processors busy."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_GRACE_SECONDS = 2.0

# Ends by itself when this process is gone, however that came; the check costs one call in some milliseconds.
_HOG = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n for _ in range(200000): pass"


class Child:
    """A process that writes into a file, so that nobody has to read along."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def wait_for_text(self, text: str, seconds: float) -> None:
        """Return when it has written `text`; RuntimeError when it ends first or takes longer."""
        self._wait(lambda: text in self._said(), seconds, f"said {text!r}")

    def wait_for_port(self, port: int, seconds: float) -> None:
        """Return when it accepts connections on loopback, as the calling thread sees it."""

        def accepts() -> bool:
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) == 0

        self._wait(accepts, seconds, f"listened on port {port}")

    def _wait(self, ready: Callable[[], bool], seconds: float, what: str) -> None:
        until = time.monotonic() + seconds
        while not ready():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{self._process.args!r} never {what}: {self._said()[-500:]}")
            time.sleep(0.01)

    def _said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def child(argv: list[str]) -> Iterator[Child]:
    """`argv` runs inside the block."""
    with tempfile.NamedTemporaryFile(prefix="accuracy-") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield Child(process, Path(log.name))
        finally:
            process.terminate()
            try:
                process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def hogs(per_core: int) -> Iterator[int]:
    """That many loops of normal priority on each processor never sleep inside the block."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(per_core * len(os.sched_getaffinity(0))):
            processes.append(subprocess.Popen([sys.executable, "-c", _HOG]))
        yield len(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextlib.contextmanager
def reflector(argv_on_far: Callable[[list[str]], list[str]]) -> Iterator[None]:
    """``nhip server`` on the far host."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "server.toml")
        config.write_text(
            'format = "nhip-server/1"\n[stamp]\nport = 862\npackets_per_second = 20_000.0\n', encoding="ascii"
        )
        argv = [sys.executable, "-m", "nhip.cli", "server", "--config", str(config)]
        with child(argv_on_far(argv)) as running:
            running.wait_for_text("STAMP reflector", 15)
            yield
