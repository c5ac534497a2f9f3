"""The E-model against golden values from the Recommendation's users, and against defects seen elsewhere."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nhip import emodel
from nhip.config import convert, read_toml, shipped
from nhip.emodel import Impairment, Satisfaction, Transmission
from nhip.errors import ConfigError, UnknownNameError
from nhip.language import Language
from nhip.voice_codecs import CodecTable, voice_codecs

ROUNDED_BASE = 93.2
"""The golden values below were computed from R = 93.2, as most tools do; ours begins at 93.206."""


def test_the_default_call_is_rated_as_another_implementation_of_the_recommendation_rates_it() -> None:
    # github.com/manucorporat/e-model, README: R = 93.206208
    assert emodel.basic_rating() == pytest.approx(93.206208, abs=5e-7)


def test_each_term_of_the_default_call_has_its_known_value() -> None:
    assert emodel.signal_to_noise() == pytest.approx(94.769, abs=5e-4)
    assert emodel.simultaneous_impairment() == pytest.approx(1.414, abs=5e-4)
    assert emodel.listener_echo_impairment() == pytest.approx(0.149, abs=5e-4)
    assert emodel.mean_opinion_score(emodel.basic_rating()) == pytest.approx(4.409, abs=5e-4)


@pytest.mark.parametrize(
    ("delay_ms", "impairment"),
    [
        (0, 0.0),
        (100, 0.0),
        (150, 0.164),
        (177.3, 1.172),
        (200, 3.044),
        (250, 8.917),
        (300, 14.761),
        (400, 24.070),
        (500, 30.636),
    ],
)
def test_delay_costs_what_the_golden_values_say(delay_ms: float, impairment: float) -> None:
    assert emodel.delay_impairment(delay_ms / 1000) == pytest.approx(impairment, abs=5e-4)


def test_the_exponent_is_six_times_the_sensitivity_and_not_six_less_it() -> None:
    def with_exponent(power: float) -> float:
        x = math.log2(500 / 100)
        return 25 * ((1 + x**power) ** (1 / power) - 3 * (1 + (x / 3) ** power) ** (1 / power) + 2)

    assert emodel.delay_impairment(0.5) == pytest.approx(with_exponent(6), abs=1e-9)
    assert with_exponent(5) == pytest.approx(29.5, abs=0.05)
    assert emodel.delay_impairment(0.5) - with_exponent(5) > 1


@pytest.mark.parametrize(
    ("codec", "loss_percent", "rating", "score"),
    [
        ("g711", 1, 75.28, 3.834),
        ("g711", 2, 63.04, 3.256),
        ("g711_plc", 1, 89.56, 4.328),
        ("g711_plc", 2, 86.19, 4.235),
        ("g729a", 0, 82.20, 4.104),
        ("g729a", 2, 74.20, 3.787),
    ],
)
def test_loss_costs_what_the_golden_values_say(
    codec: str, loss_percent: float, rating: float, score: float
) -> None:
    impairment = voice_codecs().named(codec).impairment
    r = ROUNDED_BASE - emodel.equipment_impairment(impairment, loss_percent / 100)
    assert r == pytest.approx(rating, abs=0.006)
    assert emodel.mean_opinion_score(r) == pytest.approx(score, abs=6e-4)
    whole = emodel.rating(impairment, mouth_to_ear_seconds=0.1, loss_ratio=loss_percent / 100)
    assert whole == pytest.approx(rating, abs=0.013)


def test_the_slope_of_loss_is_near_that_in_the_literature() -> None:
    """About 25 R a percent without concealment, 4 with it."""
    without, with_plc = (voice_codecs().named(name).impairment for name in ("g711", "g711_plc"))
    assert emodel.equipment_impairment(without, 0.001) * 10 == pytest.approx(22, abs=1)
    assert emodel.equipment_impairment(with_plc, 0.001) * 10 == pytest.approx(3.8, abs=0.1)


def test_the_score_has_the_seven_in_its_cubic_term() -> None:
    r = 80.0
    without_seven = 1 + 0.035 * r + r * (r - 60) * (100 - r) * 1e-6
    assert emodel.mean_opinion_score(r) == pytest.approx(4.024, abs=1e-9)
    assert emodel.mean_opinion_score(r) - without_seven == pytest.approx(0.192)


@pytest.mark.parametrize(("r", "score"), [(-40, 1), (0, 1), (3.2, 1), (6, 1), (100, 4.5), (250, 4.5)])
def test_the_score_is_held_at_its_ends(r: float, score: float) -> None:
    assert emodel.mean_opinion_score(r) == score


def test_the_bare_polynomial_leaves_its_range_which_is_why_it_is_held() -> None:
    bare = [1 + 0.035 * r + r * (r - 60) * (100 - r) * 7e-6 for r in (1.0, 3.2, 6.0)]
    assert min(bare) == pytest.approx(0.989, abs=5e-4)
    assert bare[1] < bare[0]


@given(st.floats(allow_nan=False))
def test_no_rating_gives_a_score_outside_one_to_four_and_a_half(r: float) -> None:
    assert 1 <= emodel.mean_opinion_score(r) <= 4.5


@given(st.floats(-50, 150), st.floats(-50, 150))
def test_a_better_rating_never_has_a_lower_score(one: float, other: float) -> None:
    lower, higher = sorted((one, other))
    assert emodel.mean_opinion_score(lower) <= emodel.mean_opinion_score(higher) + 1e-12


impairments = st.builds(Impairment, ie=st.floats(0, 95), bpl=st.floats(0.1, 100))


@given(impairments, st.floats(0, 3600), st.floats(0, 1), st.floats(0.01, 1000))
def test_no_measurement_gives_a_score_outside_one_to_four_and_a_half(
    impairment: Impairment, delay: float, loss: float, burst: float
) -> None:
    r = emodel.rating(impairment, mouth_to_ear_seconds=delay, loss_ratio=loss, burst_ratio=burst)
    assert r < 93.21
    assert 1 <= emodel.mean_opinion_score(r) <= 4.5


@given(impairments, st.floats(0, 3600), st.floats(0, 3600), st.floats(0, 1), st.floats(0, 1))
def test_more_delay_or_more_loss_never_sounds_better(
    impairment: Impairment, delay: float, more_delay: float, loss: float, more_loss: float
) -> None:
    better = emodel.rating(
        impairment, mouth_to_ear_seconds=min(delay, more_delay), loss_ratio=min(loss, more_loss)
    )
    worse = emodel.rating(
        impairment, mouth_to_ear_seconds=max(delay, more_delay), loss_ratio=max(loss, more_loss)
    )
    assert worse <= better + 1e-9


def test_bunched_losses_cost_more_than_scattered_ones() -> None:
    plc = voice_codecs().named("g711_plc").impairment
    scattered = emodel.equipment_impairment(plc, 0.05)
    assert emodel.equipment_impairment(plc, 0.05, burst_ratio=3.0) > scattered


@pytest.mark.parametrize("value", [-0.001, math.nan, math.inf])
def test_what_is_no_delay_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="mouth to ear"):
        emodel.delay_impairment(value)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_what_is_no_loss_ratio_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="loss ratio"):
        emodel.equipment_impairment(Impairment(ie=0, bpl=4.3), value)


def test_a_rating_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="no data is None"):
        emodel.mean_opinion_score(math.nan)


def test_the_simplification_of_cole_and_rosenbluth_is_near_up_to_300_milliseconds() -> None:
    """R = 94.2 − 0.024 d − 0.11 (d − 177.3) H(d − 177.3): the same curve in straight lines."""
    for delay_ms in (50, 100, 150, 200, 250, 300):
        simple = 94.2 - 0.024 * delay_ms - 0.11 * max(delay_ms - 177.3, 0)
        ours = emodel.basic_rating() - emodel.delay_impairment(delay_ms / 1000)
        assert ours == pytest.approx(simple, abs=5), delay_ms


def test_a_quieter_or_noisier_room_changes_the_rating_in_the_right_direction() -> None:
    noisy = Transmission(receive_room_noise_dba=60)
    assert emodel.basic_rating(noisy) < emodel.basic_rating() - 5
    assert emodel.rating(
        Impairment(ie=0, bpl=4.3),
        mouth_to_ear_seconds=0,
        loss_ratio=0,
        transmission=Transmission(advantage=5),
    ) == pytest.approx(emodel.basic_rating() + 5)


@pytest.mark.parametrize(
    ("score", "band"),
    [
        (4.5, Satisfaction.VERY_SATISFIED),
        (4.34, Satisfaction.VERY_SATISFIED),
        (4.339, Satisfaction.SATISFIED),
        (4.03, Satisfaction.SATISFIED),
        (3.60, Satisfaction.SOME_DISSATISFIED),
        (3.10, Satisfaction.MANY_DISSATISFIED),
        (2.58, Satisfaction.NEARLY_ALL_DISSATISFIED),
        (2.57, Satisfaction.NOT_RECOMMENDED),
        (1.0, Satisfaction.NOT_RECOMMENDED),
    ],
)
def test_a_satisfaction_band_begins_at_its_score(score: float, band: Satisfaction) -> None:
    assert emodel.satisfaction(score) is band


def test_every_band_has_words_in_both_languages() -> None:
    for band in Satisfaction:
        assert set(emodel.SATISFACTION_WORDS[band]) == set(Language)


class TestBurstRatio:
    def test_of_random_loss_is_about_one(self) -> None:
        rng = random.Random(7)
        lost = [rng.random() < 0.1 for _ in range(200_000)]
        assert emodel.burst_ratio(lost) == pytest.approx(1.0, abs=0.02)

    def test_of_a_two_state_chain_is_what_its_definition_gives(self) -> None:
        """1 ÷ (p + q) of a Markov chain that enters loss with p and leaves it with q."""
        rng, p, q = random.Random(11), 0.02, 0.25
        lost, state = [], False
        for _ in range(400_000):
            state = rng.random() < p if not state else rng.random() >= q
            lost.append(state)
        assert emodel.burst_ratio(lost) == pytest.approx(1 / (p + q), rel=0.03)

    def test_of_one_run_counts_its_length(self) -> None:
        # 4 of 20 in one run: mean run 4, expected of random loss 1/(1 − 0.2) = 1.25.
        assert emodel.burst_ratio([False] * 10 + [True] * 4 + [False] * 6) == pytest.approx(3.2)

    @pytest.mark.parametrize("lost", [[], [False, False], [True, True]])
    def test_is_undefined_when_nothing_or_everything_was_lost(self, lost: list[bool]) -> None:
        assert emodel.burst_ratio(lost) is None


class TestCodecs:
    def test_every_codec_names_its_source_and_none_claims_more_than_was_read(self) -> None:
        for codec in voice_codecs().codec:
            assert codec.source
            assert codec.verified is False, "verified needs the text of G.113"

    def test_opus_has_no_constants_and_is_not_there(self) -> None:
        with pytest.raises(UnknownNameError, match="known: g711, g711_plc, g729a"):
            voice_codecs().named("opus")

    @pytest.mark.parametrize(
        ("codec", "packet_seconds", "octets"),
        [("g711", 0.02, 160), ("g711_plc", 0.01, 80), ("g729a", 0.02, 20), ("g729a", 0.03, 30)],
    )
    def test_a_packet_holds_whole_frames(self, codec: str, packet_seconds: float, octets: int) -> None:
        assert voice_codecs().named(codec).payload_octets(packet_seconds) == octets

    @pytest.mark.parametrize("packet_seconds", [0.005, 0.025])
    def test_half_a_frame_is_no_packet(self, packet_seconds: float) -> None:
        assert voice_codecs().named("g729a").payload_octets(packet_seconds) is None

    def test_a_codec_marked_second_hand_cannot_be_called_verified(self) -> None:
        table = read_toml(shipped("voice/codecs.toml"))
        table["codec"][0]["verified"] = True
        with pytest.raises(ConfigError, match=r"codecs\.toml:codec\.g711\.verified"):
            convert(table, CodecTable, "codecs.toml")

    def test_two_codecs_of_one_name_are_refused(self) -> None:
        table = read_toml(shipped("voice/codecs.toml"))
        table["codec"].append(table["codec"][0])
        with pytest.raises(ConfigError, match=r"codecs\.toml:codec\.g711: is there twice"):
            convert(table, CodecTable, "codecs.toml")
