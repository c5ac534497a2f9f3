"""Connections that never end, and too many of them."""

from __future__ import annotations

import resource
import socket
import time
from pathlib import Path

import pytest

from collector.collector_config import Limits
from collector.connection import DESCRIPTORS_FOR_THE_REST, Gate, connection_cap
from tests.lab import collectors
from tests.lab.collectors import KEY, Client
from tests.lab.deliverer import is_ready, until
from tests.lab.records import batch, record

HEAD = (
    f"POST /api/v1/records HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY.secret}\r\n"
    "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
).encode()


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"", "header_timeout"),
        (b"GET /metr", "header_timeout"),
        (b"\r\n", "header_timeout"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-", "header_timeout"),
        (HEAD, "body_timeout"),
        (HEAD + b'{"schema', "body_timeout"),
    ],
)
def test_a_request_that_never_ends_is_ended(tmp_path: Path, sent: bytes, reason: str) -> None:
    limits = {"header_seconds": 0.3, "body_seconds": 0.3, "minimum_free_octets": 0}
    with (
        collectors.running(collectors.config(tmp_path, limits=limits)) as collector,
        socket.create_connection(("127.0.0.1", collector.port or 0), timeout=5) as slow,
    ):
        slow.sendall(sent)
        assert _end_of(slow) < 3
        until(lambda: collector.ingest.counters.refused[reason] == 1)
        assert collector.store.counts().records == 0


def test_without_these_deadlines_such_a_request_stays(tmp_path: Path) -> None:
    """The twin: with the deadlines far away nothing else ends it."""
    limits = {"header_seconds": 600, "body_seconds": 600, "minimum_free_octets": 0}
    with (
        collectors.running(collectors.config(tmp_path, limits=limits)) as collector,
        socket.create_connection(("127.0.0.1", collector.port or 0), timeout=1.0) as slow,
    ):
        slow.sendall(HEAD)
        with pytest.raises(TimeoutError):
            slow.recv(10)


def test_a_request_sent_octet_by_octet_gets_no_more_time(tmp_path: Path) -> None:
    limits = {"header_seconds": 0.5, "minimum_free_octets": 0}
    with (
        collectors.running(collectors.config(tmp_path, limits=limits)) as collector,
        socket.create_connection(("127.0.0.1", collector.port or 0), timeout=0.1) as slow,
    ):
        started = time.monotonic()
        try:
            for octet in b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 1000:
                slow.sendall(bytes([octet]))
                try:
                    if not slow.recv(10):
                        break
                except TimeoutError:
                    continue
        except ConnectionError:
            pass
        assert time.monotonic() - started < 3


def test_an_idle_connection_is_closed_and_a_used_one_kept(tmp_path: Path) -> None:
    limits = {"idle_seconds": 1.0, "header_seconds": 0.4, "minimum_free_octets": 0}
    with (
        collectors.running(collectors.config(tmp_path, limits=limits)) as collector,
        socket.create_connection(("127.0.0.1", collector.port or 0), timeout=5) as idle,
    ):
        for _ in range(2):
            idle.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
            assert idle.recv(4096).startswith(b"HTTP/1.1 200")
        assert 0.5 < _end_of(idle) < 4


def test_honest_probes_are_served_while_many_connections_hang(tmp_path: Path) -> None:
    limits = {"connections": 120, "connections_per_source": 120, "minimum_free_octets": 0}
    with collectors.running(collectors.config(tmp_path, limits=limits)) as collector:
        port = collector.port or 0
        hanging = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        try:
            for number, one in enumerate(hanging):
                one.sendall(HEAD if number % 2 else b"GET /")
            with Client(port) as client:
                longest = 0.0
                for _ in range(20):
                    started = time.monotonic()
                    assert client.post(batch([record()])).status == 200
                    longest = max(longest, time.monotonic() - started)
            assert longest < 1.0
        finally:
            for one in hanging:
                one.close()


def test_connections_beyond_the_cap_are_closed_at_once_and_counted(tmp_path: Path) -> None:
    limits = {"connections": 5, "minimum_free_octets": 0}
    with collectors.running(collectors.config(tmp_path, limits=limits)) as collector:
        port, counters = collector.port or 0, collector.ingest.counters
        kept = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(5)]
        for one in kept:
            one.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
            assert one.recv(4096).startswith(b"HTTP/1.1 200")
        with socket.create_connection(("127.0.0.1", port), timeout=5) as one_more:
            assert _end_of(one_more) < 2
        assert counters.refused["connections"] == 1
        for one in kept:
            one.close()
        until(lambda: is_ready(port))


