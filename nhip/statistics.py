"""Statistics of a sample: pure functions, each with its definition and source.

Every function answers ``None`` where the number does not exist (no packet sent, nothing received),
never 0. Nothing is rounded here. Delays are integers of nanoseconds, results are seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import NormalDist

from nhip.measurement import (
    Counters,
    Direction,
    LossPattern,
    OneWaySummary,
    Outcome,
    Sample,
    SelfTiming,
    Singleton,
    StampSource,
    Statistic,
    Summary,
)

NANOSECONDS_PER_SECOND = 1_000_000_000

DELAY_PROBABILITIES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
"""The quantiles kept of every delay distribution: those that draft-ietf-ippm-qoo judges by."""

OWN_ERROR_SHARE = 0.1
"""A delay that this host itself may have falsified by more than this share is called doubtful."""

_NEITHER_LOST_NOR_RECEIVED = frozenset(
    {
        Outcome.CORRUPT,
        Outcome.TRUNCATED,
        Outcome.REFUSED,
        Outcome.UNREACHABLE,
        Outcome.RESET,
        Outcome.REJECTED,
        Outcome.BUSY,
        Outcome.TLS_FAILED,
        Outcome.NOT_RESOLVED,
    }
)


def quantile(values: Sequence[float], probability: float) -> float | None:
    """The sample quantile by linear interpolation of the order statistics; ``None`` of nothing.

    Hyndman and Fan's definition 7 (The American Statistician 50, 1996), the default of numpy and R, so
    that anyone can check a figure with either. `probability` is 0 to 1.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"a quantile's probability lies between 0 and 1, not {probability}")
    if not values:
        return None
    ordered = sorted(values)
    position = (len(ordered) - 1) * probability
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def mean(values: Sequence[float]) -> float | None:
    """The arithmetic mean, summed without loss of precision; ``None`` of nothing."""
    return math.fsum(values) / len(values) if values else None


def summary(values: Sequence[float], unit: str) -> Summary | None:
    """Minimum, mean, median, 95th and 99th percentile and maximum; ``None`` of nothing."""
    if not values:
        return None
    ordered = sorted(values)

    def at(probability: float) -> float:
        value = quantile(ordered, probability)
        assert value is not None  # noqa: S101 - `ordered` is not empty
        return value

    return Summary(
        unit=unit,
        count=len(ordered),
        min=ordered[0],
        mean=math.fsum(ordered) / len(ordered),
        p50=at(0.5),
        p95=at(0.95),
        p99=at(0.99),
        p999=at(0.999),
        max=ordered[-1],
    )


def count(singletons: Iterable[Singleton]) -> Counters:
    """How many of each fate.

    A late answer is a lost packet (RFC 7680 section 2.5: the threshold decides) and is also counted apart. A
    duplicate adds to neither sent nor received (RFC 5560). A packet that was never sent is no loss.
    """
    fates = list(singletons)
    tally = dict.fromkeys(Outcome, 0)
    for singleton in fates:
        tally[singleton.outcome] += 1
    failed = sum(tally[outcome] for outcome in _NEITHER_LOST_NOR_RECEIVED)
    lost = tally[Outcome.LOST] + tally[Outcome.LATE]
    return Counters(
        sent=tally[Outcome.RECEIVED] + lost + failed,
        received=tally[Outcome.RECEIVED],
        lost=lost,
        failed=failed,
        busy=tally[Outcome.BUSY],
        late=tally[Outcome.LATE],
        duplicate=tally[Outcome.DUPLICATE],
        reordered=reordered(fates),
        not_sent=tally[Outcome.NOT_SENT],
    )


def loss_ratio(counters: Counters) -> float | None:
    """Lost ÷ (lost + received), 0 to 1 (RFC 7680 section 4.1); ``None`` when no packet could tell.

    Packets the far end refused say nothing of loss and stay outside both numbers.
    """
    base = counters.lost + counters.received
    return counters.lost / base if base else None


def wilson_interval(events: int, trials: int, confidence: float = 0.95) -> tuple[float, float] | None:
    """The score interval of a ratio (Wilson, JASA 22, 1927), two numbers 0 to 1; ``None`` of no trial.

    Right where the naive interval fails: 0 of 100 is not "no loss" but "at most 3.7 %".
    """
    if trials == 0:
        return None
    if not 0 <= events <= trials:
        raise ValueError(f"{events} events of {trials} trials is no ratio")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = events / trials
    denominator = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / denominator
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / denominator
    # The bounds are exact at the ends; floating point would leave 1e-19 there.
    low = 0.0 if events == 0 else max(0.0, centre - half)
    high = 1.0 if events == trials else min(1.0, centre + half)
    return low, high


