"""A clock that tests move."""

from __future__ import annotations

START_WALL_NS = 1_790_000_000 * 1_000_000_000


class FakeClock:
    """Both clocks stand until `advance`; `step` moves only the date, as NTP does."""

    def __init__(self, wall_ns: int = START_WALL_NS, mono_ns: int = 1_000_000_000_000) -> None:
        self._wall_ns, self._mono_ns = wall_ns, mono_ns

    def wall_ns(self) -> int:
        return self._wall_ns

    def mono_ns(self) -> int:
        return self._mono_ns

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def suspended_ns(self) -> int:
        return 0

    def advance(self, seconds: float) -> None:
        self._wall_ns += round(seconds * 1e9)
        self._mono_ns += round(seconds * 1e9)

    def step(self, seconds: float) -> None:
        self._wall_ns += round(seconds * 1e9)
