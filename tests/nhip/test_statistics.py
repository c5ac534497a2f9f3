"""The statistics against other implementations, RFC definitions and the mistakes other products made."""

from __future__ import annotations

import dataclasses
import math
import random
import statistics as standard
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nhip import statistics
from nhip.measurement import Direction, OneWayDelay, Outcome, Singleton, StampSource
from tests.lab.samples import MS, at, other, received, stream

KERNEL = StampSource.KERNEL
# Smaller than numpy.float64's 2^-52 times the largest delay here; bigger differences are real.
ROUNDING = 1e-12

delays = st.integers(min_value=0, max_value=120_000 * MS)
fates = st.one_of(
    st.builds(lambda delay: ("received", delay), delays),
    st.sampled_from([(outcome.value, None) for outcome in Outcome if outcome is not Outcome.RECEIVED]),
)
floats = st.lists(st.floats(min_value=0, max_value=1e6), min_size=1, max_size=60)


def singletons_of(drawn: list[tuple[str, int | None]]) -> list[Singleton]:
    return [
        received(sequence, delay) if delay is not None else other(sequence, Outcome(word))
        for sequence, (word, delay) in enumerate(drawn)
    ]


samples = st.lists(fates, max_size=40).map(singletons_of)


# Quantiles


@pytest.mark.parametrize("probability", [0, 0.01, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1])
@given(values=floats)
def test_a_quantile_is_what_numpy_says(values: list[float], probability: float) -> None:
    numpy = pytest.importorskip("numpy")
    expected = float(numpy.quantile(values, probability))
    found = statistics.quantile(values, probability)
    assert found == pytest.approx(expected, rel=1e-12, abs=ROUNDING)


@pytest.mark.parametrize(
    ("values", "median"), [([7.0], 7.0), ([1.0, 5.0, 9.0], 5.0), ([5.0, 1.0, 4.0, 2.0, 3.0], 3.0)]
)
def test_the_median_of_an_odd_number_is_the_middle_one(values: list[float], median: float) -> None:
    # Taking element n/2 + 1 instead gave one regulator's tool the second largest of three.
    assert statistics.quantile(values, 0.5) == median


def test_the_median_of_an_even_number_lies_between_the_two_in_the_middle() -> None:
    assert statistics.quantile([1.0, 2.0, 4.0, 10.0], 0.5) == 3.0


def test_a_quantile_of_nothing_does_not_exist() -> None:
    assert statistics.quantile([], 0.5) is None
    assert statistics.mean([]) is None
    assert statistics.summary([], "seconds") is None


@pytest.mark.parametrize("probability", [-0.01, 1.01, 95.0, math.nan])
def test_a_probability_in_percent_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        statistics.quantile([1.0], probability)


@given(values=floats)
def test_a_summary_is_in_order_and_holds_its_mean(values: list[float]) -> None:
    found = statistics.summary(values, "seconds")
    assert found is not None
    slack = 1e-12 * found.max
    ordered = [found.min, found.p50, found.p95, found.p99, found.max]
    assert all(low <= high + slack for low, high in pairwise(ordered))
    assert found.min - slack <= found.mean <= found.max + slack
    assert found.count == len(values)
    assert found.mean == pytest.approx(standard.fmean(values), rel=1e-12)


# Loss


def test_a_sample_in_which_all_is_lost_has_loss_and_no_delay() -> None:
    found = stream([None, None, None])
    counters = statistics.count(found)
    assert (counters.sent, counters.received, counters.lost) == (3, 0, 3)
    assert statistics.loss_ratio(counters) == 1.0
    assert statistics.summary(statistics.delays_seconds(found), "seconds") is None
    assert statistics.summary(statistics.pdv_seconds(found), "seconds") is None
    assert statistics.ipdv_seconds(found) == []


def test_a_sample_in_which_nothing_was_sent_has_no_loss() -> None:
    counters = statistics.count([other(0, Outcome.NOT_SENT), other(1, Outcome.NOT_SENT)])
    assert (counters.sent, counters.not_sent) == (0, 2)
    assert statistics.loss_ratio(counters) is None
    assert statistics.wilson_interval(counters.lost, counters.lost + counters.received) is None


def test_one_lost_of_three_hundred_is_not_rounded() -> None:
    counters = statistics.count(stream([10.0] * 150 + [None] + [10.0] * 149))
    assert statistics.loss_ratio(counters) == 1 / 300


def test_a_late_answer_is_lost_and_also_told_apart() -> None:
    counters = statistics.count([received(0, MS), other(1, Outcome.LATE), other(2, Outcome.LOST)])
    assert (counters.sent, counters.received, counters.lost, counters.late) == (3, 1, 2, 1)


