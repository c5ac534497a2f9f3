"""Keys of probes and publishers: the holder has the key, the collector only its hash.

A key is 256 random bits, so a plain SHA-256 of it cannot be searched for, and the configuration of a
collector holds nothing that opens its door.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

PREFIX = "nhip_"
"""Lets a secret scanner recognise a key that was committed by mistake."""


@dataclass(frozen=True, slots=True)
class Key:
    """A new key: `secret` for its holder, `sha256` for the collector's configuration."""

    secret: str
    sha256: str

    def __repr__(self) -> str:
        return f"Key(secret='…', sha256={self.sha256!r})"


def new_key() -> Key:
    """A key nobody has ever had."""
    secret = PREFIX + secrets.token_urlsafe(32)
    return Key(secret, key_sha256(secret))


def key_sha256(secret: str) -> str:
    """What the collector's configuration holds of `secret`: 64 hexadecimal digits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def bearer(authorization: bytes | None) -> str | None:
    """The key in an ``Authorization: Bearer`` header (RFC 6750 section 2.1); None when there is none."""
    scheme, _, secret = (authorization or b"").partition(b" ")
    if scheme.lower() != b"bearer" or not secret:
        return None
    try:
        return secret.strip().decode("ascii")
    except UnicodeDecodeError:
        return None


def opens(presented: str | None, sha256: str | None) -> bool:
    """Whether `presented` is the key behind `sha256`; takes as long whether it is or not."""
    return bool(presented and sha256) and hmac.compare_digest(key_sha256(presented or ""), sha256 or "")
