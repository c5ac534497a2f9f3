from __future__ import annotations

import re
from string import Formatter

import pytest

from dashboards.web.status import TEMPLATES
from dashboards.web.wording import (
    TABLES,
    TECHNOLOGY_WORDS,
    VERDICT_WORDS,
    WORDS,
)
from nhip.language import Language, Text
from nhip.measurement import Outcome, StampSource, Technology
from nhip.words import OUTCOME_WORDS, STAMP_WORDS, word

ALL = [
    pytest.param(both, id=f"{table}.{key}") for table, found in TABLES.items() for key, both in found.items()
]


@pytest.mark.parametrize("both", ALL)
def test_text_exists_in_both_languages_with_the_same_places_to_fill(both: Text) -> None:
    assert set(both) == set(Language)
    assert all(both[language].strip() for language in Language)
    places = [{name for _, name, _, _ in Formatter().parse(both[language])} for language in Language]
    assert places[0] == places[1]


def test_every_code_of_the_vocabulary_has_a_word() -> None:
    assert set(OUTCOME_WORDS) == set(Outcome)
    assert set(STAMP_WORDS) == set(StampSource)
    assert set(TECHNOLOGY_WORDS) == set(Technology)
    assert set(VERDICT_WORDS) == {"conforming", "not_conforming", "too_few_samples", "limit_unverified"}


def test_a_code_of_a_newer_sender_is_shown_as_it_is() -> None:
    assert word(OUTCOME_WORDS, "abducted", Language.VIETNAMESE) == "abducted"


def test_templates_and_code_use_every_word_and_no_other() -> None:
    templates = "".join(path.read_text(encoding="utf-8") for path in TEMPLATES.glob("*.html"))
    code = "".join(path.read_text(encoding="utf-8") for path in TEMPLATES.parent.glob("*.py"))
    in_templates = set(re.findall(r"\bw\.([a-z0-9_]+)", templates))
    assert in_templates <= set(WORDS)
    unused = {key for key in set(WORDS) - in_templates if len(re.findall(rf'"{key}"', code)) < 2}
    assert unused == set(), "a word nobody shows is one nobody proofreads"


def test_templates_hold_no_text_of_their_own() -> None:
    """A word written into a template exists in one language only."""
    for path in TEMPLATES.glob("*.html"):
        source = re.sub(
            r"\{%.*?%\}|\{\{.*?\}\}|<[^>]*>", "\n", path.read_text(encoding="utf-8"), flags=re.DOTALL
        )
        words = set(re.findall(r"[^\W\d_]{2,}", source))
        assert words <= {"Nhịp"}, path.name
