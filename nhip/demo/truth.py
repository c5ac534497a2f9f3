"""The lab's truth in the terms of the page: per access, the delay, loss and speeds its probe should see.

Each is the same quantity as the measured one, taken elsewhere: the delay from the kernel's stamps of each
packet at the access host's interface, the loss from counting requests and replies there, the speed of a file
from the octets the emulated link delivered, between the same two moments as the method of measurement says.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import msgspec

from nhip import statistics
from nhip.lab.report import FlowHalf, LinkTruth, TcpFlow

# A flow with less payload than this is no file transfer but a page, a receipt or an empty connection.
SMALLEST_FILE_OCTETS = 100_000
_NANOSECONDS = statistics.NANOSECONDS_PER_SECOND


def access_truth(link: LinkTruth, destination: str, kinds: Collection[str]) -> dict[str, Any]:
    """What is true of one access towards the measurement server at `destination`.

    `kinds` are the names the lab's recorder has for the packets of a STAMP test.
    """
    trips = [trip for trip in link.round_trips if trip.kind in kinds and trip.destination == destination]
    settled = sum(trip.received + trip.lost for trip in trips)
    return {
        "probe_id": link.id,
        "delay_seconds": trips[0].median_seconds if trips else None,
        "loss_ratio": sum(trip.lost for trip in trips) / settled if settled else None,
        "down_bits_per_second": statistics.mean(list(_speeds(link.tcp_flows, "down"))),
        "up_bits_per_second": statistics.mean(list(_speeds(link.tcp_flows, "up"))),
    }


def write(path: Path, accesses: Iterable[dict[str, Any]]) -> None:
    """The truth file of the collector, replaced in one step."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode({"accesses": list(accesses)}))
    fresh.replace(path)


def _speeds(flows: Iterable[TcpFlow], direction: str) -> Iterable[float]:
    """The speed of each finished file in `direction`: octets over the time from the request's first octet.

    Both methods start at the request's first octet. A download ends with the file's last octet at the
    access host, an upload with its last octet at the server.
    """
    for flow in flows:
        request, file = flow.up, flow.down if direction == "down" else flow.up
        if request is None or file is None or request.first_payload_wall_ns is None:
            continue
        other = flow.up if direction == "down" else flow.down
        if not _is_file(file) or (other is not None and _is_file(other)) or file.last_payload_wall_ns is None:
            continue
        duration_ns = file.last_payload_wall_ns - request.first_payload_wall_ns
        if duration_ns > 0:
            yield file.payload_bytes * 8 * _NANOSECONDS / duration_ns


def _is_file(half: FlowHalf) -> bool:
    return half.payload_bytes >= SMALLEST_FILE_OCTETS
