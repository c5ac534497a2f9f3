"""The sessions of a stateful reflector: what it numbers by, and which packets it has seen.

A session is a client's address, its port and its STAMP session identifier (RFC 8972 section 3). Their number
is bounded, and what was silent longest goes first.

The replay window is that of RFC 4303 appendix A, over the sender's sequence number: the newest number seen,
and a bit for each of the `window` numbers up to it. A sender that begins again from zero is told from a
replayed packet by T1, which the HMAC covers: nothing replayed can be newer than all that was seen.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from probes.packets.stamp_tlv import FollowUp
from probes.reflector.counters import ReflectorCounters

Key = tuple[str, int, int]


@dataclass(slots=True)
class Session:
    """What is remembered of one sender."""

    last_ns: int
    next_sequence: int = 0
    received: int = 0
    newest_sent: int = -1
    """The highest T1 seen, its 64 bits as they stand on the wire."""
    oldest_sent: int = 0
    """T1 with which the sender began again: what is older is of its time before."""
    highest: int = -1
    seen: int = 0
    """Bit n is the sequence number `highest` - n."""
    follow_up: FollowUp | None = None
    """The newest answer of which it is known when it really left."""
    generation: int = 0
    """How often the sender began again: an answer of an earlier time says nothing about this one's."""

    def admit(self, sequence: int, sent: int, window: int) -> bool:
        """Note a request; False when it came before or is too old to know. A `window` of 0 admits all."""
        behind = self.highest - sequence
        if window and sent < self.oldest_sent:
            return False
        if behind < 0:
            self.seen = (self.seen << -behind | 1) & _mask(window) if -behind < window else 1
            self.highest = sequence
        elif sent > self.newest_sent:
            self._begin_again(sequence, sent)
        elif window:
            if behind >= window or self.seen >> behind & 1:
                return False
            self.seen |= 1 << behind
        if sent > self.newest_sent:
            self.newest_sent = sent
        self.received += 1
        return True

    def _begin_again(self, sequence: int, sent: int) -> None:
        self.next_sequence = self.received = 0
        self.highest, self.seen, self.oldest_sent = sequence, 1, sent
        self.follow_up = None
        self.generation += 1


class Sessions:
    """All sessions there are; one thread at a time."""

    def __init__(self, *, most: int, idle_ns: int, counters: ReflectorCounters) -> None:
        self._most, self._idle_ns, self._counters = most, idle_ns, counters
        self._sessions: OrderedDict[Key, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def of(self, key: Key, now_ns: int) -> Session:
        """The session of `key` at `now_ns`, monotonic; a new one when it is unknown or was silent long."""
        sessions = self._sessions
        session = sessions.get(key)
        if session is not None and now_ns - session.last_ns <= self._idle_ns:
            sessions.move_to_end(key)
            session.last_ns = now_ns
            return session
        self._make_room(now_ns)
        session = sessions[key] = Session(now_ns)
        sessions.move_to_end(key)
        self._counters.sessions_begun += 1
        return session

    def _make_room(self, now_ns: int) -> None:
        sessions = self._sessions
        while sessions:
            key, oldest = next(iter(sessions.items()))
            idle = now_ns - oldest.last_ns > self._idle_ns
            if not idle and len(sessions) < self._most:
                return
            del sessions[key]
            self._counters.sessions_evicted += not idle


def _mask(window: int) -> int:
    return (1 << max(window, 1)) - 1