def test_duplicates_are_neither_received_nor_sent() -> None:
    counters = statistics.count([received(0, MS), *[other(0, Outcome.DUPLICATE)] * 5])
    assert (counters.sent, counters.received, counters.duplicate) == (1, 1, 5)
    assert statistics.loss_ratio(counters) == 0.0


def test_a_refusal_says_nothing_of_loss() -> None:
    counters = statistics.count([received(0, MS), other(1, Outcome.REFUSED), other(2, Outcome.LOST)])
    assert (counters.sent, counters.failed) == (3, 1)
    assert statistics.loss_ratio(counters) == 0.5


@given(found=samples)
def test_the_books_balance(found: list[Singleton]) -> None:
    counters = statistics.count(found)
    assert counters.received <= counters.sent
    assert counters.sent == counters.received + counters.lost + counters.failed
    assert counters.sent + counters.not_sent + counters.duplicate == len(found)
    assert counters.late <= counters.lost
    assert counters.reordered <= counters.received
    ratio = statistics.loss_ratio(counters)
    assert ratio is None or 0 <= ratio <= 1


@given(found=samples, seed=st.integers())
def test_the_order_of_singletons_does_not_matter(found: list[Singleton], seed: int) -> None:
    shuffled = list(found)
    random.Random(seed).shuffle(shuffled)
    assert statistics.count(shuffled) == statistics.count(found)
    assert statistics.delays_seconds(shuffled) == statistics.delays_seconds(found)
    assert statistics.ipdv_seconds(shuffled) == statistics.ipdv_seconds(found)
    assert statistics.pdv_seconds(shuffled) == statistics.pdv_seconds(found)
    assert statistics.worst_source(shuffled) is statistics.worst_source(found)


def test_every_outcome_is_counted_somewhere() -> None:
    for outcome in Outcome:
        counters = statistics.count([other(0, outcome)])
        assert sum(dataclasses.astuple(counters)) >= 1, outcome


# Confidence


@given(trials=st.integers(1, 100_000), share=st.floats(0, 1))
def test_the_wilson_interval_is_what_statsmodels_says(trials: int, share: float) -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    events = round(trials * share)
    found = statistics.wilson_interval(events, trials)
    assert found == pytest.approx(proportion.proportion_confint(events, trials, 0.05, "wilson"), abs=1e-12)


@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.99])
def test_the_wilson_interval_follows_its_confidence(confidence: float) -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    expected = proportion.proportion_confint(3, 200, 1 - confidence, "wilson")
    assert statistics.wilson_interval(3, 200, confidence) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("events", "trials", "low", "high"),
    [(0, 100, 0.0, 0.0370), (0, 1000, 0.0, 0.0038), (5, 500, 0.0043, 0.0232), (10, 1000, 0.0054, 0.0183)],
)
def test_the_wilson_interval_of_published_cases(events: int, trials: int, low: float, high: float) -> None:
    found = statistics.wilson_interval(events, trials)
    assert found == pytest.approx((low, high), abs=5e-5)


def test_the_wilson_interval_is_exact_at_both_ends() -> None:
    none_lost, all_lost = statistics.wilson_interval(0, 10), statistics.wilson_interval(10, 10)
    assert none_lost is not None
    assert all_lost is not None
    assert none_lost[0] == 0.0
    assert all_lost[1] == 1.0
    assert none_lost[1] == pytest.approx(1 - all_lost[0])


@pytest.mark.parametrize(("events", "trials"), [(-1, 10), (11, 10), (1, -1)])
def test_more_events_than_trials_are_refused(events: int, trials: int) -> None:
    with pytest.raises(ValueError, match="is no ratio"):
        statistics.wilson_interval(events, trials)


# Variation


def test_ipdv_is_signed_and_between_neighbours() -> None:
    # RFC 3393: D(i) - D(i-1) for packets 20, 25, 22 ms.
    assert statistics.ipdv_seconds(stream([20, 25, 22])) == pytest.approx([0.005, -0.003])


def test_ipdv_is_never_computed_across_a_lost_packet() -> None:
    assert statistics.ipdv_seconds(stream([10, None, 30, 31])) == pytest.approx([0.001])
    assert statistics.ipdv_seconds(stream([10, None, 30])) == []


def test_ipdv_is_never_computed_across_a_late_or_corrupt_packet() -> None:
    for outcome in (Outcome.LATE, Outcome.CORRUPT, Outcome.REFUSED, Outcome.NOT_SENT):
        assert statistics.ipdv_seconds([received(0, MS), other(1, outcome), received(2, 9 * MS)]) == []


