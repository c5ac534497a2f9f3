"""STAMP packets: literal octets, scapy as the other implementation, and the edges of their time formats."""

from __future__ import annotations

import datetime
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nhip.errors import WireError
from probes.packets import stamp
from probes.packets.stamp import ErrorEstimate, ReflectorPacket, SenderPacket
from tests.lab.scapy_oracle import ask

SECOND = 1_000_000_000
# 2026-11-24 12:00:00 UTC plus a quarter of a second: 0xEEAFFAC0 seconds since 1900 and 0x40000000 / 2^32.
WALL_NS = 1_795_521_600 * SECOND + SECOND // 4
ESTIMATE = ErrorEstimate(synchronised=True, scale=20, multiplier=0x41)

SENDER = SenderPacket(sequence=0x01020304, sent_wall_ns=WALL_NS, error=ESTIMATE, session_id=0xABCD)
SENDER_OCTETS = bytes.fromhex("01020304 eeaffac0 40000000 9441 abcd") + bytes(28)
REFLECTOR = ReflectorPacket(
    sequence=0x01020304,
    sent_wall_ns=WALL_NS + SECOND,
    error=ErrorEstimate(synchronised=False, scale=63, multiplier=255),
    session_id=0xABCD,
    received_wall_ns=WALL_NS + SECOND // 2,
    sender_sequence=0x01020304,
    sender_sent_wall_ns=WALL_NS,
    sender_error=ESTIMATE,
    sender_hop_limit=61,
)
REFLECTOR_OCTETS = bytes.fromhex(
    "01020304 eeaffac1 40000000 3fff abcd eeaffac0 c0000000 01020304 eeaffac0 40000000 9441 0000 3d 000000"
)

estimates = st.builds(
    ErrorEstimate,
    synchronised=st.booleans(),
    scale=st.integers(0, 63),
    multiplier=st.integers(1, 255),
    ptp_format=st.booleans(),
)
# All of the era from 1970 to the end of the one that begins in 2036; PTP's 32 bits end in 2106.
times = st.integers(0, (1 << 32) * SECOND - 1)


# Octets


def test_a_sender_packet_is_these_octets() -> None:
    assert stamp.pack_sender(SENDER) == SENDER_OCTETS
    assert stamp.unpack_sender(SENDER_OCTETS) == SENDER


def test_a_reflector_packet_is_these_octets() -> None:
    assert stamp.pack_reflector(REFLECTOR) == REFLECTOR_OCTETS
    assert stamp.unpack_reflector(REFLECTOR_OCTETS) == REFLECTOR


def test_both_packets_are_44_octets() -> None:
    assert len(SENDER_OCTETS) == len(REFLECTOR_OCTETS) == stamp.PACKET_OCTETS == 44


@given(sequence=st.integers(0, 2**32 - 1), wall_ns=times, error=estimates, session_id=st.integers(0, 0xFFFF))
def test_a_sender_packet_survives_its_round_trip(
    sequence: int, wall_ns: int, error: ErrorEstimate, session_id: int
) -> None:
    packet = SenderPacket(sequence=sequence, sent_wall_ns=wall_ns, error=error, session_id=session_id)
    assert stamp.unpack_sender(stamp.pack_sender(packet)) == packet


@given(data=st.data(), error=estimates, sender_error=estimates)
def test_a_reflector_packet_survives_its_round_trip(
    data: st.DataObject, error: ErrorEstimate, sender_error: ErrorEstimate
) -> None:
    packet = ReflectorPacket(
        sequence=data.draw(st.integers(0, 2**32 - 1)),
        sent_wall_ns=data.draw(times),
        error=error,
        session_id=data.draw(st.integers(0, 0xFFFF)),
        received_wall_ns=data.draw(times),
        sender_sequence=data.draw(st.integers(0, 2**32 - 1)),
        sender_sent_wall_ns=data.draw(times),
        sender_error=sender_error,
        sender_hop_limit=data.draw(st.integers(0, 255)),
    )
    assert stamp.unpack_reflector(stamp.pack_reflector(packet)) == packet


@given(octets=st.binary(max_size=120))
def test_octets_at_random_are_a_packet_or_a_wire_error(octets: bytes) -> None:
    for unpack in (stamp.unpack_sender, stamp.unpack_reflector):
        try:
            unpack(octets)
        except WireError as error:
            assert len(octets) < 44 or "multiplier 0" in str(error)
        else:
            assert len(octets) >= 44