def delays_seconds(singletons: Iterable[Singleton]) -> list[float]:
    """The defined delays, in sending order, in seconds."""
    return [
        singleton.delay_ns / NANOSECONDS_PER_SECOND
        for singleton in sorted(singletons, key=lambda singleton: singleton.sequence)
        if singleton.outcome is Outcome.RECEIVED and singleton.delay_ns is not None
    ]


def ipdv_seconds(singletons: Iterable[Singleton]) -> list[float]:
    """Delay differences between packets sent one after the other, signed, in seconds.

    RFC 3393 with the selection function "consecutive packets": a pair is defined only when both
    packets arrived, so nothing is ever computed across a lost one.
    """
    by_sequence = {
        singleton.sequence: singleton.delay_ns
        for singleton in singletons
        if singleton.outcome is Outcome.RECEIVED and singleton.delay_ns is not None
    }
    return [
        (delay_ns - by_sequence[sequence - 1]) / NANOSECONDS_PER_SECOND
        for sequence, delay_ns in sorted(by_sequence.items())
        if sequence - 1 in by_sequence
    ]


def pdv_seconds(singletons: Iterable[Singleton]) -> list[float]:
    """Delay above the sample's minimum, never negative, in seconds (RFC 5481 section 4.2: PDV).

    Nothing below two delays: one packet varies from nothing.
    """
    delays = delays_seconds(singletons)
    if len(delays) < 2:
        return []
    lowest = min(delays)
    return [delay - lowest for delay in delays]


def reordered(singletons: Iterable[Singleton]) -> int:
    """How many arrived after a packet sent later (RFC 4737 section 3: sequence below the next expected)."""
    arrived = sorted(
        (
            singleton
            for singleton in singletons
            if singleton.outcome is Outcome.RECEIVED and singleton.received is not None
        ),
        # Equal times are no reordering: the earlier sent one counts as the earlier arrival.
        key=lambda singleton: (singleton.received.mono_ns if singleton.received else 0, singleton.sequence),
    )
    next_expected, behind = 0, 0
    for singleton in arrived:
        if singleton.sequence >= next_expected:
            next_expected = singleton.sequence + 1
        else:
            behind += 1
    return behind


def reordered_ratio(counters: Counters) -> float | None:
    """Reordered ÷ received, 0 to 1 (RFC 4737 section 4.1.3); ``None`` when nothing was received."""
    return counters.reordered / counters.received if counters.received else None


def duplicate_ratio(counters: Counters) -> float | None:
    """Duplicate answers ÷ received; more than 1 where packets came thrice; ``None`` of nothing received."""
    return counters.duplicate / counters.received if counters.received else None


def loss_pattern(singletons: Iterable[Singleton]) -> LossPattern | None:
    """Loss periods and distances (RFC 3357 sections 4 and 5); ``None`` when no packet could tell.

    Neighbours are packets sent one after the other. A packet that was not sent, or was refused, ends a loss
    period: nobody knows whether it would have been lost.
    """
    told = {
        singleton.sequence: singleton.outcome in (Outcome.LOST, Outcome.LATE)
        for singleton in singletons
        if singleton.outcome in (Outcome.LOST, Outcome.LATE, Outcome.RECEIVED)
    }
    if not told:
        return None
    lost = sorted(sequence for sequence, was_lost in told.items() if was_lost)
    distances = [after - before for before, after in pairwise(lost)]
    lengths: list[int] = []
    for position in range(len(lost)):
        if position and distances[position - 1] == 1:
            lengths[-1] += 1
        else:
            lengths.append(1)
    return LossPattern(
        periods=len(lengths),
        longest_period_packets=max(lengths, default=0),
        mean_period_packets=mean(lengths),
        shortest_distance_packets=min(distances, default=None),
        median_distance_packets=quantile(distances, 0.5),
    )


def delay_quantiles_seconds(singletons: Iterable[Singleton]) -> list[float] | None:
    """The delays at :data:`DELAY_PROBABILITIES`, in seconds; ``None`` when no delay is defined."""
    ordered = sorted(delays_seconds(singletons))
    found = [quantile(ordered, probability) for probability in DELAY_PROBABILITIES]
    return [value for value in found if value is not None] or None


