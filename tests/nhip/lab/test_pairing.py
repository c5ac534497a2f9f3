"""Requests and replies are paired as the protocols say, and what is missing is named right."""

from __future__ import annotations

import socket
import struct

import pytest

from nhip.lab.pairing import LOSS_THRESHOLD_NS, Pairing, quantile
from nhip.lab.probe_packets import ProbePacket, read_packet

MS = 1_000_000
HOST, FAR = "198.18.11.2", "198.18.0.2"


def ip4(protocol: int, source: str, destination: str, body: bytes) -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0) + addresses + body


def ip6(protocol: int, source: str, destination: str, body: bytes) -> bytes:
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    return struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + addresses + body


def echo(number: int, *, reply: bool = False) -> bytes:
    body = struct.pack("!BBHHH", 0 if reply else 8, 0, 0, 77, number) + b"data"
    return ip4(1, FAR, HOST, body) if reply else ip4(1, HOST, FAR, body)


def udp(payload: bytes, *, near_port: int = 5000, far_port: int = 862, reply: bool = False) -> bytes:
    ports = (far_port, near_port) if reply else (near_port, far_port)
    body = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload
    return ip4(17, FAR, HOST, body) if reply else ip4(17, HOST, FAR, body)


def packet_of(data: bytes, *, outgoing: bool) -> ProbePacket:
    packet = read_packet(data, outgoing=outgoing)
    assert packet is not None
    return packet


def feed(pairing: Pairing, *events: tuple[int, bytes, bool]) -> None:
    for stamp_ns, data, outgoing in events:
        packet = packet_of(data, outgoing=outgoing)
        (pairing.outgoing if outgoing else pairing.incoming)(packet, stamp_ns)


def test_a_round_trip_is_the_time_between_request_and_reply() -> None:
    pairing = Pairing()
    feed(pairing, (0, echo(1), True), (20 * MS, echo(1, reply=True), False))
    (trips,) = pairing.round_trips()
    assert (trips.kind, trips.destination, trips.requests, trips.received, trips.lost) == (
        "icmp",
        FAR,
        1,
        1,
        0,
    )
    assert trips.median_seconds == pytest.approx(0.020)
    (single,) = pairing.singletons("link")
    assert (single.flow, single.round_trip_seconds) == ("77/1", pytest.approx(0.020))


def test_what_is_not_answered_waits_first_and_is_lost_then() -> None:
    pairing = Pairing()
    feed(pairing, (0, echo(1), True))
    pairing.expire(LOSS_THRESHOLD_NS)
    (trips,) = pairing.round_trips()
    assert (trips.waiting, trips.lost, trips.median_seconds) == (1, 0, None)
    pairing.expire(LOSS_THRESHOLD_NS + 1)
    (trips,) = pairing.round_trips()
    assert (trips.waiting, trips.lost) == (0, 1)
    assert pairing.singletons("link")[0].round_trip_seconds is None


def test_a_reply_after_the_threshold_is_late_and_the_request_stays_lost() -> None:
    pairing = Pairing()
    feed(pairing, (0, echo(1), True), (LOSS_THRESHOLD_NS + 1, echo(1, reply=True), False))
    (trips,) = pairing.round_trips()
    assert (trips.received, trips.lost, trips.late) == (0, 1, 1)


def test_a_second_reply_is_a_duplicate_and_no_round_trip() -> None:
    pairing = Pairing()
    feed(pairing, (0, echo(1), True), (5, echo(1, reply=True), False), (9, echo(1, reply=True), False))
    (trips,) = pairing.round_trips()
    assert (trips.received, trips.duplicate, trips.max_seconds) == (1, 1, pytest.approx(5e-9))


def test_a_reply_nobody_asked_for_is_ignored() -> None:
    pairing = Pairing()
    feed(pairing, (0, echo(1, reply=True), False))
    assert pairing.round_trips() == ()


def test_a_number_used_again_makes_the_unanswered_one_lost() -> None:
    pairing = Pairing()
    feed(pairing, (0, echo(1), True), (10, echo(1), True), (15, echo(1, reply=True), False))
    (trips,) = pairing.round_trips()
    assert (trips.requests, trips.received, trips.lost, trips.max_seconds) == (2, 1, 1, pytest.approx(5e-9))


def test_a_stamp_reply_is_paired_by_the_sender_s_number_at_octet_24() -> None:
    pairing = Pairing()
    request = struct.pack("!I", 7).ljust(44, b"\0")
    # The reflector counts on its own (stateful, RFC 8762): its number is 3, the sender's stands behind it.
    reply = struct.pack("!I", 3).ljust(24, b"\0") + struct.pack("!I", 7).ljust(20, b"\0")
    feed(pairing, (0, udp(request), True), (8, udp(reply, reply=True), False))
    (trips,) = pairing.round_trips()
    assert (trips.kind, trips.received) == ("stamp", 1)
    assert pairing.singletons("link")[0].flow == "5000/7"


def test_dns_is_paired_by_its_message_id() -> None:
    pairing = Pairing()
    question, answer = b"\xab\xcd\x01\x00rest", b"\xab\xcd\x81\x80other"
    feed(pairing, (0, udp(question, far_port=53), True), (4, udp(answer, far_port=53, reply=True), False))
    (trips,) = pairing.round_trips()
    assert (trips.kind, trips.received) == ("dns", 1)


def test_what_answers_a_flow_begun_from_outside_is_no_request() -> None:
    pairing = Pairing()
    ask, answer = b"\0\0\0\1ask.", b"\0\0\0\1yes."
    # Seen from here the far side speaks first: far port 5000, near port 862.
    came = udp(ask, near_port=862, far_port=5000, reply=True)
    left = udp(answer, near_port=862, far_port=5000)
    feed(pairing, (0, came, False), (1, left, True))
    assert pairing.round_trips() == ()


def test_ipv6_echo_is_paired_too() -> None:
    pairing, near, far = Pairing(), "2001:db8::2", "2001:db8::1"
    request = ip6(58, near, far, struct.pack("!BBHHH", 128, 0, 0, 1, 2))
    reply = ip6(58, far, near, struct.pack("!BBHHH", 129, 0, 0, 1, 2))
    feed(pairing, (0, request, True), (6, reply, False))
    (trips,) = pairing.round_trips()
    assert (trips.destination, trips.received) == (far, 1)


def test_bounds_choose_by_the_time_of_sending() -> None:
    pairing = Pairing()
    for number in range(10):
        feed(pairing, (number * 10, echo(number), True), (number * 10 + 5, echo(number, reply=True), False))
    (trips,) = pairing.round_trips(since_ns=20, until_ns=50)
    assert (trips.requests, trips.received) == (3, 3)
    assert len(pairing.singletons("link", since_ns=20, until_ns=50)) == 3


def test_other_packets_are_neither_requests_nor_replies() -> None:
    assert read_packet(ip4(6, HOST, FAR, bytes(20)), outgoing=True) is None
    assert read_packet(ip4(1, HOST, FAR, bytes([3]) + bytes(20)), outgoing=True) is None
    assert read_packet(ip4(17, HOST, FAR, bytes(4)), outgoing=True) is None
    assert read_packet(b"", outgoing=True) is None


def test_quantiles_interpolate_and_nothing_has_none() -> None:
    assert quantile([], 0.5) is None
    assert quantile([3.0], 0.95) == 3.0
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.5
