"""What the reflector tells in extensions: departures, addresses, marks; and whom it serves at all."""

from __future__ import annotations

import ipaddress
import socket
import statistics
from itertools import pairwise

import pytest

from probes.packets import stamp, stamp_tlv
from probes.packets.stamp_tlv import Kind
from tests.lab.reflectors import asked, client, extended, request, running, silent, until

FOLLOW_UP = stamp_tlv.follow_up_wanted()
HOSTS = ["127.0.0.1", "::1"]


def told(answer: bytes) -> stamp_tlv.FollowUp:
    (tlv,) = stamp_tlv.unpack(answer[44:])
    assert tlv.usable
    return stamp_tlv.follow_up(tlv.value)


# Departures


@pytest.mark.parametrize("host", HOSTS)
def test_the_next_answer_tells_when_this_one_really_left(host: str) -> None:
    with running(host) as reflector, client(reflector, host) as sock:
        answers = [asked(sock, extended(FOLLOW_UP, sequence=number)) for number in range(30)]
    assert told(answers[0]).sent == 0, "there was none before it"
    lags_ns = []
    for number, (earlier, later) in enumerate(pairwise(answers)):
        follow_up = told(later)
        assert follow_up.sequence == number
        assert follow_up.method == stamp_tlv.Method.SOFTWARE
        lags_ns.append(stamp.wall_ns_from_ntp(follow_up.sent) - stamp.unpack_reflector(earlier).sent_wall_ns)
    assert min(lags_ns) > 0, "T3 is written before the packet leaves"
    assert statistics.median(lags_ns) < 1_000_000
    assert reflector.counters.follow_ups == 29


def test_departures_of_two_sessions_are_not_mixed_up() -> None:
    with running() as reflector, client(reflector) as one, client(reflector) as other:
        for number in range(10):
            first = told(asked(one, extended(FOLLOW_UP, sequence=number)))
            second = told(asked(other, extended(FOLLOW_UP, sequence=number)))
            if number:
                assert first.sequence == second.sequence == number - 1
                assert first.sent < second.sent


def test_a_departure_of_before_a_sender_began_again_is_not_told_after() -> None:
    with running() as reflector, client(reflector) as sock:
        for number in range(3):
            asked(sock, extended(FOLLOW_UP, sequence=number))
        assert told(asked(sock, extended(FOLLOW_UP, sequence=0))).sent == 0
        assert told(asked(sock, extended(FOLLOW_UP, sequence=1))).sequence == 0


def test_a_stateless_reflector_knows_no_departure() -> None:
    with running(stateful=False) as reflector, client(reflector) as sock:
        for number in range(3):
            assert told(asked(sock, extended(FOLLOW_UP, sequence=number))) == stamp_tlv.FollowUp(0, 0, 0)


def test_senders_that_do_not_ask_leave_nothing_in_the_error_queue() -> None:
    with running() as reflector, client(reflector) as sock:
        for number in range(50):
            asked(sock, request(number))
        assert told(asked(sock, extended(FOLLOW_UP, sequence=50))).sent == 0
        until(lambda: reflector.counters.reflected == 51)
    assert reflector.counters.send_failures == 0


# Addresses and marks


@pytest.mark.parametrize(
    ("bound", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.3"),  # noqa: S104
        ("::1", "::1"),
        ("::", "::1"),
        ("::", "127.0.0.3"),
    ],
)
def test_a_location_tells_the_addresses_and_ports_the_packet_had(bound: str, host: str) -> None:
    with running(bound) as reflector, client(reflector, host) as sock:
        answer = asked(sock, extended(stamp_tlv.location_wanted()))
        near, far = sock.getsockname(), sock.getpeername()
    (tlv,) = stamp_tlv.unpack(answer[44:])
    assert stamp_tlv.location(tlv.value) == stamp_tlv.Location(far[1], near[1], far[0], near[0])


@pytest.mark.parametrize(("bound", "host"), [("0.0.0.0", "127.0.0.3"), ("::", "127.0.0.3")])  # noqa: S104
def test_an_answer_leaves_from_the_address_its_request_came_to(bound: str, host: str) -> None:
    with running(bound) as reflector, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.sendto(request(1), (host, reflector.address[1]))
        _answer, address = sock.recvfrom(2_000)
        assert address[0] == host
        # The twin: whoever only sends gets the address of the route.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            plain.sendto(b"x", ("127.0.0.1", sock.getsockname()[1]))
        assert sock.recvfrom(2_000)[1][0] == "127.0.0.1"


def mark_with(sock: socket.socket, dscp: int) -> None:
    """Have `sock` mark what it sends."""
    if sock.family is socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, dscp << 2)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)


def received_mark(sock: socket.socket, octets: bytes) -> tuple[int, bytes]:
    """The mark an answer arrives with, and the answer."""
    six = sock.family is socket.AF_INET6
    level, option = (
        (socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS) if six else (socket.IPPROTO_IP, socket.IP_RECVTOS)
    )
    sock.setsockopt(level, option, 1)
    sock.send(octets)
    answer, ancillary, _flags, _address = sock.recvmsg(2_000, 100)
    return ancillary[0][2][0] >> 2, answer


