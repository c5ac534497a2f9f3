"""A real browser without a window, fresh for each page and unable to reach any other host."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
DARK = "--blink-settings=preferredColorScheme=0"


def needs_chromium() -> None:
    """Skip the calling test where Chromium is not installed."""
    if shutil.which("chromium") is None:
        pytest.skip("Chromium is not installed (apt install chromium)")


def document_after_loading(page: Path, profile: Path) -> str:
    """The document as the browser holds it once everything that could run has run."""
    return _run(page, profile, "--dump-dom", "--virtual-time-budget=2000")


def screenshot(page: Path, into: Path, profile: Path, *, width: int, height: int, dark: bool) -> None:
    """A picture of the page in a window of that size."""
    _run(page, profile, f"--screenshot={into}", f"--window-size={width},{height}", *((DARK,) if dark else ()))


def _run(page: Path, profile: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["chromium", *FLAGS, f"--user-data-dir={profile}", *arguments, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout
