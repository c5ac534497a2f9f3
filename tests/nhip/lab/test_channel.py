"""The fates a channel decides, over clocks that only the test moves."""

from __future__ import annotations

import statistics
from itertools import pairwise

import pytest

from nhip.errors import LabError
from nhip.lab.channel import HELD, LOST, ONCE, QUEUE_FULL, TWICE, Channel
from nhip.lab.effects import Effects, expected_loss_ratio, without_chance

MS = 1_000_000


def fates(
    effects: Effects, count: int, *, seed: str = "seed", gap_ns: int = 100 * MS
) -> list[tuple[int, int]]:
    """Fate and added delay of `count` packets, far enough apart not to meet."""
    channel = Channel(effects, seed=seed)
    return [
        (fate, deadline_ns - number * gap_ns)
        for number in range(count)
        for fate, deadline_ns in [channel.admit(number * gap_ns, 1000)]
    ]


def loss_ratio(effects: Effects, count: int = 40_000) -> float:
    return sum(fate == LOST for fate, _ in fates(effects, count)) / count


def test_without_effects_a_packet_leaves_when_it_comes() -> None:
    assert Channel(Effects(), seed="").admit(5, 1500) == (ONCE, 5)


def test_the_delay_is_added_to_the_time_of_arrival() -> None:
    assert Channel(Effects(delay_seconds=0.020), seed="").admit(7, 1500) == (ONCE, 7 + 20 * MS)


def test_random_loss_has_the_configured_mean() -> None:
    # 40 000 draws at 2 % have a standard error of 0.07 points.
    assert loss_ratio(Effects(loss_ratio=0.02)) == pytest.approx(0.02, abs=0.003)
    assert loss_ratio(Effects()) == 0


@pytest.mark.parametrize(("start", "end", "within"), [(0.01, 0.3, 1.0), (0.05, 0.5, 0.5), (0.02, 0.1, 1.0)])
def test_bursty_loss_has_the_mean_of_gilbert_and_elliott(start: float, end: float, within: float) -> None:
    effects = Effects(burst_start_ratio=start, burst_end_ratio=end, burst_loss_ratio=within)
    assert expected_loss_ratio(effects) == pytest.approx(start / (start + end) * within)
    assert loss_ratio(effects) == pytest.approx(expected_loss_ratio(effects), rel=0.15)


def test_bursts_last_as_long_as_their_end_is_unlikely() -> None:
    lost = [fate == LOST for fate, _ in fates(Effects(burst_start_ratio=0.01, burst_end_ratio=0.2), 40_000)]
    runs, length = [], 0
    for one in [*lost, False]:
        if one:
            length += 1
        elif length:
            runs.append(length)
            length = 0
    assert statistics.fmean(runs) == pytest.approx(5, rel=0.15)


def test_random_loss_does_not_come_in_bursts() -> None:
    lost = [fate == LOST for fate, _ in fates(Effects(loss_ratio=0.05), 40_000)]
    pairs = sum(one and two for one, two in pairwise(lost))
    assert pairs / sum(lost) == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("distribution", ["uniform", "normal", "pareto"])
def test_jitter_only_adds_and_has_the_configured_mean(distribution: str) -> None:
    effects = Effects(delay_seconds=0.010, jitter_distribution=distribution, jitter_seconds=0.004)
    added = [delay_ns / 1e9 - 0.010 for _, delay_ns in fates(effects, 20_000)]
    assert min(added) >= 0
    assert statistics.fmean(added) == pytest.approx(0.004, rel=0.05)


def test_the_distributions_differ_in_their_tails() -> None:
    worst = {}
    for distribution in ("uniform", "normal", "pareto"):
        effects = Effects(jitter_distribution=distribution, jitter_seconds=0.001)
        worst[distribution] = sorted(delay_ns for _, delay_ns in fates(effects, 20_000))[-20] / MS
    assert worst["uniform"] <= 2.0 < worst["normal"] < 5 < worst["pareto"] <= 20


def test_jitter_never_lets_a_packet_overtake() -> None:
    effects = Effects(jitter_distribution="pareto", jitter_seconds=0.050)
    channel = Channel(effects, seed="")
    deadlines = [channel.admit(number * MS, 1000)[1] for number in range(2000)]
    assert deadlines == sorted(deadlines)


