"""What is shown and for how long: a result is never shown older or younger than it is."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from collector.collector_config import Limits, ProbeEntry, Status
from collector.ingest import Delivery
from collector.state import Series, State, is_silent
from collector.store.api import Entry
from nhip.measurement import Outcome, Technology
from nhip.wire import AgentStatus, Record, encode_record
from tests.lab.collectors import PROBE
from tests.lab.fake_clock import FakeClock
from tests.lab.records import SECOND_NS, agent, record

ENTRY = msgspec.convert({**PROBE, "technologies": ["fixed", "4g"]}, ProbeEntry)
STATUS = Status(window_seconds=60, default_interval_seconds=100, silent_seconds=30)


class Bench:
    def __init__(self, **limits: int) -> None:
        self.clock = FakeClock()
        self.state = State([ENTRY], Limits(**limits), STATUS, self.clock)

    def made(self, age_seconds: float = 0, **changes: object) -> Record:
        started = self.clock.wall_ns() - round(age_seconds * SECOND_NS)
        return record(**{"started_wall_ns": started, **changes})  # type: ignore[arg-type]

    def deliver(self, *records: Record, status: AgentStatus | None = None) -> None:
        stored = [Entry(one, encode_record(one), self.clock.wall_ns()) for one in records]
        self.state.observe(Delivery(ENTRY, status, stored, self.clock.wall_ns(), self.clock.mono_ns()))

    def shown(self) -> tuple[Series, ...]:
        return self.state.snapshot().series

    def only(self) -> Series:
        [series] = self.state.snapshot().known_series
        return series


def entries(records: Iterable[Record]) -> list[Entry]:
    return [Entry(one, encode_record(one), one.started_wall_ns) for one in records]


def test_a_result_is_shown_for_three_intervals_of_its_test() -> None:
    bench = Bench()
    bench.deliver(bench.made(parameters={"schedule_interval_seconds": 10}))
    bench.clock.advance(29.9)
    assert len(bench.shown()) == 1
    bench.clock.advance(0.2)
    assert bench.shown() == ()
    assert len(bench.state.snapshot().known_series) == 1


def test_the_interval_between_packets_is_not_the_schedule() -> None:
    bench = Bench()
    bench.deliver(bench.made(parameters={"interval_seconds": 0.1}))
    bench.clock.advance(299)
    assert len(bench.shown()) == 1
    bench.clock.advance(2)
    assert bench.shown() == ()


def test_an_interval_nobody_believes_is_the_default() -> None:
    bench = Bench()
    bench.deliver(bench.made(parameters={"schedule_interval_seconds": 1e18}))
    bench.clock.advance(301)
    assert bench.shown() == ()


def test_a_result_from_the_spool_is_as_old_as_it_is() -> None:
    bench = Bench()
    bench.deliver(bench.made(age_seconds=31))
    assert bench.shown() == ()


def test_a_probe_whose_date_is_wrong_is_shown_by_its_own_clock() -> None:
    for offset_seconds in (-280, 280):
        bench = Bench()
        wrong_ns = bench.clock.wall_ns() + offset_seconds * SECOND_NS
        bench.deliver(bench.made(started_wall_ns=wrong_ns - SECOND_NS), status=agent(wrong_ns))
        bench.clock.advance(28)
        assert len(bench.shown()) == 1
        bench.clock.advance(2)
        assert bench.shown() == ()
        [probe] = bench.state.snapshot().probes
        assert probe.clock_offset_seconds == offset_seconds


def test_a_step_of_our_own_date_expires_nothing() -> None:
    bench = Bench()
    bench.deliver(bench.made())
    bench.clock.step(86_400)
    assert len(bench.shown()) == 1
    bench.clock.step(-2 * 86_400)
    bench.clock.advance(31)
    assert bench.shown() == ()


def test_an_older_result_counts_and_does_not_replace_the_last() -> None:
    bench = Bench()
    bench.deliver(bench.made(delay_seconds=0.010))
    bench.deliver(bench.made(age_seconds=5, delay_seconds=0.020))
    series = bench.only()
    assert series.last.round_trip_delay_seconds is not None
    assert series.last.round_trip_delay_seconds.p50 == 0.010
    assert series.tests == 2


def test_every_test_is_counted_once_by_its_fate() -> None:
    bench = Bench()
    bench.deliver(
        bench.made(received=9, lost=1),
        bench.made(received=0, lost=10, outcome=Outcome.LOST, delay_seconds=None),
        bench.made(received=0, lost=0, outcome=Outcome.NOT_SENT, delay_seconds=None),
    )
    series = bench.only()
    assert (series.tests, series.failures) == (3, 1)
    assert (series.packets_sent, series.packets_lost) == (20, 11)
    assert sum(series.delay_buckets) == 1
    assert series.volume_octets == 3 * 1120


def test_each_technology_of_a_probe_is_its_own_series() -> None:
    bench = Bench()
    bench.deliver(bench.made(), bench.made(technology=Technology.MOBILE_4G))
    assert len(bench.shown()) == 2


def test_series_beyond_the_limit_are_refused_and_counted() -> None:
    bench = Bench(series=3)
    bench.deliver(*(bench.made(target_id=f"t{number}") for number in range(5)))
    snapshot = bench.state.snapshot()
    assert (len(snapshot.series), snapshot.series_refused) == (3, 2)


def test_one_probe_cannot_take_all_series() -> None:
    bench = Bench(series_per_probe=2)
    bench.deliver(*(bench.made(target_id=f"t{number}") for number in range(4)))
    assert len(bench.shown()) == 2


def test_an_expired_series_makes_room() -> None:
    bench = Bench(series=1)
    bench.deliver(bench.made(target_id="old"))
    bench.clock.advance(31)
    bench.deliver(bench.made(target_id="new"))
    snapshot = bench.state.snapshot()
    assert [series.key.target_id for series in snapshot.series] == ["new"]
    assert snapshot.series_refused == 0


def test_a_restart_brings_back_results_and_window_and_counts_from_zero() -> None:
    bench = Bench()
    old, new = bench.made(age_seconds=20, delay_seconds=0.5), bench.made(age_seconds=4)
    bench.state.restore(entries([old, new]), window=True)
    series = bench.only()
    assert (series.tests, series.packets_sent, sum(series.delay_buckets)) == (0, 0, 0)
    assert series.last.started_wall_ns == bench.clock.wall_ns() - 4 * SECOND_NS
    snapshot = bench.state.snapshot(observations=True)
    assert len(snapshot.probes[0].observations) == 2
    assert snapshot.probes[0].last_seen_wall_ns == bench.clock.wall_ns() - 4 * SECOND_NS
    bench.clock.advance(27)
    assert bench.shown() == ()


def test_results_older_than_the_window_come_back_without_entering_it() -> None:
    bench = Bench()
    hourly = bench.made(age_seconds=1800, parameters={"schedule_interval_seconds": 3600})
    bench.state.restore(entries([hourly]), window=False)
    assert len(bench.shown()) == 1
    assert not bench.state.snapshot(observations=True).probes[0].observations


def test_records_of_a_probe_no_longer_listed_are_not_shown() -> None:
    bench = Bench()
    bench.state.restore(entries([bench.made(probe_id="gone")]), window=True)
    assert bench.shown() == ()


def test_a_probe_is_silent_before_its_first_word_and_long_after_its_last() -> None:
    bench = Bench()

    def silent() -> bool:
        snapshot = bench.state.snapshot()
        return is_silent(snapshot.probes[0], snapshot, STATUS)

    assert silent()
    bench.deliver(status=agent(bench.clock.wall_ns()))
    assert not silent()
    bench.clock.advance(31)
    assert silent()


def test_a_version_that_is_no_name_is_not_shown() -> None:
    bench = Bench()
    bench.deliver(status=agent(bench.clock.wall_ns(), software_version="<script>"))
    assert bench.state.snapshot().probes[0].software_version is None


def test_a_snapshot_does_not_change_when_records_come() -> None:
    bench = Bench()
    bench.deliver(bench.made())
    before = bench.state.snapshot()
    bench.deliver(bench.made())
    assert before.known_series[0].tests == 1
