"""The vocabulary: what one packet's fate, one stream of packets and one number about it are called.

Only frozen data, no behaviour. The words are RFC 2330's: a *singleton* is the outcome of one attempt, a
*sample* is the set of singletons one test produced, a *statistic* is a number computed from a sample.
What does not exist is ``None``: a lost packet has no delay, and a test that sent nothing has no loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Outcome(StrEnum):
    """What became of one attempt. The list is closed; a new word is a new schema version."""

    RECEIVED = "received"
    """The answer came within the loss threshold and was whole."""
    LOST = "lost"
    """Nothing came within the loss threshold (RFC 7680: loss needs a stated waiting time)."""
    LATE = "late"
    """The answer came, after the loss threshold; counted as lost, kept apart."""
    DUPLICATE = "duplicate"
    """One more answer to a packet already answered; never counted as received."""
    CORRUPT = "corrupt"
    """An answer came whose content is not what the protocol or the request allows."""
    TRUNCATED = "truncated"
    """A transfer began and stopped before its announced end."""
    REFUSED = "refused"
    """The far end said no: TCP reset on connect, ICMP port unreachable."""
    UNREACHABLE = "unreachable"
    """A router said there is no way there (ICMP unreachable). No route on this host is an error instead."""
    RESET = "reset"
    """An established connection was broken by the far end."""
    REJECTED = "rejected"
    """The far end answered, in its own protocol, that it will not serve (HTTP 4xx/5xx, DNS rcode)."""
    BUSY = "busy"
    """The measurement server is at its declared capacity; says nothing about the network."""
    TLS_FAILED = "tls_failed"
    """The TLS handshake or the certificate check failed."""
    NOT_RESOLVED = "not_resolved"
    """The target's name gave no address."""
    NOT_SENT = "not_sent"
    """This host did not send (full buffer, own filter) or was told to stop before the fate was known.
    Never counted as loss."""


class StampSource(StrEnum):
    """Who read the clock for a time stamp, best first."""

    HARDWARE = "hardware"
    KERNEL = "kernel"
    USER = "user"


class TargetClass(StrEnum):
    """Where a target stands as seen from the subscriber's operator (QCVN 34:2014 split; kept as a label)."""

    ON_NET = "on_net"
    DOMESTIC = "domestic"
    OFF_NET = "off_net"
    INTERNATIONAL = "international"


class Technology(StrEnum):
    """Radio or line technology of the access."""

    FIXED = "fixed"
    MOBILE_3G = "3g"
    MOBILE_4G = "4g"
    MOBILE_5G = "5g"


class Environment(StrEnum):
    """Where the probe stood (strata of QCVN 81:2019 and QCVN 126:2021)."""

    FIXED = "fixed"
    INDOOR = "indoor"
    OUTDOOR_FIXED = "outdoor_fixed"
    OUTDOOR_MOVING = "outdoor_moving"


class Direction(StrEnum):
    """Of a transfer, seen from the subscriber."""

    DOWN = "down"
    UP = "up"


@dataclass(frozen=True, slots=True)
class Stamp:
    """When something happened, and who read the clock.

    `wall_ns` gives the date (UTC); differences are only ever taken between `mono_ns`.
    """

    wall_ns: int
    mono_ns: int
    source: StampSource


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeP:
    """What kind of packet was sent (RFC 2330 section 13: the Type-P of the metric)."""

    protocol: str
    ip_version: int | None = None
    size_octets: int | None = None
    """Octets of payload in each packet, without IP and transport headers; `None` where it is a stream."""
    dscp: int = 0
    destination_port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is measured towards: a stable id, how to reach it, and where it stands."""

    id: str
    host: str
    port: int | None = None
    target_class: TargetClass = TargetClass.DOMESTIC


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The line or radio access measured from; the collector holds it against its own list of probes."""

    operator: str
    technology: Technology
    province: str
    """Province code as listed in configs/geography/provinces.toml, valid on the day of the measurement."""
    environment: Environment = Environment.FIXED


