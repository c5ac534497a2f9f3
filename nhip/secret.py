"""Keys: where they are read from, and over what they may travel."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from nhip.errors import ConfigError

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
    if not text or not text.isprintable() or " " in text:
        raise ConfigError(f"the key file {path} holds no key", remedy="put the key alone on its one line")
    return text


def refuse_clear_text(url: str, what: str) -> None:
    """ConfigError when a key sent to `url` would cross a network unencrypted; `what` names the setting."""
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ConfigError(
            f"{what}: {url!r}: would send the key unencrypted over a network",
            remedy="write https://, or reach it over this host's loopback address",
        )
