"""STAMP test packets, unauthenticated mode (RFC 8762 section 4.2.1 and 4.3.1; SSID of RFC 8972).

Both packets are 44 octets, so that a reflected packet never is longer than the one that asked for it.
What may follow them is in :mod:`probes.packets.stamp_tlv`, the authenticated form of both in
:mod:`probes.packets.stamp_auth`.

Session-Sender::

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                        Sequence Number                        |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                       Timestamp T1 (64 bits)                  |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |         Error Estimate        |             SSID              |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                       MBZ (28 octets)                         |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

Session-Reflector::

    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                        Sequence Number                        |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                       Timestamp T3 (64 bits)                  |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |         Error Estimate        |             SSID              |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                   Receive Timestamp T2 (64 bits)              |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                 Session-Sender Sequence Number                |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                  Session-Sender Timestamp T1 (64 bits)        |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    | Session-Sender Error Estimate |              MBZ              |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |Ses-Sender TTL |                      MBZ                      |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

TWAMP Light is the elder sister (RFC 5357 sections 4.1.2 and 4.2.1): its sender's packet ends after the error
estimate, and padding follows; its reflector's ends after the sender's TTL, with MBZ where the SSID stands. So
one reflector serves both when it leaves off what the request has no room for (RFC 8762 section 4.6)::

    TWAMP sender      Sequence Number | T1 | Error Estimate | padding, 27 octets or more
    TWAMP reflector   Sequence Number | T3 | Error Estimate | MBZ | T2 | Sender's Sequence Number | T1 |
                      Sender's Error Estimate | MBZ | Sender TTL | padding           41 octets or more
"""

from __future__ import annotations

import functools
import math
import struct
from dataclasses import dataclass

from nhip.errors import WireError
from nhip.measurement import ClockState

PACKET_OCTETS = 44
TWAMP_OCTETS = 41
"""A TWAMP reflector's packet without padding; no answer to a shorter request could be as short as it."""
SENDER_OCTETS = 14
"""A TWAMP sender's packet without padding."""
PORT = 862

_SENDER = struct.Struct("!IQHH28x")
_REFLECTOR = struct.Struct("!IQHHQIQH2xB3x")
REQUEST = struct.Struct("!IQHH")
"""Sequence number, T1, error estimate and SSID as they stand in a request."""
PTP_FORMAT = 0x4000
"""The Z bit of an error estimate."""
# What an answer copies of its request ends here, TTL aside.
_SENDER_COPY_END = 38

# Seconds from the NTP era (1900) to the Unix epoch (1970), RFC 5905 section 6.
_NTP_EPOCH_SECONDS = 2_208_988_800
_NANOSECONDS = 1_000_000_000
_LONGEST_HOLD_SECONDS = 60


@dataclass(frozen=True, slots=True)
class ErrorEstimate:
    """How far a clock may be from UTC: multiplier × 2^-32 × 2^scale seconds (RFC 4656 section 4.1.2)."""

    synchronised: bool
    scale: int
    multiplier: int
    ptp_format: bool = False
    """The Z bit: time stamps are truncated PTP (RFC 8186) instead of NTP."""

    @property
    def seconds(self) -> float:
        return float(self.multiplier * 2.0 ** (self.scale - 32))


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderPacket:
    """What a Session-Sender sends. Times are Unix nanoseconds."""

    sequence: int
    sent_wall_ns: int
    error: ErrorEstimate
    session_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReflectorPacket:
    """What a Session-Reflector answers. Times are Unix nanoseconds."""

    sequence: int
    sent_wall_ns: int
    error: ErrorEstimate
    session_id: int
    received_wall_ns: int
    sender_sequence: int
    sender_sent_wall_ns: int
    sender_error: ErrorEstimate
    sender_hop_limit: int


def pack_sender(packet: SenderPacket) -> bytes:
    """The 44 octets of a Session-Sender packet."""
    return _SENDER.pack(
        packet.sequence,
        time_stamp(packet.sent_wall_ns, packet.error),
        pack_error_estimate(packet.error),
        packet.session_id,
    )


def unpack_sender(octets: bytes) -> SenderPacket:
    """A Session-Sender packet from its first 44 octets; WireError when it is shorter or invalid."""
    _require(octets, PACKET_OCTETS)
    sequence, sent, error, session_id = _SENDER.unpack_from(octets)
    estimate = unpack_error_estimate(error)
    return SenderPacket(
        sequence=sequence,
        sent_wall_ns=wall_ns(sent, ptp_format=estimate.ptp_format),
        error=estimate,
        session_id=session_id,
    )


