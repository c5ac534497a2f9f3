"""The envelope: how one test's result travels, is kept, and is read years later.

One JSON object is one test ("record"), failures too. It carries its schema version, an identifier that makes
delivery idempotent, what was measured and how, and the state of the clock. A batch is what a probe
hands over at once; the acknowledgement echoes the batch's hash, so that a captive portal's "200 OK" is
never taken for one.

Reading rule: fields this version does not know are ignored (a newer probe may talk to an older
collector); a record older than :data:`OLDEST_SCHEMA_VERSION` or newer than :data:`SCHEMA_VERSION` + 2 is
refused by name; every number must be finite and within its stated range, and no two may contradict each
other (:mod:`nhip.plausibility`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from nhip import __version__, statistics
from nhip.errors import WireError
from nhip.identifier import uuid7
from nhip.measurement import (
    Access,
    ClockState,
    Counters,
    Direction,
    DirectionalLoss,
    LossPattern,
    Method,
    OneWaySummary,
    Outcome,
    Sample,
    SelfTiming,
    Singleton,
    StampSource,
    Statistic,
    Summary,
    Target,
    TypeP,
)
from nhip.plausibility import contradictions, numbers_without_value

SCHEMA_VERSION = 2
OLDEST_SCHEMA_VERSION = 1

# In Python `$` also stands before a final newline, which the look-ahead refuses; JSON Schema knows both.
Identifier = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$(?!\n)")]
Count = Annotated[int, Meta(ge=0, le=2**53)]
WallNs = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Seconds = Annotated[float, Meta(ge=0, le=1e7)]
Ratio = Annotated[float, Meta(ge=0, le=1)]
ShortText = Annotated[str, Meta(max_length=200)]
LONGEST_TEXT = 1000
"""Of a fact or a note; what a far end says beyond it is cut off."""
LongText = Annotated[str, Meta(max_length=LONGEST_TEXT)]


MOST_STATISTICS = 200
# More than any kind of test has; what would fill a disk or a page of metrics is no record.
MOST_ENTRIES = 100
Value = str | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | float | bool


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """One direction's transfers: per-transfer speeds are payload bits ÷ seconds, the mean is arithmetic."""

    direction: Direction
    transfers: Count
    octets: Count
    mean_bits_per_second: Annotated[float, Meta(ge=0, le=1e13)]
    rates_bits_per_second: list[Annotated[float, Meta(ge=0, le=1e13)]]


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One test and its result. Times are UTC nanoseconds; durations come from the monotonic clock."""

    schema_version: int
    record_id: UUID
    probe_id: Identifier
    epoch: Identifier = "none"
    """One run of the probe's agent; ``none`` for a record that no spool holds."""
    sequence: Count = 0
    """Place of this record in its epoch, from 1; given by the spool."""
    kind: Identifier
    method: Method
    software_version: ShortText
    target: Target
    access: Access
    type_p: TypeP
    outcome: Outcome
    started_wall_ns: WallNs
    duration_ns: Count
    loss_threshold_seconds: Seconds
    counters: Counters
    loss_ratio: Ratio | None = None
    loss_interval: tuple[Ratio, Ratio] | None = None
    """Wilson, 95 %."""
    round_trip_delay_seconds: Summary | None = None
    ipdv_seconds: Summary | None = None
    """Of |IPDV|, RFC 3393, consecutive packets."""
    pdv_seconds: Summary | None = None
    """RFC 5481, above the sample's minimum."""
    round_trip_delay_quantiles_seconds: list[Seconds] | None = None
    """At :data:`nhip.statistics.DELAY_PROBABILITIES`."""
    loss_pattern: LossPattern | None = None
    """RFC 3357."""
    directional_loss: DirectionalLoss | None = None
    one_way_delays: list[OneWaySummary] = []
    """RFC 7679; empty unless both clocks told their error."""
    self_timing: SelfTiming | None = None
    """What the probe's own host added, and whether the delay is doubtful for it."""
    statistics: Annotated[list[Statistic], Meta(max_length=MOST_STATISTICS)] = []
    """Numbers only this kind has, each with its definition."""
    facts: Annotated[dict[Identifier, LongText], Meta(max_length=MOST_ENTRIES)] = {}
    """What was learnt of the far end in words."""
    speeds: Annotated[list[Speed], Meta(max_length=len(Direction))] = []
    phases_seconds: Annotated[dict[Identifier, Seconds], Meta(max_length=MOST_ENTRIES)] = {}
    """Median of each phase of a longer exchange."""
    timestamp_source: StampSource
    clock: ClockState = ClockState()
    interface: ShortText | None = None
    address: ShortText | None = None
    source_address: ShortText | None = None
    octets_sent: Count = 0
    octets_received: Count = 0
    parameters: Annotated[dict[Identifier, Value], Meta(max_length=MOST_ENTRIES)] = {}
    notes: Annotated[list[LongText], Meta(max_length=MOST_ENTRIES)] = []
    singletons: list[Singleton] | UnsetType = UNSET
    """Raw singletons; left out unless the task asks for them."""


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a probe says of itself with each batch."""

    software_version: ShortText
    wall_ns: WallNs
    mono_ns: WallNs
    """Nanoseconds since the host started, which may be years."""
    spool_records: Count = 0
    spool_octets: Count = 0
    spool_oldest_age_seconds: Annotated[float, Meta(ge=0, le=1e10)] | None = None
    """More than fifty years where a record was made before the host's clock was set."""
    spool_dropped_total: Count = 0
    tests_total: Count = 0
    tests_failed_to_run_total: Count = 0
    tests_missed_total: Count = 0
    ship_failures_total: Count = 0
    schedule_lag_seconds_max: Seconds | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Records as a probe hands them over; each is decoded by itself, so one bad record spoils no other."""

    schema_version: int
    probe_id: Identifier
    agent: AgentStatus | None = None
    records: list[msgspec.Raw]


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """A record the collector put aside, and why; it is kept in quarantine and need not be sent again."""

    position: int
    reason: str


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """The collector's word that a batch is on its disk. `batch_sha256` echoes the bytes as received."""

    batch_sha256: str
    stored: int
    duplicate: int
    rejected: list[Rejection] = []


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """A remark for people, in both languages."""

    vi: Annotated[str, Meta(max_length=500)]
    en: Annotated[str, Meta(max_length=500)]


