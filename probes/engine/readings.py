"""What the engine says of itself: what it did with every probe, how late it was, what it cost."""

from __future__ import annotations

import dataclasses
import resource
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from probes.engine import fate

if TYPE_CHECKING:
    from probes.engine.lane import Lane
    from probes.engine.steps import StepWatch


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReadings:
    """Totals since the start. ``planned = handed over + missed + refused by this host + unresolved + ready``.

    Of what was handed over, ``settled`` has a fate and ``in_flight`` has none yet.
    """

    targets: int
    wanted_probes_per_second: float
    most_probes_per_second: float
    planned: int
    handed_over: int
    missed: int
    refused_by_host: dict[str, int]
    unresolved: int
    in_flight: int
    received: int
    lost: int
    late: int
    duplicate: int
    reordered: int
    corrupt: int
    unreachable: int
    refused: int
    fate_unknown: int
    """Handed over and not answered while this host had no way, or never handed over: no loss."""
    foreign: int
    forged: int
    stale: int
    sent_by_user_stamp: int
    received_by_user_stamp: int
    without_delay: int
    clock_steps: int
    address_changes: int
    buffer_drops: int
    lag_p50_seconds: float | None
    lag_p99_seconds: float | None
    lag_max_seconds: float | None
    cpu_seconds: float
    """Of this process since it began to send."""
    memory_octets: int

    @property
    def cpu_seconds_per_probe(self) -> float | None:
        """Processor time of this process for each probe handed over; `None` before the first."""
        return self.cpu_seconds / self.handed_over if self.handed_over else None

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


def read_lanes(
    lanes: Sequence[Lane], steps: StepWatch, most_probes_per_second: float, cpu_seconds: float
) -> EngineReadings:
    """The totals of all lanes together."""
    totals = [lane.book.totals for lane in lanes]
    sending = [lane.sending for lane in lanes]
    lags = sum((lane.lags_us for lane in lanes), np.zeros(1, np.int64))
    refused: Counter[str] = sum((part.refused for part in sending), Counter())

    def fates(kind: int) -> int:
        return sum(total.of(kind) for total in totals)

    return EngineReadings(
        targets=sum(len(lane.addresses) for lane in lanes),
        wanted_probes_per_second=sum(lane.rate for lane in lanes),
        most_probes_per_second=most_probes_per_second,
        planned=sum(part.planned for part in sending),
        handed_over=sum(part.handed_over for part in sending),
        missed=sum(part.missed for part in sending),
        refused_by_host=dict(refused),
        unresolved=sum(part.unresolved for part in sending),
        in_flight=sum(lane.in_flight for lane in lanes),
        received=sum(total.received for total in totals),
        lost=sum(total.lost for total in totals),
        late=sum(total.late for total in totals),
        duplicate=sum(total.duplicate for total in totals),
        reordered=sum(total.reordered for total in totals),
        corrupt=fates(fate.CORRUPT),
        unreachable=fates(fate.UNREACHABLE),
        refused=fates(fate.REFUSED),
        fate_unknown=fates(fate.NOT_SENT),
        foreign=sum(lane.flight.strays.foreign for lane in lanes),
        forged=sum(lane.flight.strays.forged for lane in lanes),
        stale=sum(lane.flight.strays.stale for lane in lanes),
        sent_by_user_stamp=sum(total.sent_by_user_stamp for total in totals),
        received_by_user_stamp=sum(total.received_by_user_stamp for total in totals),
        without_delay=sum(total.without_delay for total in totals),
        clock_steps=steps.steps,
        address_changes=sum(lane.addresses.changed for lane in lanes),
        buffer_drops=sum(lane.endpoint.dropped() or 0 for lane in lanes),
        lag_p50_seconds=lag_quantile_seconds(lags, 0.5),
        lag_p99_seconds=lag_quantile_seconds(lags, 0.99),
        lag_max_seconds=lag_quantile_seconds(lags, 1.0),
        cpu_seconds=cpu_seconds,
        memory_octets=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def lag_quantile_seconds(histogram: NDArray[np.int64], probability: float) -> float | None:
    """The quantile of lags counted by the microsecond; `None` of none. The last bin stands for all above."""
    total = int(histogram.sum())
    if not total:
        return None
    wanted = max(1, int(np.ceil(probability * total)))
    return float(np.searchsorted(np.cumsum(histogram), wanted)) / 1e6
