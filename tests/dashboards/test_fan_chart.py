from __future__ import annotations

import re
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.web.fan_chart import BOTTOM, HEIGHT, LEFT, MOST_POINTS, RIGHT, TOP, WIDTH, fan_chart
from tests.lab.status_views import link

NUMBER = re.compile(r"-?[\d.]+")


def points(path: str) -> list[tuple[float, float]]:
    numbers = [float(found) for found in NUMBER.findall(path)]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def test_median_runs_from_the_left_edge_to_the_right_and_grows_upwards() -> None:
    drawn = fan_chart(link("a", 0.5, 0.01, provenance="measured", days=40))
    assert drawn is not None
    path = points(drawn.median)
    assert path[0][0] == LEFT and path[-1][0] == WIDTH - RIGHT
    assert path[-1][1] < path[0][1]
    assert len(path) == 40


def test_value_at_half_of_the_height_is_drawn_there() -> None:
    found = msgspec.structs.replace(
        link("a", 0.5, 0.0, provenance="measured", days=2), median=[5e9, 5e9], quantiles={}
    )
    drawn = fan_chart(found)
    assert drawn is not None and drawn.band == ""
    inner = HEIGHT - TOP - BOTTOM
    expected = TOP + inner * (1 - 5e9 / (10e9 * 1.04))
    assert points(drawn.median)[0][1] == pytest.approx(expected, abs=0.06)


def test_equal_limits_are_one_line_and_labels_never_cover_each_other() -> None:
    drawn = fan_chart(link("a", 0.1, 0.0, provenance="measured"))
    assert drawn is not None
    assert [level.ratio for level in drawn.levels] == [1.0, 0.9, 0.8]
    labels = [level.label_y for level in drawn.levels]
    assert all(lower - upper >= 12.9 for upper, lower in pairwise(labels))


def test_long_forecast_is_thinned_and_its_band_keeps_its_outer_edge() -> None:
    found = link("a", 0.5, 0.0, provenance="measured", days=400, capacity=None)
    highs = list(found.quantiles["0.9"])
    highs[200] = 3 * max(highs)
    drawn = fan_chart(msgspec.structs.replace(found, quantiles={**found.quantiles, "0.9": highs}))
    assert drawn is not None
    assert len(points(drawn.median)) == MOST_POINTS
    assert min(y for _, y in points(drawn.band)) == pytest.approx(
        TOP + (HEIGHT - TOP - BOTTOM) * (1 - 1 / 1.04), abs=0.1
    )


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_points_are_no_drawing(count: int) -> None:
    found = link("a", 0.5, 0.0, provenance="measured", days=2)
    assert fan_chart(msgspec.structs.replace(found, times=found.times[:count])) is None


@given(
    st.lists(st.floats(-1e13, 1e13, allow_nan=False), min_size=2, max_size=300),
    st.floats(1e3, 1e13),
)
def test_everything_drawn_lies_inside_the_picture(median: list[float], capacity: float) -> None:
    found = msgspec.structs.replace(
        link("a", 0.5, 0.0, provenance="measured", days=2),
        median=median,
        times=["2026-11-24"] * len(median),
        quantiles={"0.1": median, "0.9": median},
        capacity_bits_per_second=capacity,
        limits=[],
    )
    drawn = fan_chart(found)
    assert drawn is not None
    for x, y in points(drawn.median) + points(drawn.band):
        assert LEFT <= x <= WIDTH - RIGHT + 0.05
        assert 0 <= y <= HEIGHT - BOTTOM + 0.05
