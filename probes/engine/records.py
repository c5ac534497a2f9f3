"""Windows of targets as records of kind ``icmp``: what a single test gives too, computed by the column.

Definitions are those of :mod:`nhip.statistics`: quantiles by Hyndman and Fan's definition 7, IPDV of packets
sent one after the other, PDV above the window's minimum, loss periods of RFC 3357. A window is a fixed
number of probes, so its quantiles are of all of them and none is an estimate.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nhip import __version__
from nhip.identifier import uuid7
from nhip.measurement import (
    ClockState,
    Counters,
    LossPattern,
    Method,
    Outcome,
    SelfTiming,
    StampSource,
    Summary,
    Target,
    TypeP,
)
from nhip.statistics import DELAY_PROBABILITIES, loss_ratio, wilson_interval
from nhip.wire import SCHEMA_VERSION, Record
from probes.engine import fate
from probes.engine.book import LARGEST_LAG, NO_DELAY, Windows
from probes.engine.circumstances import Circumstances
from probes.engine.group import Group
from probes.engine.packet import ICMP_OCTETS, Bools

_CLOCK_UNKNOWN = ClockState()

METHOD = Method("icmp_echo", "2")

# How far a difference of two kernel stamps may be wrong: the clock is slewed by at most 500 parts in a
# million (adjtime(3)), and a step smaller than this is not told from the noise of reading it.
_SLEW_SHARE = 600e-6
_UNSEEN_STEP_SECONDS = 5e-6

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowContext:
    """What the columns of windows do not say: which group, which targets, where, and the wall clock."""

    group: Group
    ip_version: int
    targets: Sequence[Target]
    addresses: Sequence[str | None]
    offset_ns: int
    """Wall minus monotonic clock."""
    clock: ClockState = _CLOCK_UNKNOWN


def records(
    windows: Windows, context: WindowContext, circumstances: Circumstances, wall_ns: int
) -> Iterator[Record]:
    """One record for each row; `wall_ns` is when they are made."""
    group = context.group
    columns = _Columns(windows, circumstances.own_error_share)
    type_p = TypeP(
        protocol="icmp" if context.ip_version == 4 else "icmpv6",
        ip_version=context.ip_version,
        size_octets=ICMP_OCTETS + group.size_octets,
        dscp=group.dscp,
    )
    parameters: dict[str, str | int | float | bool] = {
        # The collector needs to know when to miss this series.
        "schedule_interval_seconds": max(group.window_seconds, group.interval_seconds),
        "interval_seconds": group.interval_seconds,
        "spacing": "poisson" if group.poisson else "periodic",
        "count": group.window_rounds,
        "size_octets": group.size_octets,
        "dont_fragment": group.dont_fragment,
        "group": group.id,
    }
    started_ns, ended_ns = windows.started_ns.tolist(), windows.ended_ns.tolist()
    for row, target in enumerate(context.targets):
        counters = columns.counters(row)
        packets = counters.sent - columns.fates[row][fate.NOT_RESOLVED]
        answers = counters.received + counters.late + counters.duplicate + columns.fates[row][fate.CORRUPT]
        yield Record(
            schema_version=SCHEMA_VERSION,
            record_id=uuid7(wall_ns),
            probe_id=circumstances.probe_id,
            kind="icmp",
            method=METHOD,
            software_version=__version__,
            target=target,
            access=circumstances.access,
            type_p=type_p,
            outcome=_outcome(columns.fates[row]),
            started_wall_ns=max(0, started_ns[row] + context.offset_ns),
            duration_ns=max(0, ended_ns[row] - started_ns[row]),
            loss_threshold_seconds=group.loss_threshold_seconds,
            counters=counters,
            loss_ratio=loss_ratio(counters),
            loss_interval=_wilson(counters.lost, counters.lost + counters.received),
            round_trip_delay_seconds=columns.delays.summary(row),
            ipdv_seconds=columns.ipdv.summary(row),
            pdv_seconds=columns.pdv.summary(row),
            round_trip_delay_quantiles_seconds=columns.delays.ladder(row),
            loss_pattern=columns.loss_pattern(row),
            self_timing=columns.self_timing(row),
            timestamp_source=columns.source(row),
            clock=context.clock,
            interface=circumstances.interface,
            address=context.addresses[row],
            source_address=circumstances.source_address,
            octets_sent=packets * (type_p.size_octets or 0),
            octets_received=answers * (type_p.size_octets or 0),
            parameters=dict(parameters),
            notes=columns.notes(row),
        )


def address_text(octets: bytes) -> str:
    """An address of 4 or 16 octets as people write it."""
    return str(ipaddress.ip_address(octets))


_PROBABILITIES = np.array([*DELAY_PROBABILITIES])
_PLACE_OF = {probability: place for place, probability in enumerate(DELAY_PROBABILITIES)}


class _Distribution:
    """Quantiles of each row of a table in which some places hold no value."""

    def __init__(self, values: Floats, present: Bools) -> None:
        if not values.shape[1]:  # no pair in windows of one probe
            values, present = np.zeros((len(values), 1)), np.zeros((len(values), 1), np.bool_)
        counts = present.sum(axis=1)
        ordered = np.sort(np.where(present, values, np.inf), axis=1)
        positions = np.maximum(counts - 1, 0)[:, None] * _PROBABILITIES
        below = np.floor(positions).astype(np.intp)
        above = np.minimum(below + 1, np.maximum(counts - 1, 0)[:, None])
        low = np.take_along_axis(ordered, below, axis=1)
        high = np.take_along_axis(ordered, above, axis=1)
        with np.errstate(invalid="ignore"):
            self._quantiles: list[list[float]] = (low + (high - low) * (positions - below)).tolist()
        means = np.where(present, values, 0.0).sum(axis=1) / np.maximum(counts, 1)
        self._means: list[float] = means.tolist()
        self.counts: list[int] = counts.tolist()

    def at(self, row: int, probability: float) -> float | None:
        """One of the ladder's quantiles; `None` when the row holds no value."""
        return self._quantiles[row][_PLACE_OF[probability]] if self.counts[row] else None

    def ladder(self, row: int) -> list[float] | None:
        """The quantiles at :data:`nhip.statistics.DELAY_PROBABILITIES`."""
        return self._quantiles[row] if self.counts[row] else None

    def summary(self, row: int) -> Summary | None:
        """Minimum, mean, quantiles and maximum in seconds."""
        if not self.counts[row]:
            return None
        found = self._quantiles[row]
        return Summary(
            unit="seconds",
            count=self.counts[row],
            min=found[0],
            # Floating point may put the mean of equal values beside them.
            mean=min(max(self._means[row], found[0]), found[-1]),
            p50=found[_PLACE_OF[0.5]],
            p95=found[_PLACE_OF[0.95]],
            p99=found[_PLACE_OF[0.99]],
            max=found[-1],
            p999=found[_PLACE_OF[0.999]],
        )


