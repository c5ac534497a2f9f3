"""Authenticated STAMP packets: literal octets, an HMAC made another way, and what a changed octet does."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nhip.errors import WireError
from probes.packets import stamp, stamp_auth
from probes.packets.stamp import ErrorEstimate, ReflectorPacket, SenderPacket

SECOND = 1_000_000_000
WALL_NS = 1_795_521_600 * SECOND + SECOND // 4
KEY = b"0123456789abcdef0123456789abcdef"
OTHER = b"another key, as long as the first"
ESTIMATE = ErrorEstimate(synchronised=True, scale=20, multiplier=0x41)

SENDER = SenderPacket(sequence=0x01020304, sent_wall_ns=WALL_NS, error=ESTIMATE, session_id=0xABCD)
SENDER_COVERED = (
    bytes.fromhex("01020304") + bytes(12) + bytes.fromhex("eeaffac0 40000000 9441 abcd") + bytes(68)
)
REFLECTOR = ReflectorPacket(
    sequence=0x00000007,
    sent_wall_ns=WALL_NS + SECOND,
    error=ErrorEstimate(synchronised=False, scale=63, multiplier=255),
    session_id=0xABCD,
    received_wall_ns=WALL_NS + SECOND // 2,
    sender_sequence=0x01020304,
    sender_sent_wall_ns=WALL_NS,
    sender_error=ESTIMATE,
    sender_hop_limit=61,
)
REFLECTOR_COVERED = (
    bytes.fromhex("00000007")
    + bytes(12)
    + bytes.fromhex("eeaffac1 40000000 3fff abcd 00000000 eeaffac0 c0000000")
    + bytes(8)
    + bytes.fromhex("01020304")
    + bytes(12)
    + bytes.fromhex("eeaffac0 40000000 9441 000000000000 3d")
    + bytes(15)
)


def hmac_by_hand(key: bytes, text: bytes) -> bytes:
    """RFC 2104 section 2 step by step, not the library call under test."""
    padded = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(octet ^ 0x36 for octet in padded) + text).digest()
    return hashlib.sha256(bytes(octet ^ 0x5C for octet in padded) + inner).digest()[:16]


def test_a_sender_packet_is_these_octets() -> None:
    packed = stamp_auth.pack_sender(SENDER, KEY)
    assert packed == SENDER_COVERED + hmac_by_hand(KEY, SENDER_COVERED)
    assert stamp_auth.unpack_sender(packed) == SENDER


def test_a_reflector_packet_is_these_octets() -> None:
    packed = stamp_auth.pack_reflector(REFLECTOR, KEY)
    assert packed == REFLECTOR_COVERED + hmac_by_hand(KEY, REFLECTOR_COVERED)
    assert stamp_auth.unpack_reflector(packed) == REFLECTOR


def test_the_digest_is_that_of_rfc_4231_cut_to_16_octets() -> None:
    """RFC 4231 section 4.2, the first test case of HMAC-SHA-256."""
    assert stamp_auth.digest(b"\x0b" * 20, b"Hi There").hex() == "b0344c61d8db38535ca8afceaf0bf12b"


def test_both_packets_are_112_octets() -> None:
    assert len(stamp_auth.pack_sender(SENDER, KEY)) == len(stamp_auth.pack_reflector(REFLECTOR, KEY)) == 112
    assert len(SENDER_COVERED) == len(REFLECTOR_COVERED) == 96


def test_the_key_that_signed_is_found_among_several() -> None:
    packed = stamp_auth.pack_sender(SENDER, KEY)
    assert stamp_auth.signing_key(packed, [OTHER, KEY]) == KEY
    assert stamp_auth.signing_key(packed, [OTHER]) is None
    assert stamp_auth.signing_key(packed, []) is None
    assert stamp_auth.signing_key(packed[:111], [KEY]) is None


@pytest.mark.parametrize("position", range(112))
def test_a_changed_octet_anywhere_breaks_the_signature(position: int) -> None:
    packed = bytearray(stamp_auth.pack_sender(SENDER, KEY))
    packed[position] ^= 1
    assert stamp_auth.signing_key(bytes(packed), [KEY]) is None


def test_what_follows_the_packet_is_not_signed_by_it() -> None:
    assert stamp_auth.signing_key(stamp_auth.pack_sender(SENDER, KEY) + b"anything", [KEY]) == KEY


@pytest.mark.parametrize("sequence", [None, 9])
def test_an_answer_copies_what_the_sender_wrote_and_signs_it_anew(sequence: int | None) -> None:
    rng = random.Random(3)
    request = stamp_auth.pack_sender(SENDER, KEY) + rng.randbytes(30)
    answer = stamp_auth.reflect(
        request,
        received_wall_ns=WALL_NS + SECOND // 2,
        hop_limit=61,
        error=REFLECTOR.error,
        sequence=sequence,
    )
    stamp_auth.set_sent(answer, WALL_NS + SECOND, KEY)
    found = stamp_auth.unpack_reflector(bytes(answer))
    assert found.sequence == (0x01020304 if sequence is None else 9)
    assert found.sender_sequence == 0x01020304
    assert (found.received_wall_ns, found.sent_wall_ns) == (WALL_NS + SECOND // 2, WALL_NS + SECOND)
    assert stamp_auth.signing_key(bytes(answer), [KEY]) == KEY
    assert len(answer) == len(request)
    assert answer[112:] == request[112:]


def test_t3_is_under_the_signature() -> None:
    answer = stamp_auth.reflect(
        stamp_auth.pack_sender(SENDER, KEY), received_wall_ns=WALL_NS, hop_limit=1, error=ESTIMATE
    )
    stamp_auth.set_sent(answer, WALL_NS, KEY)
    answer[16:24] = stamp.ntp_from_wall_ns(WALL_NS + 1_000).to_bytes(8, "big")
    assert stamp_auth.signing_key(bytes(answer), [KEY]) is None


def test_an_answer_is_told_from_a_request() -> None:
    assert stamp_auth.is_reflected(stamp_auth.pack_reflector(REFLECTOR, KEY))
    assert not stamp_auth.is_reflected(stamp_auth.pack_sender(SENDER, KEY))


@given(octets=st.binary(max_size=160))
def test_octets_at_random_are_a_packet_or_a_wire_error(octets: bytes) -> None:
    assert stamp_auth.signing_key(octets, [KEY]) is None
    for unpack in (stamp_auth.unpack_sender, stamp_auth.unpack_reflector):
        try:
            unpack(octets)
        except WireError as error:
            assert len(octets) < 112 or "multiplier 0" in str(error)
        else:
            assert len(octets) >= 112


@given(
    sequence=st.integers(0, 2**32 - 1),
    wall_ns=st.integers(0, (1 << 32) * SECOND - 1),
    session_id=st.integers(0, 0xFFFF),
    ptp_format=st.booleans(),
)
def test_a_sender_packet_survives_its_round_trip(
    sequence: int, wall_ns: int, session_id: int, ptp_format: bool
) -> None:
    error = ErrorEstimate(True, 3, 4, ptp_format)
    packet = SenderPacket(sequence=sequence, sent_wall_ns=wall_ns, error=error, session_id=session_id)
    assert stamp_auth.unpack_sender(stamp_auth.pack_sender(packet, KEY)) == packet
