"""Regulatory figures by hand, and verdicts that never flatter."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.kpi.profile import Indicator, RegulationProfile
from collector.kpi.qcvn34 import Samples, delay_samples_seconds, samples, speed_samples
from collector.kpi.tally import Tally
from collector.kpi.verdict import Estimate, Verdict, estimate, judge, limit_of, student_t_quantile
from nhip import config
from nhip.errors import ConfigError
from nhip.measurement import Counters, Direction, Outcome, Summary, TargetClass, Technology
from nhip.wire import Record
from tests.lab.fake_clock import START_WALL_NS, FakeClock
from tests.lab.records import record, speed

PROFILE_PATH = config.shipped("regulations/qcvn34_2022.toml")
PROFILE = config.load(PROFILE_PATH, RegulationProfile)
BY_ID = {indicator.id: indicator for indicator in PROFILE.indicators}
DELAY, DOWN = BY_ID["fx.delay.mean"], BY_ID["fx.speed.down.mean"]


def transfer(down: list[float], up: list[float] = [], **changes: object) -> Record:  # noqa: B006
    speeds = [
        speed(direction, rates) for direction, rates in ((Direction.DOWN, down), (Direction.UP, up)) if rates
    ]
    count = len(down) + len(up)
    fields: dict[str, object] = {
        "kind": "file_transfer",
        "delay_seconds": None,
        "received": count,
        "speeds": speeds,
        "started_wall_ns": START_WALL_NS,
    }
    return record(**{**fields, **changes})  # type: ignore[arg-type]


# Samples.


def test_a_delay_sample_is_the_mean_of_one_test_not_its_median() -> None:
    uneven = Summary(unit="seconds", count=4, min=0.01, mean=0.04, p50=0.02, p95=0.1, p99=0.1, max=0.1)
    assert delay_samples_seconds(record(round_trip_delay_seconds=uneven)) == Samples((0.04,))


def test_a_test_that_got_nothing_back_is_a_failure_and_no_delay_of_zero() -> None:
    lost = record(delay_seconds=None, received=0, lost=10, outcome=Outcome.LOST)
    assert delay_samples_seconds(lost) == Samples((), failures=1)
    unsent = record(delay_seconds=None, received=0, outcome=Outcome.NOT_SENT)
    assert delay_samples_seconds(unsent) == Samples(())


def test_each_transfer_is_a_speed_sample_of_its_direction() -> None:
    both = transfer([1e8, 3e8], [5e7])
    assert speed_samples(both, Direction.DOWN) == Samples((1e8, 3e8))
    assert speed_samples(both, Direction.UP) == Samples((5e7,))


def test_a_transfer_that_broke_off_is_counted_and_in_no_mean() -> None:
    some = transfer([1e8], counters=Counters(sent=3, received=1, lost=1, failed=1))
    assert speed_samples(some, Direction.DOWN) == Samples((1e8,), failures=2)
    assert speed_samples(some, Direction.UP) == Samples(())


def test_transfers_that_all_failed_are_counted_where_their_record_says() -> None:
    failed = transfer(
        [],
        outcome=Outcome.RESET,
        counters=Counters(sent=2, received=0, lost=0, failed=2),
        parameters={"direction": "down"},
    )
    assert speed_samples(failed, Direction.DOWN) == Samples((), failures=2)
    assert speed_samples(failed, Direction.UP) == Samples(())


def test_failures_of_both_directions_are_told_apart_by_what_was_planned() -> None:
    both = transfer(
        [1e8, 2e8, 3e8],
        [5e7],
        counters=Counters(sent=6, received=4, lost=1, failed=1),
        parameters={"direction": "both", "count": 3},
    )
    assert speed_samples(both, Direction.DOWN) == Samples((1e8, 2e8, 3e8), failures=0)
    assert speed_samples(both, Direction.UP) == Samples((5e7,), failures=2)


def test_a_busy_server_says_nothing_of_the_network() -> None:
    busy = transfer([], outcome=Outcome.BUSY, counters=Counters(sent=1, received=0, lost=0, failed=1))
    assert speed_samples(busy, Direction.DOWN) == Samples(())


def test_transfers_that_ended_busy_are_no_failures_among_others() -> None:
    some = transfer([1e8], counters=Counters(sent=4, received=1, lost=1, failed=2, busy=2))
    assert speed_samples(some, Direction.DOWN) == Samples((1e8,), failures=1)


def test_only_the_kinds_and_classes_the_profile_names_are_samples() -> None:
    assert samples(DELAY, record()).values == (0.010,)
    assert samples(DELAY, record(kind="tcp_connect")) == Samples(())
    assert samples(DELAY, record(target_class=TargetClass.INTERNATIONAL)) == Samples(())
    assert samples(DOWN, transfer([1e8])).values == (1e8,)
    assert samples(DOWN, record()) == Samples(())


# Estimates.


def test_the_mean_speed_is_the_mean_of_speeds_not_volume_over_time() -> None:
    """10 and 90 Mbit/s: the mean is 50, total volume over total time would be 18."""
    assert estimate([10e6, 90e6]).mean == 50e6


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(1, 12.706205), (2, 4.302653), (4, 2.776445), (9, 2.262157), (29, 2.045230), (999, 1.962341)],
)
def test_the_t_quantile_is_that_of_the_printed_tables(degrees: int, expected: float) -> None:
    assert student_t_quantile(0.975, degrees) == pytest.approx(expected, abs=5e-7)


def test_the_interval_by_hand() -> None:
    """1…5: mean 3, s² = 2.5, half width 2.776445 · √(2.5/5) = 1.963243."""
    found = estimate([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.interval == pytest.approx((3 - 1.963243, 3 + 1.963243), abs=1e-6)
    assert found.interval_method.startswith("Student t")


def test_what_cannot_be_estimated_is_absent() -> None:
    assert estimate([]) == Estimate(None, None, estimate([]).interval_method, 0)
    assert estimate([7.0]).mean == 7.0
    assert estimate([7.0]).interval is None


@given(st.lists(st.floats(0.001, 10), min_size=2, max_size=200))
def test_the_interval_holds_the_mean(values: list[float]) -> None:
    found = estimate(values)
    assert found.mean is not None and found.interval is not None
    assert found.interval[0] <= found.mean <= found.interval[1]


# Verdicts.


def indicator(**changes: object) -> Indicator:
    return msgspec.structs.replace(DOWN, **changes)


def of(mean: float | None, count: int) -> Estimate:
    return Estimate(mean, None, "none", count)


@pytest.mark.parametrize(
    ("chosen", "found", "declared", "expected"),
    [
        (DOWN, of(8e7, 1000), 1e8, Verdict.CONFORMING),
        (DOWN, of(math.nextafter(8e7, 0), 1000), 1e8, Verdict.NOT_CONFORMING),
        (DOWN, of(1e9, 999), 1e8, Verdict.TOO_FEW_SAMPLES),
        (DOWN, of(1.0, 999), 1e8, Verdict.TOO_FEW_SAMPLES),
        (DOWN, of(None, 0), 1e8, Verdict.TOO_FEW_SAMPLES),
        (DOWN, of(1e9, 1000), None, Verdict.LIMIT_UNVERIFIED),
        (DELAY, of(0.001, 5000), None, Verdict.LIMIT_UNVERIFIED),
        (DELAY, of(0.900, 5000), None, Verdict.LIMIT_UNVERIFIED),
        (DELAY, of(0.001, 10), None, Verdict.TOO_FEW_SAMPLES),
        (indicator(comparison="<=", limit=0.05), of(0.05, 1000), None, Verdict.CONFORMING),
        (indicator(comparison="<=", limit=0.05), of(0.0501, 1000), None, Verdict.NOT_CONFORMING),
    ],
)
def test_the_verdict_table(
    chosen: Indicator, found: Estimate, declared: float | None, expected: Verdict
) -> None:
    assert judge(chosen, found, declared) is expected


@given(
    st.floats(1e-6, 1e12),
    st.integers(0, 10**6),
    st.one_of(st.none(), st.floats(1, 1e12)),
    st.sampled_from(["<=", ">="]),
    st.sampled_from(["declared", 0.05, 1e6]),
)
def test_an_unverified_limit_never_yields_conforming(
    mean: float, count: int, declared: float | None, comparison: str, limit: str | float
) -> None:
    unverified = indicator(verified=False, mark="V-old", comparison=comparison, limit=limit)
    assert judge(unverified, of(mean, count), declared) in (
        Verdict.TOO_FEW_SAMPLES,
        Verdict.LIMIT_UNVERIFIED,
    )


@pytest.mark.parametrize("mean", [1.0, 9e7, 1e12])
def test_an_edition_not_in_force_judges_nothing(mean: float) -> None:
    assert judge(DOWN, of(mean, 1000), 1e8, in_force=False) is Verdict.LIMIT_UNVERIFIED


def test_an_edition_is_in_force_from_its_first_day_to_its_last() -> None:
    edition = msgspec.structs.replace(PROFILE, in_force_from=date(2020, 3, 1), in_force_to=date(2023, 6, 30))
    days = [date(2020, 2, 29), date(2020, 3, 1), date(2023, 6, 30), date(2023, 7, 1)]
    assert [edition.in_force_on(day) for day in days] == [False, True, True, False]
    assert PROFILE.in_force_from == date(2023, 7, 1) and PROFILE.in_force_to is None


def test_a_verdict_of_an_edition_that_has_ended_is_never_conforming() -> None:
    ended = msgspec.structs.replace(PROFILE, in_force_to=date(2024, 1, 1))
    for profile, verdict in ((PROFILE, "conforming"), (ended, "limit_unverified")):
        kept = Tally(profile, 90, lambda operator, technology, direction: 1e8, FakeClock())
        kept.observe([transfer([1e8, 1e8]) for _ in range(500)])
        [row] = [row for row in kept.rows() if row.indicator_id == "fx.speed.down.mean"]
        assert row.verdict == verdict


def test_the_declared_limit_is_a_share_of_what_is_declared() -> None:
    assert limit_of(DOWN, 150e6) == pytest.approx(120e6)
    assert limit_of(DOWN, None) is None
    assert limit_of(DELAY, None) == 0.05


# The profile as shipped.


def test_the_shipped_profile_says_what_was_read_and_what_was_not() -> None:
    assert PROFILE.technologies == [Technology.FIXED]
    assert (DELAY.limit, DELAY.mark, DELAY.verified) == (0.05, "V-old", False)
    for name in ("fx.speed.down.mean", "fx.speed.up.mean"):
        found = BY_ID[name]
        assert (found.limit, found.factor, found.minimum_samples) == ("declared", 0.8, 1000)
        assert (found.mark, found.verified, found.comparison) == ("V", True, ">=")
    for found in PROFILE.indicators:
        assert found.title_vi and found.title_en and found.clause and found.source


def test_a_limit_can_only_be_verified_when_it_was_read_in_the_text_in_force(tmp_path: Path) -> None:
    text = PROFILE_PATH.read_text().replace("verified = false", "verified = true")
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"fx\.delay\.mean"):
        config.load(tmp_path / "p.toml", RegulationProfile)


def test_an_indicator_listed_twice_is_refused(tmp_path: Path) -> None:
    text = PROFILE_PATH.read_text().replace("fx.speed.up.mean", "fx.speed.down.mean")
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(ConfigError, match="twice"):
        config.load(tmp_path / "p.toml", RegulationProfile)


# The running period.


def tally(clock: FakeClock, declared: float | None = 1e8) -> Tally:
    return Tally(PROFILE, 90, lambda operator, technology, direction: declared, clock)


def test_a_row_for_each_access_and_indicator_in_the_order_of_the_profile() -> None:
    kept = tally(FakeClock())
    kept.expect([("beta", Technology.FIXED, "01"), ("alpha", Technology.FIXED, "01")])
    kept.expect([("alpha", Technology.MOBILE_4G, "01")])
    rows = kept.rows()
    assert [(row.operator, row.indicator_id) for row in rows] == [
        (operator, indicator.id) for operator in ("alpha", "beta") for indicator in PROFILE.indicators
    ]
    assert {row.verdict for row in rows} == {"too_few_samples"}
    assert rows[0].value is None and rows[0].samples_required == 1000


def test_a_thousand_transfers_bring_a_verdict_with_its_limit_and_interval() -> None:
    kept = tally(FakeClock())
    kept.observe([transfer([7e7, 1e8]) for _ in range(500)])
    [row] = [row for row in kept.rows() if row.indicator_id == "fx.speed.down.mean"]
    assert (row.verdict, row.value, row.limit, row.samples) == ("conforming", 8.5e7, 8e7, 1000)
    assert row.interval is not None and row.interval[0] < 8.5e7 < row.interval[1]


def test_failures_are_counted_beside_the_mean() -> None:
    kept = tally(FakeClock())
    kept.observe([transfer([1e8], counters=Counters(sent=3, received=1, lost=0, failed=2))])
    access = ("alpha", Technology.FIXED, "01")
    assert kept.failures(access, "fx.speed.down.mean") == 2
    assert kept.failures(access, "fx.speed.up.mean") == 0


def test_what_is_older_than_the_period_is_in_no_verdict() -> None:
    clock = FakeClock()
    kept = tally(clock)
    kept.observe([transfer([2e8], started_wall_ns=START_WALL_NS - 89 * 86_400_000_000_000)])
    kept.observe([transfer([1e8])])
    kept.observe([transfer([3e8], started_wall_ns=START_WALL_NS - 88 * 86_400_000_000_000)])

    def mean_and_count() -> tuple[float | None, int]:
        [row] = [row for row in kept.rows() if row.indicator_id == "fx.speed.down.mean"]
        return row.value, row.samples

    assert mean_and_count() == (2e8, 3)
    clock.advance(1.5 * 86_400)
    assert mean_and_count() == (2e8, 2)
    clock.advance(86_400)
    assert mean_and_count() == (1e8, 1)


def test_other_technologies_are_not_this_regulations() -> None:
    kept = tally(FakeClock())
    kept.observe([record(technology=Technology.MOBILE_4G)])
    assert kept.rows() == ()
