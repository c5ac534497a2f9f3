"""The rows of the status page, figure by figure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from collector.lab_truth import read_truth
from collector.service import Collector
from nhip.measurement import Direction, Outcome, TargetClass, Technology
from nhip.statistics import wilson_interval
from nhip.status import AccessRow, Truth
from nhip.wire import Record
from tests.lab import collectors
from tests.lab.collectors import PROBE, Client
from tests.lab.fake_clock import FakeClock
from tests.lab.records import agent, batch, record, speed


class Bench:
    def __init__(self, collector: Collector, clock: FakeClock) -> None:
        self.collector, self.clock = collector, clock

    def send(self, *records: Record) -> None:
        with Client(self.collector.port or 0) as client:
            reply = client.post(batch(records, status=agent(self.clock.wall_ns())))
        assert reply.acknowledgement().rejected == []

    def made(self, **changes: object) -> Record:
        return record(**{"started_wall_ns": self.clock.wall_ns(), **changes})  # type: ignore[arg-type]

    def row(self, technology: Technology = Technology.FIXED) -> AccessRow:
        [row] = [row for row in self.collector.view().accesses if row.technology is technology]
        return row


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    clock = FakeClock()
    settings = collectors.config(
        tmp_path,
        probe=[{**PROBE, "technologies": ["fixed", "4g"]}],
        status={"window_seconds": 60, "silent_seconds": 30},
        regulation="regulations/qcvn34_2022.toml",
        truth_file=str(tmp_path / "truth.json"),
    )
    with collectors.running(settings, clock) as collector:
        yield Bench(collector, clock)


def test_an_access_never_heard_has_a_row_without_figures(bench: Bench) -> None:
    row = bench.row()
    assert (row.operator, row.probe_id, row.silent, row.last_seen_wall_ns) == ("alpha", "p1", True, None)
    assert (row.delay_seconds, row.loss_ratio, row.loss_interval) == (None, None, None)
    assert (row.down_bits_per_second, row.down_count, row.delay_count) == (None, 0, 0)


def test_delay_is_the_median_of_the_tests_and_loss_sums_their_packets(bench: Bench) -> None:
    bench.send(
        *(bench.made(delay_seconds=delay) for delay in (0.010, 0.012, 0.050)),
        bench.made(received=6, lost=4, delay_seconds=0.011),
    )
    row = bench.row()
    assert row.delay_seconds == pytest.approx(0.0115)
    assert row.delay_count == 4
    assert row.loss_ratio == pytest.approx(4 / 40)
    assert row.loss_interval == wilson_interval(4, 40)
    assert not row.silent


def test_two_kinds_of_packet_are_never_mixed(bench: Bench) -> None:
    bench.send(bench.made(delay_seconds=0.010), bench.made(kind="stamp", delay_seconds=0.020))
    assert bench.row().delay_seconds == 0.020
    assert bench.row().delay_count == 1


def test_only_targets_of_the_stated_classes_count(bench: Bench) -> None:
    bench.send(
        bench.made(delay_seconds=0.010),
        bench.made(delay_seconds=0.200, target_class=TargetClass.INTERNATIONAL),
    )
    assert bench.row().delay_seconds == 0.010


def test_speed_is_the_mean_over_transfers(bench: Bench) -> None:
    bench.send(
        bench.made(kind="file_transfer", delay_seconds=None, speeds=[speed(Direction.DOWN, [1e8, 2e8])]),
        bench.made(kind="file_transfer", delay_seconds=None, speeds=[speed(Direction.DOWN, [6e8])]),
        bench.made(kind="file_transfer", delay_seconds=None, speeds=[speed(Direction.UP, [5e7])]),
    )
    row = bench.row()
    assert (row.down_bits_per_second, row.down_count) == (3e8, 3)
    assert (row.up_bits_per_second, row.up_count) == (5e7, 1)


def test_technologies_have_their_own_rows(bench: Bench) -> None:
    bench.send(
        bench.made(delay_seconds=0.01), bench.made(technology=Technology.MOBILE_4G, delay_seconds=0.04)
    )
    assert bench.row().delay_seconds == 0.01
    assert bench.row(Technology.MOBILE_4G).delay_seconds == 0.04


def test_figures_leave_the_window_and_the_probe_falls_silent(bench: Bench) -> None:
    bench.send(bench.made())
    bench.clock.advance(31)
    assert bench.row().silent
    assert bench.row().delay_count == 1
    bench.clock.advance(30)
    assert bench.row().delay_seconds is None


def test_total_loss_has_no_delay_and_a_loss_of_one(bench: Bench) -> None:
    bench.send(bench.made(received=0, lost=10, outcome=Outcome.LOST, delay_seconds=None))
    row = bench.row()
    assert (row.delay_seconds, row.loss_ratio, row.loss_count) == (None, 1.0, 10)
    [series] = bench.collector.view().series
    assert (series.outcome, series.delay_seconds) == (Outcome.LOST, None)


def test_the_labs_truth_stands_beside_its_access(bench: Bench, tmp_path: Path) -> None:
    assert bench.row().truth is None
    truth = {"accesses": [{"probe_id": "p1", "delay_seconds": 0.01, "loss_ratio": 0.001, "other": 1}]}
    (tmp_path / "truth.json").write_bytes(msgspec.json.encode(truth))
    assert bench.row().truth == Truth(delay_seconds=0.01, loss_ratio=0.001)
    assert bench.collector.view().simulated
    (tmp_path / "truth.json").write_text('{"accesses": [{"probe_id": "p1", "loss_ratio": 7}]}')
    assert bench.row().truth is None


def test_a_truth_file_that_is_absent_or_broken_is_no_truth(tmp_path: Path) -> None:
    assert read_truth(tmp_path / "none") == {}
    (tmp_path / "torn").write_text('{"accesses": [')
    assert read_truth(tmp_path / "torn") == {}


def test_the_view_counts_what_is_stored_and_names_the_profile(bench: Bench) -> None:
    bench.send(bench.made())
    view = bench.collector.view()
    assert (view.records_stored, view.records_quarantined) == (1, 0)
    assert view.profile_title_vi.startswith("QCVN 34:2022")
    assert [row.samples for row in view.verdicts] == [1, 0, 0]
    assert view.window_seconds == 60


def test_the_view_travels_as_json(bench: Bench) -> None:
    bench.send(bench.made())
    with Client(bench.collector.port or 0) as client:
        view = client.get("/api/v1/status").json()
    assert view["accesses"][0]["delay_seconds"] == 0.01
    assert view["verdicts"][0]["verdict"] == "too_few_samples"
