"""The sessions of a stateful reflector: what it numbers by, and which packets it has seen.

A session is a client's address, its port and its STAMP session identifier (RFC 8972 section 3). Their number
is bounded, for each client and in all, and what was silent longest goes first.

The replay window is that of RFC 4303 appendix A, over the sender's sequence number: the newest number seen,
and a bit for each of the `window` numbers up to it. A sender that begins again from zero is told from a
replayed packet by T1, which the HMAC covers: nothing replayed can be newer than all that was seen.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from probes.packets.stamp_tlv import FollowUp
from probes.reflector.counters import ReflectorCounters

Key = tuple[str, int, int]


@dataclass(slots=True)
class Session:
    """What is remembered of one sender."""

    last_ns: int
    client: str = ""
    """Whom it counts for: an IPv4 address or an IPv6 /64."""
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
    """All sessions there are; one thread at a time.

    One client has no more than `most_per_client`, and loses its own when it begins more. When there are
    `most` in all, whoever has more than an even share gives up its own, and else the one silent longest goes.

    With `replayable_ns` a session that heard something within that time is never given up: its packets could
    be replayed. A new one is then refused instead.
    """

    def __init__(
        self,
        *,
        most: int,
        most_per_client: int,
        idle_ns: int,
        counters: ReflectorCounters,
        replayable_ns: int = 0,
    ) -> None:
        self._most, self._most_per_client = most, most_per_client
        self._idle_ns, self._replayable_ns = idle_ns, replayable_ns
        self._counters = counters
        self._sessions: OrderedDict[Key, Session] = OrderedDict()
        self._of_clients: dict[str, OrderedDict[Key, None]] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def of(self, key: Key, client: str, now_ns: int) -> Session | None:
        """The session of `key` at `now_ns`, monotonic: a new one when it is unknown or was silent long.

        `client` is whom it counts for. `None` when it is new and there is no room for it.
        """
        session = self._sessions.get(key)
        if session is not None and now_ns - session.last_ns <= self._idle_ns:
            self._sessions.move_to_end(key)
            self._of_clients[client].move_to_end(key)
            session.last_ns = now_ns
            return session
        if not self._make_room(client, now_ns):
            return None
        session = self._sessions[key] = Session(now_ns, client)
        self._of_clients.setdefault(client, OrderedDict())[key] = None
        self._counters.sessions_begun += 1
        return session

    def _make_room(self, client: str, now_ns: int) -> bool:
        sessions = self._sessions
        while sessions:
            key, oldest = next(iter(sessions.items()))
            if now_ns - oldest.last_ns <= self._idle_ns:
                break
            self._forget(key)
        own = self._of_clients.get(client, ())
        full = len(sessions) >= self._most
        if not full and len(own) < self._most_per_client:
            return True
        choices: list[Iterable[Key]] = []
        if len(own) >= self._most_per_client or len(own) * len(self._of_clients) > len(sessions):
            choices.append(own)
        if len(own) < self._most_per_client:
            choices.append(sessions)
        for choice in choices:
            given_up = next(iter(choice))
            if self._replayable_ns and now_ns - sessions[given_up].last_ns <= self._replayable_ns:
                continue
            self._forget(given_up)
            self._counters.sessions_evicted += 1
            return True
        return False

    def _forget(self, key: Key) -> None:
        client = self._sessions.pop(key).client
        own = self._of_clients[client]
        del own[key]
        if not own:
            del self._of_clients[client]


def _mask(window: int) -> int:
    return (1 << max(window, 1)) - 1
