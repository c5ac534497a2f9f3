"""What a reflector makes of the TLVs of a request (RFC 8972 section 4): filled in, in place, at one length.

::

    HMAC TLV there, or owed, and not right   every TLV: I, nothing filled in, nothing believed
    malformed (length, or cut off)           that TLV: M, the rest as it came
    type not known                           that TLV: U, the value as it came
    known                                    flags zero, the reflector's fields written
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from probes.packets.stamp_auth import HMAC_OCTETS, digest
from probes.packets.stamp_tlv import (
    ADDRESS_OCTETS,
    DESTINATION,
    FOLLOW_UP_FIELDS,
    HEADER_OCTETS,
    INTEGRITY,
    LENGTHS,
    MALFORMED,
    PORTS,
    REASONS,
    SEQUENCE_OCTETS,
    SOURCE,
    UNRECOGNISED,
    FollowUp,
    Kind,
    Method,
    SyncSource,
    authentic,
    signed_until,
    walk,
)


@dataclass(slots=True)
class Seen:
    """What a reflector can tell of one request; `None` is what it cannot."""

    source: tuple[str, int] = ("", 0)
    destination: tuple[str | None, int] = (None, 0)
    traffic_class: int | None = None
    """The octet with code point and ECN bits."""
    sync_source: int = SyncSource.FREE_RUNNING
    method_in: int = Method.SOFTWARE
    received: int = 0
    """Of this session, with the answer that is being written."""
    sent: int = 0
    follow_up: FollowUp | None = None
    dscp_allowed: bool = True


@dataclass(frozen=True, slots=True)
class Reply:
    """What the TLVs of a request ask of its answer, beside their own values."""

    dscp: int | None = None
    wants_follow_up: bool = False
    signed_with: bytes | None = None
    """The key with which :func:`sign` has to sign the answer's TLVs."""
    integrity_failed: bool = False


NOTHING = Reply()


def answer(
    packet: bytearray, request: bytes, base_octets: int, seen: Seen, keys: Sequence[bytes], *, owed: bool
) -> Reply:
    """Fill in the TLVs of an answer to `request`, in place and without changing its length.

    `packet` holds the TLVs as they came. `keys` are those an HMAC TLV may be made with; `owed` says that
    TLVs without one are not believed (authenticated mode). With :attr:`Reply.signed_with` the answer's own
    signature, :func:`sign`, must follow.
    """
    spans = list(walk(request, base_octets))
    if not spans:
        return NOTHING
    has_signature = any(kind == Kind.HMAC for _begin, kind, _length, _fits in spans)
    alone = len(spans) == 1 and spans[0][1] == Kind.EXTRA_PADDING
    key = authentic(request, base_octets, keys) if has_signature else None
    if key is None and (has_signature or (owed and not alone)):
        for begin, _kind, _length, _fits in spans:
            packet[begin] = packet[begin] & REASONS | INTEGRITY
        return Reply(integrity_failed=True)
    dscp: int | None = None
    wants_follow_up = False
    for begin, kind, length, fits in spans:
        if not fits or length != LENGTHS.get(kind, length) or (kind == Kind.LOCATION and length < PORTS.size):
            packet[begin] = MALFORMED
            if kind == Kind.FOLLOW_UP and fits:
                packet[begin + HEADER_OCTETS : begin + HEADER_OCTETS + min(length, 12)] = bytes(
                    min(length, 12)
                )
            break
        value = begin + HEADER_OCTETS
        packet[begin] = 0
        if kind == Kind.FOLLOW_UP:
            wants_follow_up = True
            told = seen.follow_up
            FOLLOW_UP_FIELDS.pack_into(
                packet, value, *((told.sequence, told.sent, told.method) if told else (0, 0, 0))
            )
        elif kind == Kind.CLASS_OF_SERVICE:
            dscp = _class_of_service(packet, value, seen)
        elif kind == Kind.TIMESTAMP_INFORMATION:
            packet[value : value + 4] = bytes(
                (seen.sync_source, seen.method_in, seen.sync_source, Method.SOFTWARE)
            )
        elif kind == Kind.DIRECT_MEASUREMENT:
            struct.pack_into("!II", packet, value + 4, seen.received & 0xFFFF_FFFF, seen.sent & 0xFFFF_FFFF)
        elif kind == Kind.LOCATION:
            _location(packet, value, length, seen)
        elif kind not in (Kind.EXTRA_PADDING, Kind.ACCESS_REPORT, Kind.HMAC):
            packet[begin] = UNRECOGNISED
    return Reply(dscp, wants_follow_up, key)


def sign(packet: bytearray, base_octets: int, key: bytes) -> None:
    """Make the HMAC TLV of an answer anew, over the sequence number and the values it has now."""
    position = signed_until(list(walk(packet, base_octets)))
    if position is not None:
        text = packet[:SEQUENCE_OCTETS] + packet[base_octets:position]
        begin = position + HEADER_OCTETS
        packet[begin : begin + HMAC_OCTETS] = digest(key, text)


def _class_of_service(packet: bytearray, value: int, seen: Seen) -> int | None:
    wanted = packet[value] >> 2
    received = seen.traffic_class or 0
    use = wanted if seen.dscp_allowed else received >> 2
    refused = 0 if seen.dscp_allowed else 1
    bits = wanted << 10 | (received >> 2) << 4 | (received & 0x3) << 2 | refused
    struct.pack_into("!HH", packet, value, bits, 0)
    return use


def _location(packet: bytearray, value: int, length: int, seen: Seen) -> None:
    PORTS.pack_into(packet, value, seen.destination[1], seen.source[1])
    inner = bytes(packet[value : value + length])
    for begin, kind, octets, fits in walk(inner, PORTS.size):
        at = value + begin
        if not fits or (kind in (DESTINATION, SOURCE) and octets != ADDRESS_OCTETS):
            packet[at] = MALFORMED
            return
        host = {DESTINATION: seen.destination[0], SOURCE: seen.source[0]}.get(kind)
        if kind not in (DESTINATION, SOURCE):
            packet[at] = UNRECOGNISED
            continue
        packet[at] = 0
        packet[at + HEADER_OCTETS : at + HEADER_OCTETS + ADDRESS_OCTETS] = bytes(ADDRESS_OCTETS)
        if host:
            address = ipaddress.ip_address(host)
            packet[at + 1] = kind + (1 if address.version == 4 else 2)
            packed = address.packed
            packet[at + HEADER_OCTETS : at + HEADER_OCTETS + len(packed)] = packed
