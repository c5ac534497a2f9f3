from datetime import date
from pathlib import Path

import pytest

from forecasting.capacity_rules import read_capacity_rules, rules_for
from nhip.config import check, shipped
from nhip.errors import ConfigError

ONE = """format = "nhip-capacity-rules/1"

[[rules]]
id = "a"
title_vi = "Một"
title_en = "One"
statistic = "daily_mean"
limit_ratio = 0.9
source = "a test"
mark = "U"
verified = false
valid_from = 2020-03-01
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_shipped_rules_carry_what_was_read_and_claim_nothing_more() -> None:
    rules = {rule.id: rule for rule in read_capacity_rules()}
    assert rules["fx.bw.intl"].limit_ratio == 0.9
    assert rules["fx.bw.other"].limit_ratio == 0.8
    assert rules["cap.intl.peak90"].statistic == "busy_hour"
    assert rules["cap.peer.p95"].limit_ratio is None
    assert not any(rule.verified for rule in rules.values())
    assert all(rule.title_vi and rule.title_en and rule.source for rule in rules.values())


def test_shipped_rules_pass_the_common_check_of_configuration() -> None:
    assert check(shipped("regulations/capacity_rules.toml")) == "nhip-capacity-rules/1"


def test_rule_is_chosen_by_day_and_class_of_link() -> None:
    rules = read_capacity_rules()
    on_2021 = {rule.id for rule in rules_for(rules, day=date(2021, 6, 1), link_class="international")}
    assert on_2021 == {"fx.bw.intl"}
    on_2026 = {rule.id for rule in rules_for(rules, day=date(2026, 6, 1), link_class="international")}
    assert on_2026 == {"fx.bw.intl", "cap.intl.peak90", "cap.intl.reserve10"}
    assert rules_for(rules, day=date(2019, 1, 1)) == ()
    assert len(rules_for(rules, day=date(2026, 6, 1))) == len(rules)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("limit_ratio", "limit_raito"), r"limit_raito: is no key.*did you mean 'limit_ratio'"),
        (("0.9", "90"), r"limit_ratio.*90"),
        (("daily_mean", "daily_median"), r"statistic.*daily_median"),
        (("verified = false", "verified = true"), r"a is marked U and verified at once"),
        (('id = "a"\n', ""), r"id: is missing"),
        (("2020-03-01", '"soon"'), r"valid_from"),
        (("rules/1", "rules/9"), r"format"),
    ],
)
def test_wrong_rule_is_refused_with_file_and_key(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    path = written(tmp_path, ONE.replace(*change))
    with pytest.raises(ConfigError, match=says) as caught:
        read_capacity_rules(path)
    assert str(path) in caught.value.what


def test_two_rules_of_one_id_are_refused(tmp_path: Path) -> None:
    twice = ONE + ONE.split("\n", 2)[2]
    with pytest.raises(ConfigError, match="'a' is there twice"):
        read_capacity_rules(written(tmp_path, twice))
