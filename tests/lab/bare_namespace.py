"""One network namespace with nothing but a loopback interface, for tests that change its settings."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from nhip.lab.namespace import inside
from tests.lab.network import fresh_name, needs_namespaces


@contextlib.contextmanager
def bare_namespace(**settings: str) -> Iterator[str]:
    """A namespace with loopback up; gives its name.

    `settings` are kernel settings below ``net``, with two underscores for each dot.
    """
    needs_namespaces()
    name = f"nhip-{fresh_name()}"
    _ip("netns", "add", name)
    try:
        _ip("-n", name, "link", "set", "lo", "up")
        with inside(name):
            for key, value in settings.items():
                Path("/proc/sys/net", *key.split("__")).write_text(value, encoding="ascii")
        yield name
    finally:
        _ip("netns", "del", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
