import json
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest

from forecasting.capacity_rules import read_capacity_rules, rules_for
from forecasting.command import forecast_series, parse_horizon
from forecasting.csv_file import write_csv
from forecasting.render import to_json
from forecasting.resample import STATISTICS
from forecasting.simulate import SimulatedLink, simulate
from nhip.errors import SeriesError, UnknownNameError
from tests.lab.series import weekly

NOW = datetime(2026, 2, 1, tzinfo=UTC)
RULES = rules_for(read_capacity_rules(), day=date(2026, 2, 1))


class WallClock:
    """A clock that stands still."""

    def wall_ns(self) -> int:
        return int(NOW.timestamp() * 1e9)

    def mono_ns(self) -> int:
        return 0

    def sleep(self, seconds: float) -> None:
        raise AssertionError("a forecast waits for nothing")


@pytest.fixture
def hourly(tmp_path: Path) -> Path:
    frame = simulate(
        (SimulatedLink("han-hcm", 4e9), SimulatedLink("vnix", 1e8)),
        start=datetime(2025, 1, 31, 17, tzinfo=UTC),
        days=365,
    )
    path = tmp_path / "links.csv.gz"
    write_csv(frame, path)
    return path


@pytest.fixture
def measured_days(tmp_path: Path) -> Path:
    path = tmp_path / "peak.csv"
    days = np.arange(np.datetime64("2025-02-02"), np.datetime64("2025-02-02") + 364)
    rows = "\n".join(f"{day},{value:.0f}" for day, value in zip(days, weekly(52), strict=True))
    path.write_text(f"# statistic: daily_peak\n# unit: bit/s\ntimestamp,value\n{rows}\n", encoding="utf-8")
    return path


def test_hourly_file_is_answered_by_day_with_a_verdict_for_each_rule(hourly: Path) -> None:
    result = forecast_series(hourly, capacity="11Gbit/s", rules=RULES, clock=WallClock())
    assert [link.link_id for link in result.links] == ["han-hcm", "vnix"]
    link = result.links[0].as_dict()
    assert link["produced_by"] == "ets"
    assert link["provenance"] == "simulated"
    assert link["statistic"] == "daily_peak"
    assert (link["step_seconds"], len(link["times"]), len(link["median"])) == (86_400, 30, 30)
    assert link["times"][0] == "2026-01-31T17:00:00Z", "1 February, local midnight"
    assert set(link["quantiles"]) == {"0.025", "0.1", "0.5", "0.9", "0.975"}
    assert link["capacity_bits_per_second"] == 11e9
    assert link["made_at_wall_ns"] == WallClock().wall_ns()
    verdicts = {limit["rule_id"]: limit for limit in link["limits"]}
    assert set(verdicts) == {"fx.bw.intl", "fx.bw.other", "cap.intl.peak90", "cap.intl.reserve10"}
    assert verdicts["fx.bw.intl"]["limit_bits_per_second"] == pytest.approx(9.9e9)
    assert verdicts["fx.bw.intl"]["verdict"] == "never"
    assert any("cap.peer.p95" in note["en"] and "not been read" in note["en"] for note in link["notes"])


def test_answer_is_one_json_document_without_nan(hourly: Path) -> None:
    result = forecast_series(hourly, capacity="11Gbit/s", rules=RULES, clock=WallClock())
    document = json.loads(to_json(result))
    assert document["links"][0]["link_id"] == "han-hcm"
    assert document["refused"] == []


def test_link_without_a_capacity_has_verdicts_without_dates(hourly: Path) -> None:
    link = forecast_series(hourly, series_id="vnix", link_id="L7", rules=RULES, clock=WallClock()).links[0]
    published = link.as_dict()
    assert published["link_id"] == "L7"
    assert published["capacity_bits_per_second"] is None
    assert {limit["verdict"] for limit in published["limits"]} == {"no_capacity"}
    assert {limit["median_date"] for limit in published["limits"]} == {None}
    assert {limit["interval80"] for limit in published["limits"]} == {None}


