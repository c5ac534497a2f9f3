"""Octets nothing on the way can make smaller: random, drawn once per process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache

# Far larger than the window of any compressor that works on the fly (32 KiB for deflate).
BLOCK_OCTETS = 4 * 1024 * 1024


@cache
def random_block() -> memoryview:
    """A block of random octets; a longer object repeats it."""
    return memoryview(os.urandom(BLOCK_OCTETS))


def pieces(octets: int, piece_octets: int = 262_144) -> Iterator[memoryview]:
    """Views that together are one object of `octets`, without a copy of any octet."""
    block = random_block()
    place = 0
    while octets > 0:
        size = min(piece_octets, octets, BLOCK_OCTETS - place)
        yield block[place : place + size]
        place = (place + size) % BLOCK_OCTETS
        octets -= size
