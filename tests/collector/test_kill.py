"""kill -9 in the middle of ingest, again and again: nothing acknowledged is lost, nothing is there twice."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from pathlib import Path
from uuid import UUID

import pytest

from collector.store.api import StoreSettings
from collector.store.registry import STORES
from tests.collector.conftest import Report
from tests.lab.collector_process import collector_process, free_port
from tests.lab.collectors import write_config
from tests.lab.deliverer import Deliverer, is_ready, until

# `./run soak` asks for more.
ROUNDS = int(os.environ.get("NHIP_KILL_ROUNDS", "20"))
EVER = 2**62


@pytest.mark.slow
@pytest.mark.parametrize("store_name", STORES.names())
def test_killed_again_and_again_it_has_every_acknowledged_record_once(
    store_name: str, tmp_path: Path, report: Report
) -> None:
    """A kill leaves the page cache alone, so this says nothing of power; test_power_cut.py does."""
    port, seed = free_port(), random.randrange(2**32)
    rng = random.Random(seed)
    deliverers = [Deliverer(f"p{number}", port) for number in range(4)]
    settings = tmp_path / "collector.toml"
    write_config(
        settings,
        port,
        tmp_path / "data",
        [deliverer.table() for deliverer in deliverers],
        name=store_name,
        flush_interval_seconds=0.05,
        checkpoint_commits=3,
    )
    for deliverer in deliverers:
        deliverer.start()
    pause = threading.Event()
    for _ in range(ROUNDS):
        with collector_process(settings) as process:
            until(lambda: is_ready(port))
            pause.wait(rng.uniform(0.05, 0.4))
            process.kill()
    with collector_process(settings) as process:
        for deliverer in deliverers:
            deliverer.stop()
        process.terminate()
        assert process.wait(20) == 0

    found = _stored(store_name, tmp_path / "data")
    acknowledged = set().union(*(deliverer.acknowledged for deliverer in deliverers))
    lost = acknowledged - found.keys()
    twice = [record_id for record_id, times in found.items() if times > 1]
    report(
        f"{store_name}: {ROUNDS} kills (seed {seed}), {len(acknowledged)} records acknowledged,"
        f" {len(found)} stored, {len(lost)} lost, {len(twice)} twice,"
        f" {sum(deliverer.retries for deliverer in deliverers)} retries,"
        f" {sum(deliverer.answered_duplicate for deliverer in deliverers)} answered as duplicates"
    )
    assert not lost
    assert not twice
    assert found.keys() == set().union(*(deliverer.sent for deliverer in deliverers))
    assert len(acknowledged) > 1000


def _stored(store_name: str, directory: Path) -> Counter[UUID]:
    store = STORES.load(store_name)(directory, StoreSettings(flush_interval_seconds=3600))
    store.start()
    try:
        return Counter(entry.record.record_id for entry in store.records(0, EVER))
    finally:
        store.close()
