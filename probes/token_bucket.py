"""How much each client may still have: token buckets, one for each, a second's worth deep, at least one.

A client nobody knows has a full bucket, as long as there is room to remember it. When there is none, the one
silent longest is forgotten and the new one begins with a single token: whoever invents addresses to have
buckets forgotten gains one packet by each and not a second's worth.
"""

from __future__ import annotations

from collections import OrderedDict

from nhip.statistics import NANOSECONDS_PER_SECOND


class TokenBuckets:
    """One bucket for each client; the longest silent client is forgotten first. One thread at a time."""

    def __init__(self, per_second: float, *, most_clients: int) -> None:
        self._per_second, self._depth = per_second, max(1.0, per_second)
        self._most_clients = most_clients
        self._clients: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def take(self, client: str, now_ns: int) -> bool:
        """Take one token of `client` at `now_ns`, monotonic; False when it has none."""
        crowded = len(self._clients) >= self._most_clients
        tokens, then_ns = self._clients.pop(client, (1.0 if crowded else self._depth, now_ns))
        gained = (now_ns - then_ns) / NANOSECONDS_PER_SECOND * self._per_second
        tokens = min(self._depth, tokens + gained)
        allowed = tokens >= 1
        self._clients[client] = (tokens - 1 if allowed else tokens, now_ns)
        if len(self._clients) > self._most_clients:
            self._clients.popitem(last=False)
        return allowed
