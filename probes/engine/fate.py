"""What became of a probe, as one octet: a fate in the low half, facts about its delay in the high half."""

from __future__ import annotations

from nhip.measurement import Outcome

OPEN = 0
"""Nothing is known yet, or there was no probe."""
RECEIVED, LOST, LATE, CORRUPT, UNREACHABLE, REFUSED, NOT_RESOLVED, NOT_SENT = range(1, 9)
FATE = 0x0F

SENT_BY_USER_STAMP = 0x10
"""The kernel told no departure; the time of the hand-over stands for it."""
RECEIVED_BY_USER_STAMP = 0x20
"""The kernel told no arrival; the time of reading stands for it."""
REORDERED = 0x40
"""Came after the reply to a probe sent later (RFC 4737)."""

FAILED = (CORRUPT, UNREACHABLE, REFUSED, NOT_RESOLVED)
"""Neither received nor lost."""

OUTCOMES: dict[int, Outcome] = {
    RECEIVED: Outcome.RECEIVED,
    LOST: Outcome.LOST,
    LATE: Outcome.LATE,
    CORRUPT: Outcome.CORRUPT,
    UNREACHABLE: Outcome.UNREACHABLE,
    REFUSED: Outcome.REFUSED,
    NOT_RESOLVED: Outcome.NOT_RESOLVED,
    NOT_SENT: Outcome.NOT_SENT,
}
