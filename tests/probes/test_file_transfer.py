"""The file_transfer probe against known speeds and against servers that lie."""

from __future__ import annotations

import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from nhip import statistics, wire
from nhip.clock import SystemClock
from nhip.config import convert
from nhip.errors import CannotMeasureError, ConfigError
from nhip.measurement import Direction, Outcome, Sample, Singleton, Target
from probes.api import ProbeContext
from probes.file_transfer import FileTransfer, FileTransferConfig
from probes.network import HostNetwork
from probes.payload import BLOCK_OCTETS, pieces, random_block
from probes.server import MeasurementServer, ServerConfig
from tests.lab.paced_relay import PIECE_OCTETS, paced_relay, true_rate_bits_per_second
from tests.lab.peers import read_head, tcp_peer

RATE_OCTETS_PER_SECOND = 2_000_000.0
# The bucket's first piece passes at once and the head takes its place too; the rest is this machine.
TOLERANCE = 0.03


@contextmanager
def measurement_server(**settings: object) -> Iterator[MeasurementServer]:
    server = MeasurementServer(ServerConfig(hosts=["127.0.0.1"], port=0, **settings), SystemClock())
    server.start()
    try:
        yield server
    finally:
        server.close()


def measure(port: int, **settings: object) -> Sample:
    table = {"size_octets": 100_000, "interval_seconds": 0.0, "loss_threshold_seconds": 10.0}
    if "expected_bits_per_second" in settings:
        del table["size_octets"]
    config = convert(table | settings, FileTransferConfig, "test", environment={})
    context = ProbeContext(clock=SystemClock(), network=HostNetwork())
    return FileTransfer(config).measure(Target(id="server", host="127.0.0.1", port=port), context)


def rate(singleton: Singleton) -> float:
    assert singleton.transfer is not None
    return singleton.transfer.octets * 8e9 / singleton.transfer.duration_ns


@pytest.mark.parametrize("direction", ["down", "up"])
def test_the_speed_is_the_speed_of_the_line(direction: str) -> None:
    octets = 2_000_000
    truth = true_rate_bits_per_second(octets, RATE_OCTETS_PER_SECOND, PIECE_OCTETS)
    with measurement_server() as server, paced_relay(server.port, RATE_OCTETS_PER_SECOND) as port:
        (singleton,) = measure(port, direction=direction, size_octets=octets).singletons
    assert singleton.outcome is Outcome.RECEIVED, singleton.detail
    assert rate(singleton) == pytest.approx(truth, rel=TOLERANCE)


def test_counting_what_an_upload_wrote_would_be_wrong() -> None:
    """The twin of the upload above: the same line and size, but the sender believes its socket."""
    octets = 2_000_000
    truth = true_rate_bits_per_second(octets, RATE_OCTETS_PER_SECOND, PIECE_OCTETS)
    with (
        measurement_server() as server,
        paced_relay(server.port, RATE_OCTETS_PER_SECOND) as port,
        socket.create_connection(("127.0.0.1", port)) as sock,
    ):
        begun_ns = time.monotonic_ns()
        sock.sendall(f"POST /v1/file HTTP/1.1\r\nHost: x\r\nContent-Length: {octets}\r\n\r\n".encode())
        for piece in pieces(octets):
            sock.sendall(piece)
        believed = octets * 8e9 / (time.monotonic_ns() - begun_ns)
        answer = read_head(sock)
        while b"}" not in answer:
            answer += sock.recv(65_536)
    receipt = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert receipt["octets"] * 8e9 / receipt["duration_ns"] == pytest.approx(truth, rel=TOLERANCE)
    assert believed > truth * 1.15


def test_both_directions_alternate_and_are_kept_apart() -> None:
    with measurement_server() as server:
        sample = measure(server.port, direction="both", count=2)
    directions = [singleton.transfer.direction for singleton in sample.singletons if singleton.transfer]
    assert directions == [Direction.DOWN, Direction.UP] * 2
    assert [(speed.direction, speed.transfers) for speed in wire.speeds(sample)] == [
        (Direction.DOWN, 2),
        (Direction.UP, 2),
    ]
    assert sample.octets_received > 200_000
    assert sample.octets_sent > 200_000
    assert len(statistics.transfer_rates_bits_per_second(sample.singletons)) == 4
    assert all(singleton.delay_ns is None for singleton in sample.singletons)


def test_the_sample_names_its_circumstances() -> None:
    with measurement_server() as server:
        sample = measure(server.port, congestion_control="reno")
    assert sample.parameters["congestion_control"] == "reno"
    assert sample.parameters["server_congestion_control"]
    assert sample.parameters["streams"] == 1
    assert sample.parameters["size_octets"] == 100_000
    assert len(sample.notes) == 2
    assert sample.notes[0].startswith("transfer 1 down: round trip ")
    assert FileTransfer.exclusive


