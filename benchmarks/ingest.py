"""How many records a second the collector takes in over HTTP, beside what bounds it in the same run.

    python -m benchmarks.ingest [--seconds 4] [--connections 4] [--batch 100]

Four figures, one after the other, from one generator on the same processors:

* *decode only*: the peer. A bare ASGI application on the same server (uvicorn, httptools, uvloop) that only
  decodes the body as JSON and answers: what HTTP and JSON alone cost here.
* *collector*: the whole path, every record checked, on disk before it is acknowledged, each batch new.
* *collector, repeated*: the same batches again, all recognised as duplicates.
* *store only*: :class:`~collector.store.sqlite.SqliteStore` without HTTP, the same records: the upper bound.

The generator shares the processors with the server, so the figures are lower than a server alone reaches.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from collector.collector_config import CollectorConfig
from collector.keys import key_sha256
from collector.service import Collector
from collector.store.api import Entry, StoreSettings
from collector.store.sqlite import SqliteStore
from nhip.clock import SystemClock
from nhip.wire import Record, decode_record
from tests.lab.collectors import plain_page
from tests.lab.records import agent, batch, record


def main() -> None:
    parser = argparse.ArgumentParser(description="records a second into the collector")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--batch", type=int, default=100)
    chosen = parser.parse_args()
    bodies = make_bodies(chosen.connections, chosen.batch, chosen.seconds)
    octets = len(bodies[0][0]) / chosen.batch
    print(
        f"{os.cpu_count()} processors, {chosen.connections} keep-alive connections,"
        f" {chosen.batch} records of {octets:.0f} octets a body, {chosen.seconds:g} s each"
    )
    peer = through_http("decode only (peer)", serve_decoder, bodies, chosen.batch, chosen.seconds)
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory)
        ours = through_http(
            "collector", CollectorServer(data, chosen.connections), bodies, chosen.batch, chosen.seconds
        )
        through_http(
            "collector, repeated",
            CollectorServer(data, chosen.connections),
            bodies,
            chosen.batch,
            chosen.seconds,
        )
    bound = store_alone(bodies, chosen.batch, chosen.seconds)
    print(f"collector ÷ peer {ours / peer:.2f}, collector ÷ store only {ours / bound:.2f}")


def make_bodies(connections: int, size: int, seconds: float) -> list[list[bytes]]:
    """For each connection its own probe's batches, more than it can send in the time."""
    count = int(seconds * 60_000 / size / connections) + 1
    made = []
    for connection in range(connections):
        probe_id = f"p{connection}"
        made.append(
            [
                batch(
                    [
                        record(probe_id=probe_id, epoch="e1", sequence=number * size + place + 1)
                        for place in range(size)
                    ],
                    probe_id=probe_id,
                    status=agent(),
                )
                for number in range(count)
            ]
        )
    return made


Serve = Callable[[int, Event], None]


def through_http(name: str, serve: Serve, bodies: list[list[bytes]], size: int, seconds: float) -> float:
    """Records a second that a server in another process acknowledges; prints the line."""
    port = _free_port()
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    server = context.Process(target=serve, args=(port, stop))
    server.start()
    try:
        _wait_for(port)
        done: list[tuple[int, list[float]]] = []
        deadline = time.monotonic() + seconds
        senders = [
            threading.Thread(target=_send, args=(port, f"p{place}", own, deadline, done))
            for place, own in enumerate(bodies)
        ]
        started = time.monotonic()
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        elapsed = time.monotonic() - started
        batches = sum(count for count, _ in done)
        waits = sorted(wait for _, each in done for wait in each)
        rate = batches * size / elapsed
        _line(name, rate, statistics.median(waits), waits[int(len(waits) * 0.99)])
        return rate
    finally:
        stop.set()
        server.join()


def store_alone(bodies: list[list[bytes]], size: int, seconds: float) -> float:
    """Records a second into the journal alone, one commit for each round of connections."""
    wanted = int(seconds * 20_000)
    rounds: list[list[Entry]] = []
    for group in zip(*bodies, strict=True):
        rounds.append([_entry(raw) for body in group for raw in msgspec.json.decode(body)["records"]])
        if len(rounds) * size * len(bodies) >= wanted:
            break
    waits = []
    with tempfile.TemporaryDirectory() as directory:
        store = SqliteStore(Path(directory), StoreSettings())
        store.start()
        started = time.monotonic()
        for entries in rounds:
            before = time.monotonic()
            store.append(entries)
            waits.append(time.monotonic() - before)
        elapsed = time.monotonic() - started
        store.close()
    rate = sum(len(entries) for entries in rounds) / elapsed
    waits.sort()
    _line("store only", rate, statistics.median(waits), waits[int(len(waits) * 0.99)])
    return rate


def serve_decoder(port: int, stop: Event) -> None:
    """The peer: reads the body, decodes it as JSON, answers."""

    async def application(
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        chunks, more = [], True
        while more:
            message = await receive()
            chunks.append(message.get("body", b""))
            more = message.get("more_body", False)
        if chunks[0]:
            json.loads(b"".join(chunks))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    server = uvicorn.Server(
        uvicorn.Config(application, port=port, loop="uvloop", lifespan="off", log_level="error")
    )

    def end() -> None:
        stop.wait()
        server.should_exit = True

    threading.Thread(target=end, daemon=True).start()
    server.run()


class CollectorServer:
    """The collector with one probe for each connection; a class, so that it travels to a new process."""

    def __init__(self, directory: Path, connections: int) -> None:
        self.directory, self.connections = directory, connections

    def __call__(self, port: int, stop: Event) -> None:
        probes = [
            {
                "id": f"p{number}",
                "key_sha256": _key(number)[1],
                "operator": "alpha",
                "province": "01",
                "technologies": ["fixed"],
            }
            for number in range(self.connections)
        ]
        settings = msgspec.convert(
            {
                "format": "nhip-collector/1",
                "data_dir": str(self.directory),
                "listen": {"port": port},
                "regulation": "regulations/qcvn34_2022.toml",
                "probe": probes,
            },
            CollectorConfig,
        )
        collector = Collector(settings, SystemClock(), plain_page)
        collector.start()
        stop.wait()
        collector.close()


def _key(number: int) -> tuple[str, str]:
    secret = f"benchmark-{number}"
    return secret, key_sha256(secret)


def _send(
    port: int, probe_id: str, bodies: Sequence[bytes], deadline: float, done: list[tuple[int, list[float]]]
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {_key(int(probe_id[1:]))[0]}",
    }
    waits = []
    for body in bodies:
        if time.monotonic() > deadline:
            break
        before = time.monotonic()
        connection.request("POST", "/api/v1/records", body, headers)
        response = connection.getresponse()
        answer = response.read()
        assert response.status == 200, answer
        waits.append(time.monotonic() - before)
    connection.close()
    done.append((len(waits), waits))


def _entry(raw: Any) -> Entry:
    body = msgspec.json.encode(raw)
    found: Record = decode_record(body)
    return Entry(found, body, 0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server did not come up")


def _line(name: str, rate: float, median_seconds: float, p99_seconds: float) -> None:
    print(
        f"{name:22} {rate:10,.0f} records/s   answer p50 {median_seconds * 1e3:6.1f} ms"
        f"   p99 {p99_seconds * 1e3:6.1f} ms"
    )


if __name__ == "__main__":
    main()