class LimitForecast(msgspec.Struct, frozen=True, kw_only=True):
    """When a link reaches one limit. `verdict` is already_over, crosses, never or no_capacity."""

    rule_id: Identifier
    title_vi: ShortText = ""
    title_en: ShortText = ""
    mark: ShortText = ""
    verified: bool = False
    statistic: ShortText
    limit_ratio: Ratio | None = None
    limit_bits_per_second: Annotated[float, Meta(ge=0)] | None = None
    verdict: ShortText
    median_date: ShortText | None = None
    interval80: tuple[ShortText | None, ShortText | None] | None = None
    probability_before_lead_time: Ratio | None = None
    lead_time_days: Annotated[float, Meta(ge=0)] | None = None
    horizon_days: Annotated[float, Meta(ge=0)] | None = None
    produced_by: ShortText = ""


class LinkForecast(msgspec.Struct, frozen=True, kw_only=True):
    """One link's forecast as published to the collector: quantile paths and the date of each limit."""

    link_id: Identifier
    series_id: ShortText
    produced_by: ShortText
    made_at_wall_ns: WallNs
    unit: ShortText
    step_seconds: Annotated[float, Meta(gt=0)]
    statistic: ShortText | None = None
    """What each value is (daily_peak, daily_mean, ...); `None` for the steps of the series themselves."""
    provenance: ShortText
    """``measured`` or ``simulated``; a simulated figure says so wherever it is shown."""
    capacity_bits_per_second: Annotated[float, Meta(gt=0)] | None = None
    limits: list[LimitForecast] = []
    times: list[ShortText] = []
    median: list[float] = []
    quantiles: dict[str, list[float]] = {}
    notes: list[Note] = []


_record_decoder = msgspec.json.Decoder(Record)
_batch_decoder = msgspec.json.Decoder(Batch)
_encoder = msgspec.json.Encoder()


def record(
    sample: Sample,
    *,
    probe_id: str,
    access: Access,
    wall_ns: int,
    keep_singletons: bool = False,
    own_error_share: float = statistics.OWN_ERROR_SHARE,
) -> Record:
    """The envelope of `sample`: counters, statistics and circumstances of one test.

    `wall_ns` is when the record is made; it becomes the time inside the record's identifier. A delay whose
    own error may be more than `own_error_share` of it is flagged (:func:`nhip.statistics.self_timing`).
    """
    counters = statistics.count(sample.singletons)
    delays = statistics.delays_seconds(sample.singletons)
    differences = [abs(value) for value in statistics.ipdv_seconds(sample.singletons)]
    return Record(
        schema_version=SCHEMA_VERSION,
        record_id=uuid7(wall_ns),
        probe_id=probe_id,
        kind=sample.kind,
        method=sample.method,
        software_version=__version__,
        target=sample.target,
        access=access,
        type_p=sample.type_p,
        outcome=overall_outcome(sample),
        started_wall_ns=sample.started.wall_ns,
        duration_ns=sample.ended.mono_ns - sample.started.mono_ns,
        loss_threshold_seconds=sample.loss_threshold_seconds,
        counters=counters,
        loss_ratio=statistics.loss_ratio(counters),
        loss_interval=statistics.wilson_interval(counters.lost, counters.lost + counters.received),
        round_trip_delay_seconds=statistics.summary(delays, "seconds"),
        ipdv_seconds=statistics.summary(differences, "seconds"),
        pdv_seconds=statistics.summary(statistics.pdv_seconds(sample.singletons), "seconds"),
        round_trip_delay_quantiles_seconds=statistics.delay_quantiles_seconds(sample.singletons),
        loss_pattern=statistics.loss_pattern(sample.singletons),
        directional_loss=sample.directional_loss,
        one_way_delays=statistics.one_way_delays(sample.singletons),
        self_timing=statistics.self_timing(sample.singletons, share=own_error_share),
        statistics=list(sample.statistics),
        facts={name: said[:LONGEST_TEXT] for name, said in sample.facts.items()},
        speeds=speeds(sample),
        phases_seconds=phases_seconds(sample),
        timestamp_source=sample.timestamp_source,
        clock=sample.clock,
        interface=sample.interface,
        address=sample.address,
        source_address=sample.source_address,
        octets_sent=sample.octets_sent,
        octets_received=sample.octets_received,
        parameters=dict(sample.parameters),
        notes=[note[:LONGEST_TEXT] for note in sample.notes],
        singletons=list(sample.singletons) if keep_singletons else UNSET,
    )


