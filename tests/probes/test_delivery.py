"""Delivery: one record that the collector will never take must not hold back those behind it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nhip.clock import SystemClock
from nhip.errors import ShipError
from probes.delivery import Delivery
from probes.ship import BatchRefusedError, Shipper, StrangerError, retry_seconds
from probes.spool import Spool
from tests.lab import records
from tests.lab.scripted_collector import ScriptedCollector

Judge = Callable[[dict[str, Any]], int | None]


class Line:
    """A spool with `count` records and the delivery that empties it."""

    def __init__(
        self, folder: Path, collector: ScriptedCollector, count: int, most_records: int = 64
    ) -> None:
        self.spool = Spool(folder / "spool.sqlite", 1 << 26, SystemClock())
        self.spool.start()
        self.kept = [str(self.spool.append(records.record()).record_id) for _ in range(count)]
        self.shipper = Shipper(collector.url, "key", timeout_seconds=5)
        self.delivery = Delivery(
            probe_id="p1",
            spool=self.spool,
            lock=threading.Lock(),
            shipper=self.shipper,
            status=records.agent,
            most_records=most_records,
            most_octets=1 << 21,
        )

    def drain(self, most: int = 200) -> None:
        for _ in range(most):
            if self.delivery.deliver_one()[0]:
                return
        pytest.fail("the spool was not emptied")

    def close(self) -> None:
        self.shipper.close()
        self.spool.close()


def refusing(bad: set[str], status: int) -> Judge:
    def judge(batch: dict[str, Any]) -> int | None:
        return status if bad & {record["record_id"] for record in batch["records"]} else None

    return judge


@pytest.mark.parametrize("status", [400, 413])
@pytest.mark.parametrize("positions", [[0], [63], [17], [3, 4], [0, 31, 99]])
def test_a_record_refused_for_good_is_put_aside_and_all_others_arrive(
    tmp_path: Path, status: int, positions: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    bad: set[str] = set()
    with ScriptedCollector(judge=refusing(bad, status)) as collector:
        line = Line(tmp_path, collector, 100)
        bad |= {line.kept[position] for position in positions}
        line.drain()
        assert collector.stored_ids() == [kept for kept in line.kept if kept not in bad]
        assert line.spool.state().refused_total == len(positions)
        assert line.spool.state().records == 0
        line.close()
    assert f"answered {status}" in caplog.text
    assert "put aside" in caplog.text


def test_a_proxy_that_takes_only_small_batches_gets_small_batches(tmp_path: Path) -> None:
    with ScriptedCollector(judge=lambda batch: 413 if len(batch["records"]) > 5 else None) as collector:
        line = Line(tmp_path, collector, 100)
        line.drain()
        assert collector.stored_ids() == line.kept
        assert line.spool.state().refused_total == 0
        line.close()


def test_where_even_an_empty_batch_is_refused_no_record_is_blamed(tmp_path: Path) -> None:
    """A collector that understands nothing of ours, or something that answers in its place."""
    with ScriptedCollector(judge=lambda batch: 400) as collector:
        line = Line(tmp_path, collector, 3)
        failures = 0
        for _ in range(10):
            try:
                line.delivery.deliver_one()
            except BatchRefusedError:
                failures += 1
        assert failures >= 8
        assert line.spool.state().records == 3
        assert line.spool.state().refused_total == 0
        line.close()


@pytest.mark.parametrize("status", [401, 403, 409])
def test_a_collector_that_does_not_know_us_costs_no_record(tmp_path: Path, status: int) -> None:
    with ScriptedCollector(judge=lambda batch: status) as collector:
        line = Line(tmp_path, collector, 3)
        for _ in range(5):
            with pytest.raises(StrangerError) as raised:
                line.delivery.deliver_one()
            assert raised.value.remedy
        assert {len(batch["records"]) for batch in collector.batches} == {3}
        assert line.spool.state().records == 3
        line.close()


@pytest.mark.parametrize("status", [404, 415, 429, 500, 503, 507])
def test_any_other_refusal_costs_no_record_either(tmp_path: Path, status: int) -> None:
    with ScriptedCollector(judge=lambda batch: status) as collector:
        line = Line(tmp_path, collector, 3)
        with pytest.raises(ShipError) as raised:
            line.delivery.deliver_one()
        assert not isinstance(raised.value, BatchRefusedError | StrangerError)
        assert line.spool.state().records == 3
        line.close()


def test_after_a_refusal_batches_grow_again(tmp_path: Path) -> None:
    bad: set[str] = set()
    with ScriptedCollector(judge=refusing(bad, 400)) as collector:
        line = Line(tmp_path, collector, 300)
        bad.add(line.kept[0])
        line.drain()
        assert max(len(batch["records"]) for batch in collector.batches[-4:]) == 64
        line.close()


def test_a_stranger_comes_back_slowly() -> None:
    waits = [retry_seconds(1, random.Random(seed), first_seconds=10.0) for seed in range(100)]
    assert min(waits) >= 5
    assert max(waits) <= 10