def test_horizon_in_hours_is_answered_at_the_step_of_the_file(hourly: Path) -> None:
    link = forecast_series(hourly, horizon="48h", series_id="vnix", clock=WallClock()).links[0]
    assert (len(link.forecast.median), link.forecast.step_seconds, link.statistic) == (48, 3600, None)


def test_hours_from_ten_days_are_answered_though_no_rule_can_be_judged(tmp_path: Path) -> None:
    frame = simulate((SimulatedLink("a", 1e9),), start=datetime(2026, 1, 21, 17, tzinfo=UTC), days=10)
    path = tmp_path / "short.csv"
    write_csv(frame, path)
    link = forecast_series(path, horizon="24h", capacity="9Gbit/s", rules=RULES, clock=WallClock()).links[0]
    assert len(link.forecast.median) == 24
    assert link.limits == ()
    assert any("fx.bw.intl could not be judged" in note.en and "too short" in note.en for note in link.notes)
    with pytest.raises(SeriesError, match="too short: 10 steps of 86400 s"):
        forecast_series(path, horizon="30d", clock=WallClock())


def test_daily_file_is_judged_only_by_the_statistic_it_holds(measured_days: Path) -> None:
    link = forecast_series(measured_days, capacity="1.4Gbit/s", rules=RULES, clock=WallClock()).links[0]
    assert [verdict.rule.id for verdict in link.limits] == ["cap.intl.reserve10"]
    assert any(
        "fx.bw.intl needs the daily mean; the file holds the daily peak only" in note.en
        for note in link.notes
    )
    assert any("fx.bw.intl cần trung bình ngày; tệp chỉ có cao điểm ngày" in note.vi for note in link.notes)
    assert link.forecast.provenance == "measured"


def test_daily_file_that_says_nothing_is_taken_as_a_mean_and_says_so(measured_days: Path) -> None:
    text = measured_days.read_text(encoding="utf-8").replace("# statistic: daily_peak\n", "")
    measured_days.write_text(text, encoding="utf-8")
    link = forecast_series(measured_days, clock=WallClock()).links[0]
    assert link.statistic == "daily_mean"
    assert any("taken as daily mean" in note.en for note in link.notes)
    assert any("hiểu là trung bình ngày" in note.vi for note in link.notes)


def test_no_note_shows_a_code_where_people_read_a_word(measured_days: Path, hourly: Path) -> None:
    said = [
        text
        for path in (measured_days, hourly)
        for link in forecast_series(path, capacity="1.4Gbit/s", rules=RULES, clock=WallClock()).links
        for note in link.notes
        for text in (note.vi, note.en)
    ]
    assert said
    assert not [text for text in said if any(statistic in text for statistic in STATISTICS)]


def test_broken_link_is_refused_by_name_and_hides_no_other(tmp_path: Path) -> None:
    rows = [f"2026-01-{day:02d},long,{day}" for day in range(1, 32)] + ["2026-01-01,short,5"]
    path = tmp_path / "two.csv"
    path.write_text("timestamp,series_id,value\n" + "\n".join(rows) + "\n", encoding="utf-8")
    result = forecast_series(path, horizon="7d", clock=WallClock())
    assert [link.link_id for link in result.links] == ["long"]
    assert result.refused[0].series_id == "short"
    assert "too short: 1 steps" in result.refused[0].what
    with pytest.raises(SeriesError, match="'short' is too short"):
        forecast_series(path, series_id="short", clock=WallClock())


def test_history_that_ended_long_ago_says_so(measured_days: Path) -> None:
    class NextYear(WallClock):
        def wall_ns(self) -> int:
            return super().wall_ns() + 365 * 86_400 * 10**9

    link = forecast_series(measured_days, clock=NextYear()).links[0]
    assert any("ended 366 days ago" in note.en for note in link.notes)
    fresh = forecast_series(measured_days, clock=WallClock()).links[0]
    assert not any("days ago" in note.en for note in fresh.notes)


