"""The few numbers at the top of the page: what reports, what is out of bounds, what comes next."""

from __future__ import annotations

from dataclasses import dataclass

from dashboards.web.figures import day, local_day
from dashboards.web.link_cards import first_crossing, needs_attention
from dashboards.web.wording import WORDS
from nhip.language import Language, number
from nhip.status import StatusView


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One number with its words; `tone` is good, bad or plain."""

    value: str
    label: str
    detail: str
    tone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """The sentence on top with its `tone` (good, bad, waiting), and the tiles below it."""

    sentence: str
    tone: str
    tiles: tuple[Tile, ...]


def headline(view: StatusView, language: Language) -> Headline:
    """What a reader should know first."""
    silent = {row.probe_id for row in view.accesses if row.silent}
    probes = {row.probe_id for row in view.accesses}
    broken = sum(row.verdict == "not_conforming" for row in view.verdicts)
    pressing = [link for link in view.links if needs_attention(link)]
    matters = len(silent) + broken + len(pressing)
    if not view.records_stored:
        sentence, tone = WORDS["state_waiting"][language], "waiting"
    elif matters:
        key = "state_attention_one" if matters == 1 else "state_attention"
        sentence, tone = WORDS[key][language].format(count=number(matters, 0, language)), "bad"
    else:
        sentence, tone = WORDS["state_calm"][language], "good"
    tiles = (
        _probes_tile(len(probes), len(silent), language),
        _verdicts_tile(view, broken, language),
        _links_tile(view, len(pressing), language),
        Tile(
            value=number(view.records_stored, 0, language),
            label=WORDS["tile_records"][language],
            detail=WORDS["tile_records_detail"][language].format(
                count=number(view.records_quarantined, 0, language)
            ),
            tone="plain",
        ),
    )
    return Headline(sentence=sentence, tone=tone, tiles=tiles)


def _probes_tile(probes: int, silent: int, language: Language) -> Tile:
    detail = WORDS["tile_probes_all"][language]
    if silent:
        detail = WORDS["tile_probes_silent"][language].format(count=silent)
    return Tile(
        value=f"{probes - silent}/{probes}",
        label=WORDS["tile_probes"][language],
        detail=detail if probes else WORDS["no_data"][language],
        tone="bad" if silent else "good" if probes else "plain",
    )


def _verdicts_tile(view: StatusView, broken: int, language: Language) -> Tile:
    count = {
        verdict: sum(row.verdict == verdict for row in view.verdicts)
        for verdict in ("conforming", "too_few_samples", "limit_unverified")
    }
    detail = WORDS["tile_verdicts_detail"][language].format(
        conforming=count["conforming"],
        too_few=count["too_few_samples"],
        unverified=count["limit_unverified"],
    )
    return Tile(
        value=f"{broken}/{len(view.verdicts)}",
        label=WORDS["tile_verdicts"][language],
        detail=detail if view.verdicts else WORDS["no_data"][language],
        tone="bad" if broken else "plain",
    )


def _links_tile(view: StatusView, pressing: int, language: Language) -> Tile:
    # A date that has passed is no news of what comes; its card says that it has.
    today = local_day(view.made_wall_ns)
    dated = [(found, link) for link in view.links if (found := first_crossing(link, since=today)) is not None]
    if dated:
        found, link = min(dated, key=lambda pair: (pair[0], pair[1].link_id))
        detail = WORDS["tile_links_first"][language].format(
            link=link.link_id, date=day(found.isoformat(), language)
        )
    else:
        detail = WORDS["tile_links_none"][language].format(count=len(view.links))
    return Tile(
        value=f"{pressing}/{len(view.links)}",
        label=WORDS["tile_links"][language],
        detail=detail if view.links else WORDS["no_data"][language],
        tone="bad" if pressing else "plain",
    )
