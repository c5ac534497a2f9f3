"""The E-model: how good a telephone call over this network would sound, as a rating R and an opinion score.

ITU-T G.107, narrowband, ``R = Ro − Is − Id − Ie_eff + A``. Pure functions; each takes the parameters of the
Recommendation with its default values. What a packet network changes are three numbers: the delay from mouth
to ear, the share of packets that were not played, and how bunched those losses were.

Echo is taken as cancelled (T = Tr = 0: no talker echo, Idte = 0), as is usual for calls over IP with echo
cancellers; a terminal that lets echo through sounds worse than computed here. Wideband (G.107.1) and fullband
(G.107.2) have other scales and are not computed: their numbers must never stand beside these.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

from nhip.language import Text, text

LOWEST_SCORE = 1.0
HIGHEST_SCORE = 4.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Transmission:
    """What the two telephones and the line between them are like; the defaults are those of G.107 table 2."""

    send_loudness_rating_db: float = 8.0
    """SLR."""
    receive_loudness_rating_db: float = 2.0
    """RLR."""
    sidetone_masking_rating_db: float = 15.0
    """STMR."""
    listener_sidetone_rating_db: float = 18.0
    """LSTR, which is STMR + Dr."""
    send_d_value: float = 3.0
    """Ds."""
    talker_echo_loudness_rating_db: float = 65.0
    """TELR."""
    weighted_echo_path_loss_db: float = 110.0
    """WEPL."""
    quantising_distortion_units: float = 1.0
    """qdu."""
    circuit_noise_dbm0p: float = -70.0
    """Nc."""
    receive_noise_floor_dbmp: float = -64.0
    """Nfor."""
    send_room_noise_dba: float = 35.0
    """Ps."""
    receive_room_noise_dba: float = 35.0
    """Pr."""
    advantage: float = 0.0
    """A: what people forgive for the convenience; 0 for a line at home."""
    minimum_perceivable_delay_seconds: float = 0.1
    """mT."""
    delay_sensitivity: float = 1.0
    """sT; 1 is the class "default"."""


DEFAULT = Transmission()


@dataclass(frozen=True, slots=True, kw_only=True)
class Impairment:
    """What a codec costs: `ie` even without loss (Ie), `bpl` how well it bears random loss (Bpl); G.113."""

    ie: float
    bpl: float


class Satisfaction(StrEnum):
    """What users say of a call, by its score (G.107 Annex B, G.109)."""

    VERY_SATISFIED = "very_satisfied"
    SATISFIED = "satisfied"
    SOME_DISSATISFIED = "some_dissatisfied"
    MANY_DISSATISFIED = "many_dissatisfied"
    NEARLY_ALL_DISSATISFIED = "nearly_all_dissatisfied"
    NOT_RECOMMENDED = "not_recommended"


SATISFACTION_WORDS: dict[Satisfaction, Text] = {
    Satisfaction.VERY_SATISFIED: text("rất hài lòng", "very satisfied"),
    Satisfaction.SATISFIED: text("hài lòng", "satisfied"),
    Satisfaction.SOME_DISSATISFIED: text("một số người không hài lòng", "some users dissatisfied"),
    Satisfaction.MANY_DISSATISFIED: text("nhiều người không hài lòng", "many users dissatisfied"),
    Satisfaction.NEARLY_ALL_DISSATISFIED: text(
        "gần như tất cả không hài lòng", "nearly all users dissatisfied"
    ),
    Satisfaction.NOT_RECOMMENDED: text("không nên dùng", "not recommended"),
}

# The lowest score of each band, best first; below the last nothing is recommended.
_BANDS = (
    (4.34, Satisfaction.VERY_SATISFIED),
    (4.03, Satisfaction.SATISFIED),
    (3.60, Satisfaction.SOME_DISSATISFIED),
    (3.10, Satisfaction.MANY_DISSATISFIED),
    (2.58, Satisfaction.NEARLY_ALL_DISSATISFIED),
)


def rating(
    impairment: Impairment,
    *,
    mouth_to_ear_seconds: float,
    loss_ratio: float,
    burst_ratio: float = 1.0,
    transmission: Transmission = DEFAULT,
) -> float:
    """R: 93.2 at best with the defaults, 0 and below when no conversation is possible (G.107 section 7.1).

    `mouth_to_ear_seconds` is Ta: network, jitter buffer, codec and packetisation together. `loss_ratio` is of
    packets not played, those that came too late for the jitter buffer included.
    """
    return (
        basic_rating(transmission)
        - delay_impairment(mouth_to_ear_seconds, transmission)
        - equipment_impairment(impairment, loss_ratio, burst_ratio)
        + transmission.advantage
    )


def mean_opinion_score(r: float) -> float:
    """MOS-CQE, 1 to 4.5, never falling while `r` rises (G.107 Annex B).

    Between R = 0 and about 6.5 the Recommendation's polynomial dips just below 1; it is held at 1 there.
    """
    if math.isnan(r):
        raise ValueError("a rating that is no number has no opinion score; no data is None")
    if r <= 0:
        return LOWEST_SCORE
    if r >= 100:
        return HIGHEST_SCORE
    return max(LOWEST_SCORE, 1 + 0.035 * r + r * (r - 60) * (100 - r) * 7e-6)


def satisfaction(score: float) -> Satisfaction:
    """The band that `score` falls into; a band begins at its lowest score."""
    return next((band for lowest, band in _BANDS if score >= lowest), Satisfaction.NOT_RECOMMENDED)


def basic_rating(transmission: Transmission = DEFAULT) -> float:
    """Ro − Is − Idle: R of a call that nothing delays or loses; 93.206 with the defaults."""
    return (
        signal_to_noise(transmission)
        - simultaneous_impairment(transmission)
        - listener_echo_impairment(transmission)
    )


def signal_to_noise(transmission: Transmission = DEFAULT) -> float:
    """Ro, the basic signal-to-noise ratio; 94.769 with the defaults (G.107 section 7.2)."""
    return 15 - 1.5 * (transmission.send_loudness_rating_db + _noise_dbm0p(transmission))


def simultaneous_impairment(transmission: Transmission = DEFAULT) -> float:
    """Is: too loud, wrong sidetone, quantising; 1.414 with the defaults (G.107 section 7.3)."""
    overall = transmission.send_loudness_rating_db + transmission.receive_loudness_rating_db
    x = overall + 0.2 * (64 + _noise_dbm0p(transmission) - transmission.receive_loudness_rating_db)
    too_loud = 20 * (math.pow(1 + (x / 8) ** 8, 1 / 8) - x / 8)

    sidetone = _decibel_sum(
        -transmission.sidetone_masking_rating_db, -transmission.talker_echo_loudness_rating_db
    )
    masking = -sidetone  # STMRo; T = 0, so that the whole echo adds to the sidetone
    bad_sidetone = (
        12 * math.pow(1 + ((masking - 13) / 6) ** 8, 1 / 8)
        - 28 * math.pow(1 + ((masking + 1) / 19.4) ** 35, 1 / 35)
        - 13 * math.pow(1 + ((masking - 3) / 33) ** 13, 1 / 13)
        + 29
    )

    q = 37 - 15 * math.log10(transmission.quantising_distortion_units)
    g = 1.07 + 0.258 * q + 0.0602 * q * q
    y = (signal_to_noise(transmission) - 100) / 15 + 46 / 8.4 - g / 9
    z = 46 / 30 - g / 40
    quantising = 15 * math.log10(1 + math.pow(10, y) + math.pow(10, z))
    return too_loud + bad_sidetone + quantising


def listener_echo_impairment(transmission: Transmission = DEFAULT) -> float:
    """Idle with Tr = 0, what is left of listener echo; 0.149 with the defaults (G.107 section 7.4)."""
    above = signal_to_noise(transmission) - 10.5 * (transmission.weighted_echo_path_loss_db + 7)
    return above / 2 + math.sqrt(above * above / 4 + 169)


def delay_impairment(mouth_to_ear_seconds: float, transmission: Transmission = DEFAULT) -> float:
    """Idd, the cost of delay alone: 0 up to mT, 9 at 250 ms, 31 at 500 ms (G.107 section 7.4).

    The exponent is six *times* sT; implementations that read "6 − sT" are more than 1 too kind at 500 ms.
    """
    _require("the delay from mouth to ear", mouth_to_ear_seconds)
    shortest = transmission.minimum_perceivable_delay_seconds
    if mouth_to_ear_seconds <= shortest:
        return 0.0
    x = math.log2(mouth_to_ear_seconds / shortest)
    power: float = 6 * transmission.delay_sensitivity
    near = math.pow(1 + math.pow(x, power), 1 / power)
    far = math.pow(1 + math.pow(x / 3, power), 1 / power)
    return 25 * (near - 3 * far + 2)


def equipment_impairment(impairment: Impairment, loss_ratio: float, burst_ratio: float = 1.0) -> float:
    """Ie_eff: what the codec costs at this loss (G.107 section 7.5); at most 95."""
    _require("the loss ratio", loss_ratio, at_most=1.0)
    if not (math.isfinite(burst_ratio) and burst_ratio > 0):
        raise ValueError(f"a burst ratio is finite and above 0, not {burst_ratio}")
    percent = loss_ratio * 100
    return impairment.ie + (95 - impairment.ie) * percent / (percent / burst_ratio + impairment.bpl)


def burst_ratio(lost: Iterable[bool]) -> float | None:
    """BurstR of a stream, packet by packet in sending order: 1 for random loss, more when losses are bunched.

    Mean length of the loss runs seen ÷ mean length expected of random loss at the same ratio, which is
    1 ÷ (1 − ratio) (G.107 section 7.5). `None` when nothing was lost, or everything. Of few losses it may
    fall below 1 by chance.
    """
    runs = [(was_lost, sum(1 for _ in run)) for was_lost, run in groupby(lost)]
    bursts = [length for was_lost, length in runs if was_lost]
    received = sum(length for was_lost, length in runs if not was_lost)
    if not bursts or not received:
        return None
    ratio = sum(bursts) / (sum(bursts) + received)
    return sum(bursts) / len(bursts) * (1 - ratio)


def _noise_dbm0p(transmission: Transmission) -> float:
    """No: circuit noise, the room's noise at both ends, and the noise floor, as one (G.107 section 7.2)."""
    send, receive = transmission.send_loudness_rating_db, transmission.receive_loudness_rating_db
    above = transmission.send_room_noise_dba - transmission.send_d_value
    send_room = above - send - 100 + 0.004 * (above - (send + receive) - 14) ** 2
    effective = transmission.receive_room_noise_dba + 10 * math.log10(
        1 + 10 ** ((10 - transmission.listener_sidetone_rating_db) / 10)
    )
    receive_room = receive - 121 + effective + 0.008 * (effective - 35) ** 2
    floor = transmission.receive_noise_floor_dbmp + receive
    return _decibel_sum(transmission.circuit_noise_dbm0p, send_room, receive_room, floor)


def _decibel_sum(*levels: float) -> float:
    return 10 * math.log10(sum(10 ** (level / 10) for level in levels))


def _require(what: str, value: float, at_most: float = math.inf) -> None:
    if not (math.isfinite(value) and 0 <= value <= at_most):
        limit = "" if math.isinf(at_most) else f" and not above {at_most:g}"
        raise ValueError(f"{what} is finite and not negative{limit}, not {value}")
