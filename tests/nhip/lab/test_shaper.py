"""Rate and trace shapers as arithmetic: exact times, no clock."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nhip.errors import LabError
from nhip.lab.shaper import RateShaper, TraceShaper
from nhip.lab.trace import Trace, load_trace, synthetic_trace, write_trace

MS = 1_000_000


def test_a_packet_takes_its_bits_over_the_rate() -> None:
    shaper = RateShaper(8e6, 100_000)
    assert shaper.release_ns(0, 1000) == MS
    assert shaper.release_ns(0, 500) == MS + MS // 2


def test_an_idle_link_saves_nothing_up() -> None:
    shaper = RateShaper(8e6, 100_000)
    shaper.release_ns(0, 1000)
    assert shaper.release_ns(100 * MS, 1000) == 101 * MS


def test_the_queue_holds_its_bytes_and_no_more() -> None:
    shaper = RateShaper(8e6, 3000)
    assert [shaper.release_ns(0, 1000) is None for _ in range(4)] == [False, False, False, True]
    assert shaper.release_ns(MS, 1000) == 4 * MS


@given(st.lists(st.tuples(st.integers(0, 3 * MS), st.integers(40, 1500)), min_size=1, max_size=200))
def test_no_second_ever_carries_more_than_the_rate(arrivals: list[tuple[int, int]]) -> None:
    shaper, now_ns, released = RateShaper(10e6, 30_000), 0, []
    for gap_ns, size in arrivals:
        now_ns += gap_ns
        release_ns = shaper.release_ns(now_ns, size)
        if release_ns is not None:
            released.append((release_ns, size))
    for (before_ns, _), (after_ns, size) in pairwise(released):
        assert after_ns - before_ns >= round(size * 800) - 1


def test_each_opportunity_carries_one_full_packet() -> None:
    shaper = TraceShaper(Trace((2, 2, 5, 10)), 100_000, start_ns=0)
    assert [shaper.release_ns(0, 1500) for _ in range(5)] == [2 * MS, 2 * MS, 5 * MS, 10 * MS, 12 * MS]


def test_small_packets_share_an_opportunity_and_large_ones_span_two() -> None:
    shaper = TraceShaper(Trace((2, 5, 10)), 100_000, start_ns=0)
    assert [shaper.release_ns(0, 600) for _ in range(4)] == [2 * MS, 2 * MS, 5 * MS, 5 * MS]


def test_an_opportunity_nobody_waits_for_is_wasted() -> None:
    shaper = TraceShaper(Trace((2, 5, 10)), 100_000, start_ns=0)
    assert shaper.release_ns(6 * MS, 1500) == 10 * MS


def test_a_trace_repeats_for_ever() -> None:
    shaper = TraceShaper(Trace((2, 5, 10)), 100_000, start_ns=1000)
    assert shaper.release_ns(1000 + 1_000_000 * MS, 1500) == 1000 + 1_000_000 * MS
    assert shaper.release_ns(1000 + 1_000_001 * MS, 1500) == 1000 + 1_000_002 * MS


def test_a_trace_queue_empties_as_time_goes() -> None:
    shaper = TraceShaper(Trace((10,)), 3000, start_ns=0)
    assert [shaper.release_ns(0, 1500) for _ in range(3)] == [10 * MS, 20 * MS, None]
    assert shaper.release_ns(10 * MS, 1500) == 30 * MS


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(0, 500))
def test_the_first_opportunity_after_a_time_is_the_first(times: list[int], time_ms: int) -> None:
    trace = Trace(tuple(sorted(times)))
    index = trace.first_at_or_after(time_ms)
    assert trace.time_ms(index) >= time_ms
    assert index == 0 or trace.time_ms(index - 1) < time_ms


def test_a_synthetic_trace_carries_its_mean_and_varies() -> None:
    trace = synthetic_trace(mean_bits_per_second=12e6, seconds=20, seed=1)
    assert trace.mean_bits_per_second == pytest.approx(12e6, rel=0.001)
    seconds = [0] * 20
    for time_ms in trace.opportunities_ms[:-1]:
        seconds[time_ms // 1000] += 1
    assert max(seconds) > 1.2 * min(seconds)
    assert trace == synthetic_trace(mean_bits_per_second=12e6, seconds=20, seed=1)


def test_a_trace_survives_the_disk(tmp_path: Path) -> None:
    trace = synthetic_trace(mean_bits_per_second=1e6, seconds=2, seed=7)
    write_trace(trace, tmp_path / "trace")
    assert load_trace(tmp_path / "trace") == trace


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1\n2.5\n", ":2: '2.5' is not"),
        ("5\n3\n", ":2: 3 comes after 5"),
        ("0\n", "no opportunity"),
        ("", "no opp"),
    ],
)
def test_a_file_that_is_no_trace_is_refused_by_line(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "trace").write_text(text)
    with pytest.raises(LabError, match=complaint):
        load_trace(tmp_path / "trace")
