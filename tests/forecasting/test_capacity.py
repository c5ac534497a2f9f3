from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from forecasting.capacity import above_now, first_crossings, judge, local_day, look_ahead, share_before
from forecasting.capacity_rules import CapacityRule
from forecasting.models.ets import Ets
from forecasting.models.seasonal_naive import SeasonalNaive
from nhip.errors import SeriesError
from tests.lab.series import series_of, weekly

RULE = CapacityRule(
    id="test.peak",
    title_vi="Cao điểm ngày",
    title_en="Daily peak",
    statistic="daily_peak",
    limit_ratio=0.8,
    source="this test",
    mark="U",
    verified=False,
    valid_from=date(2020, 1, 1),
)


def test_crossing_is_the_first_day_from_which_three_of_seven_lie_above() -> None:
    quiet, one, three, late = np.zeros(30), np.zeros(30), np.zeros(30), np.zeros(30)
    one[5] = 2.0  # one evening of football
    three[[10, 14, 16]] = 2.0
    late[[10, 14, 17]] = 2.0  # the third falls out of the seven days
    found = first_crossings(np.vstack([quiet, one, three, late]), 1.0)
    assert found.tolist() == [30, 30, 10, 30]


def test_crossing_starts_on_a_day_that_itself_lies_above() -> None:
    path = np.zeros(20)
    path[6:] = 2.0
    assert first_crossings(path[None, :], 1.0).tolist() == [6]


def test_value_equal_to_the_limit_is_not_above_it() -> None:
    assert first_crossings(np.ones((1, 20)), 1.0).tolist() == [20]


def test_last_days_of_the_horizon_are_judged_by_what_is_left_of_it() -> None:
    path = np.zeros(20)
    path[17:] = 2.0
    assert first_crossings(path[None, :], 1.0).tolist() == [17]


def test_link_is_over_now_when_three_of_the_last_seven_days_were() -> None:
    values = np.zeros(30)
    values[[20, 24, 26, 29]] = 2.0
    assert above_now(values, 1.0)
    values[26] = np.nan
    assert not above_now(values, 1.0)


def test_probability_is_never_quite_zero_or_one() -> None:
    days = np.array([5, 5, 5, 90])
    assert share_before(days, 30) == pytest.approx(3.5 / 5)
    assert share_before(np.full(16, 200), 30) == pytest.approx(0.5 / 17)


