"""Holds what was measured against what the lab knows to be true."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nhip.comparison import LAB_TOLERANCE, Tolerance, compare_delay, compare_loss, compare_speed
from nhip.language import Language, megabits, milliseconds, percent, text
from nhip.status import AccessRow, Truth


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


def findings(rows: Iterable[AccessRow], tolerance: Tolerance = LAB_TOLERANCE) -> list[Finding]:
    """The four quantities of each access, judged."""
    found = []
    for row in rows:
        truth = row.truth or Truth()
        delay = compare_delay(row.delay_seconds, truth.delay_seconds, tolerance)
        loss = compare_loss(row.loss_ratio, row.loss_interval, truth.loss_ratio)
        down = compare_speed(row.down_bits_per_second, truth.down_bits_per_second, tolerance)
        up = compare_speed(row.up_bits_per_second, truth.up_bits_per_second, tolerance)
        for quantity, measured, true, compared, count in (
            ("delay", row.delay_seconds, truth.delay_seconds, delay, row.delay_count),
            ("loss", row.loss_ratio, truth.loss_ratio, loss, row.loss_count),
            ("down", row.down_bits_per_second, truth.down_bits_per_second, down, row.down_count),
            ("up", row.up_bits_per_second, truth.up_bits_per_second, up, row.up_count),
        ):
            found.append(
                Finding(
                    access=f"{row.operator} {row.technology}",
                    quantity=quantity,
                    measured=measured,
                    true=true,
                    within=compared.agrees if compared else None,
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
