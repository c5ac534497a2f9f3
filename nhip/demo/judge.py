"""Holds what was measured against what the lab knows to be true."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nhip.language import Language, megabits, milliseconds, percent, text
from nhip.status import AccessRow

# Tolerances of the demo. The delay's is the larger of the two.
DELAY_TOLERANCE_SECONDS = 0.000_3
DELAY_TOLERANCE_RATIO = 0.02
SPEED_TOLERANCE_RATIO = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One quantity of one access: measured, true, and whether the difference is within tolerance.

    `within` is `None` when one of the two does not exist; a demo with such a gap has not succeeded.
    """

    access: str
    quantity: str
    measured: float | None
    true: float | None
    within: bool | None
    count: int


def findings(rows: Iterable[AccessRow]) -> list[Finding]:
    """The four quantities of each access, judged."""
    found = []
    for row in rows:
        truth = row.truth
        access = f"{row.operator} {row.technology}"
        true_delay = truth.delay_seconds if truth else None
        true_loss = truth.loss_ratio if truth else None
        found.append(
            Finding(
                access=access,
                quantity="delay",
                measured=row.delay_seconds,
                true=true_delay,
                within=_near(
                    row.delay_seconds, true_delay, DELAY_TOLERANCE_RATIO, at_least=DELAY_TOLERANCE_SECONDS
                ),
                count=row.delay_count,
            )
        )
        inside = None
        if row.loss_interval is not None and true_loss is not None:
            inside = row.loss_interval[0] <= true_loss <= row.loss_interval[1]
        found.append(
            Finding(
                access=access,
                quantity="loss",
                measured=row.loss_ratio,
                true=true_loss,
                within=inside,
                count=row.loss_count,
            )
        )
        for quantity, measured, true, count in (
            ("down", row.down_bits_per_second, truth.down_bits_per_second if truth else None, row.down_count),
            ("up", row.up_bits_per_second, truth.up_bits_per_second if truth else None, row.up_count),
        ):
            found.append(
                Finding(
                    access=access,
                    quantity=quantity,
                    measured=measured,
                    true=true,
                    within=_near(measured, true, SPEED_TOLERANCE_RATIO),
                    count=count,
                )
            )
    return found


def succeeded(found: Iterable[Finding]) -> bool:
    """True when there was something to judge and every quantity is within its tolerance."""
    verdicts = [finding.within for finding in found]
    return bool(verdicts) and all(verdict is True for verdict in verdicts)


def summary(found: Iterable[Finding], language: Language) -> str:
    """The findings as a table, one line an access: measured (true), a mark at what is out of tolerance."""
    by_access: dict[str, dict[str, Finding]] = {}
    for finding in found:
        by_access.setdefault(finding.access, {})[finding.quantity] = finding
    header = [_WORDS[word][language] for word in ("access", "delay", "loss", "down", "up")]
    lines = [header]
    for access, cells in by_access.items():
        lines.append([access] + [_cell(cells[quantity], language) for quantity in _SHOW])
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    body = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return f"{body}\n{_WORDS['legend'][language]}"


_SHOW: dict[str, Callable[[float | None, Language], str]] = {
    "delay": milliseconds,
    "loss": percent,
    "down": megabits,
    "up": megabits,
}
_WORDS = {
    "access": text("truy nhập", "access"),
    "delay": text("trễ khứ hồi", "round-trip delay"),
    "loss": text("mất gói", "loss"),
    "down": text("tải xuống", "download"),
    "up": text("tải lên", "upload"),
    "legend": text(
        "đo được (sự thật của phòng thí nghiệm, mô phỏng); ✗: ngoài dung sai; ?: thiếu số liệu",
        "measured (the lab's truth, simulated); ✗: outside tolerance; ?: a figure is missing",
    ),
}
_MARKS = {True: "", False: " ✗", None: " ?"}


def _cell(finding: Finding, language: Language) -> str:
    show = _SHOW[finding.quantity]
    return f"{show(finding.measured, language)} ({show(finding.true, language)}){_MARKS[finding.within]}"


def _near(measured: float | None, true: float | None, ratio: float, at_least: float = 0.0) -> bool | None:
    if measured is None or true is None:
        return None
    return abs(measured - true) <= max(ratio * true, at_least)
