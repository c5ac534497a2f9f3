"""Keys: where they are read from, and over what they may travel."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from nhip.errors import ConfigError

_KEY = re.compile(r"[!-~]+")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def read_key_file(path: Path) -> str:
    """The key in a file that only its owner can read; ConfigError otherwise."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the key file {path} cannot be read: {error}") from error
    if mode & 0o077:
        raise ConfigError(f"the key file {path} can be read by others", remedy=f"run: chmod 600 {path}")
    return checked_key(text, f"the key file {path}")


def checked_key(key: str, where: str) -> str:
    """The key, which an HTTP header must be able to carry; the message of ConfigError does not show it."""
    if not _KEY.fullmatch(key):
        raise ConfigError(f"{where} holds no key", remedy="make one with: nhip key")
    return key


def refuse_clear_text(url: str, what: str) -> None:
    """ConfigError when a key sent to `url` would cross a network unencrypted; `what` names the setting."""
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ConfigError(
            f"{what}: {url!r}: would send the key unencrypted over a network",
            remedy="write https://, or reach it over this host's loopback address",
        )
