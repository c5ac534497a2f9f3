"""What the demo calls right and wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nhip.demo.judge import findings, succeeded, summary
from nhip.language import Language
from nhip.measurement import Technology
from nhip.status import AccessRow, Truth

TRUE = Truth(delay_seconds=0.0400, loss_ratio=0.01, down_bits_per_second=40e6, up_bits_per_second=15e6)
RIGHT = AccessRow(
    operator="alpha",
    technology=Technology.MOBILE_4G,
    province="01",
    probe_id="alpha-4g",
    last_seen_wall_ns=1,
    silent=False,
    delay_seconds=0.0402,
    delay_count=10,
    loss_ratio=0.012,
    loss_interval=(0.005, 0.03),
    loss_count=200,
    down_bits_per_second=39.5e6,
    down_count=2,
    up_bits_per_second=15.1e6,
    up_count=2,
    truth=TRUE,
)


def test_figures_near_the_truth_succeed() -> None:
    assert succeeded(findings([RIGHT]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"delay_seconds": 0.0409},
        {"loss_interval": (0.011, 0.03)},
        {"down_bits_per_second": 38.7e6},
        {"up_bits_per_second": 15.46e6},
    ],
    ids=["delay off by more than 2 %", "truth outside Wilson", "download off", "upload off"],
)
def test_one_figure_outside_its_tolerance_fails_the_whole(wrong: dict[str, object]) -> None:
    found = findings([RIGHT, replace(RIGHT, **wrong)])
    assert not succeeded(found)
    assert sum(finding.within is False for finding in found) == 1
    assert "✗" in summary(found, Language.ENGLISH)


@pytest.mark.parametrize("missing", ["delay_seconds", "loss_ratio", "down_bits_per_second", "truth"])
def test_a_missing_figure_is_no_success(missing: str) -> None:
    found = findings([replace(RIGHT, **{missing: None})])
    assert not succeeded(found)
    assert "?" in summary(found, Language.VIETNAMESE)


def test_nothing_measured_is_no_success() -> None:
    assert not succeeded(findings([]))


def test_a_short_delay_may_be_off_by_a_fixed_step() -> None:
    near = replace(RIGHT, delay_seconds=0.00529, truth=replace(TRUE, delay_seconds=0.005))
    assert succeeded(findings([near]))
    assert not succeeded(findings([replace(near, delay_seconds=0.00531)]))