def test_crossing_date_of_a_steady_line_is_the_day_worked_out_by_hand() -> None:
    """Traffic rises by exactly 1 a day, and on 1 January 2027 stands at 1,000,000.

    The seasonal naive repeats a flat week, and at every origin it was wrong by the same 7, 14, 21 ...; with
    those errors on it the path is the line. The limit 1,000,040.5 is passed 41 days later, on 11 February.
    """
    last = 1_000_000.0
    series = series_of(np.arange(last - 364, last + 1), start=datetime(2026, 1, 2, tzinfo=UTC))
    assert series.times[-1].date() == date(2027, 1, 1)
    outlook = look_ahead(SeasonalNaive(), series, 90)
    line = outlook.paths[: len(outlook.paths) // 2]
    np.testing.assert_allclose(line - last, np.broadcast_to(np.arange(1, 91), line.shape), atol=0.1)

    verdict = judge(outlook, RULE, (last + 40.5) / 0.8, lead_time_days=45)
    assert verdict.verdict == "crosses"
    assert verdict.median_date == date(2027, 2, 11)
    # The ways without the common error stay flat, so one in two never crosses.
    assert verdict.interval80 == (date(2027, 2, 11), None)
    assert verdict.probability_before_lead_time == pytest.approx(0.5)


def test_growing_link_may_cross_on_the_day_it_really_does() -> None:
    """2 % a week without noise, and the future known: the early end of the interval meets it."""
    whole = weekly(134, growth_per_week=0.02, noise=0.0)
    series, future = series_of(whole[: 104 * 7]), whole[104 * 7 :]
    limit = 1.3 * float(series.values[-7:].max())
    truth = series.times[-1].date() + timedelta(days=1 + int(first_crossings(future[None, :], limit)[0]))
    verdict = judge(look_ahead(Ets(), series, 200), RULE, limit / 0.8, lead_time_days=120)
    assert verdict.verdict == "crosses"
    assert verdict.interval80 is not None and verdict.interval80[0] is not None
    assert abs((verdict.interval80[0] - truth).days) <= 7


def test_link_over_its_limit_is_already_over_and_has_no_date() -> None:
    outlook = look_ahead(SeasonalNaive(), series_of(weekly(40)), 30)
    verdict = judge(outlook, RULE, 1e9, lead_time_days=30)
    assert (verdict.verdict, verdict.median_date, verdict.interval80) == ("already_over", None, None)
    assert verdict.probability_before_lead_time == 1.0


def test_link_far_below_its_limit_never_crosses_within_the_horizon() -> None:
    outlook = look_ahead(SeasonalNaive(), series_of(weekly(40)), 30)
    verdict = judge(outlook, RULE, 100e9, lead_time_days=30)
    assert (verdict.verdict, verdict.median_date, verdict.interval80) == ("never", None, (None, None))
    assert verdict.probability_before_lead_time is not None
    assert 0 < verdict.probability_before_lead_time < 0.03


def test_link_without_a_capacity_gets_no_date_at_all() -> None:
    outlook = look_ahead(SeasonalNaive(), series_of(weekly(40)), 30)
    verdict = judge(outlook, RULE, None, lead_time_days=30)
    assert verdict.verdict == "no_capacity"
    assert (verdict.median_date, verdict.interval80, verdict.probability_before_lead_time) == (
        None,
        None,
        None,
    )


def test_short_history_shortens_the_horizon_and_says_so() -> None:
    outlook = look_ahead(SeasonalNaive(), series_of(weekly(16)), 90)
    assert outlook.horizon_days == 112 - 56 - 21
    assert "can judge 35 days ahead, not 90" in outlook.notes[-1].en
    verdict = judge(outlook, RULE, 100e9, lead_time_days=90)
    assert verdict.probability_before_lead_time is None, "the lead time lies beyond what was judged"


def test_history_too_short_for_past_paths_gives_a_date_without_an_interval() -> None:
    outlook = look_ahead(SeasonalNaive(), series_of(weekly(6)), 30)
    assert len(outlook.paths) == 0
    verdict = judge(outlook, RULE, 100e9, lead_time_days=10)
    assert (verdict.interval80, verdict.probability_before_lead_time) == (None, None)
    assert "too few for an interval" in outlook.notes[-1].en


def test_interval_of_the_date_holds_the_day_on_which_growing_links_really_cross() -> None:
    """Links with known futures that do cross: the 80 % interval holds the day in most of them.

    The twin is the habit of one line: its day, give or take a week, is the true one far less often.
    """
    held = held_by_the_line = crossed = 0
    for seed in range(28):
        whole = weekly(80, seed=seed, growth_per_week=0.01 + 0.005 * (seed % 4), noise=0.04)
        series, future = series_of(whole[:-90]), whole[-90:]
        limit = float(np.quantile(series.values[-30:], 0.95)) * (1.06 + 0.03 * (seed % 3))
        truth = int(first_crossings(future[None, :], limit)[0])
        if truth == len(future) or above_now(series.values, limit):
            continue
        outlook = look_ahead(Ets(), series, 90, most=8)
        interval = judge(outlook, RULE, limit / 0.8, lead_time_days=60).interval80
        day = local_day(series) + timedelta(days=1 + truth)
        assert interval is not None
        held += (interval[0] or date.max) <= day <= (interval[1] or date.max)
        held_by_the_line += abs(int(first_crossings(outlook.median[None, :], limit)[0]) - truth) <= 7
        crossed += 1
    assert crossed >= 12
    assert held / crossed >= 0.7
    assert held_by_the_line < held / 2


def test_rule_whose_number_nobody_read_judges_nobody() -> None:
    outlook = look_ahead(SeasonalNaive(), series_of(weekly(40)), 30)
    unread = CapacityRule(
        id="cap.unread",
        title_vi="Chưa đọc",
        title_en="Unread",
        statistic="daily_p95",
        source="this test",
        mark="U",
        verified=False,
        valid_from=date(2020, 1, 1),
    )
    with pytest.raises(ValueError, match=r"cap\.unread has no limit"):
        judge(outlook, unread, 1e9, lead_time_days=30)


def test_hourly_series_is_no_series_of_days() -> None:
    with pytest.raises(SeriesError, match="steps of 3600 s"):
        look_ahead(SeasonalNaive(), series_of(np.ones(24 * 60), step_seconds=3600), 30)
