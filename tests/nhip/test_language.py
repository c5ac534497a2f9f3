"""Words and numbers in both languages."""

from __future__ import annotations

import re
from datetime import date

import pytest

from nhip import language, measure_table
from nhip.language import (
    TRAFFIC_STATISTICS,
    Language,
    day,
    megabits,
    milliseconds,
    number,
    percent,
    preferred,
    rate,
    text,
)
from nhip.measurement import Statistic
from tests.lab.samples import MS, received, sample

VI, EN = Language.VIETNAMESE, Language.ENGLISH


@pytest.mark.parametrize(
    ("value", "decimals", "vi", "en"),
    [
        (1234.5, 1, "1.234,5", "1,234.5"),
        (0.0, 2, "0,00", "0.00"),
        (1_000_000.0, 0, "1.000.000", "1,000,000"),
        (-1234.567, 2, "-1.234,57", "-1,234.57"),
    ],
)
def test_numbers_are_written_as_each_language_does(value: float, decimals: int, vi: str, en: str) -> None:
    assert number(value, decimals, VI) == vi
    assert number(value, decimals, EN) == en


@pytest.mark.parametrize(
    "written",
    [number(None, 2, VI), milliseconds(None, EN), percent(None, VI), megabits(None, EN), rate(None, VI)],
)
def test_what_does_not_exist_is_a_dash_and_never_zero(written: str) -> None:
    assert written == "–"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.000_123, "0.123 ms"), (0.0123, "12.30 ms"), (0.123, "123.0 ms"), (2, "2,000.0 ms")],
)
def test_a_delay_has_as_many_decimals_as_it_deserves(seconds: float, shown: str) -> None:
    assert milliseconds(seconds, EN) == shown


def test_a_ratio_is_shown_in_percent() -> None:
    assert percent(1 / 300, EN) == "0.33 %"
    assert percent(1 / 300, VI) == "0,33 %"
    assert percent(1.0, EN) == "100.00 %"


def test_a_speed_is_shown_in_megabits() -> None:
    assert megabits(52_345_678, EN) == "52.35 Mbit/s"
    assert megabits(1_234_567, VI) == "1,235 Mbit/s"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, EN),
        ({"LANG": "vi_VN.UTF-8"}, VI),
        ({"LANG": "en_GB.UTF-8"}, EN),
        ({"LANG": "vi_VN.UTF-8", "LC_ALL": "C"}, EN),
        ({"LC_MESSAGES": "vi_VN", "LANG": "en_US"}, VI),
        ({"NHIP_LANGUAGE": "vi", "LC_ALL": "en_US.UTF-8"}, VI),
        ({"NHIP_LANGUAGE": "", "LANG": "vi"}, VI),
    ],
)
def test_the_preferred_language_follows_the_environment(
    environment: dict[str, str], expected: Language
) -> None:
    assert preferred(environment) is expected


def test_a_text_has_both_languages() -> None:
    assert text("gửi", "sent") == {VI: "gửi", EN: "sent"}


@pytest.mark.parametrize("word", measure_table._WORDS)
def test_every_word_of_the_measure_table_is_in_both_languages(word: str) -> None:
    both = measure_table._WORDS[word]
    assert set(both) == set(Language)
    assert all(both.values())
    assert both[VI] != both[EN]


def test_vietnamese_is_written_with_its_signs() -> None:
    words = [both[VI] for both in measure_table._WORDS.values()]
    assert sum(bool(re.search(r"[^\x00-\x7f]", word)) for word in words) >= len(words) - 1  # "Pha" has none


def test_the_module_knows_two_languages() -> None:
    assert {str(item) for item in language.Language} == {"vi", "en"}


def test_a_ratio_that_is_not_zero_never_reads_as_zero() -> None:
    assert percent(1e-5, Language.ENGLISH) == "< 0.01 %"
    assert percent(1e-5, Language.VIETNAMESE) == "< 0,01 %"
    assert percent(0.0, Language.ENGLISH) == "0.00 %"
    assert percent(0.0001, Language.ENGLISH) == "0.01 %"


@pytest.mark.parametrize(
    ("bits_per_second", "vi", "en"),
    [
        (0.0, "0 bit/s", "0 bit/s"),
        (999.4, "999 bit/s", "999 bit/s"),
        (64_000.0, "64,00 kbit/s", "64.00 kbit/s"),
        (999_960.0, "1,00 Mbit/s", "1.00 Mbit/s"),
        (123_456_789.0, "123,5 Mbit/s", "123.5 Mbit/s"),
        (10.5e9, "10,50 Gbit/s", "10.50 Gbit/s"),
        (2.5e12, "2,50 Tbit/s", "2.50 Tbit/s"),
    ],
)
def test_a_rate_chooses_the_unit_that_keeps_it_short(bits_per_second: float, vi: str, en: str) -> None:
    assert rate(bits_per_second, VI) == vi
    assert rate(bits_per_second, EN) == en


def test_a_day_is_written_as_each_language_does() -> None:
    assert day(date(2026, 2, 1), VI) == "01/02/2026"
    assert day(date(2026, 2, 1), EN) == "2026-02-01"


def test_every_statistic_of_traffic_has_a_word_in_both_languages() -> None:
    for both in TRAFFIC_STATISTICS.values():
        assert set(both) == set(Language)
        assert "_" not in both[VI] + both[EN]


@pytest.mark.parametrize(
    ("language", "band"), [(VI, "nhiều người không hài lòng"), (EN, "many users dissatisfied")]
)
def test_an_opinion_score_says_what_it_means_to_people(language: Language, band: str) -> None:
    score = Statistic(name="mos", value=3.2, unit="score", count=100, definition="ITU-T G.107", of="g711/up")
    row = next(
        line
        for line in measure_table.table(sample([received(0, MS)], statistics=(score,)), language).splitlines()
        if "G.107" in line
    )
    assert band in row
