"""Quality of Outcome: the draft's arithmetic, and what is said when data are missing."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nhip import qoo
from nhip.language import Language
from nhip.measurement import Method, Outcome, Sample, Singleton, Stamp, StampSource, Target, TypeP
from nhip.qoo import Measured, Metadata, ServiceReadiness, assess, readiness
from nhip.service_profiles import (
    PERCENTILES,
    DelayRequirement,
    LossRequirement,
    Service,
    ServiceProfile,
    ThroughputRequirement,
    directive16,
)
from nhip.statistics import DELAY_PROBABILITIES


def test_percentiles_are_those_at_which_delays_are_kept() -> None:
    assert pytest.approx([100 * probability for probability in DELAY_PROBABILITIES]) == list(PERCENTILES)


OWN = {"source": "test", "verified": False}


def quantiles(**known: float) -> list[float]:
    """All ten, each one not named as the next lower named one: ``p99=0.35``."""
    found, value = [], 0.0
    for percentile in PERCENTILES:
        value = known.get(f"p{percentile:g}".replace(".", "_"), value)
        found.append(value)
    return found


def service(**parts: Any) -> Service:
    return Service(id="s", title_vi="Dịch vụ", title_en="Service", **parts)


def delay(percentile: float, good: float, unusable: float) -> DelayRequirement:
    return DelayRequirement(percentile=percentile, good_seconds=good, unusable_seconds=unusable, **OWN)


def loss(good: float, unusable: float) -> LossRequirement:
    return LossRequirement(good_ratio=good, unusable_ratio=unusable, **OWN)


def throughput(least: float) -> ThroughputRequirement:
    return ThroughputRequirement(minimum_bits_per_second=least, **OWN)


def judged(of: Service, **measured: Any) -> ServiceReadiness:
    return assess(of, Measured(**measured), directive16())


DRAFT_EXAMPLE = service(
    delay=[delay(99, 0.2, 0.5), delay(99.9, 0.3, 0.6)], loss=loss(0.01, 0.05), down=throughput(4e6)
)


class TestVectors:
    def test_the_example_of_the_draft_scores_50(self) -> None:
        found = judged(
            DRAFT_EXAMPLE,
            delay_seconds=quantiles(p0=0.1, p99=0.350, p99_9=0.375),
            delay_count=100_000,
            loss_ratio=0.02,
            loss_count=100_000,
            down_bits_per_second=28e6,
        )
        assert found.score == pytest.approx(50)
        assert [part.score for part in found.parts] == pytest.approx([50, 75, 75, 100])
        assert found.limiting == "delay_p99"
        assert found.not_assessed == ()

    def test_the_test_of_qoo_c_scores_21_739(self) -> None:
        found = judged(
            service(delay=[delay(50, 0.02, 0.25), delay(90, 0.02, 0.3), delay(99, 0.02, 0.4)]),
            delay_seconds=[0.2] * 10,
            delay_count=1000,
        )
        assert found.score == pytest.approx(21.739, abs=5e-4)
        assert found.limiting == "delay_p50"


class TestPart:
    @pytest.mark.parametrize(
        ("seconds", "score"), [(0.0, 100), (0.1, 100), (0.15, 75), (0.2, 50), (0.3, 0), (9.0, 0)]
    )
    def test_a_delay_is_linear_between_good_and_unusable_and_held_outside(
        self, seconds: float, score: float
    ) -> None:
        part = qoo.delay_part(delay(50, 0.1, 0.3), Measured(delay_seconds=[seconds] * 10, delay_count=10))
        assert part.score == pytest.approx(score)

    @pytest.mark.parametrize(("rate", "score"), [(3.999e6, 0), (4e6, 100), (1e9, 100)])
    def test_throughput_passes_or_fails(self, rate: float, score: float) -> None:
        assert qoo.throughput_part("down", throughput(4e6), rate).score == score

    @pytest.mark.parametrize(
        ("percentile", "needed"),
        [(0, 1), (10, 10), (25, 4), (50, 2), (75, 4), (90, 10), (95, 20), (99, 100), (99.9, 1000), (100, 1)],
    )
    def test_a_percentile_needs_one_sample_beyond_it(self, percentile: float, needed: int) -> None:
        assert qoo.samples_needed(percentile) == needed


class TestMissing:
    def test_a_percentile_with_too_few_samples_is_not_assessed_and_not_passed(self) -> None:
        found = judged(
            service(delay=[delay(99.9, 0.3, 0.6)]), delay_seconds=quantiles(p0=0.01), delay_count=999
        )
        assert found.score is None
        assert found.band is None
        assert found.verdict[Language.ENGLISH] == "not enough data"
        (missing,) = found.not_assessed
        assert missing.reason is not None
        assert missing.reason[Language.ENGLISH] == "999 samples, 1000 are needed"
        enough = judged(
            service(delay=[delay(99.9, 0.3, 0.6)]), delay_seconds=quantiles(p0=0.01), delay_count=1000
        )
        assert enough.score == 100

    @pytest.mark.parametrize("missing", ["delay_seconds", "loss_ratio", "down_bits_per_second"])
    def test_a_part_nobody_measured_leaves_no_score_but_a_bound(self, missing: str) -> None:
        measured: dict[str, Any] = {
            "delay_seconds": quantiles(p0=0.1, p99=0.26, p99_9=0.375),
            "delay_count": 5000,
            "loss_ratio": 0.02,
            "loss_count": 5000,
            "down_bits_per_second": 28e6,
        }
        found = judged(DRAFT_EXAMPLE, **(measured | {missing: None}))
        assert found.score is None
        assert found.at_most == pytest.approx(75)
        assert {part.id for part in found.not_assessed} == {
            "delay_seconds": {"delay_p99", "delay_p99.9"},
            "loss_ratio": {"loss"},
            "down_bits_per_second": {"down"},
        }[missing]
        for part in found.not_assessed:
            assert part.reason == {Language.VIETNAMESE: "chưa đo", Language.ENGLISH: "not measured"}

    def test_one_part_that_fails_settles_the_score_whatever_is_missing(self) -> None:
        found = judged(DRAFT_EXAMPLE, down_bits_per_second=1e6)
        assert found.score == 0
        assert found.limiting == "down"
        assert found.verdict[Language.ENGLISH] == "unusable"
        assert {part.id for part in found.not_assessed} == {"delay_p99", "delay_p99.9", "loss"}

    def test_total_loss_is_unusable_though_it_has_no_delay(self) -> None:
        found = judged(DRAFT_EXAMPLE, loss_ratio=1.0, loss_count=20)
        assert found.score == 0
        assert found.limiting == "loss"

    def test_a_slow_lower_percentile_settles_a_higher_one_that_has_too_few_samples(self) -> None:
        found = judged(
            service(delay=[delay(99.9, 0.3, 0.6)]), delay_seconds=quantiles(p50=0.7), delay_count=50
        )
        assert found.score == 0
        assert found.parts[0].score is None

    def test_no_loss_among_few_packets_is_not_called_good(self) -> None:
        """0 of 99 cannot show that less than 1 % is lost."""
        few = judged(service(loss=loss(0.01, 0.05)), loss_ratio=0.0, loss_count=99)
        enough = judged(service(loss=loss(0.01, 0.05)), loss_ratio=0.0, loss_count=100)
        assert few.score is None
        assert few.at_most == 100
        assert enough.score == 100

    def test_nothing_measured_is_no_score_and_no_verdict(self) -> None:
        for found in readiness(directive16(), None, 0, None, 0, None, None):
            assert found.score is None
            assert found.limiting is None
            assert found.band is None
            assert len(found.not_assessed) == len(found.parts) > 0


@given(
    st.lists(st.floats(0, 10), min_size=10, max_size=10).map(sorted),
    st.integers(0, 5000),
    st.one_of(st.none(), st.floats(0, 1)),
    st.integers(0, 5000),
    st.one_of(st.none(), st.floats(0, 1e9)),
)
def test_a_score_lies_between_0_and_100_and_never_above_its_bound(
    delays: list[float], delay_count: int, loss_ratio: float | None, loss_count: int, rate: float | None
) -> None:
    for found in readiness(directive16(), delays, delay_count, loss_ratio, loss_count, rate, rate):
        assert 0 <= found.at_most <= 100
        assert found.score is None or found.score == found.at_most
        assert (found.band is None) == (found.score is None)
        if found.score is None:
            assert found.not_assessed


class TestRefusal:
    @pytest.mark.parametrize(
        "delays",
        [[0.1] * 9, [0.1] * 11, [0.1] * 9 + [0.05], [-0.1] + [0.1] * 9, [0.1] * 9 + [math.nan]],
    )
    def test_what_are_no_quantiles_is_refused(self, delays: list[float]) -> None:
        with pytest.raises(ValueError, match="quantile"):
            readiness(directive16(), delays, 100, 0.0, 100, 1e6, 1e6)

    def test_what_is_no_loss_ratio_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no loss ratio"):
            readiness(directive16(), [0.1] * 10, 100, 2.0, 100, 1e6, 1e6)

    def test_delays_of_another_direction_are_refused(self) -> None:
        with pytest.raises(ValueError, match="requires delays round_trip"):
            readiness(directive16(), [0.1] * 10, 100, 0.0, 100, 1e6, 1e6, metadata=metadata(direction="up"))


def metadata(*, direction: str = "round_trip", interval_seconds: float = 0.5) -> Metadata:
    return Metadata(
        method="stamp/1",
        measurement_class="active",
        protocol="udp",
        packet_size_octets=44,
        dscp=0,
        sampling="poisson",
        interval_seconds=interval_seconds,
        source="192.0.2.1",
        destination="192.0.2.2",
        direction=direction,
        first_wall_ns=1,
        duration_seconds=10.0,
        count=20,
    )


class TestMetadata:
    def test_a_score_carries_its_metadata_and_says_when_it_has_none(self) -> None:
        (bare, *_) = readiness(directive16(), None, 0, None, 0, None, None)
        assert "without the metadata" in bare.notes[0][Language.ENGLISH]
        (full, *_) = readiness(directive16(), None, 0, None, 0, None, None, metadata=metadata())
        assert full.metadata == metadata()
        assert full.notes == ()

    @pytest.mark.parametrize(("interval_seconds", "noted"), [(0.02, False), (1.0, False), (1.001, True)])
    def test_sampling_slower_than_once_a_second_is_called_optimistic(
        self, interval_seconds: float, noted: bool
    ) -> None:
        (found, *_) = readiness(
            directive16(),
            None,
            0,
            None,
            0,
            None,
            None,
            metadata=metadata(interval_seconds=interval_seconds),
        )
        assert any("optimistic" in note[Language.ENGLISH] for note in found.notes) is noted

    def test_of_a_sample_has_every_item_the_draft_obliges(self) -> None:
        start = Stamp(1_700_000_000_000_000_000, 0, StampSource.USER)
        sample = Sample(
            kind="stamp",
            method=Method("stamp_unauthenticated", "1"),
            target=Target(id="t", host="192.0.2.9"),
            type_p=TypeP(protocol="udp", ip_version=4, size_octets=172, dscp=46),
            started=start,
            ended=Stamp(start.wall_ns, 10_000_000_000, StampSource.USER),
            loss_threshold_seconds=2.0,
            singletons=(Singleton(sequence=0, outcome=Outcome.RECEIVED, sent=start),),
            timestamp_source=StampSource.KERNEL,
            address="192.0.2.9",
            parameters={"count": 1, "interval_seconds": 0.5, "spacing": "poisson"},
        )
        found = qoo.metadata_of(sample)
        assert found.method == "stamp_unauthenticated/1"
        assert (found.measurement_class, found.protocol) == ("active", "udp")
        assert (found.packet_size_octets, found.dscp) == (172, 46)
        assert (found.sampling, found.interval_seconds) == ("poisson, one each 0.5 s", 0.5)
        assert (found.destination, found.direction) == ("192.0.2.9", "round_trip")
        assert (found.first_wall_ns, found.duration_seconds, found.count) == (start.wall_ns, 10.0, 1)


class TestReadiness:
    def test_every_part_has_a_name_in_both_languages(self) -> None:
        for one in readiness(directive16(), None, 0, None, 0, None, None):
            for part in one.parts:
                assert set(part.title) == set(Language)
        assert qoo.part_title("delay_p99.9") == {
            Language.VIETNAMESE: "độ trễ, phân vị 99,9",
            Language.ENGLISH: "delay, percentile 99.9",
        }

    def test_answers_for_every_service_in_the_order_of_the_profile(self) -> None:
        profile: ServiceProfile = directive16()
        found = readiness(profile, [0.03] * 10, 1000, 0.0, 1000, 50e6, 20e6)
        assert [one.service for one in found] == [of.id for of in profile.service]
        assert all(one.score == 100 for one in found)
        assert all(one.limiting is None for one in found)
        assert {one.verdict[Language.VIETNAMESE] for one in found} == {"sẵn sàng"}
        assert {one.profile for one in found} == {f"directive16/{profile.version}"}

    def test_a_slow_line_is_ready_for_payments_and_not_for_meetings(self) -> None:
        found = {
            one.service: one for one in readiness(directive16(), [0.25] * 10, 1000, 0.005, 1000, 3e6, 0.3e6)
        }
        assert found["meetings"].score == 0
        assert found["meetings"].limiting == "up"
        assert found["payments"].score == pytest.approx(75)
        assert found["remote_support"].score == 0
