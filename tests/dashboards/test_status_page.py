from __future__ import annotations

import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from dashboards.web.status import MOST_ACCESSES, content_security_policy, render
from nhip.errors import UnknownNameError
from nhip.measurement import Outcome
from tests.lab.chromium import document_after_loading, needs_chromium, screenshot
from tests.lab.status_views import empty_view, full_view, hostile_view

BREAK = "document.title='BROKEN'"
ATTACK = (
    f""""'><script>{BREAK}</script><img id="attack" src="x" onerror="{BREAK}">"""
    f"""<svg id="attack" onload="{BREAK}"></svg></style><a id="attack" href="javascript:1">x</a>"""
    """{{ 7 * 191 }}{% raw %} <!-- \\u003cscript\\u003e"""
)


class Elements(HTMLParser):
    """Which elements a document really holds, with their attributes, and its visible text."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._skipped = 0
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._skipped += tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._skipped -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self.text.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def words_of(page: str) -> str:
    return Elements(page).words


@pytest.mark.parametrize("language", ["vi", "en"])
def test_page_states_its_language_and_needs_nothing_from_elsewhere(language: str) -> None:
    page = render(full_view(), language)
    elements = Elements(page)
    assert elements.named("html") == [{"lang": language}]
    assert not elements.named("script")
    fetched = [
        value
        for _, attributes in elements.found
        for name, value in attributes.items()
        if name in ("src", "action", "poster", "srcset") or (name == "href" and value and "//" in value[:9])
    ]
    assert fetched == []
    assert "url(" not in page and "@import" not in page
    assert not any("style" in attributes for _, attributes in elements.found)


def test_unknown_language_is_refused_by_name() -> None:
    with pytest.raises(UnknownNameError, match=r"'fr'.*use vi or en"):
        render(full_view(), "fr")


def test_measured_value_stands_beside_the_truth_and_says_whether_they_agree() -> None:
    english = words_of(render(full_view(), "en"))
    assert "36.04 ms n = 120 lab 34.20 ms +1.840 ms ≠ differs" in english
    assert "4.214 ms n = 120 lab 4.200 ms +0.014 ms ✓ agrees" in english
    assert "1.02 % 0.84–1.21 % · n = 11,800 lab 1.00 % +0.02 % ✓ agrees" in english
    vietnamese = words_of(render(full_view(), "vi"))
    assert "36,04 ms n = 120 lab 34,20 ms +1,840 ms ≠ lệch" in vietnamese
    assert "n = 11.800" in vietnamese


def test_no_truth_means_no_word_of_a_lab() -> None:
    view = full_view()
    view = replace(
        view, simulated=False, links=(), accesses=tuple(replace(row, truth=None) for row in view.accesses)
    )
    page = words_of(render(view, "en"))
    assert "lab" not in page.split()
    assert "simulated" not in page


def test_missing_values_are_dashes_and_never_zero() -> None:
    view = full_view()
    page = words_of(render(replace(view, accesses=view.accesses[-1:]), "en"))
    row = page[page.index("gamma gamma-3g") : page.index("Verdicts against")]
    assert "silent" in row and "last heard 2026-11-24 20:36:25" in row
    assert row.count("– n = 0") == 4
    assert "0.0" not in row


def test_every_verdict_has_its_word_in_both_languages() -> None:
    vietnamese, english = (words_of(render(full_view(), language)) for language in ("vi", "en"))
    for vi, en in (
        ("Phù hợp", "Conforming"),
        ("Không phù hợp", "Not conforming"),
        ("Chưa đủ mẫu", "Too few samples"),
        ("Chưa xác minh quy chuẩn", "Limit unverified"),
    ):
        assert vi in vietnamese
        assert en in english
    assert "Tốc độ tải xuống trung bình (Pd)" in english, (
        "the regulation's own title stays beside the English"
    )
    assert "≥ 80.00 Mbit/s 1,044 of 1,000 3 failed, not counted ✕ Not conforming" in english


def test_crossing_dates_carry_interval_probability_and_the_badge_of_a_simulation() -> None:
    english = words_of(render(full_view(), "en"))
    assert "↗ 2027-02-06 simulated 2027-01-08 to later 64 % 90 days" in english
    assert "▲ already over" in english
    assert "not within 90 days" in english
    assert "no capacity given, so no date" in english
    assert "ets log AAN(7)" in english
    vietnamese = words_of(render(full_view(), "vi"))
    assert "↗ 06/02/2027 mô phỏng 08/01/2027 – muộn hơn 64 % 90 ngày" in vietnamese


DAY_NS = 86_400 * 10**9


@pytest.mark.parametrize(
    ("age_ns", "words"),
    [
        (7 * DAY_NS, None),
        (7 * DAY_NS + 1, "7"),
        (31 * DAY_NS, "31"),
    ],
)
def test_forecast_of_more_than_a_week_ago_is_marked_old(age_ns: int, words: str | None) -> None:
    view = full_view()
    links = (msgspec.structs.replace(view.links[0], made_at_wall_ns=view.made_wall_ns - age_ns),)
    english, vietnamese = (
        words_of(render(replace(view, links=links), language)) for language in ("en", "vi")
    )
    if words is None:
        assert "old forecast" not in english and "dự báo cũ" not in vietnamese
    else:
        assert f"! old forecast, made {words} days ago" in english
        assert f"! dự báo cũ, lập {words} ngày trước" in vietnamese


def test_crossing_date_that_has_passed_says_so_and_is_not_the_next_one() -> None:
    """Read 74 days later, the date is that day's; a day after, it lies behind."""
    view = replace(full_view(), links=full_view().links[:1], accesses=(), verdicts=())
    assert view.links[0].limits[0].median_date == "2027-02-06"
    on_the_day = replace(view, made_wall_ns=view.made_wall_ns + 74 * DAY_NS)
    after = replace(view, made_wall_ns=view.made_wall_ns + 75 * DAY_NS)
    english = words_of(render(on_the_day, "en"))
    assert "this date has passed" not in english
    assert "first to cross: quoc-te-aag, 2027-02-06" in english
    english, vietnamese = words_of(render(after, "en")), words_of(render(after, "vi"))
    assert "↗ 2027-02-06 simulated ! this date has passed" in english
    assert "↗ 06/02/2027 mô phỏng ! ngày này đã qua" in vietnamese
    assert "first to cross" not in english