class _Columns:
    """Everything about the rows that is computed for all of them at once."""

    def __init__(self, windows: Windows, own_error_share: float) -> None:
        self._share = own_error_share
        kinds = windows.status & fate.FATE
        received = kinds == fate.RECEIVED
        self._lost = (kinds == fate.LOST) | (kinds == fate.LATE)
        self._kinds = kinds
        self.fates: list[list[int]] = [[0] * 9 for _ in range(len(kinds))]
        for kind in range(1, 9):
            for row, many in enumerate((kinds == kind).sum(axis=1).tolist()):
                self.fates[row][kind] = many
        self._reordered = (received & ((windows.status & fate.REORDERED) != 0)).sum(axis=1).tolist()
        self._duplicates, self._missed = windows.duplicates.tolist(), windows.missed.tolist()

        defined = received & (windows.delays_ns != NO_DELAY)
        seconds = windows.delays_ns / 1e9
        self.delays = _Distribution(seconds, defined)
        pairs = defined[:, 1:] & defined[:, :-1]
        self.ipdv = _Distribution(np.abs(np.diff(seconds, axis=1)), pairs)
        lowest = np.min(np.where(defined, seconds, np.inf), axis=1, keepdims=True)
        several = defined & (defined.sum(axis=1, keepdims=True) > 1)
        self.pdv = _Distribution(seconds - np.where(np.isfinite(lowest), lowest, 0.0), several)

        by_kernel = (windows.status & (fate.SENT_BY_USER_STAMP | fate.RECEIVED_BY_USER_STAMP)) == 0
        self._by_user = (defined & ~by_kernel).any(axis=1).tolist()
        self._undefined = (received & ~defined).sum(axis=1).tolist()
        handed = (kinds != fate.OPEN) & (kinds != fate.NOT_SENT) & (kinds != fate.NOT_RESOLVED)
        self._lags = _Distribution(windows.lags_us / 1e6, handed)
        self._capped = (handed & (windows.lags_us == LARGEST_LAG)).any(axis=1).tolist()
        self._errors = _Distribution(_UNSEEN_STEP_SECONDS + _SLEW_SHARE * seconds, defined & by_kernel)

    def counters(self, row: int) -> Counters:
        fates = self.fates[row]
        failed = sum(fates[kind] for kind in fate.FAILED)
        lost = fates[fate.LOST] + fates[fate.LATE]
        return Counters(
            sent=fates[fate.RECEIVED] + lost + failed,
            received=fates[fate.RECEIVED],
            lost=lost,
            failed=failed,
            late=fates[fate.LATE],
            duplicate=self._duplicates[row],
            reordered=self._reordered[row],
            not_sent=fates[fate.NOT_SENT] + self._missed[row],
        )

    def loss_pattern(self, row: int) -> LossPattern | None:
        fates = self.fates[row]
        if not fates[fate.LOST] + fates[fate.LATE]:
            return _NO_LOSS if fates[fate.RECEIVED] else None
        lost = np.flatnonzero(self._lost[row])
        distances = np.diff(lost)
        ends = np.flatnonzero(distances > 1)
        lengths = np.diff(np.concatenate(([-1], ends, [len(lost) - 1])))
        return LossPattern(
            periods=len(lengths),
            longest_period_packets=int(lengths.max()),
            mean_period_packets=float(lengths.mean()),
            shortest_distance_packets=int(distances.min()) if len(distances) else None,
            median_distance_packets=float(np.median(distances)) if len(distances) else None,
        )

    def self_timing(self, row: int) -> SelfTiming | None:
        lag = self._lags.summary(row)
        if lag is None:
            return None
        typical, worst = self.delays.at(row, 0.5), self._errors.at(row, 0.99)
        unknown = self._errors.counts[row] < self.delays.counts[row]
        return SelfTiming(
            send_lag_seconds=lag,
            send_queueing_seconds=None,
            receive_queueing_seconds=None,
            own_error_seconds=self._errors.summary(row),
            error_share_limit=self._share,
            doubtful=typical is not None and (unknown or worst is None or worst > self._share * typical),
        )

    def source(self, row: int) -> StampSource:
        if self._by_user[row] or not self.delays.counts[row]:
            return StampSource.USER
        return StampSource.KERNEL

    def notes(self, row: int) -> list[str]:
        found = []
        if self._undefined[row]:
            found.append(
                f"delay of {self._undefined[row]} replies undefined: the clock was stepped meanwhile"
            )
        if self._missed[row]:
            found.append(f"{self._missed[row]} probes missed: this host was too busy to send them in time")
        if self._capped[row]:
            found.append(f"a send lag is {LARGEST_LAG / 1000:g} ms or more")
        return found


_NO_LOSS = LossPattern(
    periods=0,
    longest_period_packets=0,
    mean_period_packets=None,
    shortest_distance_packets=None,
    median_distance_packets=None,
)


def _outcome(fates: list[int]) -> Outcome:
    """Received if anything was; otherwise the fate most probes shared."""
    if fates[fate.RECEIVED]:
        return Outcome.RECEIVED
    commonest = max(range(1, 9), key=fates.__getitem__)
    return fate.OUTCOMES[commonest] if fates[commonest] else Outcome.NOT_SENT


@lru_cache(maxsize=65_536)
def _wilson(events: int, trials: int) -> tuple[float, float] | None:
    return wilson_interval(events, trials)
