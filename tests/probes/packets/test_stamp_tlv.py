"""STAMP extensions: literal octets, scapy as the other implementation, flags, signatures, and rubbish."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.packets import stamp, stamp_auth, stamp_tlv, stamp_tlv_answer
from probes.packets.stamp_tlv import INTEGRITY, MALFORMED, UNRECOGNISED, FollowUp, Kind, Tlv
from probes.packets.stamp_tlv_answer import Seen
from tests.lab.scapy_oracle import ask

KEY = b"0123456789abcdef0123456789abcdef"
BASE = 44
SENDER = stamp.pack_sender(
    stamp.SenderPacket(sequence=5, sent_wall_ns=1, error=stamp.ErrorEstimate(False, 0, 1), session_id=7)
)
SEEN = Seen(
    source=("192.0.2.1", 40_000),
    destination=("198.51.100.2", 862),
    traffic_class=46 << 2 | 1,
    sync_source=stamp_tlv.SyncSource.NTP,
    received=3,
    sent=4,
    follow_up=FollowUp(0x0A0B0C0D, 0x1122334455667788, stamp_tlv.Method.SOFTWARE),
)


def reflected(
    tlvs: bytes, seen: Seen = SEEN, *, keys: tuple[bytes, ...] = (), owed: bool = False
) -> tuple[tuple[Tlv, ...], stamp_tlv_answer.Reply, bytes]:
    """What a reflector makes of `tlvs`: parsed, what they ask of it, and the octets."""
    request = SENDER + tlvs
    packet = bytearray(request)
    reply = stamp_tlv_answer.answer(packet, request, BASE, seen, keys, owed=owed)
    if reply.signed_with is not None:
        stamp_tlv_answer.sign(packet, BASE, reply.signed_with)
    assert len(packet) == len(request)
    assert packet[:BASE] == request[:BASE]
    return stamp_tlv.unpack(bytes(packet[BASE:])), reply, bytes(packet[BASE:])


# Octets


ASKED = {
    "follow-up telemetry": (stamp_tlv.follow_up_wanted(), "80 07 0010" + "00" * 16),
    "class of service": (stamp_tlv.class_of_service_wanted(46), "80 04 0004 b8000000"),
    "timestamp information": (stamp_tlv.timestamp_information_wanted(), "80 03 0004 00000000"),
    "direct measurement": (stamp_tlv.direct_measurement_wanted(9), "80 05 000c 00000009" + "00" * 8),
    "location": (
        stamp_tlv.location_wanted(),
        "80 02 002c 00000000" + "80 04 0010" + "00" * 16 + "80 07 0010" + "00" * 16,
    ),
    "extra padding": (stamp_tlv.padding(b"\x01\x02\x03"), "80 01 0003 010203"),
}
ANSWERED = {
    "follow-up telemetry": "00 07 0010 0a0b0c0d 1122334455667788 02 000000",
    # DSCP1 46, DSCP2 46, ECN 1, RP 0: 101110 101110 01 00
    "class of service": "00 04 0004 bae40000",
    "timestamp information": "00 03 0004 01020102",
    "direct measurement": "00 05 000c 00000009 00000003 00000004",
    "location": "00 02 002c 035e 9c4000 05 0010 c6336402" + "00" * 12 + "00 08 0010 c0000201" + "00" * 12,
    "extra padding": "00 01 0003 010203",
}


@pytest.mark.parametrize("name", ASKED)
def test_what_a_sender_asks_is_these_octets(name: str) -> None:
    tlv, octets = ASKED[name]
    assert stamp_tlv.pack([tlv]) == bytes.fromhex(octets)
    assert stamp_tlv.unpack(bytes.fromhex(octets)) == (tlv,)


@pytest.mark.parametrize("name", ANSWERED)
def test_what_a_reflector_answers_is_these_octets(name: str) -> None:
    tlvs, _reply, octets = reflected(stamp_tlv.pack([ASKED[name][0]]))
    assert octets == bytes.fromhex(ANSWERED[name])
    assert [tlv.usable for tlv in tlvs] == [True]


def test_all_of_them_in_one_packet_are_answered() -> None:
    asked = [tlv for tlv, _octets in ASKED.values()]
    tlvs, reply, octets = reflected(stamp_tlv.pack(asked))
    assert octets == b"".join(bytes.fromhex(text) for text in ANSWERED.values())
    assert (reply.dscp, reply.wants_follow_up) == (46, True)
    values = {tlv.kind: tlv.value for tlv in tlvs}
    service = stamp_tlv.class_of_service(values[Kind.CLASS_OF_SERVICE])
    assert service == stamp_tlv.ClassOfService(46, 46, 1, refused=False)
    information = stamp_tlv.timestamp_information(values[Kind.TIMESTAMP_INFORMATION])
    assert information == stamp_tlv.TimestampInformation(1, 2, 1, 2)
    counts = stamp_tlv.direct_measurement(values[Kind.DIRECT_MEASUREMENT])
    assert counts == stamp_tlv.DirectMeasurement(9, 3, 4)
    located = stamp_tlv.location(values[Kind.LOCATION])
    assert located == stamp_tlv.Location(862, 40_000, "198.51.100.2", "192.0.2.1")
    assert stamp_tlv.follow_up(values[Kind.FOLLOW_UP]) == SEEN.follow_up


def test_addresses_of_both_versions_are_told_and_unknown_ones_stay_zero() -> None:
    seen = Seen(source=("2001:db8::5", 1), destination=(None, 2))
    tlvs, _reply, octets = reflected(stamp_tlv.pack([stamp_tlv.location_wanted()]), seen)
    assert stamp_tlv.location(tlvs[0].value) == stamp_tlv.Location(2, 1, None, "2001:db8::5")
    assert bytes.fromhex("00 09 0010 20010db8") in octets


def test_a_mark_that_is_not_allowed_is_refused_in_the_answer_and_not_used() -> None:
    seen = Seen(traffic_class=10 << 2, dscp_allowed=False)
    tlvs, reply, _octets = reflected(stamp_tlv.pack([stamp_tlv.class_of_service_wanted(46)]), seen)
    assert stamp_tlv.class_of_service(tlvs[0].value) == stamp_tlv.ClassOfService(46, 10, 0, refused=True)
    assert reply.dscp == 10


def test_a_stateless_reflector_zeroes_a_follow_up() -> None:
    request = stamp_tlv.pack([Tlv(Kind.FOLLOW_UP, b"\xff" * 16)])
    tlvs, _reply, _octets = reflected(request, Seen())
    assert tlvs[0].value == bytes(16)
    assert tlvs[0].usable


def test_an_access_report_is_read_and_returned() -> None:
    tlvs, _reply, _octets = reflected(stamp_tlv.pack([Tlv(Kind.ACCESS_REPORT, bytes.fromhex("10020000"))]))
    assert stamp_tlv.access_report(tlvs[0].value) == stamp_tlv.AccessReport(1, 2)
    assert tlvs[0].usable


# scapy


def scapy_tlvs(tlvs: tuple[Tlv, ...]) -> list[list[object]]:
    return [[tlv.flags, tlv.kind, tlv.value.hex()] for tlv in tlvs]


def test_scapy_builds_and_reads_the_same_tlvs() -> None:
    rng = random.Random(8972)
    lists = [
        tuple(
            Tlv(rng.randrange(1, 256), rng.randbytes(rng.randrange(20)), rng.choice([0, 0x80, 0x40, 0x20]))
            for _ in range(rng.randrange(1, 8))
        )
        for _ in range(20)
    ]
    built = ask(*[("stamp_build", ("sender", {"tlvs": scapy_tlvs(tlvs)})) for tlvs in lists])
    read = ask(*[("stamp_read", ("sender", (SENDER + stamp_tlv.pack(tlvs)).hex())) for tlvs in lists])
    for tlvs, octets, fields in zip(lists, built, read, strict=True):
        assert bytes.fromhex(octets)[BASE:] == stamp_tlv.pack(tlvs)
        assert fields["tlvs"] == scapy_tlvs(tlvs)


def test_scapy_reads_a_reflector_s_answer() -> None:
    asked = [tlv for tlv, _octets in ASKED.values()]
    tlvs, _reply, octets = reflected(stamp_tlv.pack(asked))
    answer = stamp.reflect(SENDER, received_wall_ns=1, hop_limit=2, error=stamp.ErrorEstimate(False, 0, 1))
    (read,) = ask(("stamp_read", ("reflector", (bytes(answer) + octets).hex())))
    assert read["tlvs"] == scapy_tlvs(tlvs)


# Flags


@pytest.mark.parametrize("kind", [0, 9, 100, 240, 255])
def test_an_unknown_type_is_returned_with_the_u_flag(kind: int) -> None:
    tlvs, _reply, _octets = reflected(
        stamp_tlv.pack([Tlv(kind, b"abc", flags=0), stamp_tlv.follow_up_wanted()])
    )
    assert tlvs[0] == Tlv(kind, b"abc", UNRECOGNISED)
    assert tlvs[1].usable, "what follows is still read"


@pytest.mark.parametrize(
    ("kind", "octets"),
    [(3, 3), (4, 5), (5, 8), (6, 0), (7, 15), (7, 17), (8, 12), (2, 3)],
)
def test_a_known_type_of_wrong_length_is_malformed_and_stops_the_reading(kind: int, octets: int) -> None:
    follow_up = stamp_tlv.follow_up_wanted()
    request = stamp_tlv.pack([Tlv(kind, b"\x05" * octets), follow_up])
    tlvs, reply, _octets = reflected(request)
    if kind == Kind.HMAC:
        assert reply.integrity_failed, "a signature that cannot be one fails as such"
        return
    assert tlvs[0].flags & MALFORMED
    assert not tlvs[0].usable
    assert not reply.wants_follow_up
    if kind != Kind.LOCATION:
        assert len(tlvs) == 1


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_tlv_that_runs_beyond_the_packet_is_malformed(cut: int) -> None:
    request = stamp_tlv.pack([stamp_tlv.timestamp_information_wanted(), stamp_tlv.follow_up_wanted()])[:-cut]
    tlvs, reply, octets = reflected(request)
    assert tlvs[0].usable
    assert [tlv.flags & MALFORMED for tlv in tlvs[1:]] == [MALFORMED]
    assert not reply.wants_follow_up
    assert len(octets) == len(request)


def test_zeros_after_the_packet_are_padding_and_come_back_as_they_are() -> None:
    for octets in (1, 3, 4, 27, 200):
        tlvs, _reply, returned = reflected(bytes(octets))
        assert (tlvs, returned) == ((), bytes(octets))


def test_a_malformed_part_of_a_location_is_marked_inside_it() -> None:
    value = bytes(4) + bytes.fromhex("80 04 0004 00000000") + bytes.fromhex("80 07 0010") + bytes(16)
    tlvs, _reply, _octets = reflected(stamp_tlv.pack([Tlv(Kind.LOCATION, value)]))
    assert tlvs[0].usable
    assert tlvs[0].value[4] == MALFORMED
    assert tlvs[0].value[12] == UNRECOGNISED, "what follows is as it came"
    assert stamp_tlv.location(tlvs[0].value).source is None


# Signatures


def signed(*tlvs: Tlv, key: bytes = KEY, sequence: int = 5) -> bytes:
    return stamp_tlv.pack(tlvs, sequence=sequence, key=key)


def test_the_signature_covers_the_sequence_number_and_every_tlv_before_it() -> None:
    follow_up = stamp_tlv.follow_up_wanted()
    octets = signed(follow_up, stamp_tlv.padding(b"pad"))
    plain = stamp_tlv.pack([follow_up])
    expected = stamp_auth.digest(KEY, bytes.fromhex("00000005") + plain)
    assert octets == plain + bytes.fromhex("80080010") + expected + bytes.fromhex("80010003") + b"pad"
    assert stamp_tlv.authentic(SENDER + octets, BASE, [b"x" * 16, KEY]) == KEY


def test_a_signed_request_gets_a_signed_answer() -> None:
    tlvs, reply, octets = reflected(signed(stamp_tlv.follow_up_wanted()), keys=(KEY,))
    assert reply.signed_with == KEY
    assert [tlv.usable for tlv in tlvs] == [True, True]
    assert stamp_tlv.authentic(SENDER + octets, BASE, [KEY]) == KEY
    assert stamp_tlv.follow_up(tlvs[0].value) == SEEN.follow_up


BROKEN = {
    "another key": lambda: signed(stamp_tlv.follow_up_wanted(), key=b"y" * 32),
    "another sequence number": lambda: signed(stamp_tlv.follow_up_wanted(), sequence=6),
    "a changed value": lambda: signed(stamp_tlv.direct_measurement_wanted(1)).replace(
        b"\0\0\0\x01", b"\0\0\0\x02"
    ),
    "a tlv behind it": lambda: (
        signed(stamp_tlv.timestamp_information_wanted()) + stamp_tlv.pack([stamp_tlv.follow_up_wanted()])
    ),
    "a signature cut off": lambda: signed(stamp_tlv.follow_up_wanted())[:-1],
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("owed", [False, True])
def test_a_signature_that_does_not_hold_marks_every_tlv_and_fills_in_nothing(name: str, owed: bool) -> None:
    request = BROKEN[name]()
    tlvs, reply, _octets = reflected(request, keys=(KEY,), owed=owed)
    if name == "a signature cut off":
        tlvs = tlvs[:-1]
    assert reply.integrity_failed
    assert not reply.wants_follow_up
    assert all(tlv.flags & INTEGRITY for tlv in tlvs)
    assert not any(tlv.usable for tlv in tlvs)
    kept = stamp_tlv.unpack(request)
    assert [tlv.value for tlv in tlvs] == [tlv.value for tlv in kept][: len(tlvs)]


def test_without_the_check_a_forged_tlv_would_be_answered() -> None:
    """The twin: the same octets to a reflector that believes unsigned TLVs."""
    plain = stamp_tlv.pack([stamp_tlv.follow_up_wanted()])
    tlvs, reply, _octets = reflected(plain, keys=(KEY,), owed=True)
    assert (tlvs[0].flags & INTEGRITY, reply.integrity_failed) == (INTEGRITY, True)
    tlvs, reply, _octets = reflected(plain, keys=(KEY,), owed=False)
    assert (tlvs[0].usable, reply.wants_follow_up) == (True, True)


def test_extra_padding_alone_owes_no_signature() -> None:
    tlvs, reply, _octets = reflected(stamp_tlv.pack([stamp_tlv.padding(b"pad")]), keys=(KEY,), owed=True)
    assert tlvs[0].usable
    assert not reply.integrity_failed
    assert not stamp_tlv.owes_signature([stamp_tlv.padding(b"pad")])
    assert stamp_tlv.owes_signature([stamp_tlv.follow_up_wanted()])


def test_a_reflector_without_keys_believes_no_signature() -> None:
    _tlvs, reply, _octets = reflected(signed(stamp_tlv.follow_up_wanted()), keys=())
    assert reply.integrity_failed


# Rubbish


@given(tlvs=st.binary(max_size=400), owed=st.booleans())
def test_octets_at_random_are_answered_at_their_own_length(tlvs: bytes, owed: bool) -> None:
    found, _reply, octets = reflected(tlvs, keys=(KEY,), owed=owed)
    assert len(octets) == len(tlvs)
    assert len(found) <= stamp_tlv.MOST_TLVS
    for tlv in found:
        if tlv.kind == Kind.LOCATION and len(tlv.value) >= 4:
            stamp_tlv.location(tlv.value)


@given(
    parts=st.lists(
        st.tuples(st.integers(0, 255), st.integers(0, 12), st.integers(0, 60), st.binary(max_size=60)),
        max_size=40,
    )
)
def test_headers_at_random_are_read_once_and_forward(parts: list[tuple[int, int, int, bytes]]) -> None:
    octets = b"".join(
        bytes((flags, kind)) + length.to_bytes(2, "big") + value for flags, kind, length, value in parts
    )
    found, _reply, _octets = reflected(octets, keys=(KEY,))
    assert sum(stamp_tlv.HEADER_OCTETS + len(tlv.value) for tlv in found[:-1]) <= len(octets)


def test_thousands_of_tlvs_cost_no_more_than_a_few() -> None:
    many = bytes.fromhex("80f00000") * 2_290
    begun = time.perf_counter()
    for _ in range(100):
        found, _reply, octets = reflected(many, keys=(KEY,))
    took = time.perf_counter() - begun
    assert len(found) == stamp_tlv.MOST_TLVS
    assert octets[4 * stamp_tlv.MOST_TLVS :] == many[4 * stamp_tlv.MOST_TLVS :]
    assert took < 1.0


def test_values_survive_pack_and_unpack() -> None:
    rng = random.Random(4)
    for _ in range(200):
        tlvs = tuple(
            Tlv(rng.choice([1, 9, 200]), rng.randbytes(rng.randrange(30)), rng.choice([0, UNRECOGNISED]))
            for _ in range(rng.randrange(1, 10))
        )
        assert stamp_tlv.unpack(stamp_tlv.pack(tlvs)) == tlvs
