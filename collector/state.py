"""The current state of every series and probe, in memory; what pages, metrics and alerts are made of.

A result is shown for ``expire_intervals`` schedule intervals after it was made, then it vanishes: a page
that keeps showing the last good value of a dead probe is wrong. Counters start from zero with the process, as
Prometheus expects of a restart; results and windows are rebuilt from the store.

A result's age is taken from the probe's own clock (time of delivery minus time of the test) and continues on
this host's monotonic clock, so that neither side's wrong date makes a result young or old.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from collector.admission import is_name
from collector.collector_config import Limits, ProbeEntry, Status
from collector.ingest import Delivery
from collector.store.api import Entry
from nhip.catalog import DELAY_BUCKETS_SECONDS
from nhip.clock import Clock
from nhip.measurement import Direction, Outcome, TargetClass, Technology
from nhip.wire import AgentStatus, Record

SCHEDULE_PARAMETER = "schedule_interval_seconds"
"""Key in a record's parameters: how often the test is run; ``interval_seconds`` is between its packets."""

LONGEST_INTERVAL_SECONDS = 86_400.0
"""No schedule is believed to be longer, so that nothing is shown for ever."""

SAYS_NOTHING_OF_THE_NETWORK = frozenset({Outcome.NOT_SENT, Outcome.BUSY})
_OBSERVATIONS_PER_PROBE = 20_000


@dataclass(frozen=True, slots=True)
class SeriesKey:
    """One scheduled test of a probe."""

    probe_id: str
    technology: Technology
    kind: str
    target_id: str
    target_class: TargetClass


@dataclass(slots=True)
class Series:
    """What is known of one series; counters count what this process received."""

    key: SeriesKey
    last: Record
    expires_mono_ns: int
    tests: int = 0
    failures: int = 0
    packets_sent: int = 0
    packets_received: int = 0
    packets_failed: int = 0
    packets_lost: int = 0
    packets_duplicate: int = 0
    packets_reordered: int = 0
    volume_octets: int = 0
    delay_sum_seconds: float = 0.0
    delay_buckets: list[int] = field(default_factory=lambda: [0] * (len(DELAY_BUCKETS_SECONDS) + 1))
    """Tests by median delay, not cumulated; the last bucket has no upper edge."""


@dataclass(frozen=True, slots=True)
class Observation:
    """The few numbers of a record that windows are computed from."""

    made_mono_ns: int
    technology: Technology
    kind: str
    target_class: TargetClass
    delay_seconds: float | None
    lost: int
    received: int
    rates_bits_per_second: tuple[tuple[Direction, tuple[float, ...]], ...]