@dataclass(frozen=True, slots=True)
class Method:
    """How a result was obtained; figures of different versions are never mixed."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockState:
    """What the kernel says of this host's clock (adjtimex): `None` where it cannot be asked."""

    synchronised: bool | None = None
    estimated_error_ns: int | None = None
    maximum_error_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Octets of payload moved in one direction, and the time that took."""

    direction: Direction
    octets: int
    duration_ns: int
    announced_octets: int | None = None


@dataclass(frozen=True, slots=True)
class Phase:
    """One step of a longer exchange (``dns``, ``tcp``, ``tls``, ``first_byte``, ``transfer``)."""

    name: str
    duration_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OneWayDelay:
    """How long a packet took in one direction, by two clocks, and how far those two may be apart.

    Published only when both clocks tell their error (RFC 7679 section 3.7); the true delay lies within
    `delay_ns` ± `error_ns`. It may be negative by no more than that.
    """

    direction: Direction
    delay_ns: int
    error_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Singleton:
    """One attempt and its fate."""

    sequence: int
    outcome: Outcome
    sent: Stamp | None = None
    received: Stamp | None = None
    delay_ns: int | None = None
    """The delay as the method defines it; `None` whenever it is undefined (RFC 7679 section 3.4)."""
    delay_source: StampSource | None = None
    """The worse of who told when the packet left and who told when the answer came."""
    host_sent_mono_ns: int | None = None
    """When this program handed the packet over (RFC 2330 section 10.2: host time); `sent` is its wire time
    where somebody better than user space told it."""
    host_received_mono_ns: int | None = None
    """When this program read the answer; `received` is its wire time where the kernel told it."""
    send_lag_ns: int | None = None
    """How long after it was due the packet was handed over: this probe's own lateness, never negative."""
    own_error_ns: int | None = None
    """How far `delay_ns` may be wrong by this host's own doing; `None` where it is not known."""
    one_way: tuple[OneWayDelay, ...] = ()
    transfer: Transfer | None = None
    phases: tuple[Phase, ...] = ()
    detail: str = ""
    """A short fact for a person: an ICMP code, an HTTP status, an errno name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionalLoss:
    """Where the packets of a round trip were lost, as a far end that numbers its answers can tell.

    Of `sent` packets, `lost_up` never reached the far end and `lost_down` are answers that never came back;
    of `undetermined` nobody can say (nothing came back after them).
    """

    sent: int
    lost_up: int
    lost_down: int
    undetermined: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """A number about a sample, with its unit, how many singletons it rests on and how it is defined."""

    name: str
    value: float | None
    unit: str
    count: int
    definition: str
    of: str = ""
    """What of several it is about: a codec, a direction, a service; empty where there is only one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Everything one test produced."""

    kind: str
    method: Method
    target: Target
    type_p: TypeP
    started: Stamp
    ended: Stamp
    loss_threshold_seconds: float
    singletons: tuple[Singleton, ...]
    timestamp_source: StampSource
    """The worst `delay_source` in this sample; user space when no delay is defined."""
    address: str | None = None
    """The address really measured; `None` when the name did not resolve."""
    source_address: str | None = None
    interface: str | None = None
    clock: ClockState = field(default_factory=ClockState)
    octets_sent: int = 0
    """Payload octets handed to the network, retransmissions and headers not counted."""
    octets_received: int = 0
    parameters: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    statistics: tuple[Statistic, ...] = ()
    """Numbers only this kind of test has; what every kind has follows from the singletons."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What was learnt of the far end in words: TLS version, HTTP version, name of the server instance."""
    directional_loss: DirectionalLoss | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """How many of each fate a sample holds. ``sent = received + lost + failed``; late is part of lost.

    `sent` counts attempts: one whose name did not resolve or that found no route is an attempt that failed,
    though no packet left.
    """

    sent: int
    received: int
    lost: int
    failed: int = 0
    """Ended by a refusal, an error or something corrupt: neither received nor lost."""
    busy: int = 0
    """Part of failed: the measurement server was at its capacity, which says nothing of the network."""
    late: int = 0
    duplicate: int = 0
    reordered: int = 0
    not_sent: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Location of a set of values in `unit`; quantiles as :func:`nhip.statistics.quantile` has them."""

    unit: str
    count: int
    min: float
    mean: float
    p50: float
    p95: float
    p99: float
    max: float
    p999: float | None = None
    """99.9 %; `None` in records of before this was kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneWaySummary:
    """One-way delay in one direction and how far the two clocks it rests on may be apart, in seconds.

    The minimum, like any value, may be below zero by no more than `error_seconds`, the largest of the sample.
    """

    direction: Direction
    delay_seconds: Summary
    error_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LossPattern:
    """How losses follow each other (RFC 3357). A loss period is a run of packets lost one after another."""

    periods: int
    longest_period_packets: int
    mean_period_packets: float | None
    """`None` where nothing was lost."""
    shortest_distance_packets: int | None
    """Fewest sequence numbers from one lost packet to the next (1: neighbours); `None` below two losses."""
    median_distance_packets: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTiming:
    """What this host added to its own measurement, and whether that is too much to trust the delay."""

    send_lag_seconds: Summary | None
    """Handed over after due: the scheduler's and this program's lateness. No part of the delay."""
    send_queueing_seconds: Summary | None
    """From the hand-over to the wire; in no delay whose packet the kernel stamped at departure."""
    receive_queueing_seconds: Summary | None
    """From the wire to this program; in no delay whose answer the kernel stamped at arrival."""
    own_error_seconds: Summary | None
    """How far the delays may be wrong by this host's doing."""
    error_share_limit: float
    """The share of the median delay that the own error's 99th percentile must not exceed."""
    doubtful: bool
    """True when it does."""
