"""A request's body unpacked within bounds: a kilobyte that becomes a gigabyte never gets that far."""

from __future__ import annotations

import zlib

from nhip.errors import WireError

ALWAYS_ALLOWED_OCTETS = 64 * 1024
"""Below this a ratio says nothing: a short batch of equal records packs very well."""


class TooLargeError(WireError):
    """More octets than this collector takes at once."""


def unpack_gzip(packed: bytes, *, at_most: int, ratio: int) -> bytes:
    """The content of one gzip member (RFC 1952); TooLargeError, WireError.

    Never holds more than `at_most` octets, nor more than `ratio` times what came in. A second member or any
    other octet behind the first is refused: what two programs could read differently has no place here.
    """
    bound = min(at_most, max(ALWAYS_ALLOWED_OCTETS, ratio * len(packed)))
    decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        content = decoder.decompress(packed, bound + 1)
    except zlib.error as error:
        raise WireError(f"no gzip: {error}") from error
    if len(content) > bound:
        raise TooLargeError(f"more than {bound} octets after decompression", remedy="send smaller batches")
    if not decoder.eof:
        raise WireError("no gzip: it ends before its end")
    if decoder.unused_data:
        raise WireError("no gzip: something follows the first member")
    return content
