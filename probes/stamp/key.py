"""The key of authenticated STAMP, which a sender and its reflector share."""

from __future__ import annotations

from pathlib import Path

from nhip.errors import ConfigError
from nhip.secret import read_key_file

# RFC 2104 section 3: a key shorter than the digest it makes weakens it; the digest has 16 octets here.
SHORTEST_KEY_OCTETS = 16


def read_stamp_key(path: Path) -> bytes:
    """The key in a file that only its owner can read; ConfigError when it is absent, open or too short."""
    key = read_key_file(path).encode("ascii")
    if len(key) < SHORTEST_KEY_OCTETS:
        raise ConfigError(
            f"the key in {path} has {len(key)} characters, fewer than {SHORTEST_KEY_OCTETS}",
            remedy="make one with: nhip key",
        )
    return key
