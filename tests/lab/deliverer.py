"""A probe's delivery reduced to its promise: numbered records, one batch at a time, until acknowledged."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from collector.keys import Key, new_key
from nhip.wire import batch_sha256
from tests.lab import records
from tests.lab.collectors import Client

RECORDS_PER_BATCH = 10


@dataclass
class Deliverer:
    """Sends batches in a thread until told to stop; remembers what was acknowledged."""

    probe_id: str
    port: int
    key: Key = field(default_factory=new_key)
    acknowledged: set[UUID] = field(default_factory=set)
    sent: set[UUID] = field(default_factory=set)
    batches: int = 0
    retries: int = 0
    answered_duplicate: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _abandoned: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def table(self) -> dict[str, object]:
        """Its ``[[probe]]`` of the collector's configuration."""
        return {
            "id": self.probe_id,
            "key_sha256": self.key.sha256,
            "operator": "alpha",
            "province": "01",
            "technologies": ["fixed"],
        }

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Return when the batch under way is acknowledged."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(60)
            assert not self._thread.is_alive(), "a batch was never acknowledged"

    def abandon(self) -> None:
        """Stop without waiting for an acknowledgement: its collector is gone."""
        self._stop.set()
        self._abandoned.set()

    def _run(self) -> None:
        sequence = 0
        client: Client | None = None
        while not self._stop.is_set():
            batch = [
                records.record(probe_id=self.probe_id, epoch="e1", sequence=sequence + place)
                for place in range(1, RECORDS_PER_BATCH + 1)
            ]
            sequence += RECORDS_PER_BATCH
            self.sent.update(record.record_id for record in batch)
            body = records.batch(batch, probe_id=self.probe_id, status=records.agent())
            while True:
                try:
                    client = client or Client(self.port, self.key, timeout_seconds=5)
                    reply = client.post(body)
                    if reply.status == 200:
                        acknowledgement = reply.acknowledgement()
                        assert acknowledgement.batch_sha256 == batch_sha256(body)
                        assert not acknowledgement.rejected
                        break
                except (OSError, http.client.HTTPException):
                    if client is not None:
                        client.close()
                    client = None
                self.retries += 1
                if self._abandoned.wait(0.01):
                    return
            self.acknowledged.update(record.record_id for record in batch)
            self.answered_duplicate += acknowledgement.duplicate
            self.batches += 1
        if client is not None:
            client.close()


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Return once `condition` holds; AssertionError when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        pause.wait(0.005)


def is_ready(port: int) -> bool:
    """Whether a collector answers at `port` and takes records."""
    try:
        with Client(port, None, timeout_seconds=2) as client:
            return client.get("/-/ready").status == 200
    except (OSError, http.client.HTTPException):
        return False
