"""What was put aside by mistake is listed, and taken back exactly once when the mistake is mended."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from collector.quarantine import QuarantineRow, Readmission, list_quarantine, readmit
from collector.store.registry import STORES
from nhip.errors import ConfigError
from nhip.wire import encode_record
from tests.lab import collectors
from tests.lab.collectors import PROBE, Client
from tests.lab.records import SECOND_NS, batch, record

MISSPELT = {**PROBE, "operator": "alhpa", "misplaced": "quarantine"}


def spooled(first: int, count: int, **changes: object) -> list[bytes]:
    made = [record(epoch="e1", sequence=n, **changes) for n in range(first, first + count)]  # type: ignore[arg-type]
    return [encode_record(one) for one in made]


@pytest.mark.parametrize("store", STORES.names())
def test_what_a_typing_error_put_aside_comes_back_once(tmp_path: Path, store: str) -> None:
    wrong = collectors.config(tmp_path, store={"name": store}, probe=[MISSPELT])
    right = collectors.config(tmp_path, store={"name": store})
    first, later = batch(spooled(1, 5)), batch(spooled(6, 5))
    with collectors.running(wrong) as collector, Client(collector.port or 0) as client:
        assert len(client.post(first).acknowledgement().rejected) == 5
    with collectors.running(right) as collector, Client(collector.port or 0) as client:
        assert client.post(later).acknowledgement().stored == 5
    rows = list_quarantine(right)
    assert [(row.probe_id, row.reason) for row in rows] == [("p1", "identity")] * 5
    assert rows[0].detail.startswith("operator 'alpha'") and rows[0].octets > 500

    assert readmit(right) == Readmission(stored=5, duplicate=0, left=0)
    assert readmit(right) == Readmission(stored=0, duplicate=0, left=0)
    assert list_quarantine(right) == []
    with collectors.running(right) as collector, Client(collector.port or 0) as client:
        assert client.post(first).acknowledgement().duplicate == 5
        assert client.post(later).acknowledgement().duplicate == 5
        records = [entry.record.sequence for entry in collector.store.records(0, 2**62)]
        assert sorted(records) == list(range(1, 11))
        assert collector.view().records_stored == 10


def test_what_is_still_wrong_stays(tmp_path: Path) -> None:
    settings = collectors.config(tmp_path)
    old = record(started_wall_ns=time.time_ns() - 30 * 86_400 * SECOND_NS)
    with collectors.running(settings) as collector, Client(collector.port or 0) as client:
        client.post(batch([record(), b"{}", old]))
    assert readmit(settings) == Readmission(stored=0, duplicate=0, left=2)
    assert [row.reason for row in list_quarantine(settings)] == ["malformed", "time"]


def test_a_date_is_judged_by_the_day_it_came(tmp_path: Path) -> None:
    """Lying in quarantine for a month makes no record too old."""
    month = record(started_wall_ns=time.time_ns() - 30 * 86_400 * SECOND_NS)
    limits = {"minimum_free_octets": 0, "record_age_seconds": 40 * 86_400}
    later = collectors.config(tmp_path, limits=limits, store={"remember_ids_days": 41})
    with collectors.running(collectors.config(tmp_path)) as collector, Client(collector.port or 0) as client:
        assert len(client.post(batch([month])).acknowledgement().rejected) == 1
    assert readmit(later) == Readmission(stored=1, duplicate=0, left=0)


def test_one_probes_quarantine_can_be_worked_on_alone(tmp_path: Path) -> None:
    settings = collectors.config(tmp_path)
    with collectors.running(settings) as collector, Client(collector.port or 0) as client:
        client.post(batch([b"{}"]))
    assert [type(row) for row in list_quarantine(settings, "p1")] == [QuarantineRow]
    assert list_quarantine(settings, "p2") == []
    assert readmit(settings, "p2") == Readmission(stored=0, duplicate=0, left=0)


def test_the_list_may_be_read_beside_the_collector_and_nothing_taken_back(tmp_path: Path) -> None:
    settings = collectors.config(tmp_path)
    assert list_quarantine(settings) == []
    with collectors.running(settings) as collector, Client(collector.port or 0) as client:
        client.post(batch([b"{}"]))
        assert len(list_quarantine(settings)) == 1
        with pytest.raises(ConfigError, match="another collector"):
            readmit(settings)