@pytest.mark.parametrize(("bound", "host"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")])
@pytest.mark.parametrize(("honoured", "mark_back"), [(True, 34), (False, 46)])
def test_an_answer_is_marked_as_asked_or_as_the_request_was(
    bound: str, host: str, honoured: bool, mark_back: int
) -> None:
    with running(bound, honour_dscp=honoured) as reflector, client(reflector, host) as sock:
        mark_with(sock, 46)
        mark, answer = received_mark(sock, extended(stamp_tlv.class_of_service_wanted(34)))
        assert mark == mark_back
        (tlv,) = stamp_tlv.unpack(answer[44:])
        found = stamp_tlv.class_of_service(tlv.value)
        assert (found.dscp_wanted, found.dscp_received, found.refused) == (34, 46, not honoured)
        mark, _answer = received_mark(sock, request(1))
        assert mark == 46, "nothing asked, so the answer is marked like its request"
        mark_with(sock, 0)
        mark, _answer = received_mark(sock, request(2))
        assert mark == 0, "the mark of one answer does not stay for the next"


@pytest.mark.parametrize(("bound", "host"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")])
@pytest.mark.parametrize("dscp", [0, 10, 46])
def test_without_a_usable_extension_an_answer_is_marked_like_its_request(
    bound: str, host: str, dscp: int
) -> None:
    """No extension at all, TWAMP, one cut off, and one that a broken signature makes worth nothing."""
    wanted = stamp_tlv.class_of_service_wanted(34)
    broken = stamp_tlv.pack([wanted, stamp_tlv.Tlv(stamp_tlv.Kind.HMAC, bytes(16))])
    with running(bound) as reflector, client(reflector, host) as sock:
        mark_with(sock, dscp)
        plain = request(0)
        for octets in (
            plain,
            plain[:14] + b"\xa5" * 30,
            plain + stamp_tlv.pack([wanted])[:-1],
            plain + broken,
        ):
            assert received_mark(sock, octets)[0] == dscp


def test_an_ipv4_client_of_an_ipv6_socket_has_its_hop_limit_told() -> None:
    with running("::") as reflector, client(reflector, "127.0.0.1") as sock:
        assert stamp.unpack_reflector(asked(sock, request(1))).sender_hop_limit == 64


def test_an_unknown_extension_comes_back_with_the_u_flag() -> None:
    with running() as reflector, client(reflector) as sock:
        answer = asked(sock, extended(stamp_tlv.Tlv(200, b"unheard of", flags=0)))
    assert stamp_tlv.unpack(answer[44:]) == (stamp_tlv.Tlv(200, b"unheard of", stamp_tlv.UNRECOGNISED),)


def test_direct_measurement_counts_the_session() -> None:
    with running() as reflector, client(reflector) as sock:
        for number in range(4):
            answer = asked(sock, extended(stamp_tlv.direct_measurement_wanted(number + 1), sequence=number))
    (tlv,) = stamp_tlv.unpack(answer[44:])
    assert stamp_tlv.direct_measurement(tlv.value) == stamp_tlv.DirectMeasurement(4, 4, 4)


def test_timestamp_information_tells_the_kernel_s_stamps() -> None:
    with running() as reflector, client(reflector) as sock:
        answer = asked(sock, extended(stamp_tlv.timestamp_information_wanted()))
    (tlv,) = stamp_tlv.unpack(answer[44:])
    assert tlv.kind == Kind.TIMESTAMP_INFORMATION
    found = stamp_tlv.timestamp_information(tlv.value)
    assert found.method_in == found.method_out == stamp_tlv.Method.SOFTWARE
    synchronised = stamp.unpack_reflector(answer).error.synchronised
    expected = stamp_tlv.SyncSource.NTP if synchronised else stamp_tlv.SyncSource.FREE_RUNNING
    assert found.source_in == found.source_out == expected


# Whom it serves


@pytest.mark.parametrize("bound", ["127.0.0.1", "::"])
def test_clients_outside_the_served_networks_are_not_answered(bound: str) -> None:
    networks = (ipaddress.ip_network("127.0.0.2/32"), ipaddress.ip_network("2001:db8::/32"))
    with (
        running(bound, networks=networks) as reflector,
        client(reflector, "127.0.0.2") as inside,
        client(reflector, "127.0.0.3") as outside,
    ):
        asked(inside, request(0))
        assert silent(outside, request(0))
        assert (reflector.counters.not_allowed, reflector.counters.reflected) == (1, 1)
    # The twin: with no list everybody is served.
    with running(bound) as reflector, client(reflector, "127.0.0.3") as outside:
        asked(outside, request(0))


def test_a_64_is_one_client_and_ipv4_on_an_ipv6_socket_is_not() -> None:
    from probes.reflector.admission import Admission

    admission = Admission(1.0, ())
    same = [admission.client(host) for host in ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:0:1::")]
    assert len({found.name for found in same}) == 1
    assert admission.client("2001:db8:0:1::1").name != same[0].name
    mapped = admission.client("::ffff:192.0.2.1")
    assert (mapped.host, mapped.name) == ("192.0.2.1", "192.0.2.1")
    assert admission.client("::ffff:192.0.2.2").name != mapped.name
    assert admission.client("fe80::1%lo").host == "fe80::1"
    assert admission.within_rate(same[0], 0)
    assert not admission.within_rate(same[1], 0), "another address of the same /64"
    assert admission.within_rate(mapped, 0)