def test_a_held_packet_leaves_later_and_holds_nobody_else_up() -> None:
    effects = Effects(delay_seconds=0.001, reorder_ratio=0.1, reorder_seconds=0.030)
    found = fates(effects, 5000, gap_ns=MS)
    assert {delay_ns for fate, delay_ns in found if fate == HELD} == {31 * MS}
    assert {delay_ns for fate, delay_ns in found if fate == ONCE} == {MS}
    assert sum(fate == HELD for fate, _ in found) == pytest.approx(500, abs=80)


def test_duplicates_are_made_as_often_as_configured() -> None:
    assert sum(fate == TWICE for fate, _ in fates(Effects(duplicate_ratio=0.05), 10_000)) == pytest.approx(
        500, abs=80
    )


def test_a_full_queue_drops_and_a_lost_packet_takes_no_room() -> None:
    slow = Effects(rate_bits_per_second=8000, queue_bytes=2000)
    channel = Channel(slow, seed="")
    assert [channel.admit(0, 1000)[0] for _ in range(4)] == [ONCE, ONCE, QUEUE_FULL, QUEUE_FULL]
    losing = Channel(Effects(rate_bits_per_second=8000, queue_bytes=2000, loss_ratio=1.0), seed="")
    assert [losing.admit(0, 1000)[0] for _ in range(4)] == [LOST] * 4


def test_the_same_seed_gives_the_same_fates_and_another_seed_others() -> None:
    effects = Effects(loss_ratio=0.1, jitter_distribution="normal", jitter_seconds=0.001)
    assert fates(effects, 500, seed="a") == fates(effects, 500, seed="a")
    assert fates(effects, 500, seed="a") != fates(effects, 500, seed="b")


def test_switching_jitter_off_leaves_the_losses_where_they_were() -> None:
    with_jitter = Effects(loss_ratio=0.1, jitter_distribution="normal", jitter_seconds=0.001)
    lost = [[fate == LOST for fate, _ in fates(one, 500)] for one in (with_jitter, Effects(loss_ratio=0.1))]
    assert lost[0] == lost[1]


def test_changed_effects_hold_from_the_next_packet_on() -> None:
    channel = Channel(Effects(), seed="")
    assert channel.admit(0, 1000)[0] == ONCE
    assert channel.change_some({"loss_ratio": 1}) == Effects(loss_ratio=1)
    assert channel.admit(1, 1000)[0] == LOST


@pytest.mark.parametrize("changes", [{"los_ratio": 1}, {"loss_ratio": 2}, {"loss_ratio": "much"}, None])
def test_a_change_that_makes_no_sense_is_refused_and_changes_nothing(changes: object) -> None:
    channel = Channel(Effects(loss_ratio=0.5), seed="")
    with pytest.raises(LabError, match="effects"):
        channel.change_some(changes)
    assert channel.effects == Effects(loss_ratio=0.5)


def test_less_delay_lets_no_packet_overtake_those_under_way() -> None:
    channel = Channel(Effects(delay_seconds=0.100), seed="")
    first = channel.admit(0, 1000)[1]
    channel.change(Effects(delay_seconds=0.001), now_ns=0)
    assert channel.admit(MS, 1000)[1] == first


def test_a_stream_is_delayed_and_never_lost() -> None:
    effects = Effects(
        delay_seconds=0.010, loss_ratio=1.0, rate_bits_per_second=8e6, queue_bytes=2000, duplicate_ratio=1.0
    )
    channel = Channel(effects, seed="")
    assert channel.admit_stream(0, 1000) == 11 * MS
    assert channel.admit_stream(0, 1000) == 12 * MS
    assert channel.admit_stream(0, 1000) is None


def test_impossible_effects_are_refused() -> None:
    for wrong in (
        {"loss_ratio": 1.1},
        {"delay_seconds": -1.0},
        {"delay_seconds": float("nan")},
        {"rate_bits_per_second": 0.0},
        {"queue_bytes": 100},
        {"jitter_seconds": 0.1},
        {"jitter_distribution": "uniform"},
        {"reorder_ratio": 0.1},
        {"burst_start_ratio": 0.1, "burst_end_ratio": 0.0},
        {"rate_bits_per_second": 1e6, "trace": "file"},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
            Effects(**wrong)


def test_without_chance_keeps_delay_and_rate_alone() -> None:
    busy = Effects(delay_seconds=0.01, loss_ratio=0.5, rate_bits_per_second=1e6, duplicate_ratio=0.5)
    assert without_chance(busy) == Effects(delay_seconds=0.01, rate_bits_per_second=1e6)
