"""From what a program said and what the captures saw to its error: pure arithmetic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.accuracy.said import Said
from benchmarks.accuracy.truth import Trip, Truth
from nhip.lab.pairing import quantile


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One program in one condition. Errors are said less true in microseconds, `None` where there is none."""

    sent: int
    """Requests the capture saw leave."""
    judged: int
    """Delays held against the truth."""
    unmatched: int
    """Delays said of probes that the captures did not see come back."""
    bias_us: float | None
    p50_us: float | None
    p99_us: float | None
    max_us: float | None
    lost_said: int
    lost_true: int
    honest: tuple[int, int] | None = None
    """Of the delays that came with an own error: how many were truly within it, and how many there were."""
    claimed_p50_us: float | None = None
    claimed_p99_us: float | None = None
    levels: Counter[str] = field(default_factory=Counter)
    sender_p99_us: float | None = None
    """Of a program whose far end takes part: the |error| its own two stamps have without that far end."""


def figures(said: Said, truth: Truth, *, excludes_turnaround: bool) -> Figures:
    """The errors of one run."""
    if said.mean is not None:
        return _of_mean(said, truth)
    trips: dict[int | str, Trip] = {getattr(trip, said.by): trip for trip in truth.trips}
    errors: dict[int | str, float] = {}
    for name, delay_ns in said.delays_ns.items():
        trip = trips.get(name)
        true_ns = None if trip is None else _true_ns(trip, excludes_turnaround)
        if true_ns is not None:
            errors[name] = (delay_ns - true_ns) / 1000
    sizes = sorted(abs(error) for error in errors.values())
    claims = {name: said.own_error_ns[name] / 1000 for name in errors if name in said.own_error_ns}
    claimed = sorted(claims.values())
    return Figures(
        sent=len(truth.trips),
        judged=len(errors),
        unmatched=len(said.delays_ns) - len(errors),
        bias_us=mean(errors.values()),
        p50_us=quantile(sizes, 0.5),
        p99_us=quantile(sizes, 0.99),
        max_us=sizes[-1] if sizes else None,
        lost_said=said.lost,
        lost_true=truth.lost,
        honest=(sum(abs(errors[name]) <= claims[name] for name in claims), len(claims)) if claims else None,
        claimed_p50_us=quantile(claimed, 0.5),
        claimed_p99_us=quantile(claimed, 0.99),
        levels=said.levels,
        sender_p99_us=quantile(_sender_errors_us(said, trips), 0.99) if excludes_turnaround else None,
    )


def _sender_errors_us(said: Said, trips: Mapping[int | str, Trip]) -> list[float]:
    """|error| of arrival less departure against the whole round trip, sorted."""
    return sorted(
        abs(said.arrived_ns[name] - departed_ns - round_trip_ns) / 1000
        for name, departed_ns in said.departed_ns.items()
        if name in said.arrived_ns and name in trips
        if (round_trip_ns := trips[name].round_trip_ns) is not None
    )


def _of_mean(said: Said, truth: Truth) -> Figures:
    """A program that tells a mean: of the answers it had counted, the first ones that came back."""
    assert said.mean is not None
    answers, mean_ns = said.mean
    returned = sorted(
        (trip.returned_ns, trip.returned_ns - trip.sent_ns)
        for trip in truth.trips
        if trip.returned_ns is not None
    )
    true_ns = mean(delay_ns for _, delay_ns in returned[:answers])
    asked_so_far = truth.trips[: said.sent]
    return Figures(
        sent=said.sent,
        judged=min(answers, len(returned)),
        unmatched=max(0, answers - len(returned)),
        bias_us=None if true_ns is None else (mean_ns - true_ns) / 1000,
        p50_us=None,
        p99_us=None,
        max_us=None,
        lost_said=said.lost,
        lost_true=sum(trip.returned_ns is None for trip in asked_so_far),
    )


def _true_ns(trip: Trip, excludes_turnaround: bool) -> int | None:
    return trip.line_ns if excludes_turnaround else trip.round_trip_ns


