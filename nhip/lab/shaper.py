"""When a packet leaves a link of limited rate, computed ahead: no timer, no thread, only arithmetic."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from nhip.lab.trace import OPPORTUNITY_BYTES, Trace


class Shaper(Protocol):
    """A drop-tail queue in front of something that serves it."""

    def release_ns(self, now_ns: int, size: int) -> int | None:
        """When the last bit of `size` bytes that arrive at `now_ns` leaves; None when they are dropped."""


class RateShaper:
    """A constant rate with a queue bounded in bytes: a token bucket whose burst is one packet.

    The whole state is the moment at which everything accepted so far will have left, so that the
    shaper is exact whenever it is asked and however late.
    """

    def __init__(self, rate_bits_per_second: float, queue_bytes: int, *, busy_until_ns: int = 0) -> None:
        self._ns_per_byte = 8e9 / rate_bits_per_second
        self._queue_ns = queue_bytes * self._ns_per_byte
        self.busy_until_ns = busy_until_ns

    def release_ns(self, now_ns: int, size: int) -> int | None:
        duration_ns = size * self._ns_per_byte
        start_ns = self.busy_until_ns
        if start_ns <= now_ns:
            start_ns = now_ns
        elif start_ns - now_ns + duration_ns > self._queue_ns:
            return None
        self.busy_until_ns = release_ns = start_ns + round(duration_ns)
        return release_ns


class TraceShaper:
    """Delivery opportunities out of a trace; each carries 1500 bytes and is wasted when nothing waits."""

    def __init__(self, trace: Trace, queue_bytes: int, *, start_ns: int) -> None:
        self._trace = trace
        self._queue_bytes = queue_bytes
        self._start_ns = start_ns
        self._index = 0
        self._left = OPPORTUNITY_BYTES
        self._waiting: deque[tuple[int, int]] = deque()
        self._waiting_bytes = 0

    def release_ns(self, now_ns: int, size: int) -> int | None:
        waiting = self._waiting
        while waiting and waiting[0][0] <= now_ns:
            self._waiting_bytes -= waiting.popleft()[1]
        if self._waiting_bytes + size > self._queue_bytes:
            return None
        trace = self._trace
        elapsed_ms = max(0, -(-(now_ns - self._start_ns) // 1_000_000))
        if trace.time_ms(self._index) < elapsed_ms:
            self._index = trace.first_at_or_after(elapsed_ms)
            self._left = OPPORTUNITY_BYTES
        need = size
        while need > self._left:
            need -= self._left
            self._index += 1
            self._left = OPPORTUNITY_BYTES
        self._left -= need
        release_ns = self._start_ns + trace.time_ms(self._index) * 1_000_000
        waiting.append((release_ns, size))
        self._waiting_bytes += size
        return release_ns