def test_one_source_cannot_take_all_connections() -> None:
    refused: list[str] = []
    gate = Gate(Limits(connections=10, connections_per_source=3), refused.append)
    assert [gate.enter("192.0.2.1") for _ in range(4)] == [True, True, True, False]
    assert gate.enter("192.0.2.2")
    assert gate.enter(None)
    assert refused == ["connections_of_source"]
    gate.leave("192.0.2.1")
    assert gate.enter("192.0.2.1")


def test_the_cap_lies_below_the_descriptors_of_the_process() -> None:
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert connection_cap(Limits(connections=10**9)) == descriptors - DESCRIPTORS_FOR_THE_REST
    assert connection_cap(Limits(connections=7)) == 7


FLOODS = {
    "one field": (b"GET / HTTP/1.1\r\nX-A: ", b"a" * 65_536),
    "many fields": (b"GET / HTTP/1.1\r\n", b"X-A: b\r\n" * 8_192),
    "an address": (b"GET /", b"a" * 65_536),
    "trailer fields": (
        HEAD.split(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n",
        b"X-A: b\r\n" * 8_192,
    ),
}


def octets_taken(port: int, kind: str, at_most: int) -> int:
    """How many octets of a head without end a collector takes before it ends the connection."""
    head, more = FLOODS[kind]
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=5) as flood:
        try:
            flood.sendall(head)
            while sent < at_most:
                flood.sendall(more)
                sent += len(more)
        except ConnectionError:
            pass
    return sent


@pytest.mark.parametrize("kind", FLOODS)
def test_a_head_without_end_is_ended_by_its_octets(tmp_path: Path, kind: str) -> None:
    with collectors.running(collectors.config(tmp_path)) as collector:
        # What lies in the sockets' buffers was sent, but not taken.
        assert octets_taken(collector.port or 0, kind, 64 * 2**20) < 16 * 2**20
        until(lambda: collector.ingest.counters.refused["header_too_large"] == 1)
        assert is_ready(collector.port or 0)


@pytest.mark.parametrize("kind", FLOODS)
def test_without_that_bound_a_head_grows_as_long_as_it_comes(tmp_path: Path, kind: str) -> None:
    """The twin: the same flood, the bound out of reach."""
    limits = {"header_octets": 2**40, "minimum_free_octets": 0}
    with collectors.running(collectors.config(tmp_path, limits=limits)) as collector:
        assert octets_taken(collector.port or 0, kind, 20 * 2**20) >= 20 * 2**20
        assert collector.ingest.counters.refused["header_too_large"] == 0


@pytest.mark.parametrize(("octets", "status"), [(2048, b"200"), (2049, b"431")])
def test_the_bound_of_a_head_is_exact_and_its_answer_says_so(
    tmp_path: Path, octets: int, status: bytes
) -> None:
    limits = {"header_octets": 2048, "minimum_free_octets": 0}
    empty = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nX: \r\n\r\n"
    head = empty.replace(b"X: ", b"X: " + b"a" * (octets - len(empty)))
    with (
        collectors.running(collectors.config(tmp_path, limits=limits)) as collector,
        socket.create_connection(("127.0.0.1", collector.port or 0), timeout=5) as connection,
    ):
        connection.sendall(head)
        assert connection.recv(4096).startswith(b"HTTP/1.1 " + status)
        if status == b"200":  # and the next request of the connection has as much room
            connection.sendall(head)
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def test_a_body_of_any_length_is_no_head(tmp_path: Path) -> None:
    limits = {"header_octets": 1024, "minimum_free_octets": 0}
    with (
        collectors.running(collectors.config(tmp_path, limits=limits)) as collector,
        Client(collector.port or 0) as client,
    ):
        body = batch([record() for _ in range(500)])
        assert len(body) > 500_000
        assert client.post(body).acknowledgement().stored == 500
        in_chunks = client.request(
            "POST",
            "/api/v1/records",
            iter([body[:70_000], body[70_000:]]),  # type: ignore[arg-type] # sent chunked by http.client
            {"Content-Type": "application/json"},
        )
        assert in_chunks.acknowledgement().duplicate == 500


def _end_of(connection: socket.socket) -> float:
    """Seconds until the other side closes."""
    started = time.monotonic()
    try:
        while connection.recv(4096):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - started