@dataclass(slots=True)
class ProbeState:
    """What is known of one probe."""

    entry: ProbeEntry
    last_seen_wall_ns: int | None = None
    last_seen_mono_ns: int | None = None
    software_version: str | None = None
    agent: AgentStatus | None = None
    clock_offset_seconds: float | None = None
    observations: deque[Observation] = field(default_factory=lambda: deque(maxlen=_OBSERVATIONS_PER_PROBE))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state at one moment, safe to read while records keep coming."""

    now_mono_ns: int
    probes: tuple[ProbeState, ...]
    series: tuple[Series, ...]
    """Those with a result that has not expired."""
    known_series: tuple[Series, ...]
    """All of them, for the counters."""
    series_refused: int


class State:
    """The current state; `observe` comes from the ingest thread, `snapshot` from any."""

    def __init__(self, probes: Iterable[ProbeEntry], limits: Limits, status: Status, clock: Clock) -> None:
        self._limits = limits
        self._status = status
        self._clock = clock
        self._lock = threading.Lock()
        self._probes = {probe.id: ProbeState(probe) for probe in probes}
        self._series: dict[SeriesKey, Series] = {}
        self._series_per_probe: Counter[str] = Counter()
        self._refused = 0

    def observe(self, delivery: Delivery) -> None:
        """Take in a batch that is on disk."""
        with self._lock:
            probe = self._probes.get(delivery.probe.id)
            if probe is None:
                return
            probe.last_seen_wall_ns = delivery.received_wall_ns
            probe.last_seen_mono_ns = delivery.received_mono_ns
            if probe.software_version is None and delivery.stored:
                probe.software_version = delivery.stored[0].record.software_version
            probe_wall_ns = delivery.received_wall_ns
            if delivery.agent is not None:
                probe.agent = delivery.agent
                probe_wall_ns = delivery.agent.wall_ns
                probe.clock_offset_seconds = (probe_wall_ns - delivery.received_wall_ns) / 1e9
                if is_name(delivery.agent.software_version):
                    probe.software_version = delivery.agent.software_version
            for entry in delivery.stored:
                age_ns = max(0, probe_wall_ns - entry.record.started_wall_ns)
                made_mono_ns = delivery.received_mono_ns - age_ns
                self._to_window(probe, entry.record, made_mono_ns)
                self._to_series(entry.record, made_mono_ns, counting=True)

    def restore(self, entries: Iterable[Entry], *, window: bool) -> None:
        """Rebuild results after a restart, and the window too when asked; counters stay at zero."""
        now_wall_ns, now_mono_ns = self._clock.wall_ns(), self._clock.mono_ns()
        for entry in entries:
            with self._lock:
                probe = self._probes.get(entry.record.probe_id)
                if probe is None:
                    continue
                if probe.last_seen_wall_ns is None or entry.received_wall_ns > probe.last_seen_wall_ns:
                    probe.last_seen_wall_ns = entry.received_wall_ns
                    probe.last_seen_mono_ns = now_mono_ns - max(0, now_wall_ns - entry.received_wall_ns)
                    probe.software_version = entry.record.software_version
                made_mono_ns = now_mono_ns - max(0, now_wall_ns - entry.record.started_wall_ns)
                if window:
                    self._to_window(probe, entry.record, made_mono_ns)
                self._to_series(entry.record, made_mono_ns, counting=False)

    def restore_seen(self, wall_ns: Mapping[str, int]) -> None:
        """Take up again when each probe was last heard; what is known later than that stays."""
        now_wall_ns, now_mono_ns = self._clock.wall_ns(), self._clock.mono_ns()
        with self._lock:
            for probe_id, seen_wall_ns in wall_ns.items():
                probe = self._probes.get(probe_id)
                if probe is not None and (probe.last_seen_wall_ns or 0) < seen_wall_ns:
                    probe.last_seen_wall_ns = seen_wall_ns
                    probe.last_seen_mono_ns = now_mono_ns - max(0, now_wall_ns - seen_wall_ns)

    def last_seen(self) -> dict[str, int]:
        """When each probe that was ever heard was heard last."""
        with self._lock:
            return {
                name: probe.last_seen_wall_ns
                for name, probe in self._probes.items()
                if probe.last_seen_wall_ns is not None
            }

    def snapshot(self, *, observations: bool = False) -> Snapshot:
        """The state now; with the observations of each probe's window when asked for."""
        now_mono_ns = self._clock.mono_ns()
        with self._lock:
            known = tuple(_copy(series) for series in self._series.values())
            return Snapshot(
                now_mono_ns,
                tuple(_copy_probe(probe, observations) for probe in self._probes.values()),
                tuple(series for series in known if series.expires_mono_ns > now_mono_ns),
                known,
                self._refused,
            )

    def _to_window(self, probe: ProbeState, record: Record, made_mono_ns: int) -> None:
        probe.observations.append(_observation(record, made_mono_ns))
        window_ns = round(self._status.window_seconds * 1e9)
        while probe.observations[0].made_mono_ns < made_mono_ns - window_ns:
            probe.observations.popleft()

    def _to_series(self, record: Record, made_mono_ns: int, *, counting: bool) -> None:
        interval_seconds = _schedule_interval_seconds(record, self._status.default_interval_seconds)
        expires_mono_ns = made_mono_ns + round(interval_seconds * self._status.expire_intervals * 1e9)
        series = self._series_of(record, expires_mono_ns)
        if series is None:
            return
        if record.started_wall_ns >= series.last.started_wall_ns:
            series.last, series.expires_mono_ns = record, expires_mono_ns
        if counting:
            _count(series, record)

    def _series_of(self, record: Record, expires_mono_ns: int) -> Series | None:
        key = SeriesKey(
            record.probe_id,
            record.access.technology,
            record.kind,
            record.target.id,
            record.target.target_class,
        )
        series = self._series.get(key)
        if series is not None:
            return series
        if self._is_full(record.probe_id):
            self._drop_expired()
            if self._is_full(record.probe_id):
                self._refused += 1
                return None
        self._series_per_probe[record.probe_id] += 1
        return self._series.setdefault(key, Series(key, record, expires_mono_ns))

    def _is_full(self, probe_id: str) -> bool:
        return (
            len(self._series) >= self._limits.series
            or self._series_per_probe[probe_id] >= self._limits.series_per_probe
        )

    def _drop_expired(self) -> None:
        now_mono_ns = self._clock.mono_ns()
        for key in [key for key, series in self._series.items() if series.expires_mono_ns <= now_mono_ns]:
            del self._series[key]
            self._series_per_probe[key.probe_id] -= 1


