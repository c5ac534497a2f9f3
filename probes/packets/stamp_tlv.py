"""STAMP extensions: the TLVs that may follow a base packet (RFC 8972 section 4).

::

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |U|M|I|reserved |     Type      |     Length of the value       |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    ~                             Value                             ~
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

    type 1  Extra Padding          anything
         2  Location               Destination Port (2) | Source Port (2) | sub-TLVs with this same header:
                                   4 asks for and 5, 6 hold the destination IPv4, IPv6 address,
                                   7 asks for and 8, 9 hold the source address; 16 octets each
         3  Timestamp Information  Sync Src In (1) | Timestamp In (1) | Sync Src Out (1) | Timestamp Out (1)
         4  Class of Service       DSCP1 (6 bits) | DSCP2 (6) | ECN (2) | RP (2) | reserved (16)
         5  Direct Measurement     Sender Tx (4) | Reflector Rx (4) | Reflector Tx (4)
         6  Access Report          ID (4 bits) | reserved (4) | Return Code (8) | reserved (16)
         7  Follow-Up Telemetry    Sequence Number (4) | Follow-Up Timestamp (8) | Mode (1) | reserved (3)
         8  HMAC                   16 octets over the base packet's Sequence Number and all TLVs before it;
                                   only Extra Padding may follow

A sender sets U (unrecognised) in all of them; a reflector that knows the type clears it, so U comes back
from one that does not, RFC 8762 alone included. M marks a malformed TLV, at which a reader stops; I marks
all of them when their HMAC did not hold, or was owed and not there.

Everything here walks the octets once and forward, and looks at no more than :data:`MOST_TLVS` of them.
"""

from __future__ import annotations

import hmac
import ipaddress
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from probes.packets.stamp_auth import HMAC_OCTETS, digest

UNRECOGNISED, MALFORMED, INTEGRITY = 0x80, 0x40, 0x20
HEADER_OCTETS = 4
SEQUENCE_OCTETS = 4
ADDRESS_OCTETS = 16
MOST_TLVS = 32
FOLLOW_UP_OCTETS = 16
LOCATION_OCTETS = 4 + 2 * (HEADER_OCTETS + 16)

REASONS = UNRECOGNISED | MALFORMED | INTEGRITY
_HEADER = struct.Struct("!BBH")
FOLLOW_UP_FIELDS = struct.Struct("!IQB3x")
_COUNTERS = struct.Struct("!III")
PORTS = struct.Struct("!HH")


class Kind(IntEnum):
    """The types of RFC 8972 section 5.1."""

    EXTRA_PADDING = 1
    LOCATION = 2
    TIMESTAMP_INFORMATION = 3
    CLASS_OF_SERVICE = 4
    DIRECT_MEASUREMENT = 5
    ACCESS_REPORT = 6
    FOLLOW_UP = 7
    HMAC = 8


class SyncSource(IntEnum):
    """What a clock is set by (RFC 8972 section 5.4)."""

    NTP = 1
    PTP = 2
    SSU_BITS = 3
    SATELLITE_OR_RADIO = 4
    FREE_RUNNING = 5


class Method(IntEnum):
    """How a time stamp is taken (RFC 8972 section 5.5)."""

    HARDWARE = 1
    SOFTWARE = 2
    CONTROL_PLANE = 3


# Octets of value that a type has; those not listed may have any number.
LENGTHS: dict[int, int] = {
    Kind.TIMESTAMP_INFORMATION: 4,
    Kind.CLASS_OF_SERVICE: 4,
    Kind.DIRECT_MEASUREMENT: 12,
    Kind.ACCESS_REPORT: 4,
    Kind.FOLLOW_UP: FOLLOW_UP_OCTETS,
    Kind.HMAC: HMAC_OCTETS,
}
DESTINATION, DESTINATION_4, DESTINATION_6, SOURCE, SOURCE_4, SOURCE_6 = range(4, 10)


@dataclass(frozen=True, slots=True)
class Tlv:
    """One extension as it stands on the wire."""

    kind: int
    value: bytes
    flags: int = UNRECOGNISED

    @property
    def usable(self) -> bool:
        """Whether the reflector knew it, found it well formed, and its integrity held."""
        return not self.flags & REASONS


