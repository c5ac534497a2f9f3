"""Keys: new ones, headers, and comparison."""

from __future__ import annotations

import pytest

from collector.keys import bearer, key_sha256, new_key, opens


def test_a_new_key_opens_what_holds_its_hash() -> None:
    key = new_key()
    assert opens(key.secret, key.sha256)
    assert key_sha256(key.secret) == key.sha256
    assert not opens(new_key().secret, key.sha256)


def test_keys_are_long_random_and_hidden_when_shown() -> None:
    keys = {new_key().secret for _ in range(100)}
    assert len(keys) == 100
    assert all(len(secret) >= 43 for secret in keys)
    key = new_key()
    assert key.secret not in repr(key)


@pytest.mark.parametrize(("presented", "sha256"), [(None, None), ("", ""), ("x", None), (None, "0" * 64)])
def test_nothing_opens_nothing(presented: str | None, sha256: str | None) -> None:
    assert not opens(presented, sha256)


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (b"Bearer abc", "abc"),
        (b"bearer abc", "abc"),
        (b"Bearer ", None),
        (b"Bearer", None),
        (b"Basic abc", None),
        (b"Bearer \xff", None),
        (None, None),
    ],
)
def test_the_key_of_an_authorization_header(header: bytes | None, key: str | None) -> None:
    assert bearer(header) == key
