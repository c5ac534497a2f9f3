"""A log that no sender can forge or flood."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from collector.logs import LINES_PER_PERIOD, PERIOD_SECONDS, JsonLines, Throttle


class Bench:
    def __init__(self) -> None:
        self.now = 0.0
        self.output = io.StringIO()
        self.logger = logging.Logger("nhip.test")
        handler = logging.StreamHandler(self.output)
        handler.setFormatter(JsonLines())
        handler.addFilter(Throttle(lambda: self.now))
        self.logger.addHandler(handler)

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.output.getvalue().splitlines()]


@pytest.fixture
def bench() -> Iterator[Bench]:
    yield Bench()


def test_an_event_is_one_line_of_json_with_its_fields(bench: Bench) -> None:
    bench.logger.info("batch %s", "stored", extra={"probe": "p1", "records": 3})
    [line] = bench.lines()
    assert (line["event"], line["level"], line["probe"], line["records"]) == ("batch stored", "info", "p1", 3)


def test_no_text_makes_a_second_line_or_moves_the_terminal(bench: Bench) -> None:
    bench.logger.info('x\n{"event": "forged"}\x1b[2J\u2028\ud800', extra={"probe": "a\nb"})
    text = bench.output.getvalue()
    assert text.count("\n") == 1
    assert text.strip().isprintable() and text.isascii()


def test_an_exception_stays_on_its_line(bench: Bench) -> None:
    try:
        raise ValueError("a\nb")
    except ValueError:
        bench.logger.exception("failed")
    [line] = bench.lines()
    assert "ValueError" in str(line["exception"])


def test_a_flood_of_the_same_message_is_written_a_few_times_and_then_counted(bench: Bench) -> None:
    for _ in range(5000):
        bench.logger.warning("refused %s", "x")
    assert len(bench.lines()) == LINES_PER_PERIOD
    bench.now += PERIOD_SECONDS
    bench.logger.warning("refused %s", "x")
    assert bench.lines()[-1]["suppressed"] == 5000 - LINES_PER_PERIOD


def test_other_messages_are_not_held_back_by_a_flood(bench: Bench) -> None:
    for _ in range(5000):
        bench.logger.warning("refused")
    bench.logger.error("disk full")
    assert bench.lines()[-1]["event"] == "disk full"


def test_messages_made_of_free_text_do_not_fill_the_memory(bench: Bench) -> None:
    throttle = Throttle(lambda: 0.0)
    for number in range(10_000):
        throttle.filter(logging.LogRecord("x", 30, "", 0, f"free {number}", (), None))
    assert len(throttle._seen) <= 1_001