@pytest.mark.parametrize("octets", [b"", SENDER_OCTETS[:40], SENDER_OCTETS[:43]])
def test_a_packet_that_is_too_short_is_refused(octets: bytes) -> None:
    with pytest.raises(WireError, match="no STAMP packet"):
        stamp.unpack_sender(octets)
    with pytest.raises(WireError, match="no STAMP packet"):
        stamp.unpack_reflector(octets)
    assert stamp.echoed_request(octets[:37]) is None


@pytest.mark.parametrize("octets", [0, 14, 40])
def test_a_request_with_no_room_for_its_answer_is_refused(octets: int) -> None:
    with pytest.raises(WireError, match="no STAMP packet"):
        stamp.reflect(SENDER_OCTETS[:octets], received_wall_ns=0, hop_limit=0, error=ESTIMATE)


# TWAMP Light

# RFC 5357 section 4.1.2: sequence number, time stamp, error estimate, then 27 octets of padding.
TWAMP_REQUEST = bytes.fromhex("00000002 eeaffac0 40000000 9441") + bytes(27)
# RFC 5357 section 4.2.1: sequence number, time stamp, error estimate, MBZ, receive time stamp, then the
# sender's sequence number, time stamp and error estimate, MBZ, sender TTL.
TWAMP_ANSWER = bytes.fromhex(
    "00000001 eeaffac1 40000000 3fff 0000 eeaffac0 c0000000 00000002 eeaffac0 40000000 9441 0000 3d"
)


def test_a_twamp_request_of_41_octets_gets_the_41_of_rfc_5357() -> None:
    answer = stamp.reflect(
        TWAMP_REQUEST,
        received_wall_ns=WALL_NS + SECOND // 2,
        hop_limit=61,
        error=ErrorEstimate(False, 63, 255),
        sequence=1,
    )
    stamp.set_sent(answer, WALL_NS + SECOND)
    assert len(TWAMP_REQUEST) == len(TWAMP_ANSWER) == stamp.TWAMP_OCTETS == 41
    assert bytes(answer) == TWAMP_ANSWER


