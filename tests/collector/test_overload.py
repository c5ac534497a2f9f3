"""More than the disk can take: bounded memory, an honest "come again later", nothing acknowledged lost."""

from __future__ import annotations

import resource
import sqlite3
import threading
import time
from pathlib import Path

from collector.store.sqlite import FILE_NAME
from tests.lab import collectors
from tests.lab.collectors import Client, Reply
from tests.lab.deliverer import Deliverer, until
from tests.lab.records import batch, record


def test_while_the_disk_stands_still_the_queue_fills_and_the_rest_are_sent_away(tmp_path: Path) -> None:
    """The journal is really locked, by another connection; what waited is acknowledged when it is not."""
    limits = {"queue_batches": 3, "queue_batches_per_probe": 2, "minimum_free_octets": 0}
    with collectors.running(collectors.config(tmp_path, limits=limits)) as collector:
        port = collector.port or 0
        replies: list[Reply] = []
        lock = sqlite3.connect(tmp_path / "data" / FILE_NAME, isolation_level=None, check_same_thread=False)
        lock.execute("BEGIN IMMEDIATE")

        def send() -> None:
            with Client(port) as client:
                replies.append(client.post(batch([record()])))

        senders = [threading.Thread(target=send) for _ in range(6)]
        for sender in senders:
            sender.start()
        until(lambda: len(replies) == 4)
        assert {reply.status for reply in replies} == {429}
        assert all(5 <= int(reply.headers["retry-after"]) <= 15 for reply in replies)
        with Client(port, None) as client:
            started = time.monotonic()
            assert client.get("/metrics").status == 200
            assert client.get("/-/healthy").status == 200
            assert time.monotonic() - started < 1
        lock.execute("ROLLBACK")
        lock.close()
        for sender in senders:
            sender.join(20)
        accepted = [reply for reply in replies if reply.status == 200]
        assert len(accepted) == 2
        assert collector.store.counts().records == 2
        assert collector.ingest.counters.refused["greedy"] == 4


def test_many_greedy_senders_get_through_and_memory_stays_bounded(tmp_path: Path) -> None:
    """Forty senders that ignore Retry-After; all they were told is stored is stored, once."""
    limits = {"queue_batches": 8, "queue_batches_per_probe": 1, "minimum_free_octets": 0}
    deliverers = [Deliverer(f"p{number}", 0) for number in range(40)]
    settings = collectors.config(
        tmp_path, limits=limits, probe=[deliverer.table() for deliverer in deliverers]
    )
    before = _peak_megabytes()
    with collectors.running(settings) as collector:
        for deliverer in deliverers:
            deliverer.port = collector.port or 0
            deliverer.start()
        until(lambda: sum(deliverer.batches for deliverer in deliverers) > 400, seconds=60)
        slowest = 0.0
        with Client(collector.port or 0, None) as client:
            for _ in range(5):
                started = time.monotonic()
                assert client.get("/-/ready").status == 200
                slowest = max(slowest, time.monotonic() - started)
        for deliverer in deliverers:
            deliverer.stop()
        stored = [entry.record.record_id for entry in collector.store.records(0, 2**62)]
    acknowledged = set().union(*(deliverer.acknowledged for deliverer in deliverers))
    assert len(stored) == len(set(stored)) == len(acknowledged)
    assert min(deliverer.batches for deliverer in deliverers) > 0
    assert slowest < 2.0
    assert _peak_megabytes() - before < 200


def test_too_much_arriving_at_once_is_refused_and_forgotten(tmp_path: Path) -> None:
    limits = {"in_flight_octets": 20_000, "minimum_free_octets": 0}
    with collectors.running(collectors.config(tmp_path, limits=limits)) as collector:
        with Client(collector.port or 0) as client:
            reply = client.post(batch([record() for _ in range(100)]))
            assert reply.status == 503
            assert int(reply.headers["retry-after"]) >= 1
            assert client.post(batch([record()])).status == 200
        assert collector.ingest.counters.refused["busy"] == 1


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
