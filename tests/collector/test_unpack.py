"""Unpacking within bounds."""

from __future__ import annotations

import gzip
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.unpack import ALWAYS_ALLOWED_OCTETS, TooLargeError, unpack_gzip
from nhip.errors import WireError


@given(st.binary(max_size=5000))
def test_what_was_packed_is_unpacked(content: bytes) -> None:
    assert unpack_gzip(gzip.compress(content), at_most=10_000, ratio=100) == content


def test_a_bomb_is_stopped_before_it_takes_memory() -> None:
    bomb = gzip.compress(bytes(200 * 2**20))
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError):
            unpack_gzip(bomb, at_most=16 * 2**20, ratio=100)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20
    with pytest.raises(TooLargeError):  # a bomb within the size is still a bomb by its ratio
        unpack_gzip(gzip.compress(bytes(8 * 2**20)), at_most=16 * 2**20, ratio=100)


def test_without_the_bounds_the_same_octets_become_a_thousand_times_as_many() -> None:
    """The twin."""
    bomb = gzip.compress(bytes(8 * 2**20))
    assert len(unpack_gzip(bomb, at_most=2**30, ratio=10**6)) > 900 * len(bomb)


def test_a_short_batch_may_pack_as_well_as_it_likes() -> None:
    content = b"a" * ALWAYS_ALLOWED_OCTETS
    assert unpack_gzip(gzip.compress(content), at_most=2**20, ratio=100) == content


def test_at_most_means_at_most() -> None:
    packed = gzip.compress(b"0123456789")
    assert unpack_gzip(packed, at_most=10, ratio=100) == b"0123456789"
    with pytest.raises(TooLargeError):
        unpack_gzip(packed, at_most=9, ratio=100)


@given(st.binary(max_size=100))
def test_no_octets_raise_anything_but_a_wire_error(octets: bytes) -> None:
    for candidate in (
        octets,
        gzip.compress(b"x") + octets[:1] + b"y",
        gzip.compress(b"xyz")[:-1] + octets[:1],
    ):
        try:
            unpack_gzip(candidate, at_most=100, ratio=100)
        except WireError:
            continue
