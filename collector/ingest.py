"""From bytes to an acknowledgement: bounded queue, one writer, many batches to a commit.

::

    accept(probe, body) ──judge──> queue ──> writer thread: BEGIN, all batches waiting, COMMIT
         │                                       │
         └─ WireError, OverloadedError           └─ tell the observer, then answer every sender

Nothing is acknowledged before the commit that holds it is on disk, and nothing waits in memory beyond the
bounds in :class:`~collector.collector_config.Limits`: whoever comes then is told when to come again.
"""

from __future__ import annotations

import logging
import random
import shutil
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from collector.admission import Admission, admit, open_batch
from collector.collector_config import Limits, ProbeEntry
from collector.store.api import Entry, Fate, Store, StoreFullError
from nhip import wire
from nhip.catalog import COMMIT_BUCKETS_SECONDS
from nhip.clock import Clock
from nhip.errors import NhipError, StoreError
from nhip.wire import Acknowledgement, AgentStatus

log = logging.getLogger("nhip.collector.ingest")


class OverloadedError(NhipError):
    """The queue is full; the sender keeps its batch and comes back after `retry_after_seconds`."""

    def __init__(self, what: str, retry_after_seconds: int, *, one_probe: bool = False) -> None:
        super().__init__(what, remedy=f"send again in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds
        self.one_probe = one_probe
        """True when it is this sender that sends too much at once."""


class StrangerError(NhipError):
    """The batch speaks for another probe than the key does."""


class MisplacedError(NhipError):
    """No record of the batch comes from where the collector's list says; the sender keeps them all."""


@dataclass(slots=True)
class IngestCounters:
    """What this brick has done since it started; read by the exporter."""

    batches: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    stored: int = 0
    duplicate: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    commit_seconds_sum: float = 0.0
    commit_buckets: list[int] = field(default_factory=lambda: [0] * (len(COMMIT_BUCKETS_SECONDS) + 1))
    """Commits by duration, not cumulated; the last bucket has no upper edge."""
    observer_failures: int = 0


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the observer is told of one batch that is on disk."""

    probe: ProbeEntry
    agent: AgentStatus | None
    stored: Sequence[Entry]
    received_wall_ns: int
    received_mono_ns: int


Observer = Callable[[Delivery], None]


@dataclass(frozen=True, slots=True)
class _Waiting:
    probe: ProbeEntry
    agent: AgentStatus | None
    admission: Admission
    batch_sha256: str
    octets: int
    received_wall_ns: int
    received_mono_ns: int
    answer: Future[Acknowledgement]


class Ingest:
    """Takes batches in; `accept` may be called from any thread."""

    def __init__(
        self, limits: Limits, store: Store, directory: Path, clock: Clock, observer: Observer
    ) -> None:
        self.counters = IngestCounters()
        self._limits = limits
        self._store = store
        self._directory = directory
        self._clock = clock
        self._observer = observer
        self._wake = threading.Condition()
        self._queue: deque[_Waiting] = deque()
        self._octets = 0
        self._per_probe: Counter[str] = Counter()
        self._open = False
        self._writer: threading.Thread | None = None

    def start(self) -> None:
        """Begin writing; the store is open already."""
        self._open = True
        self._writer = threading.Thread(target=self._write, name="nhip-ingest", daemon=True)
        self._writer.start()

    def accept(self, probe: ProbeEntry, body: bytes) -> Future[Acknowledgement]:
        """The acknowledgement to come of `body`, one uncompressed batch that arrived with `probe`'s key.

        WireError: no batch. StrangerError: another probe's batch. MisplacedError: all of it from another
        access than this probe's. OverloadedError: come again later. The future raises StoreFullError or
        StoreError when the store did not keep it.
        """
        received_wall_ns, received_mono_ns = self._clock.wall_ns(), self._clock.mono_ns()
        self._refuse_overload(probe, len(body))
        batch = open_batch(body, self._limits.records_per_batch)
        if batch.probe_id != probe.id:
            raise StrangerError(
                f"this key is not the key of {batch.probe_id}", remedy="check probe_id and key"
            )
        admission = admit(batch, probe, self._limits, received_wall_ns)
        if admission.misplaced and probe.misplaced == "refuse":
            raise MisplacedError(
                f"no record of this batch is of this probe's access: the first one has {admission.misplaced}",
                remedy=f"correct [[probe]] {probe.id} of collector.toml, or [access] of the probe; what it"
                ' measured before goes to quarantine with misplaced = "quarantine" in collector.toml',
            )
        waiting = _Waiting(
            probe,
            batch.agent,
            admission,
            wire.batch_sha256(body),
            len(body),
            received_wall_ns,
            received_mono_ns,
            Future(),
        )
        waiting.answer.set_running_or_notify_cancel()  # a sender that leaves does not undo the commit
        with self._wake:
            if not self._open:
                raise OverloadedError("the collector is closing", self.retry_after_seconds())
            self._queue.append(waiting)
            self._octets += waiting.octets
            self._per_probe[probe.id] += 1
            self._wake.notify()
        return waiting.answer

    def retry_after_seconds(self) -> int:
        """When a refused sender may come again; random, so that a thousand of them do not come at once."""
        return max(1, round(self._limits.retry_after_seconds * random.uniform(0.5, 1.5)))

    def close(self) -> None:
        """Write what was accepted, then stop."""
        with self._wake:
            self._open = False
            self._wake.notify()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.join()

    def _refuse_overload(self, probe: ProbeEntry, octets: int) -> None:
        limits = self._limits
        with self._wake:
            full = len(self._queue) >= limits.queue_batches or self._octets + octets > limits.queue_octets
            greedy = self._per_probe[probe.id] >= limits.queue_batches_per_probe
        if full:
            raise OverloadedError("the queue is full", self.retry_after_seconds())
        if greedy:
            raise OverloadedError(
                f"{probe.id} has {limits.queue_batches_per_probe} batches waiting",
                self.retry_after_seconds(),
                one_probe=True,
            )

    def _write(self) -> None:
        while group := self._next_group():
            try:
                self._commit(group)
            except Exception as error:  # The writer must outlive whatever one group does to it.
                log.exception("commit failed unexpectedly")
                for waiting in group:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(StoreError(f"could not store: {type(error).__name__}"))
            finally:
                with self._wake:
                    for waiting in group:
                        self._octets -= waiting.octets
                        self._per_probe[waiting.probe.id] -= 1

    def _next_group(self) -> list[_Waiting]:
        """Every batch waiting, up to the records one commit may hold; empty when all is done."""
        with self._wake:
            while not self._queue and self._open:
                self._wake.wait()
            group: list[_Waiting] = []
            records = 0
            while self._queue and (not group or records < self._limits.commit_records):
                group.append(self._queue.popleft())
                records += len(group[-1].admission.entries)
            return group

    def _commit(self, group: list[_Waiting]) -> None:
        entries = [entry for waiting in group for entry in waiting.admission.entries]
        aside = [item for waiting in group for item in waiting.admission.aside]
        started_ns = self._clock.mono_ns()
        try:
            self._refuse_little_room()
            fates = self._store.append(entries, aside) if entries or aside else []
        except StoreError as error:
            log.error("batches not stored: %s", error, extra={"batches": len(group)})
            for waiting in group:
                waiting.answer.set_exception(error)
            return
        self._count_commit((self._clock.mono_ns() - started_ns) / 1e9)
        start = 0
        for waiting in group:
            end = start + len(waiting.admission.entries)
            self._answer(waiting, fates[start:end])
            start = end

    def _answer(self, waiting: _Waiting, fates: list[Fate]) -> None:
        entries = waiting.admission.entries
        stored = [entry for entry, fate in zip(entries, fates, strict=True) if fate is Fate.STORED]
        counters = self.counters
        counters.batches += 1
        counters.stored += len(stored)
        counters.duplicate += len(entries) - len(stored)
        counters.quarantined.update(item.reason for item in waiting.admission.aside)
        try:
            self._observer(
                Delivery(
                    waiting.probe, waiting.agent, stored, waiting.received_wall_ns, waiting.received_mono_ns
                )
            )
        except Exception:  # It is on disk and is acknowledged, whatever the pages made of it.
            counters.observer_failures += 1
            log.exception("a stored batch could not be shown")
        waiting.answer.set_result(
            Acknowledgement(
                batch_sha256=waiting.batch_sha256,
                stored=len(stored),
                duplicate=len(entries) - len(stored),
                rejected=waiting.admission.rejected,
            )
        )

    def _count_commit(self, seconds: float) -> None:
        counters = self.counters
        counters.commit_seconds_sum += seconds
        place = sum(seconds > edge for edge in COMMIT_BUCKETS_SECONDS)
        counters.commit_buckets[place] += 1

    def _refuse_little_room(self) -> None:
        free = shutil.disk_usage(self._directory).free
        if free < self._limits.minimum_free_octets:
            raise StoreFullError(
                f"{self._directory}: {free} octets are free, limits.minimum_free_octets asks for"
                f" {self._limits.minimum_free_octets}",
                remedy="free space on that disk; collecting then goes on",
            )