def mean(values: Iterable[float]) -> float | None:
    """The arithmetic mean; `None` of nothing."""
    found = list(values)
    return sum(found) / len(found) if found else None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a program's stamps stand between the capture's and the far end's; p50 and p99 in microseconds.

    On a veth pair the far end's arrival is the moment after the wire: the true departure lies between the
    near tap and it, and of two departures the later one is nearer to the wire.
    """

    count: int
    between: int
    """How many of the program's departures lie between the two."""
    within_claim: tuple[int, int] | None
    """Of the round trips said with an own error: how many lie, with it, between the longest that the taps
    allow (from the near tap) and the shortest (from the far arrival), and how many there were."""
    tap_to_departure_us: tuple[float | None, float | None]
    departure_to_far_us: tuple[float | None, float | None]
    tap_to_far_us: tuple[float | None, float | None]
    tap_to_arrival_us: tuple[float | None, float | None]


def standing(said: Said, truth: Truth, *, excludes_turnaround: bool) -> Standing | None:
    """Of the probes that every vantage point saw; `None` when the program tells no stamps."""
    trips: dict[int | str, Trip] = {getattr(trip, said.by): trip for trip in truth.trips}
    rows = [
        (
            said.departed_ns[name] - trip.sent_ns,
            trip.far_arrived_ns - said.departed_ns[name],
            trip.far_arrived_ns - trip.sent_ns,
            said.arrived_ns[name] - trip.returned_ns,
        )
        for name, trip in trips.items()
        if name in said.departed_ns
        and name in said.arrived_ns
        and trip.far_arrived_ns is not None
        and trip.returned_ns is not None
    ]
    if not rows:
        return None
    departure, to_far, whole, arrival = (_middle_and_tail(column) for column in zip(*rows, strict=True))
    return Standing(
        count=len(rows),
        within_claim=_within_claim(said, trips, excludes_turnaround),
        between=sum(departure_ns >= 0 and to_far_ns >= 0 for departure_ns, to_far_ns, _, _ in rows),
        tap_to_departure_us=departure,
        departure_to_far_us=to_far,
        tap_to_far_us=whole,
        tap_to_arrival_us=arrival,
    )


def _within_claim(
    said: Said, trips: Mapping[int | str, Trip], excludes_turnaround: bool
) -> tuple[int, int] | None:
    within = of = 0
    for name, claim_ns in said.own_error_ns.items():
        trip, delay_ns = trips.get(name), said.delays_ns.get(name)
        if trip is None or delay_ns is None or trip.returned_ns is None or trip.far_arrived_ns is None:
            continue
        longest_ns = _true_ns(trip, excludes_turnaround)
        # The answer's departure from the far host may be as late as its arrival here: then nothing is left.
        shortest_ns = 0 if excludes_turnaround else trip.returned_ns - trip.far_arrived_ns
        of += 1
        within += longest_ns is not None and shortest_ns - claim_ns <= delay_ns <= longest_ns + claim_ns
    return (within, of) if of else None


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One run with further taps at the prober's interface: medians in microseconds."""

    load: str
    extra_taps: int
    error_p50_us: float | None
    captured_p50_us: float | None
    said_p50_us: float | None


def weight(load: str, extra_taps: int, said: Said, truth: Truth) -> Weight:
    """What the taps did to the captured round trip, and what to the one that was said."""
    captured = sorted(trip.round_trip_ns / 1000 for trip in truth.trips if trip.round_trip_ns is not None)
    return Weight(
        load=load,
        extra_taps=extra_taps,
        error_p50_us=figures(said, truth, excludes_turnaround=False).p50_us,
        captured_p50_us=quantile(captured, 0.5),
        said_p50_us=quantile(sorted(delay_ns / 1000 for delay_ns in said.delays_ns.values()), 0.5),
    )


def _middle_and_tail(column: Sequence[int]) -> tuple[float | None, float | None]:
    ordered = sorted(value / 1000 for value in column)
    return quantile(ordered, 0.5), quantile(ordered, 0.99)
