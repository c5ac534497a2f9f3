"""Limits of the engine that its configuration must know, and that need no numpy."""

LEAST_DATA_OCTETS = 32
"""Token, serial, nonce, target and round (probes/engine/packet.py)."""

LONGEST_THRESHOLD_SECONDS = 4.0
"""A delay is kept in 32 bits of nanoseconds (probes/engine/book.py)."""
