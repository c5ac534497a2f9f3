"""Loss and reordering by direction over an emulated link, held against captures at both ends of it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nhip.clock import SystemClock
from nhip.lab.capture import Capture
from nhip.lab.effects import Effects
from nhip.lab.lifecycle import Lab
from nhip.lab.namespace import inside
from nhip.measurement import Outcome, Sample, Target
from probes.api import ProbeContext
from probes.network import HostNetwork
from probes.packets.stamp import PORT as STAMP_PORT
from probes.reflector import Reflector
from probes.stamp.probe import Stamp, StampConfig
from tests.lab.network import LabLink, lab_link, lab_of

__all__ = ["lab_link", "lab_of"]

pytestmark = pytest.mark.lab

COUNT = 400


@contextmanager
def reflecting(lab: Lab) -> Iterator[Target]:
    host = lab.address("far")
    reflector = Reflector(host, STAMP_PORT, clock=SystemClock(), packets_per_second=1e6)
    with inside(f"{lab.name}-far"):
        reflector.start()
    try:
        yield Target(id="far", host=host)
    finally:
        reflector.close()


def measured(lab: Lab, target: Target) -> Sample:
    config = StampConfig(count=COUNT, interval_seconds=0.003, loss_threshold_seconds=0.4)
    with inside(f"{lab.name}-near"):
        return Stamp(config).measure(target, ProbeContext(clock=SystemClock(), network=HostNetwork()))


@contextmanager
def counted(lab: Lab) -> Iterator[dict[tuple[str, str], int]]:
    """STAMP packets the kernel saw at each end, requests and answers, once the block is left."""
    ends = {interface.host: interface.name for interface in lab.plan.interfaces()}
    captures = {host: Capture(f"{lab.name}-{host}", ends[host]) for host in ("near", "far")}
    found = {(host, kind): 0 for host in captures for kind in ("request", "answer")}
    try:
        for capture in captures.values():
            capture.start()
        yield found
        for host, capture in captures.items():
            for packet in capture.packets(most=100_000):
                source, destination = struct.unpack_from("!HH", packet.data, (packet.data[0] & 15) * 4)
                if packet.data[9] == socket.IPPROTO_UDP and STAMP_PORT in (source, destination):
                    found[host, "request" if destination == STAMP_PORT else "answer"] += 1
            assert capture.count_missed() == 0
    finally:
        for capture in captures.values():
            capture.close()


def test_packets_lost_in_each_direction_are_those_the_wire_lost_there(lab_link: LabLink) -> None:
    lab = lab_link(
        up=Effects(delay_seconds=0.020, loss_ratio=0.10), down=Effects(delay_seconds=0.005, loss_ratio=0.04)
    )
    with reflecting(lab) as target, counted(lab) as wire:
        sample = measured(lab, target)
    lost_up = wire["near", "request"] - wire["far", "request"]
    lost_down = wire["far", "answer"] - wire["near", "answer"]
    assert wire["near", "request"] == COUNT
    assert lost_up > 15
    assert lost_down > 3
    loss = sample.directional_loss
    assert loss is not None
    assert loss.sent == COUNT
    assert loss.lost_up + loss.lost_down + loss.undetermined == lost_up + lost_down
    # Nobody can say of what was sent after the last answer; of all else the directions are exact.
    assert 0 <= lost_up - loss.lost_up <= loss.undetermined
    assert 0 <= lost_down - loss.lost_down <= loss.undetermined
    lost = sum(singleton.outcome is Outcome.LOST for singleton in sample.singletons)
    assert lost == lost_up + lost_down


def test_overtaking_is_told_in_the_direction_where_it_happened(lab_link: LabLink) -> None:
    lab = lab_link(
        up=Effects(delay_seconds=0.005, reorder_ratio=0.05, reorder_seconds=0.020),
        down=Effects(delay_seconds=0.005),
    )
    with reflecting(lab) as target:
        sample = measured(lab, target)
    ratios = {
        statistic.of: statistic.value
        for statistic in sample.statistics
        if statistic.name == "directional_reordered_ratio"
    }
    assert ratios["down"] == 0
    assert ratios["up"] is not None
    assert 0.01 < ratios["up"] < 0.12


def test_delays_of_a_link_that_is_slower_upwards_show_as_the_round_trip_they_make(lab_link: LabLink) -> None:
    lab = lab_link(up=Effects(delay_seconds=0.030), down=Effects(delay_seconds=0.010))
    with reflecting(lab) as target:
        sample = measured(lab, target)
    delays_ms = sorted((singleton.delay_ns or 0) / 1e6 for singleton in sample.singletons)
    assert delays_ms[0] >= 40
    assert delays_ms[COUNT // 2] < 43
    (offset,) = [found for found in sample.statistics if found.name == "reflector_clock_offset_seconds"]
    assert offset.value is not None
    assert 0.009 < offset.value < 0.012, "half of what the two directions differ by, as its definition says"
