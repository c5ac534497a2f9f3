"""The lab's truth in the terms of the page."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nhip.demo.truth import KnownFlows, access_truth, whole_tests
from nhip.lab.effects import Effects
from nhip.lab.report import DirectionTruth, FlowHalf, LinkTruth, OwnError, Singleton, TcpFlow

SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND


def request(test: int, number: int, round_trip_seconds: float | None) -> Singleton:
    return Singleton("a", "icmp", "198.18.0.2", f"{test}/{number}", START, round_trip_seconds)


def half(payload_bytes: int, arrival: float, first: float, last: float) -> FlowHalf:
    return FlowHalf(
        opened_wall_ns=START,
        payload_bytes=payload_bytes,
        repeated_bytes=0,
        first_payload_wall_ns=START + round(first * SECOND),
        last_payload_wall_ns=START + round(last * SECOND),
        speed_bits_per_second=None,
        first_arrival_wall_ns=START + round(arrival * SECOND),
    )


def flow(up: FlowHalf, down: FlowHalf) -> TcpFlow:
    return TcpFlow("198.18.11.2", 40000, "198.18.0.2", 8862, START, up, down)


def link(*flows: TcpFlow) -> LinkTruth:
    direction = DirectionTruth(Effects(), 0.0, {}, OwnError(0, None, None, None, None), 0)
    return LinkTruth("a", "a", "op", "op", "4g", direction, direction, (), tuple(flows))


def truth_of(requests: list[Singleton], *flows: TcpFlow) -> dict[str, object]:
    return access_truth(link(*flows), requests, destination="198.18.0.2", kinds=("icmp",), count=3)


def test_delay_and_loss_come_from_whole_tests_only() -> None:
    whole = [request(1, 0, 0.010), request(1, 1, 0.030), request(1, 2, None)]
    also_whole = [request(2, 0, 0.050), request(2, 1, 0.050), request(2, 2, 0.050)]
    cut_short = [request(3, 0, None), request(3, 1, None)]
    found = truth_of([*whole, *also_whole, *cut_short])
    assert len(whole_tests([*whole, *cut_short], 3)) == 1
    assert found["loss_ratio"] == pytest.approx(1 / 6)
    assert found["delay_seconds"] == pytest.approx(0.035)  # the median of 0.020 and 0.050


def test_other_destinations_and_kinds_are_somebody_elses() -> None:
    abroad = [Singleton("a", "icmp", "198.18.1.2", f"9/{n}", START, 0.1) for n in range(3)]
    other = [Singleton("a", "stamp", "198.18.0.2", f"8/{n}", START, 0.1) for n in range(3)]
    assert truth_of([*abroad, *other])["delay_seconds"] is None


def test_a_download_runs_from_the_request_at_the_access_link_to_the_last_octet_there() -> None:
    # 2 MB in 2 s from the request's arrival; counted from its delivery 40 ms later it would be faster.
    download = flow(half(200, 0.0, 0.04, 0.04), half(2_000_000, 0.05, 0.08, 2.0))
    found = truth_of([], download)
    assert found["down_bits_per_second"] == pytest.approx(8_000_000)
    assert found["up_bits_per_second"] is None


def test_an_upload_runs_between_two_moments_at_the_server() -> None:
    upload = flow(half(1_000_000, 0.0, 0.04, 2.04), half(300, 2.05, 2.09, 2.09))
    assert truth_of([], upload)["up_bits_per_second"] == pytest.approx(4_000_000)


def test_pages_and_empty_connections_have_no_speed() -> None:
    page = flow(half(200, 0.0, 0.04, 0.04), half(5_000, 0.05, 0.08, 0.09))
    found = truth_of([], page)
    assert found["down_bits_per_second"] is None and found["up_bits_per_second"] is None


def test_what_is_not_known_is_none() -> None:
    found = truth_of([])
    assert found["delay_seconds"] is None and found["loss_ratio"] is None


def test_a_file_is_not_forgotten_when_another_connection_takes_its_ports() -> None:
    known = KnownFlows()
    file = TcpFlow("198.18.11.2", 40000, "198.18.0.2", 8862, START, None, None)
    still = replace(file, opened_wall_ns=START + 1_000)  # the same opening, told a little otherwise
    later = replace(file, opened_wall_ns=START + 30 * 10**9)
    assert known.completed(link(file)).tcp_flows == (file,)
    assert known.completed(link(still)).tcp_flows == (still,)
    assert known.completed(link(later)).tcp_flows == (still, later)
    assert known.completed(link(later)).tcp_flows == (still, later)
