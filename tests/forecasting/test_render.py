from datetime import UTC, datetime

import pytest

from forecasting.capacity_rules import read_capacity_rules
from forecasting.command import ForecastResult, Question, answer
from forecasting.models.seasonal_naive import SeasonalNaive
from forecasting.render import render_table
from forecasting.resample import STATISTICS
from forecasting.simulate import SimulatedLink, simulate
from nhip.language import TRAFFIC_STATISTICS, Language

NOW_NS = int(datetime(2026, 1, 31, 17, tzinfo=UTC).timestamp() * 1e9)


@pytest.fixture
def result() -> ForecastResult:
    frame = simulate((SimulatedLink("han-hcm", 4e9),), start=datetime(2025, 5, 31, 17, tzinfo=UTC), days=245)
    question = Question(
        horizon_seconds=3 * 86_400,
        by_day=True,
        capacity_bits_per_second=10.5e9,
        levels=(0.8,),
        rules=read_capacity_rules(),
        lead_time_days=60,
        daily_statistic=None,
    )
    return answer(frame, question, SeasonalNaive(), NOW_NS)


def test_vietnamese_table_has_decimal_commas_and_the_day_first(result: ForecastResult) -> None:
    text = render_table(result, Language.VIETNAMESE)
    assert "dung lượng: 10,50 Gbit/s" in text
    assert text.startswith("kênh: han-hcm ")
    assert "01/02/2026" in text
    assert "mô hình: seasonal_naive" in text
    assert "cao điểm ngày, Gbit/s" in text
    assert "." not in text.split("***")[2].split("fx.bw.intl")[0], "no decimal point among the numbers"


def test_english_table_has_decimal_points_and_iso_dates(result: ForecastResult) -> None:
    text = render_table(result, Language.ENGLISH)
    assert "capacity: 10.50 Gbit/s" in text
    assert "2026-02-01" in text
    assert "daily peak ≤ 90 % = 9.45 Gbit/s" in text


def test_simulated_history_is_labelled_in_both_languages(result: ForecastResult) -> None:
    assert "*** mô phỏng:" in render_table(result, Language.VIETNAMESE)
    assert "*** simulated:" in render_table(result, Language.ENGLISH)


def test_limit_nobody_checked_says_so(result: ForecastResult) -> None:
    assert render_table(result, Language.VIETNAMESE).count("[chưa đối chiếu văn bản]") == 4
    assert render_table(result, Language.ENGLISH).count("[not checked against the legal text]") == 4


def test_verdict_is_a_sentence_with_its_interval_or_in_plain_words(result: ForecastResult) -> None:
    text = render_table(result, Language.VIETNAMESE)
    assert "không chạm ngưỡng trong 60 ngày tới" in text
    assert "xác suất" in text
    told = [line for line in text.splitlines() if "→" in line]
    assert len(told) == 4


def test_every_word_exists_in_both_languages() -> None:
    from forecasting.render import _WORDS

    assert set(_WORDS[Language.VIETNAMESE]) == set(_WORDS[Language.ENGLISH])


def test_numbers_are_rounded_only_here(result: ForecastResult) -> None:
    shown = render_table(result, Language.ENGLISH)
    exact = float(result.links[0].forecast.median[0])
    assert f"{exact / 1e9:.2f}" in shown
    assert result.links[0].as_dict()["median"][0] == exact


def test_every_statistic_has_a_word() -> None:
    assert {*STATISTICS, "steps"} == set(TRAFFIC_STATISTICS)
