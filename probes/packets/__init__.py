"""Octets on the wire and back: pure functions, each layout drawn above its code."""
