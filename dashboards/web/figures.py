"""Numbers, dates and spans as people read them on a page; rounding happens here and nowhere before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone

from nhip import language as words
from nhip.language import NO_DATA, Language, milliseconds, number, percent, rate

VIETNAM = timezone(timedelta(hours=7))


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time for a person, and the same for a machine (ISO 8601)."""

    text: str
    iso: str


def moment(wall_ns: int, language: Language, *, seconds: bool = True) -> Moment:
    """UTC nanoseconds as date and time in Viet Nam."""
    then = datetime.fromtimestamp(wall_ns // 1_000_000_000, tz=UTC).astimezone(VIETNAM)
    clock = "%H:%M:%S" if seconds else "%H:%M"
    pattern = f"{clock} %d/%m/%Y" if language is Language.VIETNAMESE else f"%Y-%m-%d {clock}"
    return Moment(then.strftime(pattern), then.isoformat())


def local_day(wall_ns: int) -> date:
    """The day in Viet Nam at UTC nanoseconds."""
    return datetime.fromtimestamp(wall_ns // 1_000_000_000, tz=UTC).astimezone(VIETNAM).date()


def day(text: str, language: Language) -> str:
    """An ISO date, or date and time, as a day in Viet Nam; the text itself when it is neither."""
    found = parse_day(text)
    return text if found is None else words.day(found, language)


def parse_day(text: str) -> date | None:
    """The day in Viet Nam an ISO 8601 text names; a bare date is that day everywhere."""
    try:
        if len(text) == len("2026-11-24"):
            return date.fromisoformat(text)
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    try:
        return found.astimezone(VIETNAM).date()
    except OverflowError:
        return None


def quantity(value: float | None, unit: str, language: Language) -> str:
    """A value in a regulation's unit: seconds as milliseconds, bits per second as a rate."""
    if unit == "seconds":
        return milliseconds(value, language)
    if unit == "bits_per_second":
        return rate(value, language)
    if unit == "ratio":
        return percent(value, language)
    return NO_DATA if value is None else f"{number(value, 3, language)} {unit}"


def quantities(interval: tuple[float, float] | None, unit: str, language: Language) -> str:
    """Both ends of an interval in a regulation's unit, which is written once when they share it."""
    if interval is None:
        return ""
    low, high = (quantity(bound, unit, language) for bound in interval)
    low_number, _, low_unit = low.rpartition(" ")
    _, _, high_unit = high.rpartition(" ")
    return f"{low_number if low_number and low_unit == high_unit else low} – {high}"


def percents(interval: tuple[float, float] | None, language: Language) -> str:
    """An interval of ratios in percent; nothing when there is none."""
    if interval is None:
        return ""
    low, high = (number(bound * 100, 2, language) for bound in interval)
    return f"{low}–{high} %"


def signed(text: str, value: float) -> str:
    """`text`, written from an absolute value, with the sign of `value` before it."""
    return f"{'−' if value < 0 else '+'}{text}"
