"""What every registered store promises, whoever wrote it."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.store.api import Aside, Entry, Fate, Store, StoreFullError, StoreSettings
from collector.store.registry import STORES
from nhip.wire import Record, encode_record
from tests.lab.disks import NEEDS_ROOT, small_disk
from tests.lab.records import SECOND_NS, record

T0 = 1_790_000_000 * SECOND_NS
EVER = 2**62

Open = Callable[..., Store]


def entry(number: int, *, received_wall_ns: int = T0, **changes: object) -> Entry:
    made: Record = record(**{"started_wall_ns": T0 + number * SECOND_NS, **changes})  # type: ignore[arg-type]
    return Entry(made, encode_record(made), received_wall_ns)


def spooled(first: int, count: int, **changes: object) -> list[Entry]:
    return [entry(n, epoch="e1", sequence=n, **changes) for n in range(first, first + count)]


def ids(entries: object) -> list[object]:
    return [item.record.record_id for item in entries]  # type: ignore[attr-defined]


@pytest.fixture(params=STORES.names())
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens a store in one directory, again and again; whatever is open at the end is closed."""
    opened: list[Store] = []

    def open_it(directory: Path = tmp_path, **changes: object) -> Store:
        chosen = StoreSettings(**{"flush_interval_seconds": 3600.0, **changes})  # type: ignore[arg-type]
        store = STORES.load(request.param)(directory, chosen)
        opened.append(store)
        store.start()
        return store

    yield open_it
    for store in opened:
        store.close()


def archive(store: Store) -> None:
    """Move what waits in a journal on, in a store that does such a thing."""
    getattr(store, "flush", lambda: 0)()


def test_a_record_appended_twice_is_stored_once(open_store: Open) -> None:
    store, batch = open_store(), spooled(1, 20)
    assert store.append(batch) == [Fate.STORED] * 20
    assert store.append(batch) == [Fate.DUPLICATE] * 20
    assert len(list(store.records(0, EVER))) == 20
    assert store.counts().records == 20


def test_a_record_without_sequence_is_recognised_by_its_identifier(open_store: Open) -> None:
    store, batch = open_store(), [entry(1), entry(2)]
    assert store.append(batch) == [Fate.STORED] * 2
    archive(store)
    assert store.append(batch) == [Fate.DUPLICATE] * 2
    assert len(list(store.records(0, EVER))) == 2


def test_the_same_record_twice_in_one_append_is_stored_once(open_store: Open) -> None:
    store, one = open_store(), entry(1)
    assert sorted(store.append([one, one])) == [Fate.DUPLICATE, Fate.STORED]
    assert len(list(store.records(0, EVER))) == 1


def test_a_batch_in_disorder_is_stored_whole(open_store: Open) -> None:
    store, batch = open_store(), spooled(1, 5)
    assert store.append(batch[::-1]) == [Fate.STORED] * 5


def test_a_gap_in_the_sequence_is_legal_and_cannot_be_filled_later(open_store: Open) -> None:
    """A full spool drops its oldest; what comes late for the gap was delivered before."""
    store = open_store()
    assert store.append(spooled(1, 2)) == [Fate.STORED] * 2
    assert store.append(spooled(10, 2)) == [Fate.STORED] * 2
    assert store.append(spooled(5, 1)) == [Fate.DUPLICATE]


def test_a_new_epoch_counts_from_the_start_again(open_store: Open) -> None:
    store = open_store()
    store.append(spooled(1, 3))
    assert store.append([entry(9, epoch="e2", sequence=1)]) == [Fate.STORED]


def test_what_was_acknowledged_is_there_after_a_restart(open_store: Open) -> None:
    store, batch = open_store(), spooled(1, 30)
    store.append(batch[:10])
    archive(store)
    store.append(batch[10:])
    store.close()
    again = open_store()
    assert ids(again.records(0, EVER)) == ids(batch)
    assert again.append(batch) == [Fate.DUPLICATE] * 30
    assert again.counts().records == 30


def test_close_may_be_called_twice_and_before_start(open_store: Open, tmp_path: Path) -> None:
    store = open_store()
    store.close()
    store.close()