def is_silent(probe: ProbeState, snapshot: Snapshot, status: Status) -> bool:
    """Whether nothing has come from `probe` for ``silent_seconds``, or nothing ever."""
    seen_mono_ns = probe.last_seen_mono_ns
    return seen_mono_ns is None or snapshot.now_mono_ns - seen_mono_ns > status.silent_seconds * 1e9


def answered(record: Record) -> bool | None:
    """Whether the test got an answer; None when it says nothing of the network."""
    if record.outcome in SAYS_NOTHING_OF_THE_NETWORK:
        return None
    return record.outcome is Outcome.RECEIVED


def _count(series: Series, record: Record) -> None:
    series.tests += 1
    series.failures += answered(record) is False
    series.packets_sent += record.counters.sent
    series.packets_received += record.counters.received
    series.packets_failed += record.counters.failed
    series.packets_lost += record.counters.lost
    series.packets_duplicate += record.counters.duplicate
    series.packets_reordered += record.counters.reordered
    series.volume_octets += record.octets_sent + record.octets_received
    delay = record.round_trip_delay_seconds
    if delay is not None:
        series.delay_sum_seconds += delay.p50
        series.delay_buckets[bisect_left(DELAY_BUCKETS_SECONDS, delay.p50)] += 1


def _observation(record: Record, made_mono_ns: int) -> Observation:
    delay = record.round_trip_delay_seconds
    return Observation(
        made_mono_ns,
        record.access.technology,
        record.kind,
        record.target.target_class,
        None if delay is None else delay.p50,
        record.counters.lost,
        record.counters.received,
        tuple((speed.direction, tuple(speed.rates_bits_per_second)) for speed in record.speeds),
    )


def _schedule_interval_seconds(record: Record, default_seconds: float) -> float:
    """How often the test runs, as its record says."""
    stated = record.parameters.get(SCHEDULE_PARAMETER)
    if (
        isinstance(stated, int | float)
        and not isinstance(stated, bool)
        and 0 < stated <= LONGEST_INTERVAL_SECONDS
    ):
        return float(stated)
    return default_seconds


def _copy(series: Series) -> Series:
    return Series(
        series.key,
        series.last,
        series.expires_mono_ns,
        series.tests,
        series.failures,
        series.packets_sent,
        series.packets_received,
        series.packets_failed,
        series.packets_lost,
        series.packets_duplicate,
        series.packets_reordered,
        series.volume_octets,
        series.delay_sum_seconds,
        list(series.delay_buckets),
    )


def _copy_probe(probe: ProbeState, observations: bool) -> ProbeState:
    return ProbeState(
        probe.entry,
        probe.last_seen_wall_ns,
        probe.last_seen_mono_ns,
        probe.software_version,
        probe.agent,
        probe.clock_offset_seconds,
        probe.observations.copy() if observations else deque(),
    )
