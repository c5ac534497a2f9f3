"""A real Prometheus on a free port of loopback, with its data in a directory of the test."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab.collector_process import free_port

READY_SECONDS = 30.0
_PAUSE_SECONDS = 0.1


def needs_prometheus() -> None:
    """Skip the calling test where Prometheus is not installed."""
    if shutil.which("prometheus") is None or shutil.which("promtool") is None:
        pytest.skip("Prometheus is not installed (apt install prometheus)")


@dataclass(frozen=True)
class Prometheus:
    """The HTTP interface of a running Prometheus."""

    port: int

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector of an expression; a wrong expression raises with Prometheus' own words."""
        found: list[dict[str, Any]] = self.get("/api/v1/query", query=expression)["result"]
        return found

    def get(self, path: str, **parameters: str) -> Any:
        """The ``data`` of an answer."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}?{query}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{path}?{query}: {error.read().decode()}") from None

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=2):
                return True
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False


@contextmanager
def running_prometheus(folder: Path, configuration: str) -> Iterator[Prometheus]:
    """Prometheus with that configuration, ready to be asked; ended with the block."""
    needs_prometheus()
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "prometheus.yml"
    settings.write_text(configuration, encoding="utf-8")
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={settings}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            server = Prometheus(port)
            wait_for(server.is_ready, READY_SECONDS, "Prometheus is not ready", still=process)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(
    condition: Callable[[], Any],
    seconds: float,
    complaint: str,
    *,
    still: subprocess.Popen[bytes] | None = None,
) -> Any:
    """What `condition` answers once that is true; AssertionError after `seconds`, or when `still` ends."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if still is not None and still.poll() is not None:
            raise AssertionError(f"{complaint}: it ended with {still.returncode}")
        if time.monotonic() > deadline:
            raise AssertionError(f"{complaint} after {seconds:g} s")
        time.sleep(_PAUSE_SECONDS)  # between two looks; what is waited for is the condition