def test_a_range_is_ordered_and_half_open(open_store: Open) -> None:
    store, batch = open_store(), spooled(1, 9)
    store.append([batch[place] for place in (4, 1, 8)])
    archive(store)
    store.append([entry(n) for n in (2, 7, 3)])
    started = [item.record.started_wall_ns for item in store.records(T0 + 2 * SECOND_NS, T0 + 9 * SECOND_NS)]
    assert started == [T0 + n * SECOND_NS for n in (2, 2, 3, 5, 7)]


def test_records_come_back_as_they_went_in(open_store: Open) -> None:
    store, one = open_store(), entry(1, received_wall_ns=T0 + 7, notes=["giờ cao điểm"])
    store.append([one])
    archive(store)
    assert list(store.records(0, EVER)) == [one]


def test_a_range_can_be_narrowed_to_a_probe_and_a_kind(open_store: Open) -> None:
    store = open_store()
    batch = [
        entry(number, probe_id=probe_id, kind=kind)
        for number, (probe_id, kind) in enumerate(itertools.product(("p1", "p2"), ("icmp", "dns")))
    ]
    store.append(batch[:2])
    archive(store)
    store.append(batch[2:])
    assert ids(store.records(0, EVER, probe_id="p1")) == ids(batch[:2])
    assert ids(store.records(0, EVER, kind="dns")) == ids(batch[1::2])
    assert ids(store.records(0, EVER, probe_id="p2", kind="dns")) == ids(batch[3:])


def test_a_range_shows_the_moment_it_was_asked_for(open_store: Open) -> None:
    store = open_store()
    store.append(spooled(1, 3))
    asked = store.records(0, EVER)
    store.append(spooled(4, 3))
    archive(store)
    assert len(list(asked)) == 3


def test_the_last_record_of_each_series(open_store: Open) -> None:
    store = open_store()
    a, b = spooled(1, 4), [entry(n, kind="dns", target_id=f"t{n}") for n in (2, 3)]
    store.append([*a[:2], b[0]])
    archive(store)
    store.append([*a[2:], b[1]])
    assert ids(store.latest(0)) == ids([b[0], b[1], a[3]])
    assert ids(store.latest(T0 + 4 * SECOND_NS)) == ids([a[3]])


def test_quarantine_keeps_the_bytes_once_and_the_newest_of_each_probe(open_store: Open) -> None:
    store = open_store(quarantine_records_per_probe=3)
    items = [
        Aside(probe_id="p1", reason="malformed", detail="no", body=b"\xff%d" % n, received_wall_ns=T0 + n)
        for n in range(5)
    ]
    store.append([], items[:2])
    store.append([], items[:2])
    assert list(store.quarantine()) == items[:2]
    store.append([], items[2:])
    assert list(store.quarantine()) == items[2:]
    assert store.counts().quarantined == 3


def aside_of(item: Entry) -> Aside:
    """The quarantine's form of a record put aside by mistake."""
    return Aside(
        probe_id=item.record.probe_id,
        reason="identity",
        detail="",
        body=item.body,
        received_wall_ns=item.received_wall_ns,
    )


def test_quarantine_is_bounded_in_octets_of_each_probe_and_evictions_are_counted(open_store: Open) -> None:
    store = open_store(quarantine_octets_per_probe=2500)
    items = [
        Aside(probe_id=probe_id, reason="malformed", detail="", body=b"%d" % n * 1000, received_wall_ns=T0)
        for n in range(5)
        for probe_id in ("p1", "p2")
    ]
    store.append([], items)
    assert list(store.quarantine()) == items[6:]
    assert (store.counts().quarantined, store.counts().quarantine_evicted) == (4, 6)


def test_a_record_out_of_quarantine_is_stored_though_later_ones_of_its_epoch_were(open_store: Open) -> None:
    store, batch = open_store(), spooled(1, 6)
    store.append([batch[0], *batch[3:]], [aside_of(item) for item in batch[1:3]])
    archive(store)
    pairs = [(aside_of(item), item) for item in batch[1:3]]
    assert store.readmit(pairs) == [Fate.STORED] * 2
    assert ids(store.records(0, EVER)) == ids(batch)
    assert (store.counts().records, store.counts().quarantined) == (6, 0)
    assert list(store.quarantine()) == []
    assert store.readmit(pairs) == [Fate.DUPLICATE] * 2
    archive(store)
    assert store.append(batch) == [Fate.DUPLICATE] * 6
    assert ids(store.records(0, EVER)) == ids(batch)