def test_a_duplicate_changes_no_delay_and_no_ipdv() -> None:
    found = stream([10, 20])
    repeated = [*found, other(0, Outcome.DUPLICATE), other(1, Outcome.DUPLICATE)]
    assert statistics.delays_seconds(repeated) == statistics.delays_seconds(found)
    assert statistics.ipdv_seconds(repeated) == statistics.ipdv_seconds(found)


def test_pdv_is_the_delay_above_the_minimum() -> None:
    assert statistics.pdv_seconds(stream([20, None, 25, 22])) == pytest.approx([0, 0.005, 0.002])


@given(found=samples)
def test_pdv_is_never_negative_and_touches_zero(found: list[Singleton]) -> None:
    variation = statistics.pdv_seconds(found)
    assert all(value >= 0 for value in variation)
    assert not variation or min(variation) == 0


def test_a_constant_path_has_no_variation() -> None:
    found = stream([12.5] * 20)
    assert set(statistics.pdv_seconds(found)) == {0.0}
    assert set(statistics.ipdv_seconds(found)) == {0.0}


# Reordering


def arriving(*order: int) -> list[Singleton]:
    """Packets sent as 0, 1, 2, ... a millisecond apart that arrive in `order`."""
    return [
        received(sequence, (100 + place - sequence) * MS, sent_ns=sequence * MS)
        for place, sequence in enumerate(order)
    ]


@pytest.mark.parametrize(
    ("order", "behind"),
    [
        ((0, 1, 2, 3, 4), 0),
        ((0, 1, 3, 2, 4), 1),
        # A packet that overtakes two leaves two reordered behind it (RFC 4737).
        ((0, 3, 1, 2, 4), 2),
        ((4, 3, 2, 1, 0), 4),
        ((1, 0), 1),
    ],
)
def test_reordered_are_those_below_the_next_expected_number(order: tuple[int, ...], behind: int) -> None:
    assert statistics.reordered(arriving(*order)) == behind


def test_a_gap_from_a_lost_packet_is_no_reordering() -> None:
    assert statistics.reordered(stream([10, None, 10, None, 10])) == 0


def test_two_packets_stamped_at_the_same_instant_are_in_order() -> None:
    same = [received(1, 10 * MS, sent_ns=0), received(0, 10 * MS, sent_ns=0)]
    assert statistics.reordered(same) == 0
    assert statistics.reordered(same[::-1]) == 0


# What is told of a sample


def test_the_time_stamp_level_of_a_sample_is_its_worst() -> None:
    best, worst = received(0, MS), dataclasses.replace(received(1, MS), delay_source=StampSource.USER)
    assert statistics.worst_source([best]) is StampSource.KERNEL
    assert statistics.worst_source([best, worst]) is StampSource.USER
    assert statistics.worst_source([other(0, Outcome.LOST)]) is StampSource.USER


def test_a_transfer_that_broke_off_has_no_speed() -> None:
    from nhip.measurement import Direction, Transfer

    done = Transfer(direction=Direction.DOWN, octets=1_250_000, duration_ns=1_000 * MS)
    whole = dataclasses.replace(received(0, MS), transfer=done)
    broken = dataclasses.replace(other(1, Outcome.TRUNCATED), transfer=done)
    assert statistics.transfer_rates_bits_per_second([whole, broken]) == [10_000_000.0]


# Loss patterns


def test_runs_of_losses_are_periods_and_gaps_between_them_distances() -> None:
    # RFC 3357 section 3's notation: packets 2, 3, 7, 8, 9 and 15 are lost.
    lost = {2, 3, 7, 8, 9, 15}
    pattern = statistics.loss_pattern(stream([None if at in lost else 10.0 for at in range(20)]))
    assert pattern is not None
    assert (pattern.periods, pattern.longest_period_packets) == (3, 3)
    assert pattern.mean_period_packets == pytest.approx(2.0)
    assert (pattern.shortest_distance_packets, pattern.median_distance_packets) == (1, 1.0)


def test_nothing_lost_is_no_period_and_nothing_sent_is_no_pattern() -> None:
    whole = statistics.loss_pattern(stream([10.0, 11.0]))
    assert whole is not None
    assert (whole.periods, whole.longest_period_packets, whole.mean_period_packets) == (0, 0, None)
    assert statistics.loss_pattern([other(0, Outcome.NOT_SENT), other(1, Outcome.REFUSED)]) is None
    assert statistics.loss_pattern([]) is None


def test_what_was_not_sent_ends_a_loss_period() -> None:
    pattern = statistics.loss_pattern(
        [other(0, Outcome.LOST), other(1, Outcome.NOT_SENT), other(2, Outcome.LOST), received(3, MS)]
    )
    assert pattern is not None
    assert (pattern.periods, pattern.shortest_distance_packets) == (2, 2)


