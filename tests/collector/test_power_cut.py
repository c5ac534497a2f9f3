"""The power goes while batches come in: what was acknowledged is on the disk.

The disk is an ext4 image on a loop device. The collector is stopped, the image is copied as it is at that
moment, and the copy is mounted as a machine would find it. Each test has a twin with its defence taken out,
which must lose records: without it, the test could not fail.
"""

from __future__ import annotations

import signal
from pathlib import Path
from uuid import UUID

import pytest

from collector.store.api import Entry, StoreSettings
from collector.store.delta import DeltaStore
from collector.store.registry import STORES
from nhip.errors import StoreError
from nhip.wire import encode_record
from tests.collector.conftest import Report
from tests.lab.collector_process import collector_process, free_port
from tests.lab.collectors import write_config
from tests.lab.deliverer import Deliverer, is_ready, until
from tests.lab.disks import NEEDS_ROOT, CuttableDisk
from tests.lab.records import record

pytestmark = [NEEDS_ROOT, pytest.mark.lab]

EVER = 2**62


def found_after_cuts(
    tmp_path: Path, store_name: str, *, cuts: int, early: bool = False
) -> list[tuple[set[UUID], list[UUID]]]:
    """For each cut what had been acknowledged before it, and what the disk then holds."""
    port = free_port()
    deliverers = [Deliverer(f"p{number}", port) for number in range(3)]
    settings = tmp_path / "collector.toml"
    results: list[tuple[set[UUID], list[UUID]]] = []
    with CuttableDisk(tmp_path) as disk:
        write_config(
            settings,
            port,
            disk.mounted / "data",
            [deliverer.table() for deliverer in deliverers],
            name=store_name,
            flush_interval_seconds=0.05,
            checkpoint_commits=2,
        )
        with collector_process(settings, early=early) as process:
            until(lambda: is_ready(port))
            for deliverer in deliverers:
                deliverer.start()
            for cut in range(1, cuts + 1):
                until(lambda: min(deliverer.batches for deliverer in deliverers) >= 15 * cut)  # noqa: B023
                process.send_signal(signal.SIGSTOP)
                acknowledged = set().union(*(set(deliverer.acknowledged) for deliverer in deliverers))
                with disk.after_power_cut() as left:
                    results.append((acknowledged, stored_in(left / "data", store_name)))
                process.send_signal(signal.SIGCONT)
            for deliverer in deliverers:
                deliverer.abandon()
    return results


def stored_in(directory: Path, store_name: str) -> list[UUID]:
    store = STORES.load(store_name)(directory, StoreSettings(flush_interval_seconds=3600))
    store.start()
    try:
        return [entry.record.record_id for entry in store.records(0, EVER)]
    finally:
        store.close()


@pytest.mark.parametrize("store_name", STORES.names())
def test_every_acknowledged_record_survives_the_loss_of_power(
    store_name: str, tmp_path: Path, report: Report
) -> None:
    results = found_after_cuts(tmp_path, store_name, cuts=4)
    lost = [len(acknowledged - set(found)) for acknowledged, found in results]
    report(f"{store_name}: acknowledged {[len(known) for known, _ in results]}, lost {lost}")
    assert lost == [0, 0, 0, 0]
    for acknowledged, found in results:
        assert len(found) == len(set(found)) >= len(acknowledged) > 0


def test_without_the_sync_before_the_acknowledgement_records_are_lost(tmp_path: Path, report: Report) -> None:
    """The twin: the same cut, the journal's fsync taken out."""
    [(acknowledged, found)] = found_after_cuts(tmp_path, "sqlite", cuts=1, early=True)
    report(f"acknowledged early: {len(acknowledged)}, lost {len(acknowledged - set(found))}")
    assert acknowledged - set(found)


def archived_after_cut(tmp_path: Path, *, syncs: bool) -> tuple[int, int]:
    """Records moved to the archive before a cut, and records found after it."""
    with CuttableDisk(tmp_path) as disk:
        store = DeltaStore(
            disk.mounted / "data", StoreSettings(flush_interval_seconds=3600, checkpoint_commits=2)
        )
        store.syncs = syncs
        store.start()
        try:
            for first in range(1, 251, 50):
                made = [record(epoch="e1", sequence=number) for number in range(first, first + 50)]
                store.append([Entry(one, encode_record(one), 0) for one in made])
                assert store.flush() == 50
            assert store.counts().journal_records == 0
            with disk.after_power_cut() as left:
                return 250, len(stored_in(left / "data", "delta"))
        finally:
            store.close()


def test_what_left_the_journal_is_on_disk_in_the_archive(tmp_path: Path) -> None:
    archived, found = archived_after_cut(tmp_path, syncs=True)
    assert found == archived


def test_without_our_own_sync_the_archive_loses_what_the_journal_let_go(tmp_path: Path) -> None:
    """The twin: deltalake by itself never calls fsync."""
    try:
        archived, found = archived_after_cut(tmp_path, syncs=False)
    except StoreError as error:  # the journal's word that it was synced stands against what is on the disk
        assert "is broken although it had been synced" in str(error)
    else:
        assert found < archived