def overall_outcome(sample: Sample) -> Outcome:
    """Received if anything was; otherwise the fate most attempts shared, the first of equals."""
    fates = [
        singleton.outcome for singleton in sample.singletons if singleton.outcome is not Outcome.DUPLICATE
    ]
    if Outcome.RECEIVED in fates:
        return Outcome.RECEIVED
    most = Counter(fates).most_common(1)  # of equals the first seen
    return most[0][0] if most else Outcome.NOT_SENT


def speeds(sample: Sample) -> list[Speed]:
    """The whole transfers of each direction; a direction without one is left out."""
    found = []
    for direction in Direction:
        done = [
            singleton
            for singleton in sample.singletons
            if singleton.transfer is not None
            and singleton.transfer.direction is direction
            and singleton.outcome is Outcome.RECEIVED
        ]
        rates = statistics.transfer_rates_bits_per_second(done)
        average = statistics.mean(rates)
        if average is not None:
            found.append(
                Speed(
                    direction=direction,
                    transfers=len(rates),
                    octets=sum(singleton.transfer.octets for singleton in done if singleton.transfer),
                    mean_bits_per_second=average,
                    rates_bits_per_second=rates,
                )
            )
    return found


def phases_seconds(sample: Sample) -> dict[str, float]:
    """The median of each phase, over the attempts that reached it."""
    by_name: dict[str, list[float]] = {}
    for singleton in sample.singletons:
        for phase in singleton.phases:
            seconds = phase.duration_ns / statistics.NANOSECONDS_PER_SECOND
            by_name.setdefault(phase.name, []).append(seconds)
    medians = {name: statistics.quantile(values, 0.5) for name, values in by_name.items()}
    return {name: median for name, median in medians.items() if median is not None}


def encode_record(record: Record) -> bytes:
    """The record as JSON; WireError for a number that JSON has no word for."""
    if bad := list(numbers_without_value(record)):
        raise WireError(f"no record: {', '.join(bad)} is not finite")
    return _encoder.encode(record)


def decode_record(raw: bytes | msgspec.Raw) -> Record:
    """A checked record; WireError says which key is wrong and how."""
    try:
        found = _record_decoder.decode(raw)
        if _encoder.encode(found) != bytes(raw):
            # Not as this version writes it: another version, or a key given twice, of which every reader
            # would believe another one.
            json.loads(bytes(raw), object_pairs_hook=_each_key_once)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise WireError(f"no record: {error}") from error
    if not OLDEST_SCHEMA_VERSION <= found.schema_version <= SCHEMA_VERSION + 2:
        raise WireError(
            f"schema_version {found.schema_version} is not understood",
            remedy=f"this program reads {OLDEST_SCHEMA_VERSION} to {SCHEMA_VERSION + 2}; upgrade one side",
        )
    if wrong := next(contradictions(found), None):
        raise WireError(f"no record: {wrong}")
    return found


def encode_batch(probe_id: str, records: Iterable[bytes], agent: AgentStatus | None) -> bytes:
    """One batch from records already encoded, byte for byte as they lie in the spool."""
    return _encoder.encode(
        Batch(
            schema_version=SCHEMA_VERSION,
            probe_id=probe_id,
            agent=agent,
            records=[msgspec.Raw(raw) for raw in records],
        )
    )


def decode_batch(body: bytes) -> Batch:
    """The batch with its records still raw; WireError when the outside is wrong."""
    try:
        return _batch_decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise WireError(f"no batch: {error}") from error


def batch_sha256(body: bytes) -> str:
    """The hash an acknowledgement must echo, of the uncompressed body."""
    return hashlib.sha256(body).hexdigest()


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")
    return found
