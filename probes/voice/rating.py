"""What a call over a measured stream would have sounded like: its statistics, in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nhip import emodel
from nhip.jitter_buffer import (
    AdaptiveBuffer,
    Fate,
    FixedBuffer,
    JitterBuffer,
    Passage,
    Playout,
    delay_variations_seconds,
    play,
    rtp_jitter_seconds,
)
from nhip.measurement import Direction, Statistic
from nhip.statistics import NANOSECONDS_PER_SECOND, quantile
from nhip.voice_codecs import Codec
from probes.voice.stream import TwoWays


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """The telephone that listens: its codec, how much speech is in a packet, its jitter buffer."""

    codec: Codec
    packet_seconds: float
    buffer: JitterBuffer

    @property
    def own_delay_seconds(self) -> float:
        """What the two telephones add: a packet is spoken before it can leave, and the codec's part."""
        return self.packet_seconds + self.codec.codec_delay_seconds


def rate(ways: TwoWays, terminal: Terminal) -> tuple[Statistic, ...]:
    """The statistics of both directions, and the score of the worse one.

    A direction of which nothing was played has no rating: there was no call, and a model of how calls sound
    has nothing to say of it.
    """
    fastest_ns = {Direction.UP: ways.delay.up_ns, Direction.DOWN: ways.delay.down_ns}
    passages = {Direction.UP: ways.up, Direction.DOWN: ways.down}
    found: list[Statistic] = []
    ratings: list[tuple[float, int]] = []
    for direction in (Direction.UP, Direction.DOWN):
        heard = play(passages[direction], terminal.buffer)
        of = f"{terminal.codec.id}/{direction.value}"
        mouth_to_ear = (
            None
            if heard.delay_seconds is None
            else fastest_ns[direction] / NANOSECONDS_PER_SECOND
            + heard.delay_seconds
            + terminal.own_delay_seconds
        )
        found += _about_the_network(passages[direction], of)
        found += _about_the_buffer(heard, terminal.buffer, of)
        if mouth_to_ear is None:
            continue
        found.append(
            Statistic(
                name="mouth_to_ear_seconds",
                value=mouth_to_ear,
                unit="seconds",
                count=heard.played,
                definition=(
                    f"{ways.delay.definition}, mean jitter buffer delay, "
                    f"{terminal.packet_seconds * 1e3:g} ms of packetisation, "
                    f"{terminal.codec.codec_delay_seconds * 1e3:g} ms of codec; processing not counted"
                ),
                of=of,
            )
        )
        r = _rating(heard, mouth_to_ear, terminal.codec)
        ratings.append((r, len(heard.fates)))
        found += _scores(r, len(heard.fates), of, _e_model_of(terminal.codec))
    if len(ratings) == 2:
        worse, count = min(ratings)
        found += _scores(worse, count, terminal.codec.id, "the worse of the two directions")
    return tuple(found)


def _rating(heard: Playout, mouth_to_ear_seconds: float, codec: Codec) -> float:
    unheard = [fate is not Fate.PLAYED for fate in heard.fates]
    # Few losses are by chance more regular than random ones, which the model does not know: never below 1.
    burst_ratio = max(emodel.burst_ratio(unheard) or 1.0, 1.0)
    return emodel.rating(
        codec.impairment,
        mouth_to_ear_seconds=mouth_to_ear_seconds,
        loss_ratio=heard.loss_ratio or 0.0,
        burst_ratio=burst_ratio,
    )


def _scores(r: float, count: int, of: str, definition: str) -> list[Statistic]:
    score = emodel.mean_opinion_score(r)
    return [
        Statistic(name="r_factor", value=r, unit="rating", count=count, definition=definition, of=of),
        Statistic(
            name="mos", value=score, unit="score", count=count, definition=f"MOS-CQE, {definition}", of=of
        ),
    ]


def _e_model_of(codec: Codec) -> str:
    held = "" if codec.verified else ", not held against G.113"
    return f"E-model G.107 narrowband, {codec.id}: Ie {codec.ie:g}, Bpl {codec.bpl:g}{held}"


def _about_the_network(passages: Sequence[Passage], of: str) -> list[Statistic]:
    variations = delay_variations_seconds(passages)
    jitter, variation = rtp_jitter_seconds(passages), quantile(variations, 0.95)
    arrived = sum(passage.arrived_ns is not None for passage in passages)
    found = []
    if jitter is not None:
        found.append(
            Statistic(
                name="rtp_jitter_seconds",
                value=jitter,
                unit="seconds",
                count=arrived,
                definition="interarrival jitter J at the end of the stream, RFC 3550 section 6.4.1",
                of=of,
            )
        )
    if variation is not None:
        found.append(
            Statistic(
                name="one_way_pdv_p95_seconds",
                value=variation,
                unit="seconds",
                count=len(variations),
                definition="95th percentile of PDV, RFC 5481, of one direction",
                of=of,
            )
        )
    return found


def _about_the_buffer(heard: Playout, buffer: JitterBuffer, of: str) -> list[Statistic]:
    unheard = [fate is not Fate.PLAYED for fate in heard.fates]
    how = _name_of(buffer)
    values: list[tuple[str, float | None, str, int, str]] = [
        (
            "jitter_buffer_discard_ratio",
            heard.discard_ratio,
            "ratio",
            heard.played + heard.discarded,
            f"too late for play-out ÷ arrived, {how}",
        ),
        (
            "jitter_buffer_delay_seconds",
            heard.delay_seconds,
            "seconds",
            heard.played,
            f"mean play-out delay above the fastest packet, {how}",
        ),
        (
            "jitter_buffer_underruns",
            heard.underruns,
            "packets",
            len(heard.fates),
            f"due while neither it nor a later packet was there, {how}",
        ),
        (
            "voice_loss_ratio",
            heard.loss_ratio,
            "ratio",
            len(heard.fates),
            f"lost or discarded ÷ sent, {how}",
        ),
        (
            "voice_burst_ratio",
            emodel.burst_ratio(unheard),
            "1",  # no share of anything: it may well be above 1
            sum(unheard),
            "mean run of packets not played ÷ that of random loss, G.107 BurstR",
        ),
    ]
    return [
        Statistic(name=name, value=value, unit=unit, count=count, definition=definition, of=of)
        for name, value, unit, count, definition in values
        if value is not None
    ]


def _name_of(buffer: JitterBuffer) -> str:
    match buffer:
        case FixedBuffer():
            return f"fixed buffer of {buffer.delay_seconds * 1e3:g} ms"
        case AdaptiveBuffer():
            return f"adaptive buffer (Ramjee 1994) up to {buffer.maximum_seconds * 1e3:g} ms"