@dataclass(frozen=True, slots=True)
class Location:
    """Where a packet came from and went to, as the reflector saw it: a NAT on the way shows."""

    destination_port: int
    source_port: int
    destination: str | None
    source: str | None


@dataclass(frozen=True, slots=True)
class TimestampInformation:
    """What the reflector's clock is set by and how it stamps, at arrival and at departure."""

    source_in: int
    method_in: int
    source_out: int
    method_out: int


@dataclass(frozen=True, slots=True)
class ClassOfService:
    """The marks a packet arrived with, and whether the one asked for was used on the way back."""

    dscp_wanted: int
    dscp_received: int = 0
    ecn_received: int = 0
    refused: bool = False
    """RP: the reflector's policy did not allow `dscp_wanted`."""


@dataclass(frozen=True, slots=True)
class DirectMeasurement:
    """Counters of one session at both ends."""

    sender_sent: int
    reflector_received: int = 0
    reflector_sent: int = 0


@dataclass(frozen=True, slots=True)
class AccessReport:
    """Which access a sender reports as available or not (1: 3GPP, 2: other)."""

    identifier: int
    return_code: int


@dataclass(frozen=True, slots=True)
class FollowUp:
    """When an earlier answer really left: its number, the stamp's 64 bits, and how that was taken."""

    sequence: int
    sent: int
    method: int


def pack(tlvs: Iterable[Tlv], *, sequence: int = 0, key: bytes | None = None) -> bytes:
    """The octets of `tlvs`; with a `key`, an HMAC TLV stands before the first Extra Padding."""
    octets = bytearray()
    signed = key is None
    for tlv in tlvs:
        if not signed and tlv.kind == Kind.EXTRA_PADDING:
            octets += _signature(sequence, octets, key or b"")
            signed = True
        octets += _HEADER.pack(tlv.flags, tlv.kind, len(tlv.value)) + tlv.value
    if not signed:
        octets += _signature(sequence, octets, key or b"")
    return bytes(octets)


def unpack(octets: bytes) -> tuple[Tlv, ...]:
    """The TLVs in what follows a base packet; one that does not fit is marked malformed and is the last.

    Zeros where a header should be are padding, as TWAMP senders append it, and end the list.
    """
    found = []
    for begin, kind, length, fits in walk(octets, 0):
        value = octets[begin + HEADER_OCTETS : begin + HEADER_OCTETS + length]
        flags = octets[begin]
        if not (fits and length == LENGTHS.get(kind, length)):
            found.append(Tlv(kind, value, flags | MALFORMED))
            break
        found.append(Tlv(kind, value, flags))
    return tuple(found)


def authentic(packet: bytes, base_octets: int, keys: Sequence[bytes]) -> bytes | None:
    """Which of `keys` signed the TLVs behind the base packet; `None` when there is no HMAC TLV that holds.

    One that something else than Extra Padding follows does not hold (RFC 8972 section 4.8).
    """
    position = signed_until(list(walk(packet, base_octets)))
    if position is None:
        return None
    text = packet[:SEQUENCE_OCTETS] + packet[base_octets:position]
    given = packet[position + HEADER_OCTETS : position + HEADER_OCTETS + HMAC_OCTETS]
    for key in keys:
        if hmac.compare_digest(digest(key, text), given):
            return key
    return None


def owes_signature(tlvs: Sequence[Tlv]) -> bool:
    """Whether an authenticated packet with these must have an HMAC TLV: all but a lone Extra Padding."""
    return bool(tlvs) and not (len(tlvs) == 1 and tlvs[0].kind == Kind.EXTRA_PADDING)


# What a sender asks for


def padding(octets: bytes) -> Tlv:
    """Extra Padding of these octets."""
    return Tlv(Kind.EXTRA_PADDING, octets)


def location_wanted() -> Tlv:
    """Asks for both addresses and both ports."""
    empty = bytes(ADDRESS_OCTETS)
    parts = [_HEADER.pack(UNRECOGNISED, kind, len(empty)) + empty for kind in (DESTINATION, SOURCE)]
    return Tlv(Kind.LOCATION, bytes(4) + b"".join(parts))


