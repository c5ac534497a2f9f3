"""Look-ups have a deadline and a bound that the C library does not give them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from nhip.errors import CannotMeasureError
from probes.line.namespace import Namespace
from probes.look_ups import LookUps, read_address
from probes.network import HostNetwork

ANSWER = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 80))


class HungResolver:
    """Answers nobody until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.asked = threading.Semaphore(0)

    def __call__(self, *_question: Any) -> list[Any]:
        self.asked.release()
        self.let_go.wait(60)
        return [ANSWER]


@pytest.fixture
def hung() -> Iterator[HungResolver]:
    found = HungResolver()
    yield found
    found.let_go.set()


def ask(look_ups: LookUps, host: str = "host.example", seconds: float = 0.02) -> list[Any]:
    return look_ups.look_up(host, 80, socket.AF_UNSPEC, namespace=None, timeout_seconds=seconds)


def test_a_look_up_gives_what_the_resolver_says() -> None:
    asked = []
    look_ups = LookUps(1, lambda *question: asked.append(question) or [ANSWER])
    assert [ask(look_ups, seconds=5) for _ in range(3)] == [[ANSWER]] * 3
    assert asked[0][:3] == ("host.example", 80, socket.AF_UNSPEC)


def test_a_resolver_that_says_no_is_no_answer_and_gives_the_place_back() -> None:
    def refuse(*_question: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "no")

    look_ups = LookUps(1, refuse)
    assert [ask(look_ups, seconds=5) for _ in range(3)] == [[], [], []]


def test_look_ups_behind_a_hung_resolver_are_bounded_and_said_to_be_stuck(hung: HungResolver) -> None:
    look_ups = LookUps(3, hung)
    before = threading.active_count()
    assert [ask(look_ups) for _ in range(3)] == [[], [], []]
    for _again in range(5):
        with pytest.raises(CannotMeasureError, match="look-ups are stuck: 3 names wait") as failure:
            ask(look_ups)
    assert "resolv.conf" in failure.value.remedy
    assert threading.active_count() == before + 3
    # An address is read and never asked for, whatever hangs.
    network = HostNetwork(look_ups=look_ups)
    found = network.resolve("127.0.0.1", 80, timeout_seconds=0.02)
    assert found is not None
    with pytest.raises(CannotMeasureError, match="stuck"):
        network.resolve("host.example", 80, timeout_seconds=0.02)


def test_once_the_resolver_works_again_so_do_look_ups(hung: HungResolver) -> None:
    look_ups = LookUps(2, hung)
    assert [ask(look_ups) for _ in range(2)] == [[], []]
    hung.let_go.set()
    assert ask(look_ups, seconds=5) == [ANSWER]


def test_a_look_up_waits_its_turn_as_long_as_its_own_deadline(hung: HungResolver) -> None:
    look_ups = LookUps(1, hung)
    found: list[Any] = []
    first = threading.Thread(target=lambda: ask(look_ups, seconds=20))
    first.start()
    assert hung.asked.acquire(timeout=20)
    second = threading.Thread(target=lambda: found.extend(ask(look_ups, seconds=20)))
    second.start()
    hung.let_go.set()
    first.join()
    second.join()
    assert found == [ANSWER]


def test_a_namespace_that_is_not_there_is_said_and_gives_the_place_back() -> None:
    look_ups = LookUps(1)
    for _ in range(2):
        with pytest.raises(CannotMeasureError, match="there is no network namespace absent"):
            look_ups.look_up(
                "host.example", 80, socket.AF_UNSPEC, namespace=Namespace("absent"), timeout_seconds=20
            )
    with pytest.raises(CannotMeasureError, match="there is no network namespace absent"):
        read_address("192.0.2.7", 80, socket.AF_UNSPEC, Namespace("absent"))


def test_an_address_whose_scope_is_no_interface_here_has_no_answer() -> None:
    assert read_address("fe80::1%absent0", 80, socket.AF_UNSPEC, None) == []
