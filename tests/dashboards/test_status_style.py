"""The palette is readable by itself: WCAG 2.2 contrast, computed from the style sheet."""

from __future__ import annotations

import re

import pytest

from dashboards.web.status import TEMPLATES

STYLE = (TEMPLATES / "status.css").read_text(encoding="utf-8")
LIGHT, DARK = (
    dict(re.findall(r"--([a-z-]+):(#[0-9a-f]{3,6})", block))
    for block in re.findall(r":root\{(.*?)\}", STYLE, re.DOTALL)
)
# Text colour on the background it stands on.
TEXTS = [
    *((ink, ground) for ink in ("ink", "muted", "accent") for ground in ("bg", "card")),
    *((ink, "soft") for ink in ("ink", "muted")),
    *((tone, "card") for tone in ("good", "bad", "sim")),
    *((tone, f"{tone}-bg") for tone in ("good", "bad", "warn", "idle", "sim")),
    ("ink", "sim-bg"),
    ("accent-ink", "accent"),
]


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    channels = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_of_black_and_white_is_twenty_one() -> None:
    assert contrast("#000", "#fff") == pytest.approx(21)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("ink", "ground"), TEXTS)
def test_text_has_the_contrast_small_print_needs(scheme: str, ink: str, ground: str) -> None:
    colours = LIGHT if scheme == "light" else DARK
    assert contrast(colours[ink], colours[ground]) >= 4.5


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_bars_and_lines_stand_out_from_the_card(colours: dict[str, str]) -> None:
    for name in ("fill", "bad", "mark"):
        assert contrast(colours[name], colours["card"]) >= 3


def test_both_schemes_define_the_same_colours() -> None:
    assert set(LIGHT) == set(DARK)
