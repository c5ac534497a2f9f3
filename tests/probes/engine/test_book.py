"""The books balance: every probe is booked once, received is never more than sent, windows are whole."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from probes.engine import fate
from probes.engine.book import NO_DELAY, Book, Settled, Windows

KINDS = (
    *(fate.RECEIVED, fate.LOST, fate.LATE, fate.CORRUPT, fate.UNREACHABLE, fate.REFUSED),
    *(fate.NOT_RESOLVED, fate.NOT_SENT),
)


def settled(targets: list[int], rounds: list[int], kinds: list[int], duplicates: list[int]) -> Settled:
    count = len(targets)
    status = np.array(kinds, np.uint8)
    delays = np.where(status == fate.RECEIVED, np.arange(1, count + 1), NO_DELAY)
    return Settled(
        targets=np.array(targets, np.int64),
        rounds=np.array(rounds, np.int64),
        status=status,
        delays_ns=delays.astype(np.uint32),
        lags_us=np.arange(count).astype(np.uint16),
        duplicates=np.array(duplicates, np.uint8),
        handed_ns=np.arange(count, dtype=np.int64) * 1000,
    )


def test_a_window_comes_when_its_last_probe_is_settled_and_not_before() -> None:
    book, missed = Book(2, 3), np.zeros(2, np.int64)
    assert book.settle(settled([0, 1, 0], [0, 0, 1], [fate.RECEIVED] * 3, [0] * 3), 5, missed) == []
    windows = book.settle(settled([0], [2], [fate.LOST], [2]), 9, missed)
    assert len(windows) == 1
    assert windows[0].targets.tolist() == [0]
    assert windows[0].status.tolist() == [[fate.RECEIVED, fate.RECEIVED, fate.LOST]]
    assert windows[0].duplicates.tolist() == [2]
    assert windows[0].ended_ns.tolist() == [9]


def test_probes_of_the_next_window_in_the_same_block_go_into_the_next_window() -> None:
    book, missed = Book(1, 2), np.array([7])
    windows = book.settle(settled([0] * 5, list(range(5)), [fate.RECEIVED] * 5, [0] * 5), 1, missed)
    assert [window.delays_ns.tolist() for window in windows] == [[[1, 2]], [[3, 4]]]
    assert [window.started_ns.tolist() for window in windows] == [[0], [2000]]
    assert [window.missed.tolist() for window in windows] == [[7], [0]]
    (rest,) = book.rest(2, missed)
    assert rest.status.tolist() == [[fate.RECEIVED, fate.OPEN]]
    assert list(book.rest(3, missed)) == []


def test_replies_never_outnumber_requests_whatever_arrives() -> None:
    """As smokeping_prober once had it: duplicates counted as responses gave a negative loss."""
    book = Book(1, 4)
    missed = np.zeros(1, np.int64)
    book.settle(settled([0] * 4, [0, 1, 2, 3], [fate.RECEIVED] * 4, [255, 255, 3, 0]), 1, missed)
    totals = book.totals
    assert (totals.sent, totals.received, totals.lost, totals.duplicate) == (4, 4, 0, 513)


@given(st.data())
def test_every_probe_is_in_one_window_and_in_the_totals_once(data: st.DataObject) -> None:
    targets_count = data.draw(st.integers(1, 4))
    rounds_in_window = data.draw(st.integers(1, 5))
    order = data.draw(st.lists(st.integers(0, targets_count - 1), max_size=60))
    kinds = data.draw(st.lists(st.sampled_from(KINDS), min_size=len(order), max_size=len(order)))
    duplicates = data.draw(st.lists(st.integers(0, 255), min_size=len(order), max_size=len(order)))
    rounds, next_round = [], [0] * targets_count
    for target in order:
        rounds.append(next_round[target])
        next_round[target] += 1
    book, missed = Book(targets_count, rounds_in_window), np.zeros(targets_count, np.int64)
    windows: list[Windows] = []
    first, received_before = 0, 0
    while first < len(order):
        upto = first + data.draw(st.integers(1, 20))
        part = settled(order[first:upto], rounds[first:upto], kinds[first:upto], duplicates[first:upto])
        windows += book.settle(part, upto, missed)
        assert received_before <= book.totals.received <= book.totals.sent  # counters never run backwards
        received_before = book.totals.received
        first = upto
    whole = len(windows)
    windows += book.rest(99, missed)
    seen: dict[int, list[int]] = {target: [] for target in range(targets_count)}
    for number, window in enumerate(windows):
        for row, target in enumerate(window.targets.tolist()):
            booked = [kind for kind in window.status[row].tolist() if kind != fate.OPEN]
            if number < whole:
                assert len(booked) == rounds_in_window
            seen[target] += booked
    for target in range(targets_count):
        assert seen[target] == [kind for at, kind in zip(order, kinds, strict=True) if at == target]
    totals = book.totals
    assert [totals.of(kind) for kind in KINDS] == [kinds.count(kind) for kind in KINDS]
    assert totals.sent == totals.received + totals.lost + totals.failed
    assert totals.sent + totals.of(fate.NOT_SENT) == len(order)
    assert totals.duplicate == sum(duplicates) == sum(int(window.duplicates.sum()) for window in windows)