def pack_reflector(packet: ReflectorPacket) -> bytes:
    """The 44 octets of a Session-Reflector packet."""
    return _REFLECTOR.pack(
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


def unpack_reflector(octets: bytes, *, shortest: int = PACKET_OCTETS) -> ReflectorPacket:
    """A Session-Reflector packet from its first 44 octets; WireError when it is shorter or invalid.

    `shortest` admits packets that end early, as those of some TWAMP reflectors do before the sender's TTL;
    what is missing reads as zero.
    """
    _require(octets, shortest)
    if len(octets) < PACKET_OCTETS:
        octets = octets.ljust(PACKET_OCTETS, b"\0")
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


def echoed_request(octets: bytes) -> tuple[int, int] | None:
    """The sender's sequence number and T1 in a reflected packet, valid or not; `None` when too short."""
    if len(octets) < _SENDER_COPY_END:
        return None
    sequence, sent = struct.unpack_from("!IQ", octets, 24)
    return sequence, wall_ns_from_ntp(sent)


def is_reflected(octets: bytes) -> bool:
    """Whether `octets` look like a reflector's answer rather than a sender's request.

    A request has zeros (MBZ) or padding where an answer has T2, and an answer was sent within a minute of
    when its reflector received the request, whatever that reflector's clock says.
    """
    if len(octets) < TWAMP_OCTETS:
        return False
    sent = int.from_bytes(octets[4:12], "big")
    received = int.from_bytes(octets[16:24], "big")
    return received != 0 and 0 <= sent - received < _LONGEST_HOLD_SECONDS << 32


def reflect(
    request: bytes,
    *,
    received_wall_ns: int,
    hop_limit: int,
    error: ErrorEstimate,
    sequence: int | None = None,
) -> bytearray:
    """A reflector's answer to `request`, with T3 still zero (see :func:`set_sent`).

    `sequence` is the reflector's own number (stateful); without one the sender's is copied (stateless). The
    sender's sequence number, T1 and error estimate are copied as they stand on the wire, so that no rounding
    of ours changes what the sender wrote, whatever time format it uses. Octets beyond the 44 are returned
    as they came, which keeps request and answer of equal size (RFC 8762 section 4.3); of a TWAMP request
    of 41 to 43 octets the answer leaves off the last that must be zero. WireError when `request` is shorter.
    """
    octets = len(request)
    _require(request, TWAMP_OCTETS)
    answer = bytearray(request) if octets >= PACKET_OCTETS else bytearray(PACKET_OCTETS)
    sender_sequence, sender_sent, sender_error, session_id = REQUEST.unpack_from(request)
    _REFLECTOR.pack_into(
        answer,
        0,
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
    del answer[octets:]
    return answer


def set_sent(answer: bytearray, sent_wall_ns: int) -> None:
    """Write T3 into an answer, as late as possible before it leaves."""
    struct.pack_into("!Q", answer, 4, ntp_from_wall_ns(sent_wall_ns))


def ntp_from_wall_ns(wall_ns: int) -> int:
    """Unix nanoseconds as a 64-bit NTP time stamp, to the nearest 2^-32 s; wraps with the era in 2036."""
    seconds, nanoseconds = divmod(wall_ns, _NANOSECONDS)
    fraction = ((nanoseconds << 32) + _NANOSECONDS // 2) // _NANOSECONDS
    return (((seconds + _NTP_EPOCH_SECONDS) << 32) + fraction) & 0xFFFF_FFFF_FFFF_FFFF


def wall_ns_from_ntp(stamp: int) -> int:
    """Unix nanoseconds of a 64-bit NTP time stamp; seconds before 1970 are read as the era from 2036."""
    seconds, fraction = stamp >> 32, stamp & 0xFFFF_FFFF
    if seconds < _NTP_EPOCH_SECONDS:
        seconds += 1 << 32
    return (seconds - _NTP_EPOCH_SECONDS) * _NANOSECONDS + ((fraction * _NANOSECONDS + (1 << 31)) >> 32)


def pack_error_estimate(error: ErrorEstimate) -> int:
    """The 16 bits: S, Z, six of scale, eight of multiplier."""
    return (error.synchronised << 15) | (error.ptp_format << 14) | (error.scale << 8) | error.multiplier


@functools.lru_cache(maxsize=256)
def unpack_error_estimate(bits: int) -> ErrorEstimate:
    """The estimate in 16 bits; WireError for multiplier 0 (corrupt, RFC 4656 section 4.1.2)."""
    if bits & 0xFF == 0:
        raise WireError("a STAMP error estimate with multiplier 0 is invalid")
    return ErrorEstimate(bool(bits & 0x8000), (bits >> 8) & 0x3F, bits & 0xFF, bool(bits & PTP_FORMAT))


def error_estimate(seconds: float | None, *, synchronised: bool) -> ErrorEstimate:
    """The smallest estimate not below `seconds`; the largest there is when the error is unknown."""
    if seconds is None:
        return ErrorEstimate(False, 63, 255)
    for scale in range(64):
        multiplier = seconds * 2.0 ** (32 - scale)
        if multiplier <= 255:
            return ErrorEstimate(synchronised, scale, max(math.ceil(multiplier), 1))
    return ErrorEstimate(False, 63, 255)


def estimate_of(state: ClockState) -> ErrorEstimate:
    """The estimate of a clock in this state: its maximum error, or the largest there is if unknown."""
    known_ns = state.maximum_error_ns if state.synchronised else None
    return error_estimate(
        None if known_ns is None else known_ns / _NANOSECONDS, synchronised=bool(state.synchronised)
    )


def time_stamp(wall_ns: int, error: ErrorEstimate) -> int:
    """Unix nanoseconds as the 64 bits of the format that `error` names: NTP or truncated PTP."""
    if error.ptp_format:
        seconds, nanoseconds = divmod(wall_ns, _NANOSECONDS)
        return (seconds & 0xFFFF_FFFF) << 32 | nanoseconds
    return ntp_from_wall_ns(wall_ns)


def wall_ns(stamp: int, *, ptp_format: bool) -> int:
    """Unix nanoseconds of the 64 bits of a time stamp."""
    if ptp_format:
        return (stamp >> 32) * _NANOSECONDS + (stamp & 0xFFFF_FFFF)
    return wall_ns_from_ntp(stamp)


def _require(octets: bytes, shortest: int) -> None:
    if len(octets) < shortest:
        raise WireError(f"{len(octets)} octets are no STAMP packet, which has {shortest} or more")
