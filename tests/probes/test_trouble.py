"""A trouble that lasts is said once, each hour, and when it is over."""

from __future__ import annotations

import logging
import re

import pytest

from probes.trouble import Trouble
from tests.lab.fake_clock import FakeClock

LOG = logging.getLogger("nhip.test.trouble")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def trouble(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> Trouble:
    caplog.set_level("INFO", LOG.name)
    return Trouble("test icmp towards server", clock, LOG)


def test_an_hour_of_one_trouble_is_one_line_and_then_a_reminder_with_the_count(
    trouble: Trouble, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(121):
        trouble.happened("no SIM; plug it in")
        clock.advance(60)
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [
        ("ERROR", "test icmp towards server did not run: no SIM; plug it in"),
        ("ERROR", "test icmp towards server did not run, 60 times more: no SIM; plug it in"),
        ("ERROR", "test icmp towards server did not run, 60 times more: no SIM; plug it in"),
    ]


def test_another_reason_is_said_at_once_and_two_in_turn_are_no_flood(
    trouble: Trouble, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        for why in ("no SIM", "no carrier"):
            trouble.happened(why)
            clock.advance(1)
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["no SIM", "no carrier"]


def test_the_end_is_said_once_and_the_next_trouble_anew(
    trouble: Trouble, caplog: pytest.LogCaptureFixture
) -> None:
    trouble.ended()
    for _ in range(3):
        trouble.happened("no SIM")
    trouble.ended()
    trouble.ended()
    trouble.happened("no SIM")
    assert [(record.levelname, record.getMessage().partition("server ")[2]) for record in caplog.records] == [
        ("ERROR", "did not run: no SIM"),
        ("INFO", "runs again after 3 failures"),
        ("ERROR", "did not run: no SIM"),
    ]


def test_words_with_a_number_in_them_do_not_collect(trouble: Trouble, clock: FakeClock) -> None:
    for number in range(1000):
        trouble.happened(f"{number} octets were missing")
        clock.advance(1)
    assert len(trouble._said) == 16
    assert list(trouble._said)[-1] == "999 octets were missing"


def test_the_trace_of_a_fault_is_kept_the_first_time(
    trouble: Trouble, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            trouble.happened("internal fault", trace=True)
    assert len(re.findall("Traceback", caplog.text)) == 1
