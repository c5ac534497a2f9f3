"""The status page: ``render(view, language)`` gives one self-contained HTML document.

Style and drawings are inside the page, nothing is fetched and no script runs, so that it opens on an island
network and prints well. Everything that comes from a probe, a configuration or a forecast is escaped by the
template engine; the page's own policy (:func:`content_security_policy`) forbids whatever slipped through.
"""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dashboards.web.fan_chart import HEIGHT, LEFT, RIGHT, WIDTH
from dashboards.web.figures import moment
from dashboards.web.headline import headline
from dashboards.web.link_cards import link_cells
from dashboards.web.rows import access_cells, series_cells, verdict_cells
from dashboards.web.wording import MARK_WORDS, METHOD_WORDS, WORDS, words
from nhip.comparison import LAB_TOLERANCE, Tolerance
from nhip.errors import UnknownNameError
from nhip.language import Language, milliseconds, number, percent
from nhip.status import StatusView
from nhip.words import word

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"

# A page of a country's probes must stay one a phone can open; the rest is in Grafana.
MOST_ACCESSES, MOST_VERDICTS, MOST_LINKS, MOST_SERIES = 300, 300, 60, 300


def render(view: StatusView, language: str, *, tolerance: Tolerance = LAB_TOLERANCE) -> str:
    """The page for `view` in ``vi`` or ``en``; UnknownNameError for any other language."""
    try:
        chosen = Language(language)
    except ValueError as error:
        raise UnknownNameError(f"{language!r} is no language of this page", remedy="use vi or en") from error
    return _environment().get_template("status.html").render(_context(view, chosen, tolerance))


def content_security_policy() -> str:
    """The page's policy, for a header too: no script, no fetching, this one style sheet."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _context(view: StatusView, language: Language, tolerance: Tolerance) -> dict[str, Any]:
    both = words(language)
    accesses = access_cells(view, language, tolerance)
    verdicts = verdict_cells(view, language)
    links = link_cells(view.links, language, view.made_wall_ns)
    series = series_cells(view, language)
    vietnamese = language is Language.VIETNAMESE
    made = moment(view.made_wall_ns, language)
    return {
        "w": both,
        "language": language.value,
        "other_language": Language.ENGLISH.value if vietnamese else Language.VIETNAMESE.value,
        "policy": content_security_policy(),
        "style": _style(),
        "view": view,
        "banner": _banner(view, language),
        "made": made,
        "headline": headline(view, language),
        "accesses": accesses[:MOST_ACCESSES],
        "accesses_hidden": _hidden(len(accesses) - MOST_ACCESSES, language),
        "access_note": both["access_note"].format(window=span(view.window_seconds, language)),
        "lab_note": _lab_note(view, language, tolerance),
        "profile_title": view.profile_title_vi if vietnamese else view.profile_title_en,
        "verdicts": verdicts[:MOST_VERDICTS],
        "verdicts_hidden": _hidden(len(verdicts) - MOST_VERDICTS, language),
        "marks": [
            (mark, word(MARK_WORDS, mark, language)) for mark in sorted({row.mark for row in view.verdicts})
        ],
        "methods": [
            both["interval_method"].format(method=word(METHOD_WORDS, method, language))
            for method in sorted({row.interval_method for row in view.verdicts if row.interval_method})
        ],
        "links": links[:MOST_LINKS],
        "links_hidden": _hidden(len(links) - MOST_LINKS, language),
        "chart": {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT},
        "series": series[:MOST_SERIES],
        "series_hidden": _hidden(len(series) - MOST_SERIES, language),
        "footer": (
            both["made"].format(moment=made.text),
            both["zone"],
            both["version"].format(version=view.software_version),
            both["counts"].format(
                stored=number(view.records_stored, 0, language),
                quarantined=number(view.records_quarantined, 0, language),
            ),
        ),
    }


def span(seconds: float, language: Language) -> str:
    """A span of time in the largest unit that leaves a round number."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= size and seconds % size == 0:
            return WORDS[unit][language].format(count=number(seconds / size, 0, language))
    return WORDS["seconds"][language].format(count=number(seconds, 0, language))


def _banner(view: StatusView, language: Language) -> str:
    """What on this page is not of a real network, in sentences; nothing when everything is."""
    if not view.simulated:
        return ""
    keys = ["banner"]
    if any(row.truth is not None for row in view.accesses):
        keys.append("banner_lab")
    if any(link.provenance != "measured" for link in view.links):
        keys.append("banner_links")
    return " ".join(WORDS[key][language] for key in keys)


def _lab_note(view: StatusView, language: Language, tolerance: Tolerance) -> str:
    if all(row.truth is None for row in view.accesses):
        return ""
    return WORDS["access_lab_note"][language].format(
        delay=milliseconds(tolerance.delay_seconds, language),
        delay_ratio=percent(tolerance.delay_ratio, language, 0),
        speed_ratio=percent(tolerance.speed_ratio, language, 0),
    )


def _hidden(count: int, language: Language) -> str:
    if count <= 0:
        return ""
    return WORDS["hidden_rows"][language].format(count=number(count, 0, language))


@lru_cache(maxsize=1)
def _style() -> str:
    return (TEMPLATES / "status.css").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    # Imported here, so that a probe host that lists commands never loads the template engine.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
