"""What a jitter buffer plays, discards and adds, on streams whose answer is known by hand."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nhip.jitter_buffer import (
    AdaptiveBuffer,
    Anchor,
    Fate,
    FixedBuffer,
    JitterBuffer,
    Passage,
    delay_variations_seconds,
    play,
    rtp_jitter_seconds,
)
from nhip.statistics import quantile

MS = 1_000_000


def stream(transits_ms: list[float | None], *, offset_ms: float = 0.0, gap_ms: float = 20.0) -> list[Passage]:
    """One packet each `gap_ms`; clocks `offset_ms` apart."""
    return [
        Passage(
            round(number * gap_ms * MS),
            None if transit is None else round((number * gap_ms + transit) * MS) + round(offset_ms * MS),
        )
        for number, transit in enumerate(transits_ms)
    ]


class TestFixedBuffer:
    def test_plays_what_comes_within_its_delay_and_discards_the_rest(self) -> None:
        playout = play(stream([10, 50, 50.1, None, 10]), FixedBuffer(delay_seconds=0.04))
        assert playout.fates == (Fate.PLAYED, Fate.PLAYED, Fate.DISCARDED, Fate.LOST, Fate.PLAYED)
        assert (playout.played, playout.discarded) == (3, 1)
        assert playout.discard_ratio == 1 / 4
        assert playout.loss_ratio == 2 / 5
        assert playout.delay_seconds == pytest.approx(0.04)

    def test_from_the_first_packet_depends_on_that_packet_s_luck(self) -> None:
        transits: list[float | None] = [25, 10, 60, 10]
        fastest = play(stream(transits), FixedBuffer(delay_seconds=0.04))
        first = play(stream(transits), FixedBuffer(delay_seconds=0.04, anchor=Anchor.FIRST))
        assert fastest.discarded == 1
        assert first.discarded == 0
        assert first.delay_seconds == pytest.approx(0.055)

    def test_of_no_delay_discards_whatever_is_slower_than_the_fastest(self) -> None:
        assert play(stream([10, 10.001, 10]), FixedBuffer(delay_seconds=0.0)).discarded == 1


@pytest.mark.parametrize("buffer", [FixedBuffer(), AdaptiveBuffer()])
class TestAnyBuffer:
    @pytest.mark.parametrize("offset_ms", [-3_600_000, -7.5, 1_700_000_000_000])
    def test_an_unknown_offset_between_the_clocks_changes_nothing(
        self, buffer: JitterBuffer, offset_ms: float
    ) -> None:
        rng = random.Random(3)
        transits = [None if rng.random() < 0.1 else rng.expovariate(1 / 25) for _ in range(400)]
        assert play(stream(transits, offset_ms=offset_ms), buffer) == play(stream(transits), buffer)

    def test_a_stream_of_which_nothing_came_has_no_delay_and_all_loss(self, buffer: JitterBuffer) -> None:
        playout = play(stream([None] * 5), buffer)
        assert playout.delay_seconds is None
        assert playout.discard_ratio is None
        assert playout.loss_ratio == 1.0
        assert playout.underruns == 5

    def test_an_empty_stream_has_no_numbers(self, buffer: JitterBuffer) -> None:
        playout = play([], buffer)
        assert (playout.loss_ratio, playout.discard_ratio, playout.delay_seconds) == (None, None, None)

    def test_a_perfect_stream_is_played_whole(self, buffer: JitterBuffer) -> None:
        playout = play(stream([30.0] * 500), buffer)
        assert playout.played == 500
        assert playout.underruns == 0

    @pytest.mark.parametrize("seed", range(20))
    def test_every_packet_has_one_fate_and_the_books_add_up(self, buffer: JitterBuffer, seed: int) -> None:
        rng = random.Random(seed)
        transits = [
            None if rng.random() < 0.05 else 20 + rng.paretovariate(1.5) * 4
            for _ in range(rng.randrange(1, 600))
        ]
        playout = play(stream(transits), buffer)
        assert len(playout.fates) == len(transits)
        assert playout.fates.count(Fate.LOST) == transits.count(None)
        assert playout.underruns <= len(transits) - playout.played
        if playout.delay_seconds is not None:
            assert playout.delay_seconds >= 0


class TestAdaptiveBuffer:
    def test_settles_low_on_a_quiet_line(self) -> None:
        rng = random.Random(1)
        playout = play(stream([30 + rng.uniform(0, 1) for _ in range(500)]), AdaptiveBuffer())
        assert playout.discarded == 0
        assert playout.delay_seconds is not None
        assert playout.delay_seconds < 0.025

    def test_grows_on_a_line_that_jitters_and_loses_less_than_a_fixed_one(self) -> None:
        rng = random.Random(2)
        packets = stream([30 + rng.uniform(0, 120) for _ in range(1500)])
        adaptive, fixed = play(packets, AdaptiveBuffer()), play(packets, FixedBuffer(delay_seconds=0.04))
        assert fixed.discard_ratio is not None
        assert fixed.discard_ratio > 0.5
        assert adaptive.discard_ratio is not None
        assert adaptive.discard_ratio < 0.1
        assert adaptive.delay_seconds is not None
        assert 0.08 < adaptive.delay_seconds < 0.2

    def test_never_plays_beyond_its_maximum(self) -> None:
        rng = random.Random(2)
        packets = stream([30 + rng.uniform(0, 900) for _ in range(1000)])
        buffer = AdaptiveBuffer(maximum_seconds=0.15)
        offsets = buffer.offsets_ns(packets)
        fastest = min(passage.arrived_ns - passage.sent_ns for passage in packets if passage.arrived_ns)
        # The fastest so far is never faster than the fastest of all, by at most what the first second missed.
        assert max(offsets[100:]) <= fastest + 0.15e9 + 60 * MS

    def test_changes_its_delay_only_between_talk_spurts(self) -> None:
        rng = random.Random(5)
        offsets = AdaptiveBuffer().offsets_ns(stream([30 + rng.uniform(0, 80) for _ in range(500)]))
        spurts = [set(offsets[start : start + 50]) for start in range(0, 500, 50)]
        assert all(len(spurt) == 1 for spurt in spurts)
        assert len({offset for spurt in spurts for offset in spurt}) > 5

    def test_follows_a_delay_spike_up_and_comes_down_when_it_is_over(self) -> None:
        """A spike of 400 ms for 1.2 s that ends as queues do, packet by packet."""
        spike: list[float | None] = [430.0] * 60 + [430.0 - 20 * step for step in range(20)]
        transits: list[float | None] = [30.0] * 100 + spike + [30.0] * 200
        buffer = AdaptiveBuffer(maximum_seconds=0.6)
        offsets = buffer.offsets_ns(stream(transits))
        assert max(offsets) > 400 * MS
        assert offsets[-1] < 80 * MS

    def test_knows_nothing_of_packets_that_have_not_arrived_yet(self) -> None:
        """The play-out of the past must not change with the future."""
        rng = random.Random(9)
        transits: list[float | None] = [30 + rng.uniform(0, 60) for _ in range(400)]
        whole = AdaptiveBuffer().offsets_ns(stream(transits))
        quiet_end = AdaptiveBuffer().offsets_ns(stream(transits[:200] + [30.0] * 200))
        assert whole[:200] == quiet_end[:200]


class TestUnderrun:
    def test_a_gap_with_a_later_packet_waiting_is_no_underrun(self) -> None:
        # The third packet is there 40 ms before the second would be played.
        assert play(stream([10, None, 10]), FixedBuffer(delay_seconds=0.06)).underruns == 0

    def test_a_gap_with_an_empty_buffer_is_one(self) -> None:
        assert play(stream([10, None, 10]), FixedBuffer(delay_seconds=0.005)).underruns == 1

    def test_the_last_packet_lost_is_one(self) -> None:
        assert play(stream([10, 10, None]), FixedBuffer(delay_seconds=0.06)).underruns == 1


class TestRtpJitter:
    def test_is_the_sum_of_sixteenths_of_rfc_3550(self) -> None:
        # D: +16 ms, −16 ms. J: 1, then 1 + (16 − 1)/16 = 1.9375 ms.
        assert rtp_jitter_seconds(stream([10, 26, 10])) == pytest.approx(1.9375e-3)

    def test_of_a_constant_transit_is_zero_and_of_one_packet_is_undefined(self) -> None:
        assert rtp_jitter_seconds(stream([10, 10, 10])) == 0.0
        assert rtp_jitter_seconds(stream([10, None])) is None
        assert rtp_jitter_seconds([]) is None

    def test_takes_neighbours_by_arrival_across_a_loss(self) -> None:
        assert rtp_jitter_seconds(stream([10, None, 26])) == pytest.approx(1e-3)

    def test_takes_reordered_packets_as_they_arrived(self) -> None:
        # Transits 50 and 10 at a gap of 20 ms: the second arrives first.
        assert rtp_jitter_seconds(stream([50, 10])) == pytest.approx(40e-3 / 16)

    @given(st.lists(st.floats(0, 500), min_size=2, max_size=200))
    def test_is_never_more_than_the_largest_step(self, transits: list[float]) -> None:
        packets = stream(list(transits))
        jitter = rtp_jitter_seconds(packets)
        assert jitter is not None
        assert 0 <= jitter <= 0.5


def test_delay_variation_is_what_lies_above_the_fastest() -> None:
    assert delay_variations_seconds(stream([12, None, 10, 15], offset_ms=-5000)) == pytest.approx(
        [0.002, 0.0, 0.005]
    )
    assert delay_variations_seconds(stream([12])) == []


def test_the_median_of_an_odd_count_is_the_middle_one() -> None:
    """Another tool took the one after it; this file's numbers rest on the same function."""
    assert quantile([3.0], 0.5) == 3.0
    assert quantile([1.0, 3.0, 2.0], 0.5) == 2.0
    assert quantile([5.0, 1.0, 4.0, 2.0, 3.0], 0.5) == 3.0