@given(sample=samples)
def test_the_loss_pattern_adds_up_to_the_counters(sample: list[Singleton]) -> None:
    pattern, counters = statistics.loss_pattern(sample), statistics.count(sample)
    if pattern is None:
        assert counters.lost + counters.received == 0
        return
    assert pattern.periods * (pattern.mean_period_packets or 0.0) == pytest.approx(counters.lost)
    assert pattern.longest_period_packets <= counters.lost


def test_reordering_is_a_share_of_what_was_received_and_duplicates_stay_out() -> None:
    swapped = [received(0, 30 * MS, sent_ns=0), received(1, 5 * MS, sent_ns=10 * MS)]
    counters = statistics.count([*swapped, other(1, Outcome.DUPLICATE)])
    assert statistics.reordered_ratio(counters) == 0.5
    assert statistics.duplicate_ratio(counters) == 0.5
    assert statistics.reordered_ratio(statistics.count([other(0, Outcome.LOST)])) is None


def test_the_kept_quantiles_are_the_ten_that_outcomes_are_judged_by() -> None:
    found = statistics.delay_quantiles_seconds(stream([float(at) for at in range(1001)]))
    assert found == pytest.approx([0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0])
    assert statistics.delay_quantiles_seconds(stream([None])) is None


def test_p99_9_of_pdv_is_no_copy_of_the_maximum() -> None:
    summary = statistics.summary([float(at) for at in range(10_001)], "seconds")
    assert summary is not None
    assert summary.p999 == pytest.approx(9_990)


# The probe's own timing


def timed(
    sequence: int, *, error_ns: int | None, lag_ns: int = MS, source: StampSource = KERNEL
) -> Singleton:
    """A packet that was on the wire 1 ms after its hand-over, and read 2 ms after its arrival."""
    sent, arrived = at(sequence * 100 * MS + MS, source), at(sequence * 100 * MS + 11 * MS, source)
    return Singleton(
        sequence=sequence,
        outcome=Outcome.RECEIVED,
        sent=sent,
        received=arrived,
        delay_ns=10 * MS,
        delay_source=source,
        host_sent_mono_ns=sent.mono_ns - MS,
        host_received_mono_ns=arrived.mono_ns + 2 * MS,
        send_lag_ns=lag_ns,
        own_error_ns=error_ns,
    )


def test_what_the_host_added_is_told_apart_from_the_delay() -> None:
    timing = statistics.self_timing([timed(at, error_ns=200) for at in range(5)])
    assert timing is not None
    assert timing.send_lag_seconds is not None
    assert timing.send_queueing_seconds is not None
    assert timing.receive_queueing_seconds is not None
    assert timing.own_error_seconds is not None
    assert timing.send_lag_seconds.p99 == pytest.approx(0.001)
    assert timing.send_queueing_seconds.p50 == pytest.approx(0.001)
    assert timing.receive_queueing_seconds.p50 == pytest.approx(0.002)
    assert timing.own_error_seconds.max == pytest.approx(200e-9)
    assert not timing.doubtful


@pytest.mark.parametrize(
    ("error_ns", "doubtful"), [(MS, False), (MS + MS // 2, True), (None, True), (0, False)]
)
def test_an_own_error_above_the_stated_share_makes_the_delay_doubtful(
    error_ns: int | None, doubtful: bool
) -> None:
    timing = statistics.self_timing([timed(at, error_ns=error_ns) for at in range(5)], share=0.1)
    assert timing is not None
    assert timing.doubtful is doubtful


def test_user_space_stamps_have_no_queueing_to_tell() -> None:
    timing = statistics.self_timing([timed(0, error_ns=MS, source=StampSource.USER)])
    assert timing is not None
    assert timing.send_queueing_seconds is None
    assert timing.receive_queueing_seconds is None


def test_a_test_that_times_nothing_tells_nothing_of_its_timing() -> None:
    assert statistics.self_timing([other(0, Outcome.LOST)]) is None


def test_one_way_delays_carry_the_largest_error_of_their_clocks() -> None:
    def with_one_way(sequence: int, up_ns: int, error_ns: int) -> Singleton:
        one_way = OneWayDelay(direction=Direction.UP, delay_ns=up_ns, error_ns=error_ns)
        return dataclasses.replace(received(sequence, 10 * MS), one_way=(one_way,))

    (found,) = statistics.one_way_delays([with_one_way(0, 4 * MS, MS), with_one_way(1, 6 * MS, 2 * MS)])
    assert (found.direction, found.error_seconds) == (Direction.UP, 0.002)
    assert found.delay_seconds.mean == pytest.approx(0.005)
    assert statistics.one_way_delays(stream([10.0])) == []
