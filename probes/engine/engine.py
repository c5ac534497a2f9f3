"""The engine: all lanes in one loop that sends on time, reads what came, and books what is settled.

::

    ┌─▶ send what is due ─▶ read when enough waits ─▶ settle ─▶ hand windows on ─▶ plan ─▶ sleep ─┐
    └─────────────────────────────────────────────────────────────────────────────────────────────┘

Everything but sending is done in small pieces, so that no probe waits long for it. The order is the
priority: when the processor does not suffice, probes are missed, and counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from nhip.clock import Clock
from nhip.errors import ConfigError
from probes.engine.addresses import Refresher, sort_by_family
from probes.engine.book import Windows
from probes.engine.group import Group
from probes.engine.lane import Lane
from probes.engine.readings import EngineReadings, read_lanes
from probes.engine.steps import StepWatch
from probes.network import Network

log = logging.getLogger("nhip.engine")

OnWindows = Callable[[Lane, Windows], None]

_LOOK_EVERY_NS = 20_000_000
_LEAD_NS = 20_000_000
_IDLE_NS = 20_000_000
_MOST_EARLY_NS = 200_000
_RESOLVE_EVERY_SECONDS = 300.0
# A pause this long must not overflow the kernel's buffer.
LONGEST_PAUSE_SECONDS = 0.02


class Engine:
    """Probes groups of targets until stopped. The constructor does nothing; `start` opens sockets.

    `on_windows` is called from the loop with windows of a lane's targets, some at a time.
    `most_probes_per_second` is what this host is taken to be able to do; replies that come up to
    `late_wait_seconds` after the loss threshold, and no longer than that again, are late; later ones stale.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        clock: Clock,
        network: Network,
        on_windows: OnWindows,
        *,
        most_probes_per_second: float,
        late_wait_seconds: float = 1.0,
        resolve_every_seconds: float = _RESOLVE_EVERY_SECONDS,
        rng: np.random.Generator | None = None,
    ) -> None:
        self._groups = groups
        self._clock = clock
        self._network = network
        self._on_windows = on_windows
        self._most_probes_per_second = most_probes_per_second
        self._late_wait_seconds = late_wait_seconds
        self._resolve_every_seconds = resolve_every_seconds
        self._rng = rng or np.random.default_rng()
        self._stop = threading.Event()
        self._waiting: deque[tuple[Lane, Windows]] = deque()
        self._refresher: Refresher | None = None
        self._wake_late_ns = 50_000
        self._cpu_before_seconds = 0.0
        self._departures_read = False
        self.lanes: list[Lane] = []

    @property
    def wanted_probes_per_second(self) -> float:
        """What the groups ask for together."""
        return sum(group.probes_per_second for group in self._groups)

    def start(self) -> None:
        """Look names up and open the sockets.

        ConfigError when the groups ask for more than this host or its buffers can do, CannotMeasureError when
        this host allows no ICMP.
        """
        wanted = self.wanted_probes_per_second
        if wanted > self._most_probes_per_second:
            raise ConfigError(
                f"icmp_group: {wanted:,.0f} probes a second are asked for, and this host can do "
                f"{self._most_probes_per_second:,.0f}",
                remedy="use longer intervals, fewer targets, or another probe for part of them",
            )
        self._steps = StepWatch(self._clock)
        now_ns = self._clock.mono_ns()
        for group in self._groups:
            for book in sort_by_family(group.targets, self._network):
                lane = Lane(
                    group,
                    book,
                    self._clock,
                    self._network,
                    steps=self._steps,
                    rng=self._rng,
                    late_wait_seconds=self._late_wait_seconds,
                )
                self.lanes.append(lane)
                lane.start(now_ns)
                self._check_buffer(lane)
        failures = [lane.line.failure for lane in self.lanes]
        if failures and all(failures):
            raise failures[0] or AssertionError
        self._refresher = Refresher(
            [lane.addresses for lane in self.lanes], self._network, every_seconds=self._resolve_every_seconds
        )
        self._refresher.start()

    def run(self, seconds: float | None = None) -> None:
        """Probe until `stop`, or for so long; then wait out the loss threshold and give the rest."""
        started_ns = self._clock.mono_ns()
        until_ns = None if seconds is None else started_ns + round(seconds * 1e9)
        self._cpu_before_seconds = time.process_time()
        for lane in self.lanes:
            lane.begin(started_ns + _LEAD_NS)
        self._loop(until_ns)
        self._finish()

    def stop(self) -> None:
        """Tell the loop to end; returns at once."""
        self._stop.set()

    def close(self) -> None:
        """Close every socket; may be called more than once."""
        self._stop.set()
        if self._refresher is not None:
            self._refresher.close()
        for lane in self.lanes:
            lane.close()

    def readings(self) -> EngineReadings:
        """What the engine says of itself so far."""
        cpu_seconds = time.process_time() - self._cpu_before_seconds
        return read_lanes(self.lanes, self._steps, self._most_probes_per_second, cpu_seconds)

    def _loop(self, until_ns: int | None) -> None:
        clock, lanes = self._clock, self.lanes
        read_ns = 0
        read_every_ns = min(lane.read_every_ns for lane in lanes)
        while not self._stop.is_set():
            now_ns = clock.mono_ns()
            if until_ns is not None and now_ns >= until_ns:
                return
            planned = False
            for lane in lanes:
                planned |= lane.plan(now_ns)
                lane.send_due(clock.mono_ns())
            if now_ns - self._steps.seen_ns > _LOOK_EVERY_NS:
                self._steps.look()
            # One thing at a time, for each takes about as long as a tick.
            if planned:
                continue
            if now_ns >= read_ns or any(lane.unread >= lane.read_when_waiting for lane in lanes):
                if self._read(now_ns):
                    read_ns = now_ns + read_every_ns
            elif not (self._settle(now_ns) or self._hand_on()):
                self._sleep(now_ns, read_ns)

    def _read(self, now_ns: int) -> bool:
        """Read departures and, the next time, replies; True after both when nothing more waits."""
        self._departures_read = not self._departures_read
        if self._departures_read:
            for lane in self.lanes:
                lane.line.look(now_ns)
                lane.read_departures()
            return False
        emptied = [lane.read_replies() for lane in self.lanes]
        return all(emptied)

    def _settle(self, now_ns: int) -> bool:
        """Book the oldest probes of one lane; False when the time of none is up."""
        for lane in self.lanes:
            if lane.can_settle():
                self._waiting.extend((lane, windows) for windows in lane.settle(now_ns))
                return True
        return False

    def _hand_on(self) -> bool:
        """Give one lot of windows to whoever wants them; False when there is none."""
        if self._waiting:
            self._on_windows(*self._waiting.popleft())
        return bool(self._waiting)

    def _sleep(self, now_ns: int, read_ns: int) -> None:
        """Until half a tick after the next probe is due, so that those due around then go in one call."""
        due_ns = min(lane.next_due_ns() + lane.gather_ns for lane in self.lanes) - self._wake_late_ns
        wake_ns = min(now_ns + _IDLE_NS, read_ns, due_ns)
        pause_ns = wake_ns - self._clock.mono_ns()
        if pause_ns > 10_000:
            self._clock.sleep(pause_ns / 1e9)
            # How late this host wakes us, followed slowly: the next sleep ends that much earlier.
            over_ns = self._clock.mono_ns() - wake_ns
            self._wake_late_ns += (min(over_ns, _MOST_EARLY_NS) - self._wake_late_ns) >> 4

    def _finish(self) -> None:
        """Wait for the last replies, then give what fills no window."""
        deadline_ns = (
            self._clock.mono_ns() + max((lane.hold_ns for lane in self.lanes), default=0) + 600_000_000
        )
        for lane in self.lanes:
            lane.end()
        while any(lane.in_flight for lane in self.lanes) and self._clock.mono_ns() < deadline_ns:
            self._clock.sleep(0.005)
            now_ns = self._clock.mono_ns()
            while not self._read(now_ns) or self._settle(now_ns):
                pass
        while self._waiting:
            self._on_windows(*self._waiting.popleft())
        for lane in self.lanes:
            for windows in lane.finish(self._clock.mono_ns()):
                self._on_windows(lane, windows)

    def _check_buffer(self, lane: Lane) -> None:
        most = lane.probes_in_buffer / LONGEST_PAUSE_SECONDS
        if lane.rate > most:
            raise ConfigError(
                f"icmp_group: {lane.group.id!r}: {lane.rate:,.0f} probes a second need a larger receive "
                f"buffer; the one this host allows does for {most:,.0f}",
                remedy="as root: sysctl -w net.core.rmem_max=33554432, or give the probe CAP_NET_ADMIN",
            )
