"""The default lab: every operator's hosts reach the server and the site abroad, on IPv4 and IPv6."""

from __future__ import annotations

import json
import socket
import struct
from contextlib import closing

import pytest

from nhip.lab.lifecycle import Lab
from nhip.lab.namespace import inside
from nhip.lab.report import truth_from_json
from tests.lab.network import send_echoes, transfer

pytestmark = pytest.mark.lab

ACCESS_HOSTS = [
    f"{operator}-{access}" for operator in ("alpha", "beta", "gamma") for access in ("fixed", "4g", "3g")
]


def test_every_access_host_reaches_the_server(full_lab: Lab) -> None:
    for host in ACCESS_HOSTS:
        echoes = send_echoes(full_lab, 5, near=host, far="server", interval_seconds=0.002, wait_seconds=0.25)
        assert echoes.lost <= 3, host


def test_the_way_abroad_is_the_access_link_and_the_international_link(full_lab: Lab) -> None:
    # A host and a target that no other test of this module joins.
    send_echoes(full_lab, 20, near="beta-fixed", far="intl", interval_seconds=0.005)
    truth = full_lab.truth()
    found = {
        (link, trips.destination): trips.min_seconds
        for link in ("beta-fixed", "international")
        for trips in truth.link(link).round_trips
    }
    abroad = full_lab.address("intl")
    whole, part = found["beta-fixed", abroad], found["international", abroad]
    assert whole is not None and part is not None
    assert part > 2 * 0.034
    assert whole > 2 * (0.034 + 0.0055)


def test_ipv6_crosses_the_emulated_links(full_lab: Lab) -> None:
    with inside(f"{full_lab.name}-alpha-fixed"):
        prober = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6)
    with closing(prober):
        prober.settimeout(2)
        prober.connect((full_lab.server_address("alpha-fixed", family=6), 0))
        # The first echo after a pause may meet neighbour discovery on the backbone, which only delays it.
        prober.send(struct.pack("!BBHHH", 128, 0, 0, 0, 1) + b"x" * 48)
        assert prober.recv(100)[0] == 129


def test_a_download_runs_at_the_access_link_s_rate(full_lab: Lab) -> None:
    moved = transfer(full_lab, 4_000_000, sender="server", receiver="gamma-fixed")
    assert moved.steady_bits_per_second == pytest.approx(60e6 * 1448 / 1500, rel=0.03)


def test_the_truth_is_a_json_document_on_the_disk_as_well(full_lab: Lab) -> None:
    kept = truth_from_json((full_lab.folder / "truth.json").read_bytes())
    asked = full_lab.truth()
    assert [link.id for link in kept.links] == [*ACCESS_HOSTS, "international"]
    assert (asked.lab, asked.variant, asked.missing_effects) == (full_lab.name, "namespaces", ())
    assert asked.emulator.alive and asked.recorder.missed == 0
    assert asked.written_wall_ns > kept.written_wall_ns
    assert json.loads((full_lab.folder / "truth.json").read_text())["schema_version"] == 1


def test_no_interface_dropped_a_packet_the_emulator_never_saw(full_lab: Lab) -> None:
    for link in full_lab.truth().links:
        assert (link.id, link.up.dropped_interface, link.down.dropped_interface) == (link.id, 0, 0)
