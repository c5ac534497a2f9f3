"""An emulated link does to real packets what is configured, and counts it."""

from __future__ import annotations

import socket
import statistics
import time
from contextlib import closing
from pathlib import Path

import pytest

from nhip.lab.calibrate import calibrate
from nhip.lab.effects import Effects, expected_loss_ratio
from nhip.lab.lifecycle import Lab
from nhip.lab.namespace import inside
from nhip.lab.trace import OPPORTUNITY_BYTES, synthetic_trace, write_trace
from tests.lab.network import LabLink, send_echoes, transfer

pytestmark = pytest.mark.lab

DELAY_SECONDS = 0.020


def check_delay(lab: Lab) -> None:
    """Fail unless each way takes 20 ms: 90 % of the packets less than 0.5 ms over it, never under it."""
    for error in calibrate(lab, probes=100, interval_seconds=0.005):
        excess = error.intended_seconds - DELAY_SECONDS
        assert error.received == error.sent
        assert error.p50_seconds is not None and error.p90_seconds is not None
        assert error.p50_seconds + excess > -0.000_1
        assert error.p90_seconds + excess < 0.000_5


def test_each_way_takes_the_configured_delay_between_kernel_stamps(lab_link: LabLink) -> None:
    effects = Effects(delay_seconds=DELAY_SECONDS)
    check_delay(lab_link(up=effects, down=effects))


def test_the_delay_check_fails_when_the_link_has_another_delay(lab_link: LabLink) -> None:
    effects = Effects(delay_seconds=DELAY_SECONDS - 0.001)
    with pytest.raises(AssertionError):
        check_delay(lab_link(up=effects, down=effects))


def test_the_true_round_trip_is_the_sum_of_both_ways(lab_link: LabLink) -> None:
    lab = lab_link(up=Effects(delay_seconds=0.005), down=Effects(delay_seconds=0.015))
    send_echoes(lab, 50, interval_seconds=0.005)
    (true,) = lab.truth().link("pair").round_trips
    assert (true.kind, true.destination) == ("icmp", lab.address("far"))
    assert (true.requests, true.received, true.lost) == (50, 50, 0)
    assert true.min_seconds is not None and true.median_seconds is not None
    assert true.min_seconds >= 0.020
    assert true.median_seconds == pytest.approx(0.020, abs=0.001)


def check_jitter(lab: Lab) -> None:
    send_echoes(lab, 200, interval_seconds=0.005)
    delays = [single.round_trip_seconds for single in lab.singletons("pair")]
    found = [delay for delay in delays if delay is not None]
    assert len(found) == 200
    # The mean of 200 uniform values between 0 and 4 ms has a standard error of 0.08 ms.
    assert statistics.fmean(found) == pytest.approx(0.007, abs=0.000_5)
    assert max(found) - min(found) > 0.003


def test_jitter_raises_the_mean_delay_by_what_is_configured(lab_link: LabLink) -> None:
    check_jitter(
        lab_link(up=Effects(delay_seconds=0.005, jitter_distribution="uniform", jitter_seconds=0.002))
    )


def test_the_jitter_check_fails_on_a_link_of_constant_delay(lab_link: LabLink) -> None:
    with pytest.raises(AssertionError):
        check_jitter(lab_link(up=Effects(delay_seconds=0.007)))


def check_loss(lab: Lab, count: int, expected_ratio: float, tolerance: float) -> None:
    """Fail unless the losses seen are those counted, and near the expected share."""
    echoes = send_echoes(lab, count)
    link = lab.truth().link("pair")
    dropped = link.up.counters["icmp"].dropped_loss + link.down.counters["icmp"].dropped_loss
    assert link.up.counters["icmp"].arrived == count
    assert dropped == echoes.lost
    assert echoes.lost / count == pytest.approx(expected_ratio, abs=tolerance)


def test_what_ping_misses_is_what_the_counters_say_was_dropped(lab_link: LabLink) -> None:
    lab = lab_link(up=Effects(loss_ratio=0.05), down=Effects(loss_ratio=0.05))
    check_loss(lab, 2000, 1 - 0.95**2, 0.025)


def test_the_loss_check_fails_on_a_link_without_loss(lab_link: LabLink) -> None:
    with pytest.raises(AssertionError):
        check_loss(lab_link(), 500, 1 - 0.95**2, 0.025)


def test_bursty_loss_has_the_mean_of_its_two_states(lab_link: LabLink) -> None:
    effects = Effects(burst_start_ratio=0.02, burst_end_ratio=0.25)
    # Losses come in runs of four, so 3000 packets hold about 55 runs: the share is known to 2.2 points.
    check_loss(lab_link(up=effects), 3000, expected_loss_ratio(effects), 0.03)


def test_the_recorder_tells_the_same_loss_as_the_counters(lab_link: LabLink) -> None:
    lab = lab_link(down=Effects(loss_ratio=0.2))
    sent_ns = time.time_ns()
    echoes = send_echoes(lab, 300, wait_seconds=3.2)
    (true,) = lab.truth(since_wall_ns=sent_ns).link("pair").round_trips
    assert (true.requests, true.lost, true.waiting) == (300, echoes.lost, 0)
    assert 30 < true.lost < 95