def test_measured_link_wears_no_badge_of_a_simulation() -> None:
    view = full_view()
    measured = tuple(link for link in view.links if link.provenance == "measured")
    page = render(replace(view, links=measured, simulated=False, accesses=()), "en")
    assert "simulated" not in words_of(page)


def test_most_urgent_link_comes_first() -> None:
    page = words_of(render(full_view(), "en"))
    links = page[page.index("Capacity forecast") :]
    places = [links.index(f"{name} ") for name in ("lien-mang-alpha-beta", "quoc-te-aag", "ix-ha-noi")]
    assert places == sorted(places)


def test_headline_counts_what_needs_attention() -> None:
    assert "4 matters need attention" in words_of(render(full_view(), "en"))
    calm = replace(full_view(), accesses=full_view().accesses[:3], verdicts=(), links=(), simulated=False)
    assert "All steady, nothing needs attention" in words_of(render(calm, "en"))
    assert "Đang chờ kết quả đo đầu tiên" in words_of(render(empty_view(), "vi"))


def test_every_outcome_is_drawn_in_words() -> None:
    view = full_view()
    rows = tuple(replace(view.series[0], outcome=outcome) for outcome in Outcome)
    page = render(replace(view, series=rows), "vi")
    for outcome in Outcome:
        assert f"> {outcome.value}<" not in page


def test_page_of_a_country_stays_small_and_says_what_it_left_out() -> None:
    view = full_view()
    many = replace(view, accesses=view.accesses * 200)
    page = render(many, "en")
    assert f"{len(many.accesses) - MOST_ACCESSES:,} more rows are not shown here" in words_of(page)
    assert len(render(view, "vi").encode()) < 150_000


def test_hostile_texts_stay_texts() -> None:
    honest, hostile = (Elements(render(view, "vi")) for view in (full_view(), hostile_view(ATTACK)))
    assert not any(attributes.get("id") == "attack" for _, attributes in hostile.found)
    assert not hostile.named("script") and not hostile.named("img")
    event_handlers = [name for _, attributes in hostile.found for name in attributes if name.startswith("on")]
    assert event_handlers == []
    assert "1337" not in hostile.words, "a template inside a value must not be evaluated"
    assert len(hostile.named("tr")) == len(honest.named("tr"))


def test_check_for_hostile_texts_fails_when_escaping_is_undone() -> None:
    unescaped = Elements(html.unescape(render(hostile_view(ATTACK), "vi")))
    assert unescaped.named("script")


def test_policy_names_the_very_style_sheet_of_the_page() -> None:
    page = render(empty_view(), "en")
    policy = Elements(page).named("meta")[1]["content"]
    assert policy == content_security_policy()
    assert "script-src" not in content_security_policy() and "unsafe" not in content_security_policy()


@pytest.mark.servers
def test_no_script_runs_in_a_real_browser(tmp_path: Path) -> None:
    """Escaping keeps the attack out of the document; the policy alone would stop it from running too."""
    needs_chromium()
    page = render(hostile_view(ATTACK), "en")
    unescaped = html.unescape(page)
    without_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", unescaped)
    seen = {}
    for name, document in (("page", page), ("unescaped", unescaped), ("bare", without_policy)):
        path = tmp_path / f"{name}.html"
        path.write_text(document, encoding="utf-8")
        seen[name] = document_after_loading(path, tmp_path / f"profile-{name}")
    assert "<title>Nhịp – network status</title>" in seen["page"]
    assert 'id="attack"' not in re.sub(r">[^<]*<", "><", seen["page"])
    assert "<title>BROKEN</title>" not in seen["unescaped"], "the policy forbids scripts"
    assert 'id="attack"' in re.sub(r">[^<]*<", "><", seen["unescaped"]), (
        "the check sees what escaping keeps out"
    )
    assert "<title>BROKEN</title>" in seen["bare"], "the check sees a script that runs"


@pytest.mark.servers
def test_browser_applies_the_style_of_the_page(tmp_path: Path) -> None:
    """A style sheet the policy does not name is refused, and then the page looks as if it had none."""
    needs_chromium()
    page = render(full_view(), "vi")
    bare = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    refused = page.replace("</style>", "/* one more word */</style>")
    pictures = {}
    for name, document in (("page", page), ("bare", bare), ("refused", refused)):
        path = tmp_path / f"{name}.html"
        path.write_text(document, encoding="utf-8")
        picture = tmp_path / f"{name}.png"
        screenshot(path, picture, tmp_path / f"profile-{name}", width=900, height=700, dark=False)
        pictures[name] = picture.read_bytes()
    assert pictures["page"] != pictures["bare"]
    assert pictures["refused"] == pictures["bare"]
