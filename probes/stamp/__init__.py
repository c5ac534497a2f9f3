"""STAMP: the sender's side (the far end is probes/reflector)."""