def test_a_twamp_answer_that_ends_before_the_ttl_is_read_where_that_is_allowed() -> None:
    found = stamp.unpack_reflector(TWAMP_ANSWER[:38], shortest=38)
    assert (found.sequence, found.sender_sequence, found.sender_hop_limit) == (1, 2, 0)
    assert (found.received_wall_ns, found.sent_wall_ns) == (WALL_NS + SECOND // 2, WALL_NS + SECOND)
    with pytest.raises(WireError):
        stamp.unpack_reflector(TWAMP_ANSWER[:37], shortest=38)


def test_a_stateful_reflector_writes_its_own_number() -> None:
    answer = stamp.reflect(SENDER_OCTETS, received_wall_ns=0, hop_limit=0, error=ESTIMATE, sequence=77)
    found = stamp.unpack_reflector(bytes(answer))
    assert (found.sequence, found.sender_sequence) == (77, 0x01020304)


# scapy


def scapy_fields(packet: SenderPacket | ReflectorPacket) -> dict[str, object]:
    def estimate(error: ErrorEstimate) -> dict[str, int]:
        return {
            "S": int(error.synchronised),
            "Z": int(error.ptp_format),
            "scale": error.scale,
            "multiplier": error.multiplier,
        }

    fields: dict[str, object] = {
        "seq": packet.sequence,
        "ts": stamp.ntp_from_wall_ns(packet.sent_wall_ns),
        "err_estimate": estimate(packet.error),
        "ssid": packet.session_id,
    }
    if isinstance(packet, ReflectorPacket):
        fields |= {
            "ts_rx": stamp.ntp_from_wall_ns(packet.received_wall_ns),
            "seq_sender": packet.sender_sequence,
            "ts_sender": stamp.ntp_from_wall_ns(packet.sender_sent_wall_ns),
            "err_estimate_sender": estimate(packet.sender_error),
            "ttl_sender": packet.sender_hop_limit,
        }
    return fields


def some_packets() -> list[SenderPacket | ReflectorPacket]:
    rng = random.Random(8762)

    def estimate() -> ErrorEstimate:
        return ErrorEstimate(rng.random() < 0.5, rng.randrange(64), rng.randrange(1, 256))

    found: list[SenderPacket | ReflectorPacket] = [SENDER, REFLECTOR]
    for _ in range(30):
        sender = SenderPacket(
            sequence=rng.getrandbits(32),
            sent_wall_ns=rng.randrange(2 * WALL_NS),
            error=estimate(),
            session_id=rng.getrandbits(16),
        )
        found += [
            sender,
            ReflectorPacket(
                sequence=sender.sequence,
                sent_wall_ns=rng.randrange(2 * WALL_NS),
                error=estimate(),
                session_id=sender.session_id,
                received_wall_ns=rng.randrange(2 * WALL_NS),
                sender_sequence=sender.sequence,
                sender_sent_wall_ns=sender.sent_wall_ns,
                sender_error=sender.error,
                sender_hop_limit=rng.getrandbits(8),
            ),
        ]
    return found


def kind_of(packet: SenderPacket | ReflectorPacket) -> str:
    return "sender" if isinstance(packet, SenderPacket) else "reflector"


def packed(packet: SenderPacket | ReflectorPacket) -> bytes:
    return stamp.pack_sender(packet) if isinstance(packet, SenderPacket) else stamp.pack_reflector(packet)


def test_scapy_builds_the_same_octets() -> None:
    packets = some_packets()
    built = ask(*[("stamp_build", (kind_of(packet), scapy_fields(packet))) for packet in packets])
    assert [bytes.fromhex(octets) for octets in built] == [packed(packet) for packet in packets]


def test_scapy_reads_our_octets_as_we_meant_them() -> None:
    packets = some_packets()
    read = ask(*[("stamp_read", (kind_of(packet), packed(packet).hex())) for packet in packets])
    for packet, fields in zip(packets, read, strict=True):
        expected = scapy_fields(packet)
        assert {key: fields[key] for key in expected} == expected
        assert all(fields[key] == 0 for key in fields if key.startswith("mbz"))


# NTP and PTP time


@pytest.mark.parametrize(
    ("moment", "ntp"),
    [
        # RFC 5905 figure 4: 1 January 1970 is 2,208,988,800 s into era 0; era 1 begins 7 February 2036.
        ("1970-01-01T00:00:00+00:00", 2_208_988_800 << 32),
        ("1999-12-31T00:00:00+00:00", 3_155_587_200 << 32),
        ("2036-02-07T06:28:15+00:00", 0xFFFF_FFFF << 32),
        ("2036-02-07T06:28:16+00:00", 0),
        ("2036-02-07T06:28:17+00:00", 1 << 32),
    ],
)
def test_dates_of_the_rfc_are_these_time_stamps(moment: str, ntp: int) -> None:
    wall_ns = int(datetime.datetime.fromisoformat(moment).timestamp()) * SECOND
    assert stamp.ntp_from_wall_ns(wall_ns) == ntp
    assert stamp.wall_ns_from_ntp(ntp) == wall_ns


@given(wall_ns=times)
def test_a_nanosecond_survives_ntp(wall_ns: int) -> None:
    assert stamp.wall_ns_from_ntp(stamp.ntp_from_wall_ns(wall_ns)) == wall_ns


def test_the_last_nanosecond_of_a_second_does_not_fall_into_it() -> None:
    last, first = stamp.ntp_from_wall_ns(2 * SECOND - 1), stamp.ntp_from_wall_ns(2 * SECOND)
    assert last < first
    assert last >> 32 == (first >> 32) - 1


@given(wall_ns=times, later_ns=st.integers(0, SECOND))
def test_time_stamps_keep_the_order_of_time(wall_ns: int, later_ns: int) -> None:
    difference = stamp.ntp_from_wall_ns(wall_ns + later_ns) - stamp.ntp_from_wall_ns(wall_ns)
    assert difference % (1 << 64) <= (1 << 32) + 1


def test_truncated_ptp_is_seconds_and_nanoseconds() -> None:
    error = ErrorEstimate(True, 0, 1, ptp_format=True)
    packet = SenderPacket(sequence=1, sent_wall_ns=5 * SECOND + 7, error=error)
    octets = stamp.pack_sender(packet)
    assert octets[4:12] == bytes.fromhex("00000005 00000007")
    assert stamp.unpack_sender(octets) == packet


# Error estimate


@pytest.mark.parametrize(
    ("bits", "estimate"),
    [
        (0x8001, ErrorEstimate(True, 0, 1)),
        (0x4001, ErrorEstimate(False, 0, 1, ptp_format=True)),
        (0x3FFF, ErrorEstimate(False, 63, 255)),
        (0x9441, ErrorEstimate(True, 20, 65)),
    ],
)
def test_the_sixteen_bits_of_an_error_estimate(bits: int, estimate: ErrorEstimate) -> None:
    assert stamp.unpack_error_estimate(bits) == estimate
    assert stamp.pack_error_estimate(estimate) == bits


def test_an_estimate_is_multiplier_times_two_to_scale_minus_32() -> None:
    assert ErrorEstimate(True, 32, 3).seconds == 3.0
    assert ErrorEstimate(True, 0, 1).seconds == 2.0**-32


@pytest.mark.parametrize("bits", [0x0000, 0x8000, 0x3F00])
def test_multiplier_zero_is_invalid(bits: int) -> None:
    with pytest.raises(WireError, match="multiplier 0"):
        stamp.unpack_error_estimate(bits)


@given(seconds=st.floats(0, 1e9))
def test_an_estimate_is_never_below_the_error_and_never_much_above(seconds: float) -> None:
    estimate = stamp.error_estimate(seconds, synchronised=True)
    assert estimate.synchronised
    assert estimate.seconds >= seconds
    # Eight bits of multiplier: at most one part in 128 too much, but for the smallest there is.
    assert estimate.seconds <= seconds * (1 + 1 / 127) + 2.0**-32


def test_an_unknown_error_is_the_largest_estimate_and_unsynchronised() -> None:
    for estimate in (
        stamp.error_estimate(None, synchronised=True),
        stamp.error_estimate(1e300, synchronised=True),
    ):
        assert estimate == ErrorEstimate(False, 63, 255)


# Reflecting


@pytest.mark.parametrize("extra", [0, 1, 956, 8_000])
def test_an_answer_has_the_size_of_its_request_and_returns_what_follows(extra: int) -> None:
    request = SENDER_OCTETS + bytes(range(256)) * (extra // 256) + b"\xa5" * (extra % 256)
    answer = stamp.reflect(request, received_wall_ns=WALL_NS, hop_limit=61, error=ESTIMATE)
    assert len(answer) == len(request)
    assert answer[44:] == request[44:]


def test_an_answer_copies_what_the_sender_wrote_bit_for_bit() -> None:
    rng = random.Random(1)
    for _ in range(200):
        request = rng.randbytes(44)
        answer = stamp.reflect(request, received_wall_ns=WALL_NS, hop_limit=1, error=ESTIMATE)
        assert answer[24:38] == request[0:14]
        assert answer[14:16] == request[14:16]


def test_t3_is_written_last_and_nothing_else_changes() -> None:
    answer = stamp.reflect(
        SENDER_OCTETS,
        received_wall_ns=WALL_NS + SECOND // 2,
        hop_limit=61,
        error=ErrorEstimate(False, 63, 255),
    )
    assert answer[4:12] == bytes(8)
    stamp.set_sent(answer, WALL_NS + SECOND)
    assert bytes(answer) == REFLECTOR_OCTETS


def test_an_answer_is_told_from_a_request() -> None:
    assert stamp.is_reflected(REFLECTOR_OCTETS)
    assert not stamp.is_reflected(SENDER_OCTETS)
    assert not stamp.is_reflected(SENDER_OCTETS + REFLECTOR_OCTETS)
    assert not stamp.is_reflected(REFLECTOR_OCTETS[:40])
    rng = random.Random(2)
    # A sender whose padding begins early (TWAMP Light) is still answered.
    assert not any(stamp.is_reflected(SENDER_OCTETS[:16] + rng.randbytes(28)) for _ in range(1000))


def test_a_damaged_answer_still_says_whose_it_is() -> None:
    damaged = REFLECTOR_OCTETS[:12] + b"\0\0" + REFLECTOR_OCTETS[14:]
    with pytest.raises(WireError):
        stamp.unpack_reflector(damaged)
    assert stamp.echoed_request(damaged) == (0x01020304, WALL_NS)
