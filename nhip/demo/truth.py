"""The lab's truth in the terms of the page: per access, the delay, loss and speeds its probe should see.

Each is the same quantity as the measured one, taken elsewhere: the delay from the kernel's stamps of each
packet at the access host's interface, the loss from counting requests and replies there, the speed of a file
from the octets the emulated link delivered, between the same two moments as the method of measurement says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from nhip import statistics
from nhip.lab.report import FlowHalf, LinkTruth, Singleton, TcpFlow

# A flow with less payload than this is no file transfer but a page, a receipt or an empty connection.
SMALLEST_FILE_OCTETS = 100_000
# No port is taken anew within a second, and the date of one opening is told to far better than that.
_SAME_OPENING_NS = 500_000_000
_MOST_REPLACED = 500
_NANOSECONDS = statistics.NANOSECONDS_PER_SECOND


def access_truth(
    link: LinkTruth, requests: Iterable[Singleton], *, destination: str, kinds: Collection[str], count: int
) -> dict[str, Any]:
    """What is true of one access towards the measurement server at `destination`.

    `requests` are all the lab recorded at that access; those of `kinds` belong to tests of `count` packets.
    Only whole tests are taken, because a test that is running or was cut short is not among the measured
    ones either; the delay is the median of the tests' medians, as on the page.
    """
    tests = whole_tests(
        (request for request in requests if request.kind in kinds and request.destination == destination),
        count,
    )
    medians = [median for test in tests if (median := _median(test)) is not None]
    lost = sum(request.round_trip_seconds is None for test in tests for request in test)
    return {
        "probe_id": link.id,
        "delay_seconds": statistics.quantile(medians, 0.5),
        "loss_ratio": lost / (count * len(tests)) if tests else None,
        "down_bits_per_second": statistics.mean(list(_speeds(link.tcp_flows, "down"))),
        "up_bits_per_second": statistics.mean(list(_speeds(link.tcp_flows, "up"))),
    }


class KnownFlows:
    """Remembers the flows whose ports a later connection took: the lab shows only the newest of those.

    Without it the one upload of an access vanishes from the truth when another test happens to get the
    same port within the minute, and the page has a measured speed with nothing to hold it against.
    """

    def __init__(self) -> None:
        self._newest: dict[tuple[str, int, str, int], TcpFlow] = {}
        self._replaced: deque[TcpFlow] = deque(maxlen=_MOST_REPLACED)

    def completed(self, link: LinkTruth) -> LinkTruth:
        """`link` with the flows that it has shown before and no longer does."""
        for flow in link.tcp_flows:
            key = (flow.client, flow.client_port, flow.server, flow.server_port)
            old = self._newest.get(key)
            if old is not None and flow.opened_wall_ns - old.opened_wall_ns > _SAME_OPENING_NS:
                self._replaced.append(old)
            self._newest[key] = flow
        return replace(link, tcp_flows=(*self._replaced, *link.tcp_flows))


def whole_tests(requests: Iterable[Singleton], count: int) -> list[list[Singleton]]:
    """The requests of each test that sent all its `count` packets.

    A test has a socket of its own, which the first part of a flow's name tells: port or ICMP identifier.
    """
    by_socket: dict[str, list[Singleton]] = {}
    for request in requests:
        by_socket.setdefault(request.flow.partition("/")[0], []).append(request)
    return [test for test in by_socket.values() if len(test) == count]


def write(path: Path, accesses: Iterable[dict[str, Any]]) -> None:
    """The truth file of the collector, replaced in one step."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode({"accesses": list(accesses)}))
    fresh.replace(path)


def _speeds(flows: Iterable[TcpFlow], direction: str) -> Iterable[float]:
    """The speed of each file in `direction`, between the moments the method of measurement names.

    A download runs from the request's first octet at the access host to the file's last octet there, an
    upload from the request's first octet at the server to the file's last octet there.
    """
    for flow in flows:
        request, file = flow.up, flow.down if direction == "down" else flow.up
        if request is None or file is None or request.first_arrival_wall_ns is None:
            continue
        other = flow.up if direction == "down" else flow.down
        if not _is_file(file) or (other is not None and _is_file(other)) or file.last_payload_wall_ns is None:
            continue
        # A download begins when the request reaches the access link, an upload when the server reads it.
        begun_ns = request.first_arrival_wall_ns if direction == "down" else request.first_payload_wall_ns
        duration_ns = file.last_payload_wall_ns - (begun_ns or file.last_payload_wall_ns)
        if duration_ns > 0:
            yield file.payload_bytes * 8 * _NANOSECONDS / duration_ns


def _is_file(half: FlowHalf) -> bool:
    return half.payload_bytes >= SMALLEST_FILE_OCTETS


def _median(test: Iterable[Singleton]) -> float | None:
    return statistics.quantile(
        [request.round_trip_seconds for request in test if request.round_trip_seconds is not None], 0.5
    )