def timestamp_information_wanted() -> Tlv:
    """Asks what sets the reflector's clock."""
    return Tlv(Kind.TIMESTAMP_INFORMATION, bytes(4))


def class_of_service_wanted(dscp: int) -> Tlv:
    """Asks for an answer marked `dscp`, and for the mark the request arrives with."""
    return Tlv(Kind.CLASS_OF_SERVICE, struct.pack("!HH", dscp << 10, 0))


def direct_measurement_wanted(sent: int) -> Tlv:
    """Tells how many packets the session sent, this one included, and asks for the reflector's counts."""
    return Tlv(Kind.DIRECT_MEASUREMENT, _COUNTERS.pack(sent & 0xFFFF_FFFF, 0, 0))


def follow_up_wanted() -> Tlv:
    """Asks when the answer before this one really left."""
    return Tlv(Kind.FOLLOW_UP, bytes(FOLLOW_UP_OCTETS))


# What a value says


def timestamp_information(value: bytes) -> TimestampInformation:
    return TimestampInformation(*value[:4])


def class_of_service(value: bytes) -> ClassOfService:
    bits = int.from_bytes(value[:2], "big")
    return ClassOfService(bits >> 10, bits >> 4 & 0x3F, bits >> 2 & 0x3, bool(bits & 0x3))


def direct_measurement(value: bytes) -> DirectMeasurement:
    return DirectMeasurement(*_COUNTERS.unpack(value))


def access_report(value: bytes) -> AccessReport:
    return AccessReport(value[0] >> 4, value[1])


def follow_up(value: bytes) -> FollowUp:
    return FollowUp(*FOLLOW_UP_FIELDS.unpack(value))


def location(value: bytes) -> Location:
    """Ports and those addresses that are told; the value must have four octets or more."""
    destination_port, source_port = PORTS.unpack_from(value)
    destination = source = None
    for begin, kind, length, fits in walk(value, PORTS.size):
        if not fits or length != ADDRESS_OCTETS:
            break
        octets = value[begin + HEADER_OCTETS : begin + HEADER_OCTETS + length]
        if kind in (DESTINATION_4, SOURCE_4):
            address = str(ipaddress.IPv4Address(octets[:4]))
        elif kind in (DESTINATION_6, SOURCE_6):
            address = str(ipaddress.IPv6Address(octets))
        else:
            continue
        if kind in (DESTINATION_4, DESTINATION_6):
            destination = address
        else:
            source = address
    return Location(destination_port, source_port, destination, source)


# For whoever reads or writes TLVs in place


def signed_until(spans: Sequence[tuple[int, int, int, bool]]) -> int | None:
    """Where the HMAC TLV begins, when it is whole and nothing but Extra Padding follows it."""
    position: int | None = None
    for begin, kind, length, fits in spans:
        if position is None:
            if kind == Kind.HMAC:
                if not fits or length != HMAC_OCTETS:
                    return None
                position = begin
        elif kind != Kind.EXTRA_PADDING or not fits:
            return None
    return position


def walk(octets: bytes | bytearray, begin: int) -> Iterator[tuple[int, int, int, bool]]:
    """Where each TLV begins, its type, its length, and whether it fits in what is there."""
    end = len(octets)
    for _ in range(MOST_TLVS):
        left = end - begin
        if left < HEADER_OCTETS:
            if left > 0 and any(octets[begin:]):
                yield begin, octets[begin + 1] if left > 1 else 0, 0, False
            return
        _flags, kind, length = _HEADER.unpack_from(octets, begin)
        if kind == 0 and length == 0:
            return
        fits = length <= left - HEADER_OCTETS
        yield begin, kind, length, fits
        if not fits:
            return
        begin += HEADER_OCTETS + length


def _signature(sequence: int, before: bytes | bytearray, key: bytes) -> bytes:
    text = sequence.to_bytes(SEQUENCE_OCTETS, "big") + before
    return _HEADER.pack(UNRECOGNISED, Kind.HMAC, HMAC_OCTETS) + digest(key, text)
