"""Whose answers a stamp session believes, and that what it does not believe leaves nothing behind."""

from __future__ import annotations

import dataclasses

import pytest

from nhip.measurement import ClockState, Stamp, StampSource
from probes.packets import stamp, stamp_auth, stamp_tlv
from probes.stamp.plan import Mode, planned
from probes.stamp.session import StampSession
from probes.timestamping import Datagram
from tests.lab.reflectors import KEY

WALL_NS = 1_790_000_000_123_456_789
SENT = Stamp(WALL_NS, 1_000, StampSource.USER)
FAR, ELSEWHERE = "192.0.2.1", "192.0.2.66"


def session(*, key: bytes | None = None) -> StampSession:
    plan = planned(
        Mode.UNAUTHENTICATED if key is None else Mode.AUTHENTICATED,
        size_octets=None,
        follow_up=True,
        location=False,
        class_of_service=46,
        timestamp_information=True,
        direct_measurement=False,
    )
    return StampSession(
        plan,
        key=key,
        read_clock=ClockState,
        reflector="any",
        own_host=None,
        own_port=lambda: 50_000,
        far_host=FAR,
    )


def answer_to(
    request: bytes,
    *,
    key: bytes | None = None,
    host: str = FAR,
    session_id: int | None = None,
    **changes: int,
) -> Datagram:
    """A reflector's answer with every extension filled in; `changes` are fields of its base packet."""
    error = stamp.error_estimate(0.001, synchronised=True)
    made = stamp if key is None else stamp_auth
    base_octets = made.PACKET_OCTETS
    octets = made.reflect(request, received_wall_ns=WALL_NS + 5, hop_limit=64, error=error, sequence=3)
    at = base_octets
    while at < len(octets):
        octets[at] = 0
        if octets[at + 1] == stamp_tlv.Kind.FOLLOW_UP:
            stamp_tlv.FOLLOW_UP_FIELDS.pack_into(octets, at + 4, 2, stamp.ntp_from_wall_ns(WALL_NS), 2)
        at += 4 + int.from_bytes(octets[at + 2 : at + 4], "big")
    if session_id is not None:
        place = 14 if key is None else 26
        octets[place : place + 2] = session_id.to_bytes(2, "big")
    if key is None:
        stamp.set_sent(octets, WALL_NS + 9)
    else:
        spans = list(stamp_tlv.walk(octets, base_octets))
        begin = spans[-1][0]
        text = octets[:4] + octets[base_octets:begin]
        octets[begin + 4 : begin + 20] = stamp_auth.digest(key, bytes(text))
        stamp_auth.set_sent(octets, WALL_NS + 9, key)
    return Datagram(bytes(octets), (host, 862), SENT)


def nothing_noted(found: StampSession) -> bool:
    return dataclasses.replace(found.heard) == type(found.heard)(extended=True)


@pytest.mark.parametrize("key", [None, KEY])
def test_an_answer_from_the_target_is_noted(key: bytes | None) -> None:
    ours = session(key=key)
    answer = ours.answer(answer_to(ours.request(0, SENT), key=key))
    assert answer is not None
    assert (answer.sequence, answer.intact) == (0, True)
    assert ours.heard.follow_ups
    assert len(ours.heard.replies) == 1
    assert stamp_tlv.Kind.TIMESTAMP_INFORMATION in ours.heard.last


@pytest.mark.parametrize("key", [None, KEY])
def test_the_same_answer_from_another_address_is_foreign_and_changes_nothing(key: bytes | None) -> None:
    """The twin is the test above: the very same octets."""
    ours = session(key=key)
    answer = ours.answer(answer_to(ours.request(0, SENT), key=key, host=ELSEWHERE))
    assert answer is not None
    assert answer.sequence == 0
    assert nothing_noted(ours)


def test_what_is_damaged_or_unsigned_from_another_address_changes_nothing_either() -> None:
    ours = session()
    whole = answer_to(ours.request(0, SENT), host=ELSEWHERE)
    for octets in (whole.data[:-1], whole.data[:12] + b"\x80\x00" + whole.data[14:]):
        ours.answer(dataclasses.replace(whole, data=octets))
    assert nothing_noted(ours)
    signed = session(key=KEY)
    forged = answer_to(signed.request(0, SENT), key=KEY, host=ELSEWHERE).data[:-1] + b"?"
    signed.answer(Datagram(bytes(112) + forged[112:], (ELSEWHERE, 862), SENT))
    assert nothing_noted(signed)


def test_a_damaged_answer_s_number_is_known_all_the_same() -> None:
    ours = session()
    whole = answer_to(ours.request(0, SENT))
    for octets in (whole.data[:-1], whole.data[:12] + b"\x80\x00" + whole.data[14:]):
        found = ours.answer(dataclasses.replace(whole, data=octets))
        assert found is not None
        assert not found.intact
    assert ours.heard.damaged == [(0, 3), (0, 3)]
    assert ours.heard.replies == []


def test_an_answer_of_another_session_is_not_ours() -> None:
    ours = session()
    request = ours.request(0, SENT)
    own_id = int.from_bytes(request[14:16], "big")
    assert ours.answer(answer_to(request, session_id=own_id ^ 1)) is None
    assert nothing_noted(ours)
    # A reflector of RFC 8762 alone leaves it zero.
    assert ours.answer(answer_to(request, session_id=0)) is not None


def test_a_flood_of_copies_does_not_fill_the_memory() -> None:
    ours = session()
    copy = answer_to(ours.request(0, SENT))
    for _ in range(12_000):
        assert ours.answer(copy) is not None
    assert len(ours.heard.replies) < 10_100


def test_the_clock_is_asked_again_each_second_and_requests_tell_what_it_says() -> None:
    said = [
        ClockState(synchronised=True, maximum_error_ns=error_ns) for error_ns in (1_000, 1_000, 8_000_000)
    ]
    ours = session()
    ours = StampSession(
        ours._plan,
        key=None,
        read_clock=lambda: said.pop(0),
        reflector="any",
        own_host=None,
        own_port=lambda: 50_000,
        far_host=FAR,
    )
    first = stamp.unpack_sender(ours.request(0, SENT)).error
    assert stamp.unpack_sender(ours.request(1, dataclasses.replace(SENT, mono_ns=900_000_000))).error == first
    later = stamp.unpack_sender(ours.request(2, dataclasses.replace(SENT, mono_ns=1_100_000_000))).error
    assert later.seconds >= 0.008 > first.seconds
    assert said == []
