"""The arithmetic of the accuracy benchmark: a wrong yardstick would praise a wrong ruler."""

from __future__ import annotations

import struct

import pytest

from benchmarks.accuracy.figures import figures, standing
from benchmarks.accuracy.goals import Condition, Run, verdicts
from benchmarks.accuracy.peers import blackbox_said, fping_said, irtt_said, smokeping_said
from benchmarks.accuracy.said import Said
from benchmarks.accuracy.truth import Seen, Truth, read, trips

NEAR, FAR = bytes((198, 18, 1, 2)), bytes((198, 18, 1, 1))


def ip(protocol: int, source: bytes, destination: bytes, payload: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
    return head + source + destination + payload


def udp(source: bytes, destination: bytes, ports: tuple[int, int], payload: bytes) -> bytes:
    return ip(17, source, destination, struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload)


def test_an_echo_and_its_reply_have_one_name() -> None:
    request = read(ip(1, NEAR, FAR, struct.pack("!BBHHH", 8, 0, 0, 77, 5) + b"data"))
    reply = read(ip(1, FAR, NEAR, struct.pack("!BBHHH", 0, 0, 0, 77, 5) + b"data"))
    assert request == Seen("icmp", "198.18.1.1", 77, 5, request=True)
    assert reply is not None and reply.key == request.key and not reply.request


def test_a_reflected_stamp_packet_is_named_by_the_senders_number() -> None:
    request = read(udp(NEAR, FAR, (40000, 862), struct.pack("!I", 9).ljust(44, b"\0")))
    answer = read(
        udp(FAR, NEAR, (862, 40000), (bytes(3) + b"\1" + bytes(20) + b"\0\0\0\x09").ljust(44, b"\0"))
    )
    assert request == Seen("stamp", "198.18.1.1", 40000, 9, request=True)
    assert answer is not None and answer.key == request.key and not answer.request


def test_irtts_opening_is_no_probe() -> None:
    def packet(flags: int) -> bytes:
        return udp(NEAR, FAR, (40000, 2112), b"\x14\xa7\x5b" + bytes((flags,)) + bytes(8) + b"\x03\0\0\0")

    assert read(packet(1)) is None
    assert read(packet(0)) == Seen("irtt", "198.18.1.1", 40000, 3, request=True)


def truth() -> Truth:
    """Three probes 1 ms apart: round trips of 100 and 200 us, the third lost; the far host keeps 30 us."""
    near = {("icmp", "f", 1, n): {True: n * 1_000_000} for n in range(3)}
    near["icmp", "f", 1, 0][False] = 100_000
    near["icmp", "f", 1, 1][False] = 1_200_000
    far = {
        ("icmp", "f", 1, n): {True: n * 1_000_000 + 20_000, False: n * 1_000_000 + 50_000} for n in range(2)
    }
    return Truth(trips=trips(near, far))


def test_error_is_said_less_true() -> None:
    said = Said(by="sequence", sent=3, lost=1, delays_ns={0: 103_000, 1: 195_000})
    found = figures(said, truth(), excludes_turnaround=False)
    assert (found.judged, found.bias_us, found.max_us) == (2, pytest.approx(-1), pytest.approx(5))
    assert (found.lost_said, found.lost_true) == (1, 1)


def test_the_far_hosts_share_is_taken_out_where_the_program_takes_it_out() -> None:
    said = Said(by="sequence", sent=3, lost=1, delays_ns={0: 70_000, 1: 170_000})
    assert figures(said, truth(), excludes_turnaround=True).max_us == 0
    assert figures(said, truth(), excludes_turnaround=False).max_us == pytest.approx(30)


def test_a_delay_of_a_probe_that_never_came_back_is_unmatched_and_no_error() -> None:
    found = figures(
        Said(by="sequence", sent=3, lost=0, delays_ns={2: 1.0}), truth(), excludes_turnaround=False
    )
    assert (found.judged, found.unmatched, found.bias_us) == (0, 1, None)


def test_a_claim_below_the_real_error_is_not_honest() -> None:
    said = Said(
        by="sequence",
        sent=3,
        lost=1,
        delays_ns={0: 103_000, 1: 195_000},
        own_error_ns={0: 3_000, 1: 4_999},
    )
    assert figures(said, truth(), excludes_turnaround=False).honest == (1, 2)


def test_a_mean_is_held_against_the_answers_it_was_made_of() -> None:
    said = Said(by="order", sent=3, lost=2, mean=(1, 101_000.0))
    found = figures(said, truth(), excludes_turnaround=False)
    assert (found.bias_us, found.p99_us) == (pytest.approx(1), None)
    assert (found.lost_said, found.lost_true) == (2, 1)


def test_a_departure_stamp_stands_between_the_taps() -> None:
    said = Said(by="sequence", sent=3, lost=1, departed_ns={0: 8_000}, arrived_ns={0: 100_000})
    where = standing(said, truth(), excludes_turnaround=False)
    assert where is not None and (where.between, where.count) == (1, 1)
    assert (where.tap_to_departure_us[0], where.departure_to_far_us[0]) == (8, 12)
    assert where.tap_to_arrival_us[0] == 0


def test_a_delay_is_bounded_when_both_taps_allow_it_within_its_claim() -> None:
    # The taps allow 80 to 100 us for the first probe and 180 to 200 us for the second.
    said = Said(
        by="sequence",
        sent=3,
        lost=1,
        delays_ns={0: 79_000, 1: 203_000},
        own_error_ns={0: 1_000, 1: 2_000},
        departed_ns={0: 21_000, 1: 997_000},
        arrived_ns={0: 100_000, 1: 1_200_000},
    )
    where = standing(said, truth(), excludes_turnaround=False)
    assert where is not None and where.within_claim == (1, 2)
    assert (where.between, where.count) == (0, 2)


def test_a_goal_is_met_only_when_its_worst_run_meets_it() -> None:
    good = figures(
        Said(by="sequence", sent=3, lost=1, delays_ns={0: 101_000}), truth(), excludes_turnaround=False
    )
    bad = figures(
        Said(by="sequence", sent=3, lost=1, delays_ns={0: 130_000}), truth(), excludes_turnaround=False
    )
    idle = Condition(0, 0, "idle")
    p99 = {verdict.goal: verdict for verdict in verdicts([Run(idle, "nhip icmp", good)])}
    assert p99["ICMP p99 |error| ≤ 0.025 ms, idle"].is_met
    runs = [Run(idle, "nhip icmp", figure) for figure in (good, bad, None)]
    worst = {verdict.goal: verdict for verdict in verdicts(runs)}["ICMP p99 |error| ≤ 0.025 ms, idle"]
    assert (worst.met, worst.of, worst.is_met) == (1, 3, False)
    assert "no figure" in worst.worst


def test_peers_are_taken_at_their_word() -> None:
    assert fping_said("198.18.1.1 : 0.021 - 20.3\n").delays_ns == {0: 21_000.0, 2: 20_300_000.0}
    assert fping_said("198.18.1.1 : 0.021 - 20.3\n").lost == 1
    trip, lost = '{"seqno": 0, "lost": "false", "delay": {"rtt": 123}}', '{"seqno": 1, "lost": "true"}'
    text = f'{{"round_trips": [{trip}, {lost}]}}'
    assert (irtt_said(text).delays_ns, irtt_said(text).lost) == ({0: 123}, 1)
    page = 'probe_icmp_duration_seconds{phase="rtt"} 0.0205\nprobe_success 1\n'
    assert blackbox_said(page) == pytest.approx(20_500_000)
    assert blackbox_said(page.replace("success 1", "success 0")) is None
    metrics = (
        'smokeping_requests_total{host="h",ip="i"} 10\n'
        'smokeping_response_duration_seconds_sum{host="h",ip="i"} 0.4\n'
        'smokeping_response_duration_seconds_count{host="h",ip="i"} 8\n'
    )
    assert (smokeping_said(metrics).mean, smokeping_said(metrics).lost) == ((8, pytest.approx(5e7)), 2)
