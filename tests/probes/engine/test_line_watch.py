"""Blindness of this host: when it began, when it ended, and that flapping is one."""

from __future__ import annotations

import socket

from nhip.errors import CannotMeasureError
from nhip.measurement import Target
from probes.engine.addresses import AddressBook
from probes.engine.group import TargetList
from probes.engine.line_watch import LineWatch
from probes.network import Address, HostNetwork, Way

SECOND = 1_000_000_000


class Scripted(HostNetwork):
    """A network whose ways a test sets."""

    answer: Way | CannotMeasureError = Way("eth0", 2, 0)
    unreachable: str | None = None

    def way(self, address: Address) -> Way | None:
        if isinstance(self.answer, CannotMeasureError) or address.host == self.unreachable:
            raise (
                self.answer if isinstance(self.answer, CannotMeasureError) else CannotMeasureError("no route")
            )
        return self.answer


def watch() -> tuple[Scripted, LineWatch]:
    network = Scripted()
    targets = TargetList(Target(id=f"t{n}", host=f"192.0.2.{n}") for n in range(1, 4))
    book = AddressBook(socket.AF_INET, targets, range(3))
    for row in range(3):
        book.set(row, Address(socket.AF_INET, (f"192.0.2.{row + 1}", 0)))
    line = LineWatch("g", book, network, threshold_ns=2 * SECOND, hold_ns=3 * SECOND)
    line.look(100 * SECOND)
    return network, line


def test_a_way_that_stays_is_never_blind() -> None:
    _network, line = watch()
    line.look(101 * SECOND)
    assert (line.failure, line.blind_until_ns) == (None, -1)


def test_blindness_begins_a_threshold_before_the_last_good_look() -> None:
    network, line = watch()
    network.answer = CannotMeasureError("interface wwan0 is down")
    line.look(101 * SECOND)
    assert line.failure is network.answer
    assert (line.blind_from_ns, line.blind_until_ns) == (98 * SECOND, 101 * SECOND)
    network.answer = Way("eth0", 2, 2)
    line.look(105 * SECOND)
    assert line.failure is None
    assert (line.blind_from_ns, line.blind_until_ns) == (98 * SECOND, 105 * SECOND)
    line.look(106 * SECOND)
    assert line.blind_until_ns == 105 * SECOND


def test_a_line_that_was_gone_between_two_looks_is_noticed_by_its_carrier() -> None:
    network, line = watch()
    network.answer = Way("eth0", 2, 2)
    line.look(101 * SECOND)
    assert line.failure is None
    assert (line.blind_from_ns, line.blind_until_ns) == (98 * SECOND, 101 * SECOND)


def test_flapping_is_one_blindness_as_long_as_probes_of_the_first_are_not_settled() -> None:
    network, line = watch()
    for at in (101, 103):
        network.answer = Way("eth0", 2, at)
        line.look(at * SECOND)
    assert (line.blind_from_ns, line.blind_until_ns) == (98 * SECOND, 103 * SECOND)
    line.look(140 * SECOND)
    network.answer = Way("eth0", 2, 9)
    line.look(141 * SECOND)
    assert (line.blind_from_ns, line.blind_until_ns) == (138 * SECOND, 141 * SECOND)


def test_a_target_without_a_route_blinds_nobody() -> None:
    network, line = watch()
    network.unreachable = "192.0.2.1"
    line.look(101 * SECOND)
    assert line.failure is None


def test_the_kernel_is_not_asked_all_the_time() -> None:
    network, line = watch()
    network.answer = CannotMeasureError("down")
    line.look(100 * SECOND + 1)
    assert line.failure is None
    line.look(100 * SECOND + 2, at_once=True)
    assert line.failure is not None
