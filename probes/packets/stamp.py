"""STAMP test packets, unauthenticated mode (RFC 8762 section 4.2.1 and 4.3.1; SSID of RFC 8972).

Both packets are 44 octets, so that a reflected packet never is longer than the one that asked for it.

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
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from nhip.errors import WireError

PACKET_OCTETS = 44
PORT = 862

_SENDER = struct.Struct("!IQHH28x")
_REFLECTOR = struct.Struct("!IQHHQIQH2xB3x")

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
        _time_stamp(packet.sent_wall_ns, packet.error),
        pack_error_estimate(packet.error),
        packet.session_id,
    )


def unpack_sender(octets: bytes) -> SenderPacket:
    """A Session-Sender packet from its first 44 octets; WireError when it is shorter or invalid."""
    _require(octets)
    sequence, sent, error, session_id = _SENDER.unpack_from(octets)
    estimate = unpack_error_estimate(error)
    return SenderPacket(
        sequence=sequence,
        sent_wall_ns=_wall_ns(sent, estimate),
        error=estimate,
        session_id=session_id,
    )


def pack_reflector(packet: ReflectorPacket) -> bytes:
    """The 44 octets of a Session-Reflector packet."""
    return _REFLECTOR.pack(
        packet.sequence,
        _time_stamp(packet.sent_wall_ns, packet.error),
        pack_error_estimate(packet.error),
        packet.session_id,
        _time_stamp(packet.received_wall_ns, packet.error),
        packet.sender_sequence,
        _time_stamp(packet.sender_sent_wall_ns, packet.sender_error),
        pack_error_estimate(packet.sender_error),
        packet.sender_hop_limit,
    )


def unpack_reflector(octets: bytes) -> ReflectorPacket:
    """A Session-Reflector packet from its first 44 octets; WireError when it is shorter or invalid."""
    _require(octets)
    (sequence, sent, error, session_id, received, sender_sequence, sender_sent, sender_error, hop_limit) = (
        _REFLECTOR.unpack_from(octets)
    )
    estimate, sender_estimate = unpack_error_estimate(error), unpack_error_estimate(sender_error)
    return ReflectorPacket(
        sequence=sequence,
        sent_wall_ns=_wall_ns(sent, estimate),
        error=estimate,
        session_id=session_id,
        received_wall_ns=_wall_ns(received, estimate),
        sender_sequence=sender_sequence,
        sender_sent_wall_ns=_wall_ns(sender_sent, sender_estimate),
        sender_error=sender_estimate,
        sender_hop_limit=hop_limit,
    )


def echoed_request(octets: bytes) -> tuple[int, int] | None:
    """The sender's sequence number and T1 in a reflected packet, valid or not; `None` when too short."""
    if len(octets) < PACKET_OCTETS:
        return None
    sequence, sent = struct.unpack_from("!IQ", octets, 24)
    return sequence, wall_ns_from_ntp(sent)


def is_reflected(octets: bytes) -> bool:
    """Whether `octets` look like a reflector's answer rather than a sender's request.

    A request has zeros (MBZ) or padding where an answer has T2, and an answer was sent within a minute of
    when its reflector received the request, whatever that reflector's clock says.
    """
    if len(octets) < PACKET_OCTETS:
        return False
    sent = int.from_bytes(octets[4:12], "big")
    received = int.from_bytes(octets[16:24], "big")
    return received != 0 and 0 <= sent - received < _LONGEST_HOLD_SECONDS << 32


def reflect(request: bytes, *, received_wall_ns: int, hop_limit: int, error: ErrorEstimate) -> bytearray:
    """A stateless reflector's answer to `request`, with T3 still zero (see :func:`set_sent`).

    The sender's sequence number, T1 and error estimate are copied as they stand on the wire, so that no
    rounding of ours changes what the sender wrote, whatever time format it uses. Octets beyond the
    44 are returned as they came, which keeps request and answer of equal size (RFC 8762 section 4.3).
    """
    _require(request)
    answer = bytearray(request)
    _REFLECTOR.pack_into(
        answer,
        0,
        *(struct.unpack_from("!I", request)[0], 0, pack_error_estimate(error)),
        *struct.unpack_from("!H", request, 14),
        ntp_from_wall_ns(received_wall_ns),
        *struct.unpack_from("!IQH", request),
        hop_limit,
    )
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


def unpack_error_estimate(bits: int) -> ErrorEstimate:
    """The estimate in 16 bits; WireError for multiplier 0 (corrupt, RFC 4656 section 4.1.2)."""
    if bits & 0xFF == 0:
        raise WireError("a STAMP error estimate with multiplier 0 is invalid")
    return ErrorEstimate(bool(bits & 0x8000), (bits >> 8) & 0x3F, bits & 0xFF, bool(bits & 0x4000))


def error_estimate(seconds: float | None, *, synchronised: bool) -> ErrorEstimate:
    """The smallest estimate not below `seconds`; the largest there is when the error is unknown."""
    if seconds is None:
        return ErrorEstimate(False, 63, 255)
    for scale in range(64):
        multiplier = seconds * 2.0 ** (32 - scale)
        if multiplier <= 255:
            return ErrorEstimate(synchronised, scale, max(math.ceil(multiplier), 1))
    return ErrorEstimate(False, 63, 255)


def _require(octets: bytes) -> None:
    if len(octets) < PACKET_OCTETS:
        raise WireError(f"{len(octets)} octets are no STAMP packet, which has {PACKET_OCTETS} or more")


def _time_stamp(wall_ns: int, error: ErrorEstimate) -> int:
    if error.ptp_format:
        seconds, nanoseconds = divmod(wall_ns, _NANOSECONDS)
        return (seconds & 0xFFFF_FFFF) << 32 | nanoseconds
    return ntp_from_wall_ns(wall_ns)


def _wall_ns(stamp: int, error: ErrorEstimate) -> int:
    if error.ptp_format:
        return (stamp >> 32) * _NANOSECONDS + (stamp & 0xFFFF_FFFF)
    return wall_ns_from_ntp(stamp)
