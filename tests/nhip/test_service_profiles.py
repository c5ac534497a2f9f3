"""The table of services: complete, honest about its sources, and refused by key when it is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nhip import config
from nhip.config import FORMATS, convert, read_toml, shipped
from nhip.errors import ConfigError
from nhip.language import Language
from nhip.service_profiles import ServiceProfile, directive16

FILE = "services/directive16.toml"


def table() -> dict[str, Any]:
    return read_toml(shipped(FILE))


def refused(broken: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as refusal:
        convert(broken, ServiceProfile, "profile.toml")
    return str(refusal.value)


def test_the_shipped_file_passes_its_own_check() -> None:
    assert config.check(shipped(FILE)) == "nhip-service-profiles/1"
    assert config.check(shipped("voice/codecs.toml")) == "nhip-voice-codecs/1"


def test_the_ten_groups_are_there_with_titles_in_both_languages() -> None:
    services = directive16().service
    assert [service.id for service in services] == [
        "meetings",
        "telehealth",
        "e_learning",
        "home_services",
        "entertainment",
        "delivery",
        "smart_factory",
        "payments",
        "public_services",
        "remote_support",
    ]
    for service in services:
        assert all(service.title[language] for language in Language)
        assert service.title[Language.VIETNAMESE] != service.title[Language.ENGLISH]
        assert service.delay
        assert service.loss


def test_what_was_only_recalled_or_is_an_illustration_or_our_own_is_never_called_verified() -> None:
    for service in directive16().service:
        for part in (*service.delay, service.loss, service.down, service.up):
            if part is not None and part.verified:
                for word in ("recalled", "Nhịp's own", "(own)", "illustration", "G.1010", "Y.1541"):
                    assert word not in part.source, service.id


def test_a_service_is_verified_only_when_all_its_numbers_are() -> None:
    services = {service.id: service for service in directive16().service}
    assert services["meetings"].verified
    assert not services["telehealth"].verified


def test_every_requirement_of_the_shipped_file_is_shown_in_its_schema() -> None:
    schema = json.loads(shipped("schema/nhip-service-profiles-1.json").read_text(encoding="utf-8"))
    assert schema == config.json_schema(FORMATS.load("nhip-service-profiles/1"))


class TestBands:
    @pytest.mark.parametrize(
        ("score", "band"),
        [
            (100, "ready"),
            (80, "ready"),
            (79.9, "usable"),
            (50, "usable"),
            (49, "poor"),
            (1, "poor"),
            (0, "unusable"),
        ],
    )
    def test_begin_at_their_score(self, score: float, band: str) -> None:
        assert directive16().verdict(score).id == band

    @pytest.mark.parametrize("starts", [[80, 50, 1], [0, 50], [80, 80, 0]])
    def test_that_do_not_fall_to_zero_are_refused(self, starts: list[float]) -> None:
        broken = table()
        broken["band"] = [
            {"id": f"b{number}", "minimum_score": start, "title_vi": "x", "title_en": "y"}
            for number, start in enumerate(starts)
        ]
        assert refused(broken).startswith("profile.toml:band.minimum_score")


class TestRefusal:
    def test_a_percentile_nobody_reports(self) -> None:
        broken = table()
        broken["service"][0]["delay"][0]["percentile"] = 97
        message = refused(broken)
        assert message.startswith("profile.toml:service.meetings.delay.percentile: 97")
        assert "99.9" in message

    def test_unusable_that_is_better_than_good(self) -> None:
        broken = table()
        broken["service"][0]["delay"][0]["unusable_seconds"] = 0.1
        assert refused(broken).startswith("profile.toml:service.meetings.delay.unusable_seconds")

    def test_loss_with_no_room_between_good_and_unusable(self) -> None:
        broken = table()
        broken["service"][0]["loss"]["unusable_ratio"] = 0.01
        assert refused(broken).startswith("profile.toml:service.meetings.loss.unusable_ratio")

    def test_the_same_percentile_twice(self) -> None:
        broken = table()
        broken["service"][0]["delay"] *= 2
        assert "service.meetings.delay.percentile: 95 is there twice" in refused(broken)

    def test_the_same_service_twice(self) -> None:
        broken = table()
        broken["service"].append(broken["service"][0])
        assert refused(broken).startswith("profile.toml:service.meetings: is there twice")

    def test_a_service_that_requires_nothing(self) -> None:
        broken = table()
        broken["service"][0] = {"id": "none", "title_vi": "x", "title_en": "y"}
        assert refused(broken).startswith("profile.toml:service.none: requires nothing")

    @pytest.mark.parametrize("key", ["source", "verified"])
    def test_a_number_without_source_or_flag(self, key: str) -> None:
        broken = table()
        del broken["service"][0]["loss"][key]
        assert refused(broken).startswith(f"profile.toml:service[0].loss.{key}: is missing")

    def test_a_misspelt_key_with_the_nearest_valid_one(self) -> None:
        broken = table()
        broken["service"][0]["loss"]["god_ratio"] = 0.1
        assert "did you mean 'good_ratio'?" in refused(broken)

    def test_a_ratio_in_percent(self) -> None:
        broken = table()
        broken["service"][0]["loss"]["unusable_ratio"] = 2
        assert refused(broken).startswith("profile.toml:service[0].loss.unusable_ratio: 2")