def test_effects_changed_at_run_time_meet_the_next_packet(lab_link: LabLink) -> None:
    lab = lab_link()
    assert send_echoes(lab, 50).lost == 0
    lab.set_effects("pair", "up", loss_ratio=1.0)
    assert send_echoes(lab, 50).lost == 50
    lab.set_effects("pair", "up", loss_ratio=0.0)
    assert send_echoes(lab, 50).lost == 0
    assert lab.truth().link("pair").up.counters["icmp"].dropped_loss == 50


def check_duplicates(lab: Lab) -> None:
    echoes = send_echoes(lab, 1000)
    assert 60 < echoes.duplicates < 140
    link = lab.truth().link("pair")
    assert link.down.counters["icmp"].duplicated == echoes.duplicates
    assert link.round_trips[0].duplicate == echoes.duplicates


def test_duplicates_that_arrive_are_those_made(lab_link: LabLink) -> None:
    check_duplicates(lab_link(down=Effects(duplicate_ratio=0.1)))


def test_the_duplicate_check_fails_on_a_link_that_makes_none(lab_link: LabLink) -> None:
    with pytest.raises(AssertionError):
        check_duplicates(lab_link())


def check_reordering(lab: Lab) -> None:
    echoes = send_echoes(lab, 1000)
    counters = lab.truth().link("pair").up.counters["icmp"]
    assert 60 < echoes.reordered < 140
    assert counters.reordered == echoes.reordered
    assert counters.held_back >= counters.reordered


def test_packets_arrive_out_of_order_as_often_as_counted(lab_link: LabLink) -> None:
    check_reordering(lab_link(up=Effects(delay_seconds=0.005, reorder_ratio=0.1, reorder_seconds=0.010)))


def test_the_reordering_check_fails_on_a_link_that_only_delays(lab_link: LabLink) -> None:
    with pytest.raises(AssertionError):
        check_reordering(lab_link(up=Effects(delay_seconds=0.005)))


def test_strong_jitter_alone_keeps_the_order(lab_link: LabLink) -> None:
    lab = lab_link(up=Effects(jitter_distribution="pareto", jitter_seconds=0.010))
    echoes = send_echoes(lab, 500)
    assert (echoes.lost, echoes.reordered) == (0, 0)


RATE = 24e6
PAYLOAD_SHARE = 1448 / 1500
"""Of a full IPv4 packet, 20 bytes are IP header and 32 are TCP header with timestamps."""


def check_rate(lab: Lab) -> None:
    moved = transfer(lab, 4_000_000)
    assert moved.received_bytes == 4_000_000
    assert moved.steady_bits_per_second == pytest.approx(RATE * PAYLOAD_SHARE, rel=0.03)


def test_a_tcp_transfer_runs_at_the_configured_rate(lab_link: LabLink) -> None:
    check_rate(lab_link(up=Effects(delay_seconds=0.005, rate_bits_per_second=RATE)))


def test_the_rate_check_fails_when_the_link_is_faster(lab_link: LabLink) -> None:
    with pytest.raises(AssertionError):
        check_rate(lab_link(up=Effects(delay_seconds=0.005, rate_bits_per_second=1.05 * RATE)))


def test_the_truth_knows_the_speed_of_a_transfer(lab_link: LabLink) -> None:
    slow = Effects(delay_seconds=0.010, rate_bits_per_second=RATE, queue_bytes=200_000, loss_ratio=0.001)
    lab = lab_link(up=slow)
    moved = transfer(lab, 3_000_000)
    (flow,) = lab.truth().link("pair").tcp_flows
    assert (flow.client, flow.client_port) == (lab.address("near"), moved.sender_port)
    assert flow.up is not None and flow.up.speed_bits_per_second is not None
    assert flow.up.payload_bytes == 3_000_000
    assert flow.up.speed_bits_per_second == pytest.approx(moved.mean_bits_per_second, rel=0.02)


def check_trace(lab: Lab, mean_bits_per_second: float) -> None:
    """Fail unless what arrives in one period of the trace is what its opportunities carry, to 1 %."""
    with inside(f"{lab.name}-far"):
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with inside(f"{lab.name}-near"):
        source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with closing(sink), closing(source):
        sink.bind((lab.address("far"), 0))
        sink.settimeout(0.001)
        source.connect(sink.getsockname())
        start, sent, arrivals = time.monotonic(), 0, 0
        while (elapsed := time.monotonic() - start) < 3.5:
            while sent < elapsed * 1.5 * mean_bits_per_second / 8 / 1500:
                source.send(bytes(1472))
                sent += 1
            try:
                sink.recv(2048)
            except TimeoutError:
                continue
            # One period of two seconds, after a second in which the queue fills.
            arrivals += 1.0 <= time.monotonic() - start < 3.0
    carried = mean_bits_per_second * 2 / 8
    assert arrivals * OPPORTUNITY_BYTES == pytest.approx(carried, rel=0.01)


def traced(folder: Path, mean_bits_per_second: float) -> Effects:
    trace = synthetic_trace(mean_bits_per_second=mean_bits_per_second, seconds=2, seed=3)
    write_trace(trace, folder / "trace")
    return Effects(trace=str(folder / "trace"), queue_bytes=1_000_000)


def test_a_trace_delivers_its_opportunities(lab_link: LabLink, tmp_path: Path) -> None:
    check_trace(lab_link(up=traced(tmp_path, 8e6)), 8e6)


def test_the_trace_check_fails_on_a_trace_of_another_rate(lab_link: LabLink, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check_trace(lab_link(up=traced(tmp_path, 7.8e6)), 8e6)
