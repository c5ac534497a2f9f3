"""The truth about each probe: what the kernel saw at both ends of the line, whoever sent it.

A capture (AF_PACKET, stamped by the kernel) on the prober's interface sees each request leave and each answer
come: their difference is the true round trip. A second one on the far host's interface sees how long that
host kept the packet, which STAMP and irtt take out of their delay by definition. Both captures read nothing
while a program runs; the kernel keeps the packets, and says whether it had room for all of them.
"""

from __future__ import annotations

import contextlib
import ipaddress
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from nhip.lab.capture import Capture

STAMP_PORT = 862
IRTT_PORT = 2112

# The kernel switches stamping on a moment after it was asked to; until then it stamps what is read.
_SWITCHING_ON_SECONDS = 0.03
_ICMP, _UDP = 1, 17
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_IRTT_MAGIC = b"\x14\xa7\x5b"
_IRTT_REPLY = 2
_IRTT_CONTROL = 1 | 4  # the open and close packets of a session
_STAMP_OCTETS = 44

Protocol = Literal["icmp", "stamp", "irtt"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What tells one probe from every other, and whether this packet is its request or its answer."""

    protocol: Protocol
    far: str
    flow: int
    """ICMP identifier, or the prober's UDP port."""
    sequence: int
    request: bool

    @property
    def key(self) -> tuple[str, str, int, int]:
        return self.protocol, self.far, self.flow, self.sequence


@dataclass(frozen=True, slots=True)
class Trip:
    """One probe as the captures saw it; `None` is what they did not see."""

    order: int
    """Place among all requests of the run, from 0."""
    sequence: int
    far: str
    sent_ns: int
    returned_ns: int | None
    far_arrived_ns: int | None
    far_left_ns: int | None

    @property
    def round_trip_ns(self) -> int | None:
        """From the request at our interface to its answer there."""
        return None if self.returned_ns is None else self.returned_ns - self.sent_ns

    @property
    def turnaround_ns(self) -> int | None:
        """How long the far host kept it."""
        if self.far_arrived_ns is None or self.far_left_ns is None:
            return None
        return self.far_left_ns - self.far_arrived_ns

    @property
    def line_ns(self) -> int | None:
        """The round trip without the far host's share."""
        if self.round_trip_ns is None or self.turnaround_ns is None:
            return None
        return self.round_trip_ns - self.turnaround_ns


@dataclass
class Truth:
    """The trips of one run, in sending order, and how many packets the captures had no room for."""

    trips: list[Trip] = field(default_factory=list)
    missed: int = 0

    @property
    def lost(self) -> int:
        return sum(trip.returned_ns is None for trip in self.trips)


@contextlib.contextmanager
def watched(near: tuple[str, str], far: tuple[str, str]) -> Iterator[Truth]:
    """Capture at both ends, each a namespace and an interface; the truth is whole after the block."""
    truth = Truth()
    with contextlib.ExitStack() as stack:
        captures = [Capture(*near), Capture(*far)]
        for capture in captures:
            stack.callback(capture.close)
            capture.start()
        time.sleep(_SWITCHING_ON_SECONDS)
        yield truth
        stamps = [_stamps(capture) for capture in captures]
        truth.trips = trips(*stamps)
        truth.missed = sum(capture.count_missed() for capture in captures)


Stamps = dict[tuple[str, str, int, int], dict[bool, int]]
"""By probe: when its request (True) and its answer (False) passed."""


def trips(near: Stamps, far: Stamps) -> list[Trip]:
    """Each request that left, joined with what else was seen of it."""
    requests = sorted((seen[True], key) for key, seen in near.items() if True in seen)
    return [
        Trip(
            order=order,
            sequence=key[3],
            far=key[1],
            sent_ns=sent_ns,
            returned_ns=near[key].get(False),
            far_arrived_ns=far.get(key, {}).get(True),
            far_left_ns=far.get(key, {}).get(False),
        )
        for order, (sent_ns, key) in enumerate(requests)
    ]


def _stamps(capture: Capture) -> Stamps:
    found: Stamps = {}
    while packets := list(capture.packets()):
        for packet in packets:
            seen = read(packet.data)
            if seen is not None:
                # A second packet of the same name is a duplicate; the first one counts.
                found.setdefault(seen.key, {}).setdefault(seen.request, packet.stamp_ns)
    return found


def read(packet: bytes) -> Seen | None:
    """What an IPv4 packet says of itself; `None` for what is no probe."""
    if len(packet) < 28 or packet[0] >> 4 != 4:
        return None
    header = (packet[0] & 15) * 4
    source, destination = (str(ipaddress.IPv4Address(packet[at : at + 4])) for at in (12, 16))
    if packet[9] == _ICMP:
        kind, _code, _sum, identifier, sequence = struct.unpack_from("!BBHHH", packet, header)
        if kind not in (_ECHO_REQUEST, _ECHO_REPLY):
            return None
        request = kind == _ECHO_REQUEST
        return Seen("icmp", destination if request else source, identifier, sequence, request)
    if packet[9] != _UDP:
        return None
    source_port, destination_port = struct.unpack_from("!HH", packet, header)
    payload = packet[header + 8 :]
    for protocol, port in (("stamp", STAMP_PORT), ("irtt", IRTT_PORT)):
        request = destination_port == port
        if not request and source_port != port:
            continue
        far, flow = (destination, source_port) if request else (source, destination_port)
        if protocol == "stamp":
            return _stamp(payload, far, flow, request)
        return _irtt(payload, far, flow)
    return None


def _stamp(payload: bytes, far: str, flow: int, request: bool) -> Seen | None:
    """RFC 8762 section 4.2.1 and 4.3.1: a reflected packet carries the sender's number at octet 24."""
    if len(payload) < _STAMP_OCTETS:
        return None
    (sequence,) = struct.unpack_from("!I", payload, 0 if request else 24)
    return Seen("stamp", far, flow, sequence, request)


def _irtt(payload: bytes, far: str, flow: int) -> Seen | None:
    """Magic (3 octets), flags, connection token (8), number (4, little end first)."""
    if payload[:3] != _IRTT_MAGIC or len(payload) < 16 or payload[3] & _IRTT_CONTROL:
        return None
    (sequence,) = struct.unpack_from("<I", payload, 12)
    return Seen("irtt", far, flow, sequence, not payload[3] & _IRTT_REPLY)
