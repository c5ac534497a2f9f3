"""Voice: a call-like stream over STAMP, and how it would have sounded."""
