"""``nhip sweep``: a list in, a table or a document out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from nhip.cli import main
from nhip.language import Language
from probes.engine.sweep import _WORDS

ARGUMENTS = ["--for", "0.4", "--interval", "0.1", "--timeout", "0.1", "--maximum", "1000"]


@pytest.fixture
def targets(tmp_path: Path) -> str:
    path = tmp_path / "targets.txt"
    path.write_text("127.0.0.1\nhome ::1\nlocalhost\n")
    return str(path)


def test_the_document_has_each_target_in_order_and_the_engines_own_figures(icmp: None, targets: str) -> None:
    done = CliRunner().invoke(main, ["sweep", targets, *ARGUMENTS, "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert [entry["target"]["id"] for entry in document["targets"]] == ["127.0.0.1", "home", "localhost"]
    for entry in document["targets"]:
        assert entry["counters"]["lost"] == 0
        assert entry["counters"]["received"] == entry["counters"]["sent"] >= 3
    engine = document["engine"]
    assert engine["received"] == sum(entry["counters"]["received"] for entry in document["targets"])
    assert engine["in_flight"] == 0


@pytest.mark.parametrize(("language", "word"), [("vi", "Đích"), ("en", "Target")])
def test_the_table_speaks_both_languages(icmp: None, targets: str, language: str, word: str) -> None:
    done = CliRunner().invoke(main, ["--lang", language, "sweep", targets, *ARGUMENTS])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith(word)
    assert [line.split()[0] for line in lines[1:4]] == ["127.0.0.1", "home", "localhost"]


def test_only_the_worst_are_shown_when_there_are_many(icmp: None, targets: str) -> None:
    done = CliRunner().invoke(main, ["--lang", "en", "sweep", targets, *ARGUMENTS, "--worst", "1"])
    assert "(the worst 1 of 3 targets)" in done.stdout


def test_a_list_may_come_by_the_pipe(icmp: None) -> None:
    done = CliRunner().invoke(main, ["sweep", "-", *ARGUMENTS], input="127.0.0.9\n")
    assert done.exit_code == 0, done.output
    assert "127.0.0.9" in done.stdout


def test_nobody_answering_is_exit_code_one(icmp: None) -> None:
    done = CliRunner().invoke(main, ["sweep", "-", *ARGUMENTS], input="no-such-host.invalid\n127.0.0.1\n")
    assert done.exit_code == 0
    done = CliRunner().invoke(main, ["sweep", "-", *ARGUMENTS], input="no-such-host.invalid\n")
    assert done.exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--maximum", "5"], "can do 5"),
        (["--size", "20"], "nhip sweep: --size 20: expected"),
        (["--interface", "wwan7"], "wwan7"),
        (["--interval", "0"], "nhip sweep: --interval 0.0: expected"),
        (["--source", "x"], "nhip sweep: --source 'x': is no address"),
        (["--netns", "absent"], "no network namespace absent"),
    ],
)
def test_what_cannot_be_done_is_exit_code_two_and_says_why(
    icmp: None, targets: str, arguments: list[str], said: str
) -> None:
    done = CliRunner().invoke(main, ["sweep", targets, *ARGUMENTS, *arguments])
    assert done.exit_code == 2
    assert said in done.stderr


def test_every_word_exists_in_both_languages() -> None:
    for words in _WORDS.values():
        assert all(words[language] for language in Language)
