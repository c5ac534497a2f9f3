"""The truth document: what a lab really did to packets, as data.

:meth:`Lab.truth` returns a :class:`Truth`; the lab also answers it as JSON on its control socket and
writes it to ``truth.json`` each second. ``truth_from_json`` reads either. Ratios lie between 0 and 1,
what is not known is null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from nhip.errors import LabError
from nhip.lab.effects import Effects

SCHEMA_VERSION = 1

PacketClass = Literal["icmp", "udp", "tcp", "other"]
PACKET_CLASSES: tuple[PacketClass, ...] = ("icmp", "udp", "tcp", "other")


@dataclass(frozen=True)
class Counters:
    """What became of the packets of one class in one direction.

    arrived + duplicated = dropped_loss + dropped_queue + delivered + packets still under way.
    """

    arrived: int = 0
    dropped_loss: int = 0
    """Lost by the loss effects, random and bursty."""
    dropped_queue: int = 0
    """Dropped because the queue in front of the rate was full."""
    duplicated: int = 0
    """Copies made."""
    held_back: int = 0
    """Chosen to leave late; only those overtaken meanwhile count as reordered."""
    reordered: int = 0
    """Delivered after a packet of their class that had arrived later (RFC 4737, Type-P-Reordered)."""
    delivered: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(frozen=True)
class OwnError:
    """How late packets left: actual less intended time in the link, over all delivered packets."""

    count: int
    p50_seconds: float | None
    p90_seconds: float | None
    p99_seconds: float | None
    max_seconds: float | None


@dataclass(frozen=True)
class DirectionTruth:
    """One direction of one link."""

    effects: Effects
    expected_loss_ratio: float
    counters: dict[str, Counters]
    """By class: icmp (echo and errors), udp, tcp, other (neighbour discovery, multicast reports, ...)."""
    own_error: OwnError
    dropped_interface: int
    """Packets an interface dropped outside the emulator; anything but 0 is a lab too slow."""
    flows_forgotten: int = 0
    """TCP flows no longer followed because too many came after them."""


@dataclass(frozen=True)
class RoundTrips:
    """Requests that left the near end of a link for one destination, and their replies.

    `kind` is icmp, stamp, dns or udp. Times are kernel stamps at the near interface. A request counts
    as lost when no reply came within three seconds; a reply after that is late and the request stays lost.
    Counts cover the life of the lab, delays the newest 5000 requests; with bounds both cover what was sent
    within them.
    """

    kind: str
    destination: str
    requests: int
    received: int
    lost: int
    waiting: int
    """Requests younger than three seconds without a reply yet; neither received nor lost."""
    late: int
    duplicate: int
    min_seconds: float | None
    median_seconds: float | None
    p95_seconds: float | None
    max_seconds: float | None


@dataclass(frozen=True)
class FlowHalf:
    """One direction of a TCP connection as the link delivered it; times are wall nanoseconds."""

    opened_wall_ns: int
    payload_bytes: int
    """New bytes by sequence number; what is sent again does not count again."""
    repeated_bytes: int
    first_payload_wall_ns: int | None
    last_payload_wall_ns: int | None
    speed_bits_per_second: float | None
    """Payload after the first segment over the time from first to last segment; null with one segment."""
    first_arrival_wall_ns: int | None = None
    """When the first payload reached the link, even if that copy was lost; the two above are deliveries."""


@dataclass(frozen=True)
class TcpFlow:
    """A TCP connection over one link. `up` is near to far, `down` far to near; null when nothing was seen."""

    client: str
    client_port: int
    server: str
    server_port: int
    opened_wall_ns: int
    up: FlowHalf | None
    down: FlowHalf | None


@dataclass(frozen=True)
class LinkTruth:
    """One emulated link."""

    id: str
    near: str
    far: str
    operator: str | None
    technology: str | None
    up: DirectionTruth
    down: DirectionTruth
    round_trips: tuple[RoundTrips, ...]
    tcp_flows: tuple[TcpFlow, ...]
    """The newest flows, at most 500."""


@dataclass(frozen=True)
class EmulatorHealth:
    """Whether the emulator runs and how it is served."""

    alive: bool
    realtime: bool
    awake_processors: int
    """Processors kept from falling idle."""
    cpu_seconds: float
    packets: int


@dataclass(frozen=True)
class RecorderHealth:
    """Whether the truth is complete."""

    captured: int
    missed: int
    """Packets the kernel could not hand over; with anything but 0 the round trips have gaps."""
    stamps: Literal["kernel", "user"]


@dataclass(frozen=True)
class Truth:
    """The whole truth about a lab at one moment."""

    schema_version: int
    lab: str
    variant: Literal["namespaces", "loopback"]
    written_wall_ns: int
    missing_effects: tuple[str, ...]
    """Effects this variant cannot produce, in words; empty for namespaces."""
    emulator: EmulatorHealth
    recorder: RecorderHealth
    links: tuple[LinkTruth, ...]

    def link(self, link_id: str) -> LinkTruth:
        """The link called `link_id`; KeyError when there is none."""
        for link in self.links:
            if link.id == link_id:
                return link
        raise KeyError(link_id)


@dataclass(frozen=True)
class Singleton:
    """The true fate of one request, as recorded at the near end of a link."""

    link: str
    kind: str
    destination: str
    flow: str
    """icmp: ``id/sequence``; udp: ``source port/first four payload bytes as a number``; dns: ``port/id``."""
    sent_wall_ns: int
    round_trip_seconds: float | None
    """None when lost."""


def truth_to_json(truth: Truth) -> bytes:
    """`truth` as one JSON document."""
    return msgspec.json.encode(truth)


def truth_from_json(data: bytes) -> Truth:
    """The truth in a JSON document; LabError when it is none."""
    try:
        return msgspec.json.decode(data, type=Truth)
    except msgspec.MsgspecError as error:
        raise LabError(
            f"this is no truth document ({error})", remedy="compare the lab's version with yours"
        ) from error