def test_volume_is_turned_into_a_rate_where_a_capacity_is_given(measured_days: Path) -> None:
    text = measured_days.read_text(encoding="utf-8").replace("unit: bit/s", "unit: MB")
    measured_days.write_text(text, encoding="utf-8")
    plain = forecast_series(measured_days, clock=WallClock()).links[0]
    rated = forecast_series(measured_days, capacity="1Tbit/s", clock=WallClock()).links[0]
    assert (plain.forecast.unit, rated.forecast.unit) == ("bytes", "bit/s")
    np.testing.assert_allclose(rated.forecast.median, plain.forecast.median * 8 / 86_400, rtol=1e-4)


def test_fallback_is_named_in_the_answer(tmp_path: Path) -> None:
    path = tmp_path / "flat.csv"
    rows = "\n".join(f"2026-01-{day:02d},7000000" for day in range(1, 32))
    path.write_text(f"timestamp,value\n{rows}\n", encoding="utf-8")
    link = forecast_series(path, model="ets", capacity="1Gbit/s", rules=RULES, clock=WallClock()).links[0]
    assert link.as_dict()["produced_by"] == "seasonal_naive"
    assert {limit["produced_by"] for limit in link.as_dict()["limits"]} == {"seasonal_naive"}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"horizon": "a month"}, "'a month' is no horizon"),
        ({"horizon": "0d"}, "'0d' is no horizon"),
        ({"horizon": "1097d"}, "the horizon '1097d' is longer than 1,096 days"),
        ({"horizon": "157w"}, "the horizon '157w' is longer than 1,096 days"),
        ({"horizon": "26305h"}, "the horizon '26305h' is longer than 1,096 days"),
        ({"lead_time_days": -1}, "a lead time of -1 days cannot be"),
        ({"lead_time_days": 3_651}, "a lead time of 3651 days cannot be"),
        ({"unit": "Gbit/s"}, "says the unit is 'bit/s', --unit says 'Gbit/s'"),
        ({"capacity": "10"}, "'10' is no rate"),
        ({"levels": (80.0,)}, "80 is no level"),
        ({"daily_statistic": "median"}, "'median' is no statistic"),
        ({"series_id": "nope"}, "no series 'nope'"),
        ({"link_id": "L1"}, "names one series"),
    ],
)
def test_wrong_question_is_refused_with_what_to_write(
    measured_days: Path, wrong: dict[str, object], says: str
) -> None:
    with pytest.raises(SeriesError, match=says) as caught:
        forecast_series(measured_days, clock=WallClock(), **wrong)  # type: ignore[arg-type]
    assert caught.value.remedy


def test_unknown_model_is_refused_with_the_known_ones(measured_days: Path) -> None:
    with pytest.raises(UnknownNameError, match="seasonal_naive"):
        forecast_series(measured_days, model="seasonal-naive", clock=WallClock())


def test_horizons_are_read_in_hours_days_and_weeks() -> None:
    assert parse_horizon("48h") == (172_800, False)
    assert parse_horizon("30d") == (2_592_000, True)
    assert parse_horizon("12w") == (7_257_600, True)
    assert parse_horizon("1096d") == (1_096 * 86_400, True)


def test_lead_time_may_be_none_at_all_and_ten_years(measured_days: Path) -> None:
    for days in (0, 3_650):
        link = forecast_series(
            measured_days, capacity="2Gbit/s", rules=RULES, lead_time_days=days, clock=WallClock()
        ).links[0]
        assert link.limits[0].lead_time_days == days


def test_rule_with_another_limit_moves_the_verdict(measured_days: Path) -> None:
    rule = next(rule for rule in RULES if rule.id == "cap.intl.reserve10")
    strict = (msgspec.structs.replace(rule, limit_ratio=0.01),)
    link = forecast_series(measured_days, capacity="2Gbit/s", rules=strict, clock=WallClock()).links[0]
    assert link.limits[0].verdict == "already_over"
