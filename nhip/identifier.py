"""Record identifiers that sort by time (UUID version 7, RFC 9562 section 5.7)."""

from __future__ import annotations

import secrets
from uuid import UUID


def uuid7(wall_ns: int) -> UUID:
    """A new identifier made at `wall_ns`: 48 bits of milliseconds, 12 of sub-millisecond, 62 random bits.

    ::

         0                   1                   2                   3
        +---------------------------------------------------------------+
        |                    unix milliseconds (48)                     |
        +-------------------------------+-------+-----------------------+
        |                               | ver 7 | fraction of a ms (12) |
        +---+---------------------------+-------+-----------------------+
        |var|                     random (62)                           |
        +---+-----------------------------------------------------------+
    """
    milliseconds, remainder_ns = divmod(wall_ns, 1_000_000)
    fraction = remainder_ns * 4096 // 1_000_000  # RFC 9562 section 6.2, method 3
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80
    value |= 0x7 << 76 | fraction << 64
    value |= 0b10 << 62 | secrets.randbits(62)
    return UUID(int=value)


def made_at_wall_ns(identifier: UUID) -> int:
    """The time inside a version 7 identifier, to the millisecond; ValueError for any other version."""
    if identifier.version != 7:
        raise ValueError(f"{identifier} is no version 7 identifier")
    return (identifier.int >> 80) * 1_000_000