def test_a_congestion_control_this_host_lacks_is_no_measurement() -> None:
    with measurement_server() as server, pytest.raises(CannotMeasureError, match="no-such-cc") as failure:
        measure(server.port, congestion_control="no-such-cc")
    assert "tcp_available_congestion_control" in failure.value.remedy


def test_the_file_lasts_as_long_as_asked_at_the_expected_rate() -> None:
    config = FileTransferConfig(duration_seconds=2.0, expected_bits_per_second=300e6)
    assert config.octets == 75_000_000
    assert FileTransferConfig(size_octets=1234).octets == 1234


def test_a_transfer_that_ended_too_soon_is_noted() -> None:
    with measurement_server() as server:
        quick = measure(server.port, expected_bits_per_second=1e6, duration_seconds=1.0)
    assert quick.notes[-1].startswith("a transfer ended before duration_seconds")


def test_two_ways_to_say_the_size_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"file\.toml:size_octets"):
        convert(
            {"size_octets": 1, "expected_bits_per_second": 1e6},
            FileTransferConfig,
            "file.toml",
            environment={},
        )


def head(status: str = "200 OK", length: int = 100_000, *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {length}", "nhip-format: nhip-file/1", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def download_from(answer: bytes, *, reset: bool = False, **settings: object) -> Singleton:
    def script(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(answer)
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        else:
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1)

    with tcp_peer(script) as port:
        (singleton,) = measure(port, direction="down", **settings).singletons
    return singleton


BODY = bytes(100_000)


@pytest.mark.parametrize(
    ("answer", "outcome", "detail"),
    [
        (head() + BODY, Outcome.RECEIVED, ""),
        (head() + BODY[:40_000], Outcome.TRUNCATED, "40000 of 100000 octets"),
        (head(), Outcome.TRUNCATED, "0 of 100000 octets"),
        (head(length=50_000) + BODY[:50_000], Outcome.CORRUPT, "asked for 100000 octets, announced 50000"),
        (head("200 OK", 100_000, "Content-Encoding: gzip") + BODY, Outcome.CORRUPT, "the file was encoded"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + BODY, Outcome.CORRUPT, "no measurement"),
        (head("503 Service Unavailable", 0, "Retry-After: 9"), Outcome.BUSY, "HTTP 503"),
        (head("429 Too Many Requests", 0), Outcome.BUSY, "HTTP 429"),
        # The same words from somebody on the way, who must not be able to take a sample out of the figures.
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", Outcome.REJECTED, "HTTP 503"),
        (b"HTTP/1.1 429 Slow\r\nContent-Length: 0\r\nRetry-After: 9\r\n\r\n", Outcome.REJECTED, "HTTP 429"),
        (b"HTTP/1.1 503 Busy\r\nnhip-format: other/1\r\n\r\n", Outcome.REJECTED, "HTTP 503"),
        (head("302 Found", 0, "Location: http://portal.example/"), Outcome.REJECTED, "HTTP 302"),
        (head("404 Not Found", 0), Outcome.REJECTED, "HTTP 404"),
        (b"", Outcome.RESET, "closed without an answer"),
        (b"garbage\r\n\r\n", Outcome.CORRUPT, "no HTTP answer"),
    ],
)
def test_what_the_server_did_is_the_outcome(answer: bytes, outcome: Outcome, detail: str) -> None:
    singleton = download_from(answer)
    assert singleton.outcome is outcome
    assert detail in singleton.detail


def test_a_file_cut_short_has_no_speed_but_says_how_far_it_came() -> None:
    singleton = download_from(head() + BODY[:40_000])
    assert singleton.transfer is not None
    assert (singleton.transfer.octets, singleton.transfer.announced_octets) == (40_000, 100_000)
    assert statistics.transfer_rates_bits_per_second([singleton]) == []


def test_a_reset_in_the_middle_is_a_reset_without_speed() -> None:
    singleton = download_from(head() + BODY[:50_000], reset=True)
    assert singleton.outcome is Outcome.RESET
    assert statistics.transfer_rates_bits_per_second([singleton]) == []


def test_a_server_that_drips_cannot_outlast_the_deadline() -> None:
    pause = threading.Event()

    def drip(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(head())
        while not pause.wait(0.02):
            sock.sendall(b"x")

    with tcp_peer(drip) as port:
        sample = measure(port, direction="down", loss_threshold_seconds=0.5)
    assert sample.singletons[0].outcome is Outcome.TRUNCATED
    assert sample.ended.mono_ns - sample.started.mono_ns < 1.2e9


def upload_to(receipt: Callable[[int, int], object], *, read: int | None = None) -> Singleton:
    """The one upload to a server that reads `read` octets (all when None) and answers with `receipt`."""

    def script(sock: socket.socket) -> None:
        began_ns = time.monotonic_ns()
        octets = len(read_head(sock).partition(b"\r\n\r\n")[2])
        while octets < (100_000 if read is None else read):
            octets += len(sock.recv(65_536))
        body = receipt(octets, time.monotonic_ns() - began_ns)
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        sock.sendall(head("200 OK", len(payload)) + payload)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65_536):
            pass

    with tcp_peer(script) as port:
        (singleton,) = measure(port, direction="up").singletons
    return singleton


def test_an_upload_has_the_octets_and_the_time_of_its_receiver() -> None:
    told: list[int] = []

    def receipt(octets: int, duration_ns: int) -> object:
        told.append(duration_ns)
        return {"octets": octets, "duration_ns": duration_ns}

    singleton = upload_to(receipt)
    assert singleton.outcome is Outcome.RECEIVED
    assert singleton.transfer is not None
    assert (singleton.transfer.octets, singleton.transfer.duration_ns) == (100_000, told[0])


@pytest.mark.parametrize(
    ("receipt", "outcome"),
    [
        (lambda octets, duration: {"octets": octets - 1, "duration_ns": duration}, Outcome.TRUNCATED),
        (lambda octets, duration: {"octets": octets + 1, "duration_ns": duration}, Outcome.CORRUPT),
        (lambda octets, duration: {"octets": octets, "duration_ns": 0}, Outcome.CORRUPT),
        (lambda octets, duration: {"octets": octets, "duration_ns": 10**12}, Outcome.CORRUPT),
        (lambda octets, duration: {"octets": octets, "duration_ns": -5}, Outcome.CORRUPT),
        (lambda octets, duration: {"octets": octets}, Outcome.CORRUPT),
        (lambda octets, duration: b"<html>welcome</html>", Outcome.CORRUPT),
        (lambda octets, duration: b"[" * 4000, Outcome.CORRUPT),
    ],
)
def test_a_receipt_that_cannot_be_true_gives_no_speed(
    receipt: Callable[[int, int], object], outcome: Outcome
) -> None:
    singleton = upload_to(receipt)
    assert singleton.outcome is outcome
    assert statistics.transfer_rates_bits_per_second([singleton]) == []


def test_an_upload_refused_while_it_is_sent_is_busy_and_stops_sending() -> None:
    def refuse(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(head("503 Service Unavailable", 5, "Retry-After: 15") + b"busy\n")
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65_536):
            pass

    with tcp_peer(refuse) as port:
        sample = measure(port, direction="up", size_octets=1_000_000_000)
    assert sample.singletons[0].outcome is Outcome.BUSY
    assert sample.octets_sent < 500_000_000


def test_an_upload_nobody_answers_is_lost_at_the_deadline() -> None:
    release = threading.Event()
    with tcp_peer(lambda sock: (read_head(sock), release.wait(5))) as port:
        sample = measure(port, direction="up", size_octets=50_000_000, loss_threshold_seconds=0.4)
        release.set()
    assert sample.singletons[0].outcome is Outcome.LOST
    assert sample.singletons[0].transfer is None


def test_a_cancelled_transfer_stops_soon_and_is_no_loss() -> None:
    cancelled = threading.Event()
    with measurement_server() as server, paced_relay(server.port, 100_000.0) as port:
        config = FileTransferConfig(direction="down", size_octets=10_000_000)
        context = ProbeContext(clock=SystemClock(), network=HostNetwork(), cancelled=cancelled)
        timer = threading.Timer(0.3, cancelled.set)
        timer.start()
        sample = FileTransfer(config).measure(Target(id="server", host="127.0.0.1", port=port), context)
        timer.join()
    assert sample.singletons[0].outcome is Outcome.NOT_SENT
    assert sample.ended.mono_ns - sample.started.mono_ns < 2e9


def test_nothing_on_the_way_can_compress_the_file() -> None:
    block = bytes(random_block())
    assert len(block) == BLOCK_OCTETS >= 1 << 20
    assert len(zlib.compress(block, 9)) > len(block)


def test_the_pieces_of_a_file_are_exactly_its_octets() -> None:
    for octets in (1, 262_144, BLOCK_OCTETS - 1, BLOCK_OCTETS, 3 * BLOCK_OCTETS + 17):
        assert sum(len(piece) for piece in pieces(octets)) == octets
    assert list(pieces(0)) == []
