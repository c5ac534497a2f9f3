"""STAMP test packets, authenticated mode (RFC 8762 sections 4.2.2, 4.3.2 and 4.4; SSID of RFC 8972).

Both packets are 112 octets: seven blocks of 16, of which the last is the HMAC over the six before it.

Session-Sender::

    octet  0      Sequence Number (4)
           4      MBZ (12)
          16      Timestamp T1 (8)
          24      Error Estimate (2) | SSID (2)
          28      MBZ (68)
          96      HMAC (16)

Session-Reflector::

    octet  0      Sequence Number (4)
           4      MBZ (12)
          16      Timestamp T3 (8)
          24      Error Estimate (2) | SSID (2) | MBZ (4)
          32      Receive Timestamp T2 (8)
          40      MBZ (8)
          48      Session-Sender Sequence Number (4)
          52      MBZ (12)
          64      Session-Sender Timestamp T1 (8)
          72      Session-Sender Error Estimate (2) | MBZ (6)
          80      Session-Sender TTL (1) | MBZ (15)
          96      HMAC (16)

The HMAC is HMAC-SHA-256 cut to its first 16 octets (RFC 4868 section 2.1.1). It covers T3, so it is the only
thing that happens between writing T3 and sending.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Sequence

from nhip.errors import WireError
from probes.packets.stamp import (
    ErrorEstimate,
    ReflectorPacket,
    SenderPacket,
    ntp_from_wall_ns,
    pack_error_estimate,
    time_stamp,
    unpack_error_estimate,
    wall_ns,
)

PACKET_OCTETS = 112
HMAC_OCTETS = 16
_COVERED_OCTETS = 96

_SENDER = struct.Struct("!I12xQHH68x")
REQUEST = struct.Struct("!I12xQHH")
"""Sequence number, T1, error estimate and SSID as they stand in a request."""
_REFLECTOR = struct.Struct("!I12xQHH4xQ8xI12xQH6xB15x")


def digest(key: bytes, octets: bytes | bytearray | memoryview) -> bytes:
    """HMAC-SHA-256-128 of `octets`: 16 octets."""
    return hmac.digest(key, octets, "sha256")[:HMAC_OCTETS]


def signing_key(octets: bytes, keys: Sequence[bytes]) -> bytes | None:
    """Which of `keys` the first 112 octets are signed with; `None` for none of them or a packet too short."""
    if len(octets) < PACKET_OCTETS:
        return None
    covered, signature = octets[:_COVERED_OCTETS], octets[_COVERED_OCTETS:PACKET_OCTETS]
    for key in keys:
        if hmac.compare_digest(digest(key, covered), signature):
            return key
    return None


def pack_sender(packet: SenderPacket, key: bytes) -> bytes:
    """The 112 octets of a Session-Sender packet."""
    covered = _SENDER.pack(
        packet.sequence,
        time_stamp(packet.sent_wall_ns, packet.error),
        pack_error_estimate(packet.error),
        packet.session_id,
    )
    return covered + digest(key, covered)


def unpack_sender(octets: bytes) -> SenderPacket:
    """A Session-Sender packet, its HMAC not looked at; WireError when it is shorter or invalid."""
    _require(octets)
    sequence, sent, error, session_id = _SENDER.unpack_from(octets)
    estimate = unpack_error_estimate(error)
    return SenderPacket(
        sequence=sequence,
        sent_wall_ns=wall_ns(sent, ptp_format=estimate.ptp_format),
        error=estimate,
        session_id=session_id,
    )


def pack_reflector(packet: ReflectorPacket, key: bytes) -> bytes:
    """The 112 octets of a Session-Reflector packet."""
    covered = _REFLECTOR.pack(
        packet.sequence,
        time_stamp(packet.sent_wall_ns, packet.error),
        pack_error_estimate(packet.error),
        packet.session_id,
        time_stamp(packet.received_wall_ns, packet.error),
        packet.sender_sequence,
        time_stamp(packet.sender_sent_wall_ns, packet.sender_error),
        pack_error_estimate(packet.sender_error),
        packet.sender_hop_limit,
    )
    return covered + digest(key, covered)


def unpack_reflector(octets: bytes) -> ReflectorPacket:
    """A Session-Reflector packet, its HMAC not looked at; WireError when it is shorter or invalid."""
    _require(octets)
    (sequence, sent, error, session_id, received, sender_sequence, sender_sent, sender_error, hop_limit) = (
        _REFLECTOR.unpack_from(octets)
    )
    estimate, sender_estimate = unpack_error_estimate(error), unpack_error_estimate(sender_error)
    return ReflectorPacket(
        sequence=sequence,
        sent_wall_ns=wall_ns(sent, ptp_format=estimate.ptp_format),
        error=estimate,
        session_id=session_id,
        received_wall_ns=wall_ns(received, ptp_format=estimate.ptp_format),
        sender_sequence=sender_sequence,
        sender_sent_wall_ns=wall_ns(sender_sent, ptp_format=sender_estimate.ptp_format),
        sender_error=sender_estimate,
        sender_hop_limit=hop_limit,
    )


def is_reflected(octets: bytes) -> bool:
    """Whether `octets` have the T2 of a reflector's answer, where a sender's request has zeros."""
    return octets[32:40] != bytes(8)


def reflect(
    request: bytes,
    *,
    received_wall_ns: int,
    hop_limit: int,
    error: ErrorEstimate,
    sequence: int | None = None,
) -> bytearray:
    """A reflector's answer to `request`, with T3 and the HMAC still open (see :func:`set_sent`).

    As :func:`probes.packets.stamp.reflect`, for packets of 112 octets and more.
    """
    _require(request)
    answer = bytearray(request)
    sender_sequence, sender_sent, sender_error, session_id = _SENDER.unpack_from(request)
    answer[:_COVERED_OCTETS] = _REFLECTOR.pack(
        sender_sequence if sequence is None else sequence,
        0,
        pack_error_estimate(error),
        session_id,
        ntp_from_wall_ns(received_wall_ns),
        sender_sequence,
        sender_sent,
        sender_error,
        hop_limit,
    )
    return answer


def set_sent(answer: bytearray, sent_wall_ns: int, key: bytes) -> None:
    """Write T3 into an answer and sign it, as late as possible before it leaves."""
    struct.pack_into("!Q", answer, 16, ntp_from_wall_ns(sent_wall_ns))
    answer[_COVERED_OCTETS:PACKET_OCTETS] = digest(key, memoryview(answer)[:_COVERED_OCTETS])


def _require(octets: bytes) -> None:
    if len(octets) < PACKET_OCTETS:
        raise WireError(
            f"{len(octets)} octets are no authenticated STAMP packet, which has {PACKET_OCTETS} or more"
        )
