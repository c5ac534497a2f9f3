"""The technical indicators of QCVN 34 (fixed broadband) that active measurement can give: pure functions.

*Mean delay*: one test is one sample, and its delay is the mean round trip of the packets of that test that
came back; the indicator is the arithmetic mean over samples. Packets of one test follow each other within
seconds and tell little more than one of them, so counting packets as samples would reach the minimum in a
minute and claim a precision that is not there.

*Mean speed* (Pd, Pu): one whole file transfer is one sample, its speed is file volume over transfer time, and
the indicator is the plain arithmetic mean of the speeds: not total volume over total time, not a median.

Transfers and tests that failed have no delay and no speed. They stay out of the mean and are counted beside
it: the regulation's words on them were not available, and a zero in a mean is neither speed nor failure. One
the measurement server was too busy for is neither a sample nor a failure.
"""

from __future__ import annotations

from dataclasses import dataclass

from collector.kpi.profile import Formula, Indicator
from nhip.measurement import Direction, Outcome
from nhip.wire import Record


@dataclass(frozen=True, slots=True)
class Samples:
    """What one record adds to an indicator: sample values in the indicator's unit, and failures."""

    values: tuple[float, ...]
    failures: int = 0


NOTHING = Samples(())


def samples(indicator: Indicator, record: Record) -> Samples:
    """What `record` adds to `indicator`; nothing when it is no sample of it."""
    if record.kind not in indicator.kinds or record.target.target_class not in indicator.target_classes:
        return NOTHING
    direction = _DIRECTION_OF.get(indicator.formula)
    return delay_samples_seconds(record) if direction is None else speed_samples(record, direction)


_DIRECTION_OF: dict[Formula, Direction] = {
    "mean_speed_down": Direction.DOWN,
    "mean_speed_up": Direction.UP,
}


def delay_samples_seconds(record: Record) -> Samples:
    """One sample: the mean round-trip delay of the test, in seconds; a failure when nothing came back."""
    if record.round_trip_delay_seconds is not None:
        return Samples((record.round_trip_delay_seconds.mean,))
    return Samples((), failures=int(record.outcome not in _NOT_THE_NETWORK))


def speed_samples(record: Record, direction: Direction) -> Samples:
    """The speed of each whole transfer in `direction`, bits per second; those that broke off as failures.

    A record counts its failures without saying which way they went. Its parameters ``direction`` (``down``,
    ``up`` or ``both``) and ``count`` (transfers each way) tell; a record without them counts its failures
    where it has speeds, and on both sides when it has none.
    """
    speeds = [speed for speed in record.speeds if speed.direction is direction]
    values = tuple(rate for speed in speeds for rate in speed.rates_bits_per_second)
    stated, planned = record.parameters.get("direction"), record.parameters.get("count")
    if isinstance(stated, str):
        concerned = stated in (direction, "both")
    else:
        concerned = bool(speeds) or not record.speeds
    if not concerned or record.outcome in _NOT_THE_NETWORK:
        return Samples(values)
    failures = record.counters.failed - record.counters.busy + record.counters.lost
    if isinstance(planned, int):
        failures = min(failures, max(0, planned - len(values)))
    return Samples(values, failures)


_NOT_THE_NETWORK = frozenset({Outcome.NOT_SENT, Outcome.BUSY})
