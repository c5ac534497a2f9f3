"""The queue before the store: bounded, fair, and never an answer before the commit."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import msgspec
import pytest

from collector.collector_config import Limits, ProbeEntry
from collector.ingest import Delivery, Ingest, MisplacedError, OverloadedError, StrangerError
from collector.store.api import Aside, Entry, Fate, StoreCounts, StoreFullError
from nhip.catalog import COMMIT_BUCKETS_SECONDS
from nhip.errors import StoreError, WireError
from nhip.wire import Acknowledgement
from tests.lab.collectors import PROBE
from tests.lab.deliverer import until
from tests.lab.fake_clock import FakeClock
from tests.lab.records import batch, record

ONE = msgspec.convert(PROBE, ProbeEntry)
TWO = msgspec.structs.replace(ONE, id="p2")


class ScriptedStore:
    """Keeps nothing, remembers what it was asked, and waits or fails when told to."""

    def __init__(self) -> None:
        self.appended: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()
        self.failure: Exception | None = None

    def start(self) -> None: ...

    def close(self) -> None: ...

    def append(self, entries: Sequence[Entry], aside: Sequence[Aside] = ()) -> list[Fate]:
        self.waiting.set()
        assert self.gate.wait(20)
        if self.failure is not None:
            raise self.failure
        self.appended.append(len(entries))
        return [Fate.STORED] * len(entries)

    def records(self, *_: object, **__: object) -> Iterator[Entry]:
        return iter(())

    def latest(self, since_wall_ns: int) -> list[Entry]:
        return []

    def quarantine(self) -> Iterator[Aside]:
        return iter(())

    def counts(self) -> StoreCounts:
        return StoreCounts(records=sum(self.appended), journal_records=0, quarantined=0)


class Bench:
    """An ingest brick over a scripted store."""

    def __init__(self, directory: Path, **limits: object) -> None:
        self.clock = FakeClock()
        self.store = ScriptedStore()
        self.seen: list[Delivery] = []
        self.observe = self.seen.append
        chosen = Limits(**{"minimum_free_octets": 0, **limits})  # type: ignore[arg-type]
        self.ingest = Ingest(chosen, self.store, directory, self.clock, lambda d: self.observe(d))
        self.ingest.start()

    def send(self, count: int = 1, probe: ProbeEntry = ONE) -> Future[Acknowledgement]:
        made = [record(probe_id=probe.id, started_wall_ns=self.clock.wall_ns()) for _ in range(count)]
        return self.ingest.accept(probe, batch(made, probe_id=probe.id))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.store.gate.set()
    bench.ingest.close()


def test_nothing_is_answered_before_the_commit(bench: Bench) -> None:
    bench.store.gate.clear()
    answer = bench.send(3)
    assert bench.store.waiting.wait(10)
    assert not answer.done()
    assert bench.seen == []
    bench.store.gate.set()
    assert answer.result(10).stored == 3


def test_batches_that_wait_together_share_a_commit(bench: Bench) -> None:
    bench.store.gate.clear()
    first = bench.send(1)
    assert bench.store.waiting.wait(10)
    others = [bench.send(2, probe) for probe in (ONE, TWO, TWO)]
    bench.store.gate.set()
    assert [answer.result(10).stored for answer in (first, *others)] == [1, 2, 2, 2]
    assert bench.store.appended == [1, 6]
    until(lambda: bench.ingest.counters.batches == 4)
    assert bench.ingest.counters.stored == 7
    assert sum(bench.ingest.counters.commit_buckets) == 2
    assert len(bench.ingest.counters.commit_buckets) == len(COMMIT_BUCKETS_SECONDS) + 1


def test_a_commit_holds_no_more_records_than_it_may(tmp_path: Path) -> None:
    bench = Bench(tmp_path, commit_records=4)
    bench.store.gate.clear()
    first = bench.send(1)
    assert bench.store.waiting.wait(10)
    others = [bench.send(3) for _ in range(3)]
    bench.store.gate.set()
    for answer in (first, *others):
        answer.result(10)
    assert bench.store.appended == [1, 6, 3]
    bench.ingest.close()


def test_a_full_queue_sends_away_with_a_time_to_come_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path, queue_batches=3, queue_batches_per_probe=100, retry_after_seconds=10)
    bench.store.gate.clear()
    answers = [bench.send()]
    assert bench.store.waiting.wait(10)
    answers += [bench.send() for _ in range(3)]
    waits = set()
    for _ in range(50):
        with pytest.raises(OverloadedError) as caught:
            bench.send()
        assert not caught.value.one_probe
        waits.add(caught.value.retry_after_seconds)
    assert 5 <= min(waits) < max(waits) <= 15
    bench.store.gate.set()
    assert sum(answer.result(10).stored for answer in answers) == 4
    until(lambda: bench.ingest._octets == 0)
    assert bench.send().result(10).stored == 1
    bench.ingest.close()


def test_the_queue_is_bounded_in_octets_too(tmp_path: Path) -> None:
    bench = Bench(tmp_path, queue_octets=4096, queue_batches_per_probe=100)
    bench.store.gate.clear()
    accepted = []
    with pytest.raises(OverloadedError):
        for _ in range(100):
            accepted.append(bench.send())
    assert 1 <= len(accepted) <= 4
    bench.store.gate.set()
    bench.ingest.close()
    assert all(answer.result(10).stored == 1 for answer in accepted)


def test_one_probe_cannot_take_the_queue(tmp_path: Path) -> None:
    bench = Bench(tmp_path, queue_batches_per_probe=2)
    bench.store.gate.clear()
    bench.send(1, TWO)
    assert bench.store.waiting.wait(10)
    bench.send(), bench.send()
    with pytest.raises(OverloadedError) as caught:
        bench.send()
    assert caught.value.one_probe
    bench.send(1, TWO)
    bench.store.gate.set()
    bench.ingest.close()


def test_what_the_store_refuses_is_not_acknowledged_and_the_next_batch_is(bench: Bench) -> None:
    for failure, expected in (
        (StoreFullError("full"), StoreFullError),
        (StoreError("no"), StoreError),
        (RuntimeError("bug"), StoreError),
    ):
        bench.store.failure = failure
        with pytest.raises(expected):
            bench.send().result(10)
    bench.store.failure = None
    assert bench.send().result(10).stored == 1
    assert bench.ingest.counters.stored == 1
    assert bench.ingest.counters.batches == 1


def test_a_page_that_fails_takes_no_acknowledgement_with_it(bench: Bench) -> None:
    def broken(delivery: Delivery) -> None:
        raise ZeroDivisionError

    bench.observe = broken  # type: ignore[assignment]
    assert bench.send().result(10).stored == 1
    assert bench.ingest.counters.observer_failures == 1


def test_a_batch_of_another_probe_is_a_strangers(bench: Bench) -> None:
    with pytest.raises(StrangerError):
        bench.ingest.accept(ONE, batch([], probe_id="p2"))


def test_a_batch_wholly_from_elsewhere_stays_at_its_probe(bench: Bench) -> None:
    now = bench.clock.wall_ns()
    wrong = [record(operator="alhpa", started_wall_ns=now) for _ in range(3)]
    for records in (wrong, [*wrong, b"{}"]):
        with pytest.raises(MisplacedError, match="operator 'alhpa'") as caught:
            bench.ingest.accept(ONE, batch(records))
        assert "[[probe]] p1" in caught.value.remedy
    assert bench.ingest.counters.quarantined == {}
    assert bench.store.appended == []


def test_one_record_that_agrees_sends_the_others_aside(bench: Bench) -> None:
    now = bench.clock.wall_ns()
    records = [record(operator=name, started_wall_ns=now) for name in ("beta", "alpha", "beta")]
    acknowledgement = bench.ingest.accept(ONE, batch(records)).result(10)
    assert acknowledgement.stored == 1
    assert [item.position for item in acknowledgement.rejected] == [0, 2]


def test_a_probe_that_was_corrected_can_go_on_past_what_it_measured_before(bench: Bench) -> None:
    lenient = msgspec.structs.replace(ONE, misplaced="quarantine")
    wrong = batch([record(operator="beta", started_wall_ns=bench.clock.wall_ns())])
    assert len(bench.ingest.accept(lenient, wrong).result(10).rejected) == 1
    until(lambda: bench.ingest.counters.quarantined == {"identity": 1})


def test_a_batch_of_more_epochs_than_the_store_remembers_is_refused_whole(bench: Bench) -> None:
    now = bench.clock.wall_ns()
    many = [record(epoch=f"e{n}", sequence=1, started_wall_ns=now) for n in range(17)]
    with pytest.raises(WireError, match=r"17 epochs.*at most 16"):
        bench.ingest.accept(ONE, batch(many))
    assert bench.ingest.accept(ONE, batch(many[:16])).result(10).stored == 16


def test_more_records_than_a_batch_may_have(tmp_path: Path) -> None:
    bench = Bench(tmp_path, records_per_batch=2)
    with pytest.raises(WireError, match="3 records"):
        bench.send(3)
    bench.ingest.close()


def test_close_writes_what_was_accepted_and_takes_no_more(bench: Bench) -> None:
    bench.store.gate.clear()
    answers = [bench.send(1, probe) for probe in (ONE, TWO, ONE, TWO)]
    closing = threading.Thread(target=bench.ingest.close)
    closing.start()
    bench.store.gate.set()
    closing.join(10)
    assert [answer.result(0).stored for answer in answers] == [1, 1, 1, 1]
    with pytest.raises(OverloadedError):
        bench.send()
