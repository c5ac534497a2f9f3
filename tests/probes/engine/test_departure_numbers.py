"""Departures are told by number: runs of probes, gaps between them, and a count that begins anew."""

from __future__ import annotations

import numpy as np

from probes.engine.departure_numbers import RENEW_AFTER, DepartureNumbers


def test_numbers_follow_what_was_sent_over_gaps_in_the_serials() -> None:
    numbers = DepartureNumbers(100)
    numbers.sent(10, 3)
    numbers.sent(13, 2)
    numbers.sent(20, 2)  # 15 to 19 were missed
    assert numbers.serials(np.arange(7)).tolist() == [10, 11, 12, 13, 14, 20, 21]
    numbers.sent(22, 1)
    assert numbers.serials(np.array([7])).tolist() == [22]


def test_what_was_never_sent_is_no_probe() -> None:
    assert DepartureNumbers(8).serials(np.array([0, 5])).tolist() == [-1, -1]


def test_after_a_new_beginning_the_next_packet_is_number_nought() -> None:
    numbers = DepartureNumbers(100)
    numbers.sent(0, 5)
    numbers.begin_anew()
    numbers.sent(9, 1)
    assert numbers.serials(np.array([0, 1])).tolist() == [9, 1]


def test_it_is_spent_long_before_the_kernels_count_comes_round() -> None:
    numbers = DepartureNumbers(10)
    assert RENEW_AFTER < 2**32
    numbers.renew_after = 4
    numbers.sent(0, 3)
    assert not numbers.is_spent
    numbers.sent(3, 1)
    assert numbers.is_spent
    numbers.begin_anew()
    assert not numbers.is_spent