def self_timing(singletons: Iterable[Singleton], *, share: float = OWN_ERROR_SHARE) -> SelfTiming | None:
    """What this host added to its own measurement; ``None`` where the singletons tell nothing of it.

    The delay is doubtful when the 99th percentile of its own error is more than `share` of its median, or
    when the own error of more than one delay in a hundred is not known.
    """
    kept = list(singletons)
    lags = _seconds(singleton.send_lag_ns for singleton in kept)
    sending = _seconds(
        singleton.sent.mono_ns - singleton.host_sent_mono_ns
        for singleton in kept
        if singleton.sent is not None
        and singleton.host_sent_mono_ns is not None
        and singleton.sent.source is not StampSource.USER
    )
    receiving = _seconds(
        singleton.host_received_mono_ns - singleton.received.mono_ns
        for singleton in kept
        if singleton.received is not None
        and singleton.host_received_mono_ns is not None
        and singleton.received.source is not StampSource.USER
    )
    errors = _seconds(singleton.own_error_ns for singleton in kept)
    if not lags and not errors:
        return None
    delays = delays_seconds(kept)
    worst, typical = quantile(errors, 0.99), quantile(delays, 0.5)
    unknown = len(delays) - len(errors) > 0.01 * len(delays)
    return SelfTiming(
        send_lag_seconds=summary(lags, "seconds"),
        send_queueing_seconds=summary([max(value, 0.0) for value in sending], "seconds"),
        receive_queueing_seconds=summary([max(value, 0.0) for value in receiving], "seconds"),
        own_error_seconds=summary(errors, "seconds"),
        error_share_limit=share,
        doubtful=typical is not None and (unknown or (worst is not None and worst > share * typical)),
    )


def one_way_delays(singletons: Iterable[Singleton]) -> list[OneWaySummary]:
    """One-way delay of each direction (RFC 7679) where both clocks told their error; empty otherwise."""
    kept = [
        one_way
        for singleton in singletons
        if singleton.outcome is Outcome.RECEIVED
        for one_way in singleton.one_way
    ]
    found = []
    for direction in Direction:
        of_direction = [one_way for one_way in kept if one_way.direction is direction]
        delays = summary(_seconds(one_way.delay_ns for one_way in of_direction), "seconds")
        if delays is not None:
            error_seconds = max(one_way.error_ns for one_way in of_direction) / NANOSECONDS_PER_SECOND
            found.append(
                OneWaySummary(direction=direction, delay_seconds=delays, error_seconds=error_seconds)
            )
    return found


def transfer_rates_bits_per_second(singletons: Iterable[Singleton]) -> list[float]:
    """The speed of each whole transfer, payload bits ÷ seconds: what QCVN 34 calls the speed of one sample.

    A transfer that broke off has no speed; it counts among the failures instead.
    """
    return [
        singleton.transfer.octets * 8 * NANOSECONDS_PER_SECOND / singleton.transfer.duration_ns
        for singleton in singletons
        if singleton.outcome is Outcome.RECEIVED
        and singleton.transfer is not None
        and singleton.transfer.duration_ns > 0
    ]


def statistics(sample: Sample) -> list[Statistic]:
    """The statistics of `sample` that exist, each naming its own definition."""
    counters = count(sample.singletons)
    delays, variation = delays_seconds(sample.singletons), pdv_seconds(sample.singletons)
    differences = ipdv_seconds(sample.singletons)
    found = [
        Statistic(
            name="loss_ratio",
            value=loss_ratio(counters),
            unit="ratio",
            count=counters.lost + counters.received,
            definition=f"RFC 7680, threshold {sample.loss_threshold_seconds:g} s",
        ),
        Statistic(
            name="round_trip_delay_p50",
            value=quantile(delays, 0.5),
            unit="seconds",
            count=len(delays),
            definition="median of defined delays, Hyndman-Fan 7",
        ),
        Statistic(
            name="ipdv_mean_absolute",
            value=mean([abs(difference) for difference in differences]),
            unit="seconds",
            count=len(differences),
            definition="mean |IPDV|, RFC 3393, consecutive packets",
        ),
        Statistic(
            name="pdv_p95",
            value=quantile(variation, 0.95),
            unit="seconds",
            count=len(variation),
            definition="95th percentile of PDV, RFC 5481",
        ),
    ]
    return [statistic for statistic in found if statistic.value is not None]


def _seconds(values_ns: Iterable[int | None]) -> list[float]:
    return [value_ns / NANOSECONDS_PER_SECOND for value_ns in values_ns if value_ns is not None]


_QUALITY = (StampSource.HARDWARE, StampSource.KERNEL, StampSource.USER)


def worse_source(one: StampSource, other: StampSource) -> StampSource:
    """The less trustworthy of two levels."""
    return max(one, other, key=_QUALITY.index)


def worst_source(singletons: Iterable[Singleton]) -> StampSource:
    """The least trustworthy level any delay rests on; user space when no delay is defined."""
    levels = [singleton.delay_source for singleton in singletons if singleton.delay_source is not None]
    return max(levels, key=_QUALITY.index, default=StampSource.USER)