@pytest.mark.parametrize("sequence", [0, 1])
@pytest.mark.parametrize("archived", [False, True])
def test_a_record_in_quarantine_that_was_stored_as_well_stays_single(
    open_store: Open, sequence: int, archived: bool
) -> None:
    store = open_store()
    one = entry(1, epoch="e1", sequence=sequence)
    store.append([], [aside_of(one)])
    store.append([one])
    if archived:
        archive(store)
    assert store.readmit([(aside_of(one), one)]) == [Fate.DUPLICATE]
    assert ids(store.records(0, EVER)) == ids([one])
    assert (store.counts().records, store.counts().quarantined) == (1, 0)


def test_a_record_out_of_quarantine_that_comes_again_is_a_duplicate(open_store: Open) -> None:
    """Its acknowledgement was lost, and the last of its batch had been put aside."""
    store, batch = open_store(), spooled(1, 3)
    store.append(batch[:2], [aside_of(batch[2])])
    store.readmit([(aside_of(batch[2]), batch[2])])
    archive(store)
    assert store.append(batch) == [Fate.DUPLICATE] * 3


def test_a_probe_that_restarts_all_day_has_its_repeated_batch_recognised(open_store: Open) -> None:
    """Three hundred epochs in batches of sixteen; each batch comes twice, with the archive in between."""
    store = open_store()
    for first in range(0, 300, 16):
        now = T0 - first * SECOND_NS  # this host's clock may even go backwards
        batch = [entry(n, epoch=f"e{n}", sequence=1, received_wall_ns=now) for n in range(first, first + 16)]
        assert store.append(batch) == [Fate.STORED] * 16
        archive(store)
        assert store.append(batch) == [Fate.DUPLICATE] * 16
    assert store.counts().records == 304


def test_when_probes_were_last_heard_survives_a_restart(open_store: Open) -> None:
    store = open_store()
    store.remember_seen({"p1": T0, "p2": T0 + 1})
    store.remember_seen({"p2": T0 + 2})
    store.close()
    assert open_store().last_seen() == {"p1": T0, "p2": T0 + 2}


def test_quarantine_and_records_are_kept_together(open_store: Open) -> None:
    store = open_store()
    aside = Aside(probe_id="p1", reason="time", detail="", body=b"x", received_wall_ns=T0)
    assert store.append(spooled(1, 1), [aside]) == [Fate.STORED]
    store.close()
    again = open_store()
    assert (again.counts().records, again.counts().quarantined) == (1, 1)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=12))
def test_whatever_is_repeated_each_record_is_stored_once(
    open_store: Open, steps: list[tuple[int, bool]]
) -> None:
    """Batches are repeated in any order after they came once, with the archive written in between."""
    with tempfile.TemporaryDirectory() as directory:
        store = open_store(Path(directory))
        batches = [spooled(1 + 4 * number, 4) for number in range(6)]
        delivered = 0
        for number, move_on in steps:
            if number >= delivered:
                assert store.append(batches[delivered]) == [Fate.STORED] * 4
                delivered += 1
            else:
                assert store.append(batches[number]) == [Fate.DUPLICATE] * 4
            if delivered == 6:
                break
            if move_on:
                archive(store)
        assert ids(store.records(0, EVER)) == ids([item for batch in batches[:delivered] for item in batch])
        store.close()


@NEEDS_ROOT
@pytest.mark.lab
def test_a_full_disk_is_reported_loses_nothing_and_is_got_over(open_store: Open, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 3 * 2**20) as disk:
        (disk / "ballast").write_bytes(bytes(2**20))
        store = open_store(disk / "data")
        acknowledged: list[Entry] = []
        with pytest.raises(StoreFullError, match="full"):
            for first in range(1, 100_000, 50):
                batch = spooled(first, 50)
                assert store.append(batch) == [Fate.STORED] * 50
                acknowledged += batch
        assert len(acknowledged) > 100
        assert ids(store.records(0, EVER)) == ids(acknowledged)
        assert store.counts().records == len(acknowledged)

        (disk / "ballast").unlink()
        assert store.append(batch) == [Fate.STORED] * 50
        store.close()
        again = open_store(disk / "data")
        assert ids(again.records(0, EVER)) == ids(acknowledged + batch)
        again.close()
