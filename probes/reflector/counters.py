"""What a reflector saw since it started, and why it left packets unanswered."""

from __future__ import annotations

from dataclasses import dataclass

REFUSALS = (
    "malformed",
    "too_short",
    "refused_port",
    "not_allowed",
    "already_reflected",
    "rate_limited",
    "not_authentic",
    "stale",
    "replayed",
    "no_room",
)
"""The reasons for no answer; each is a counter below."""


@dataclass(slots=True)
class ReflectorCounters:
    """Packets by fate: ``received = reflected + send_failures + internal_errors + refusals``."""

    received: int = 0
    reflected: int = 0
    send_failures: int = 0
    malformed: int = 0
    """Fewer octets than any sender's packet has."""
    too_short: int = 0
    """A TWAMP packet with so little padding that its answer would be longer than it."""
    refused_port: int = 0
    not_allowed: int = 0
    """From outside the networks that are served."""
    already_reflected: int = 0
    rate_limited: int = 0
    not_authentic: int = 0
    """Without a signature of one of our keys, in authenticated mode."""
    stale: int = 0
    """Signed, but sent too long ago, or in the future."""
    replayed: int = 0
    no_room: int = 0
    """Signed, but of a new session while none can be given up whose packets could still be replayed."""
    internal_errors: int = 0
    """Left unanswered because of a fault of ours."""
    integrity_failures: int = 0
    """Answered with the I flag: the signature of the TLVs was missing or wrong."""
    follow_ups: int = 0
    """Answers that told when an earlier one really left."""
    sessions_begun: int = 0
    sessions_evicted: int = 0
    """Forgotten while still young, because there were too many."""
