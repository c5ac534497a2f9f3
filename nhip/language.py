"""Words and numbers for people, in Vietnamese and English.

Vietnamese writes 1.234,5 and English 1,234.5. Both are always complete: a text that exists in one
language only is a fault, and a test looks for it.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from enum import StrEnum


class Language(StrEnum):
    VIETNAMESE = "vi"
    ENGLISH = "en"


Text = Mapping[Language, str]

NO_DATA = "–"

_RATES = ((1e12, "Tbit/s"), (1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s"), (1.0, "bit/s"))


def text(vi: str, en: str) -> Text:
    """One text in both languages."""
    return {Language.VIETNAMESE: vi, Language.ENGLISH: en}


def preferred(environment: Mapping[str, str] | None = None) -> Language:
    """Vietnamese when ``NHIP_LANGUAGE`` or the locale says so, else English."""
    environment = os.environ if environment is None else environment
    for variable in ("NHIP_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = environment.get(variable, "").lower()
        if value:
            return Language.VIETNAMESE if value.startswith("vi") else Language.ENGLISH
    return Language.ENGLISH


def number(value: float | None, decimals: int, language: Language) -> str:
    """`value` rounded for reading, or a dash when there is none."""
    if value is None:
        return NO_DATA
    english = f"{value:,.{decimals}f}"
    if language is Language.ENGLISH:
        return english
    return english.translate(str.maketrans(",.", ".,"))


def milliseconds(seconds: float | None, language: Language) -> str:
    """A duration in milliseconds, with as many decimals as its size deserves."""
    if seconds is None:
        return NO_DATA
    value = seconds * 1e3
    return f"{number(value, 3 if value < 10 else 2 if value < 100 else 1, language)} ms"


def percent(ratio: float | None, language: Language, decimals: int = 2) -> str:
    """A ratio 0 to 1 as percent; one that is not zero never reads as zero."""
    if ratio is None:
        return NO_DATA
    least = 10.0**-decimals
    if 0 < abs(ratio) * 100 < least / 2:
        return f"< {number(least, decimals, language)} %"
    return f"{number(ratio * 100, decimals, language)} %"


def megabits(bits_per_second: float | None, language: Language) -> str:
    """A rate in Mbit/s."""
    if bits_per_second is None:
        return NO_DATA
    value = bits_per_second / 1e6
    return f"{number(value, 3 if value < 10 else 2, language)} Mbit/s"


def rate(bits_per_second: float | None, language: Language) -> str:
    """A rate in the unit that leaves one to three digits before the decimal sign."""
    if bits_per_second is None:
        return NO_DATA
    divisor, unit = next((pair for pair in _RATES if abs(bits_per_second) >= pair[0] * 0.9995), _RATES[-1])
    value = bits_per_second / divisor
    decimals = 0 if divisor == 1.0 else 2 if abs(value) < 100 else 1
    return f"{number(value, decimals, language)} {unit}"


def day(date: datetime.date, language: Language) -> str:
    """A day: Vietnamese names it before the month, English writes ISO, which nobody takes for another day."""
    return f"{date:%d/%m/%Y}" if language is Language.VIETNAMESE else date.isoformat()


TRAFFIC_STATISTICS: Mapping[str, Text] = {
    "daily_mean": text("trung bình ngày", "daily mean"),
    "daily_p95": text("phân vị 95 của ngày", "95th percentile of the day"),
    "daily_peak": text("cao điểm ngày", "daily peak"),
    "busy_hour": text("giờ cao điểm", "busy hour"),
    "steps": text("từng bước của chuỗi", "each step of the series"),
}
"""What the values of a link's traffic are, by the name a forecast and a capacity rule give them."""
