"""The forecast of each link as text and drawing: what it is, what it says, and when each limit is reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from dashboards.web.fan_chart import RATE_UNIT, FanChart, fan_chart
from dashboards.web.figures import Moment, day, local_day, moment, parse_day
from dashboards.web.wording import WORDS
from nhip.language import NO_DATA, TRAFFIC_STATISTICS, Language, number, percent, rate
from nhip.wire import LimitForecast, LinkForecast
from nhip.words import word

LIKELY = 0.5
"""From this probability on, a crossing before the lead time has passed needs attention now."""

STALE_DAYS = 7
"""A forecast older than this is marked so: a week of traffic it has not seen lies behind it."""

_DAY_NS = 86_400 * 1_000_000_000

_FAR = date.max


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleCells:
    """What one rule says of one link. `state` picks colour and sign: over, crosses, never or unknown."""

    rule_id: str
    title: str
    unverified: bool
    produced_by: str
    statistic: str
    limit: str
    limit_rate: str
    state: str
    crossing: str
    crossing_iso: str
    past: bool
    """Whether the median date lies behind the reader: foretold and not confirmed by a newer forecast."""
    interval: str
    probability: str
    probability_share: float | None
    lead_time: str
    urgent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartLevel:
    y: float
    label_y: float
    text: str
    is_capacity: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartCells:
    median: str
    band: str
    levels: tuple[ChartLevel, ...]
    first_day: str
    last_day: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkCells:
    link_id: str
    simulated: bool
    capacity: str
    produced_by: str
    statistic: str
    made: Moment
    stale: str
    """Words that say how old the forecast is, when it is too old; else nothing."""
    rules: tuple[RuleCells, ...]
    chart: ChartCells | None
    notes: tuple[str, ...]


def link_cells(links: Sequence[LinkForecast], language: Language, now_wall_ns: int) -> list[LinkCells]:
    """One card for each link as read at `now_wall_ns`, the most urgent first."""
    return [_link(link, language, now_wall_ns) for link in sorted(links, key=urgency)]


def urgency(link: LinkForecast) -> tuple[bool, date, float, str]:
    """Sorts links over a limit first, then by the soonest crossing, then by the likeliest one."""
    likeliest = max((limit.probability_before_lead_time or 0.0 for limit in link.limits), default=0.0)
    soonest = first_crossing(link)
    return not is_over(link), soonest or _FAR, -likeliest, link.link_id


def is_over(link: LinkForecast) -> bool:
    """Whether any limit is exceeded already."""
    return any(limit.verdict == "already_over" for limit in link.limits)


def needs_attention(link: LinkForecast) -> bool:
    """Whether a limit is exceeded, or likely to be before capacity can be added."""
    return any(_is_urgent(limit) for limit in link.limits)


def is_stale(link: LinkForecast, now_wall_ns: int) -> bool:
    """Whether the forecast is too old to decide on."""
    return now_wall_ns - link.made_at_wall_ns > STALE_DAYS * _DAY_NS


def first_crossing(link: LinkForecast, *, since: date | None = None) -> date | None:
    """The soonest median date of any limit, of those not before `since` when that is given."""
    days = [
        found
        for limit in link.limits
        if limit.verdict == "crosses"
        and limit.median_date is not None
        and (found := parse_day(limit.median_date)) is not None
        and (since is None or found >= since)
    ]
    return min(days, default=None)


def _is_urgent(limit: LimitForecast) -> bool:
    if limit.verdict == "already_over":
        return True
    return (limit.probability_before_lead_time or 0.0) >= LIKELY


def _link(link: LinkForecast, language: Language, now_wall_ns: int) -> LinkCells:
    capacity = WORDS["capacity_unknown"][language]
    if link.capacity_bits_per_second is not None:
        capacity = rate(link.capacity_bits_per_second, language)
    drawn = fan_chart(link)
    return LinkCells(
        link_id=link.link_id,
        simulated=link.provenance != "measured",
        capacity=capacity,
        produced_by=link.produced_by,
        statistic=word(TRAFFIC_STATISTICS, link.statistic or "steps", language),
        made=moment(link.made_at_wall_ns, language, seconds=False),
        stale=_stale(link, language, now_wall_ns),
        rules=tuple(
            _rule(limit, link.produced_by, language, local_day(now_wall_ns)) for limit in link.limits
        ),
        chart=None if drawn is None else _chart(link, drawn, language),
        notes=tuple(note.vi if language is Language.VIETNAMESE else note.en for note in link.notes),
    )


_STATES = {"already_over": "over", "crosses": "crosses", "never": "never", "no_capacity": "unknown"}


def _stale(link: LinkForecast, language: Language, now_wall_ns: int) -> str:
    if not is_stale(link, now_wall_ns):
        return ""
    days = (now_wall_ns - link.made_at_wall_ns) // _DAY_NS
    return WORDS["stale"][language].format(days=number(days, 0, language))


def _rule(limit: LimitForecast, link_model: str, language: Language, today: date) -> RuleCells:
    probability = limit.probability_before_lead_time
    lead_days = limit.lead_time_days
    return RuleCells(
        rule_id=limit.rule_id,
        title=limit.title_vi if language is Language.VIETNAMESE else limit.title_en,
        unverified=not limit.verified,
        # A rule looks at another statistic of the traffic than the curve, and may have had another model.
        produced_by="" if limit.produced_by == link_model else limit.produced_by,
        statistic=word(TRAFFIC_STATISTICS, limit.statistic, language),
        limit="" if limit.limit_ratio is None else f"≤ {percent(limit.limit_ratio, language, 0)}",
        limit_rate=(
            "" if limit.limit_bits_per_second is None else rate(limit.limit_bits_per_second, language)
        ),
        state=_STATES.get(limit.verdict, "unknown"),
        crossing=_crossing(limit, language),
        past=_is_past(limit, today),
        crossing_iso=limit.median_date or "",
        interval=_interval(limit, language),
        probability=percent(probability, language, 0),
        probability_share=None if probability is None else round(100 * probability, 1),
        lead_time=(
            ""
            if lead_days is None
            else WORDS["lead_time"][language].format(days=number(lead_days, 0, language))
        ),
        urgent=_is_urgent(limit),
    )


def _is_past(limit: LimitForecast, today: date) -> bool:
    if limit.verdict != "crosses" or limit.median_date is None:
        return False
    found = parse_day(limit.median_date)
    return found is not None and found < today


def _crossing(limit: LimitForecast, language: Language) -> str:
    if limit.verdict == "crosses":
        if limit.median_date is None:
            return WORDS["date_unknown"][language]
        return day(limit.median_date, language)
    if limit.verdict == "never" and limit.horizon_days is not None:
        return WORDS["never_within"][language].format(days=number(limit.horizon_days, 0, language))
    return WORDS[limit.verdict][language] if limit.verdict in _STATES else limit.verdict


def _interval(limit: LimitForecast, language: Language) -> str:
    if limit.interval80 is None or limit.verdict == "already_over" or limit.interval80 == (None, None):
        return NO_DATA
    later = WORDS["later"][language]
    low, high = (later if bound is None else day(bound, language) for bound in limit.interval80)
    return WORDS["interval"][language].format(low=low, high=high)


def _chart(link: LinkForecast, drawn: FanChart, language: Language) -> ChartCells:
    first_day, last_day = day(drawn.first_time, language), day(drawn.last_time, language)
    return ChartCells(
        median=drawn.median,
        band=drawn.band,
        levels=tuple(
            ChartLevel(
                y=level.y,
                label_y=level.label_y,
                text=_level_text(level.ratio, level.value, language),
                is_capacity=level.ratio == 1.0,
            )
            for level in drawn.levels
        ),
        first_day=first_day,
        last_day=last_day,
        label=WORDS["chart_label"][language].format(
            link=link.link_id,
            first=_amount(drawn.first, link.unit, language),
            first_day=first_day,
            last=_amount(drawn.last, link.unit, language),
            last_day=last_day,
        ),
    )


def _level_text(ratio: float | None, value: float, language: Language) -> str:
    if ratio is None:
        return rate(value, language)
    if ratio == 1.0:
        return WORDS["chart_capacity"][language]
    return WORDS["chart_limit"][language].format(ratio=percent(ratio, language, 0))


def _amount(value: float, unit: str, language: Language) -> str:
    return rate(value, language) if unit == RATE_UNIT else f"{number(value, 2, language)} {unit}"
