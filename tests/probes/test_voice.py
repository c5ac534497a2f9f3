"""The voice probe: its packets, its two directions, its scores, on loopback and over emulated links."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from nhip import emodel
from nhip.clock import SystemClock
from nhip.config import convert
from nhip.errors import ConfigError
from nhip.jitter_buffer import FixedBuffer, Passage
from nhip.lab.effects import Effects
from nhip.lab.namespace import inside
from nhip.measurement import (
    Direction,
    DirectionalLoss,
    OneWayDelay,
    Outcome,
    Sample,
    Singleton,
    Stamp,
    StampSource,
    Statistic,
    Target,
)
from nhip.voice_codecs import voice_codecs
from probes.api import ProbeContext
from probes.network import HostNetwork
from probes.packets import stamp
from probes.reflector import Reflector, ReflectorSettings
from probes.stamp.heard import Reply
from probes.voice.probe import Voice, VoiceConfig
from probes.voice.rating import Terminal, rate
from probes.voice.stream import NetworkDelay, TwoWays, take_apart
from tests.lab.deaf_network import DeafNetwork
from tests.lab.network import LabLink, lab_link, lab_of
from tests.lab.peers import udp_peer
from tests.lab.reflectors import running

__all__ = ["lab_link", "lab_of"]

MS = 1_000_000
UNKNOWN_ERROR = stamp.error_estimate(None, synchronised=False)
PLC = voice_codecs().named("g711_plc")


def measure(port: int, host: str = "127.0.0.1", network: HostNetwork | None = None, **knobs: Any) -> Sample:
    settings = {"count": 20, "interval_seconds": 0.005, "loss_threshold_seconds": 0.3} | knobs
    context = ProbeContext(clock=SystemClock(), network=network or HostNetwork())
    return Voice(VoiceConfig(**settings)).measure(Target(id="far", host=host, port=port), context)


def of(sample: Sample, name: str, what: str) -> Statistic:
    (found,) = [one for one in sample.statistics if (one.name, one.of) == (name, what)]
    return found


def value(sample: Sample, name: str, what: str) -> float:
    found = of(sample, name, what).value
    assert found is not None
    return found


@contextlib.contextmanager
def scripted_reflector(
    *,
    lose_up: Sequence[int] = (),
    lose_down: Sequence[int] = (),
    stateful: bool = True,
    skew_ns: int = 0,
    step_ns: int = 0,
    step_from: int = 0,
    twice: Sequence[int] = (),
    requests: list[bytes] | None = None,
) -> Iterator[int]:
    """A reflector that loses what it is told to, by the sender's numbers, and whose clock is wrong."""
    own = 0

    def answer(sock: socket.socket, request: bytes, peer: tuple[str, int]) -> None:
        nonlocal own
        (number,) = struct.unpack_from("!I", request)
        if requests is not None:
            requests.append(request)
        if number in lose_up:
            return
        wrong_ns = skew_ns + (step_ns if step_ns and number >= step_from else 0)
        for _ in range(2 if number in twice else 1):
            packet = stamp.reflect(
                request,
                received_wall_ns=time.time_ns() + wrong_ns,
                hop_limit=64,
                error=stamp.error_estimate(None, synchronised=False),
                sequence=own if stateful else None,
            )
            own += 1
            stamp.set_sent(packet, time.time_ns() + wrong_ns)
            if number not in lose_down:
                sock.sendto(packet, peer)

    with udp_peer(answer) as port:
        yield port


@contextlib.contextmanager
def relay(host: str, far_port: int, marks: set[tuple[str, int]]) -> Iterator[int]:
    """Passes packets on with the mark they came with, and notes it; gives its port."""
    six = ":" in host
    level, option, receive = (
        (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, socket.IPV6_RECVTCLASS)
        if six
        else (socket.IPPROTO_IP, socket.IP_TOS, 13)  # IP_RECVTOS
    )

    def octet(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
        return next(value[0] for _level, kind, value in ancillary if kind == option)

    family = socket.AF_INET6 if six else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as near, socket.socket(family, socket.SOCK_DGRAM) as far:
        for sock in (near, far):
            sock.bind((host, 0))
            sock.setsockopt(level, receive, 1)
            sock.settimeout(0.5)

        def pass_on() -> None:
            with contextlib.suppress(OSError):
                while True:
                    request, ancillary, _flags, peer = near.recvmsg(4096, 200)
                    marks.add(("up", octet(ancillary) >> 2))
                    far.setsockopt(level, option, octet(ancillary))
                    far.sendto(request, (host, far_port))
                    answer, ancillary, _flags, _far = far.recvmsg(4096, 200)
                    marks.add(("down", octet(ancillary) >> 2))
                    near.sendto(answer, peer)

        thread = threading.Thread(target=pass_on)
        thread.start()
        try:
            yield near.getsockname()[1]
        finally:
            thread.join()


class TestPacket:
    @pytest.mark.parametrize(
        ("codec", "interval_seconds", "octets"),
        [
            ("g711", 0.02, 172),
            ("g711_plc", 0.01, 92),
            ("g729a", 0.02, 44),
            ("g729a", 0.06, 72),
            ("g711", 0.00425, 48),  # RTP would have 46, which leaves no room for the header of padding
        ],
    )
    def test_is_as_large_as_rtp_s_and_no_smaller_than_stamp_s(
        self, codec: str, interval_seconds: float, octets: int
    ) -> None:
        assert VoiceConfig(codec=codec, interval_seconds=interval_seconds).plan.size_octets == octets

    def test_asks_when_answers_left_and_carries_its_speech_in_an_extra_padding_tlv(self) -> None:
        requests: list[bytes] = []
        with scripted_reflector(requests=requests) as port:
            sample = measure(port, interval_seconds=0.02, count=2)
        assert [len(request) for request in requests] == [172, 172]
        # RFC 8972: U flag, Class of Service (4) asking for EF, Follow-Up Telemetry (7), Extra Padding (1).
        assert requests[1][44:52] == bytes([0x80, 4, 0, 4, 46 << 2, 0, 0, 0])
        assert requests[1][52:72] == bytes([0x80, 7, 0, 16]) + bytes(16)
        assert requests[1][72:76] == bytes([0x80, 1, 0, 96])
        assert requests[0][76:] == requests[1][76:] != bytes(96)
        assert sample.octets_sent == 344
        assert sample.type_p.size_octets == 172

    def test_is_marked_expedited_forwarding_unless_told_otherwise(self) -> None:
        assert VoiceConfig().dscp == 46
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
            far.bind(("127.0.0.1", 0))
            far.setsockopt(socket.IPPROTO_IP, 13, 1)  # IP_RECVTOS
            measure(far.getsockname()[1], count=1)
            _data, ancillary, _flags, _peer = far.recvmsg(2048, 64)
        assert [octets[0] for _level, _kind, octets in ancillary] == [46 << 2]

    @pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
    @pytest.mark.parametrize("codec", ["g711_plc", "g729a"])
    def test_is_marked_the_same_on_the_way_there_and_back(self, host: str, codec: str) -> None:
        """A relay in between looks at the marks on the wire; G.729A has no room to ask for the one back."""
        marks: set[tuple[str, int]] = set()
        with running(host) as far, relay(host, far.address[1], marks) as port:
            sample = measure(port, host, count=4, codec=codec, interval_seconds=0.02)
        assert {singleton.outcome for singleton in sample.singletons} == {Outcome.RECEIVED}
        assert marks == {("up", 46), ("down", 46)}
        told = {name: sample.facts.get(name) for name in ("stamp_dscp_received", "stamp_dscp_returned")}
        asked = codec == "g711_plc"
        assert told["stamp_dscp_received"] == ("46" if asked else None)
        assert told["stamp_dscp_returned"] == ("as_asked" if asked else None)

    def test_whose_speech_comes_back_changed_is_corrupt_and_not_heard(self) -> None:
        def answer(sock: socket.socket, request: bytes, peer: tuple[str, int]) -> None:
            now_ns = time.time_ns()
            packet = stamp.reflect(
                request, received_wall_ns=now_ns, hop_limit=64, error=stamp.ErrorEstimate(False, 63, 255)
            )
            stamp.set_sent(packet, now_ns)
            packet[-1] ^= 0xFF
            sock.sendto(packet, peer)

        with udp_peer(answer) as port:
            sample = measure(port, interval_seconds=0.02, count=3)
        assert {singleton.outcome for singleton in sample.singletons} == {Outcome.CORRUPT}
        assert not [one for one in sample.statistics if one.name == "mos"]


class TestLoopback:
    @pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
    def test_a_perfect_line_has_the_best_score_in_both_directions(self, host: str) -> None:
        reflector = Reflector(host, 0, clock=SystemClock())
        reflector.start()
        with contextlib.closing(reflector):
            sample = measure(reflector.address[1], host, jitter_buffer="fixed", interval_seconds=0.01)
        for what in ("g711_plc", "g711_plc/up", "g711_plc/down"):
            assert value(sample, "r_factor", what) == pytest.approx(93.206, abs=5e-4)
            assert value(sample, "mos", what) == pytest.approx(4.409, abs=5e-4)
        assert value(sample, "voice_loss_ratio", "g711_plc/up") == 0
        assert sample.directional_loss == DirectionalLoss(sent=20, lost_up=0, lost_down=0, undetermined=0)
        assert sample.notes == () or all("stalled" in note for note in sample.notes)

    def test_a_reflector_in_authenticated_mode_is_heard_with_its_key_and_only_with_it(
        self, tmp_path: Path
    ) -> None:
        right, wrong = tmp_path / "right.key", tmp_path / "wrong.key"
        for path, octet in ((right, "a"), (wrong, "b")):
            path.write_text(octet * 43, encoding="ascii")
            path.chmod(0o600)
        settings = ReflectorSettings(authenticated=True, keys=(b"a" * 43,))
        reflector = Reflector("127.0.0.1", 0, clock=SystemClock(), settings=settings)
        reflector.start()
        with contextlib.closing(reflector):
            port = reflector.address[1]
            known = measure(port, interval_seconds=0.02, count=5, key_file=str(right))
            unknown = measure(port, interval_seconds=0.02, count=2, key_file=str(wrong))
        assert known.type_p.size_octets == 172
        assert value(known, "mos", "g711_plc") > 4.4
        assert {singleton.outcome for singleton in unknown.singletons} == {Outcome.LOST}

    def test_mouth_to_ear_is_network_buffer_packet_and_codec(self) -> None:
        with scripted_reflector() as port:
            sample = measure(port, jitter_buffer="fixed", buffer_seconds=0.06)
        seconds = value(sample, "mouth_to_ear_seconds", "g711_plc/up")
        assert seconds == pytest.approx(0.06 + 0.005 + 0.00375, abs=0.005)
        assert (
            "half of the fastest round trip, assumed"
            in of(sample, "mouth_to_ear_seconds", "g711_plc/up").definition
        )

    def test_every_number_says_how_it_is_defined_and_what_it_is_of(self) -> None:
        with scripted_reflector(lose_up=[3, 4]) as port:
            sample = measure(port)
        ours = [one for one in sample.statistics if one.of.startswith("g711_plc")]
        assert {one.name for one in ours} == {
            "jitter_buffer_delay_seconds",
            "jitter_buffer_discard_ratio",
            "jitter_buffer_underruns",
            "mos",
            "mouth_to_ear_seconds",
            "one_way_pdv_p95_seconds",
            "r_factor",
            "rtp_jitter_seconds",
            "voice_burst_ratio",
            "voice_loss_ratio",
        }
        assert {one.of for one in ours} == {"g711_plc", "g711_plc/up", "g711_plc/down"}
        assert len({(one.name, one.of) for one in sample.statistics}) == len(sample.statistics)
        assert all(len(one.definition) > 10 and one.count > 0 for one in ours)
        assert "RFC 3550" in of(sample, "rtp_jitter_seconds", "g711_plc/up").definition
        assert sample.parameters["codec"] == "g711_plc"

    def test_a_stream_that_lost_everything_has_no_score_not_even_the_lowest(self) -> None:
        with scripted_reflector() as port:
            sample = measure(port, network=DeafNetwork(), count=5)
        assert {singleton.outcome for singleton in sample.singletons} == {Outcome.LOST}
        assert not [one for one in sample.statistics if one.name in ("mos", "r_factor")]
        assert any("no opinion score" in note for note in sample.notes)


class TestDirection:
    def test_loss_on_the_way_up_spoils_only_the_way_up(self) -> None:
        with scripted_reflector(lose_up=[5, 9, 10, 14]) as port:
            sample = measure(port, codec="g711")
        assert sample.directional_loss == DirectionalLoss(sent=20, lost_up=4, lost_down=0, undetermined=0)
        assert value(sample, "voice_loss_ratio", "g711/up") == pytest.approx(4 / 20)
        assert value(sample, "voice_loss_ratio", "g711/down") == 0
        assert value(sample, "mos", "g711/up") < 2 < 4.4 < value(sample, "mos", "g711/down")
        assert value(sample, "mos", "g711") == value(sample, "mos", "g711/up")

    def test_loss_on_the_way_down_spoils_only_the_way_down(self) -> None:
        """Twenty numbers that agree with ours up to the first loss: a stateful reflector all the same."""
        with scripted_reflector(lose_up=[2], lose_down=[5, 9]) as port:
            sample = measure(port)
        assert sample.directional_loss == DirectionalLoss(sent=20, lost_up=1, lost_down=2, undetermined=0)
        assert value(sample, "voice_loss_ratio", "g711_plc/down") == pytest.approx(2 / 19)
        assert value(sample, "voice_loss_ratio", "g711_plc/up") == pytest.approx(1 / 18)

    def test_what_nothing_came_after_counts_in_both_and_is_said(self) -> None:
        with scripted_reflector(lose_up=[2, 18, 19]) as port:
            sample = measure(port)
        assert sample.directional_loss == DirectionalLoss(sent=20, lost_up=1, lost_down=0, undetermined=2)
        assert value(sample, "voice_loss_ratio", "g711_plc/down") == pytest.approx(2 / 19)
        assert any("2 packets lost nobody knows where count in both" in note for note in sample.notes)

    def test_a_stateless_reflector_s_losses_count_in_both_and_it_is_said(self) -> None:
        with scripted_reflector(lose_up=[5, 9], stateful=False) as port:
            sample = measure(port)
        assert sample.directional_loss is None
        for direction in ("up", "down"):
            assert value(sample, "voice_loss_ratio", f"g711_plc/{direction}") == pytest.approx(2 / 20)
        assert any("2 packets lost nobody knows where count in both" in note for note in sample.notes)

    def test_duplicates_do_not_look_like_loss(self) -> None:
        with scripted_reflector(lose_up=[2], twice=[4, 7]) as port:
            sample = measure(port)
        assert sample.directional_loss == DirectionalLoss(sent=20, lost_up=1, lost_down=0, undetermined=0)

    @pytest.mark.parametrize("skew_seconds", [-86_400, 3.7, 400_000_000])
    def test_a_far_clock_that_is_wrong_changes_nothing(self, skew_seconds: float) -> None:
        with scripted_reflector(skew_ns=round(skew_seconds * 1e9)) as port:
            sample = measure(port, jitter_buffer="fixed")
        for direction in ("up", "down"):
            assert value(sample, "mos", f"g711_plc/{direction}") == pytest.approx(4.409, abs=5e-4)
            assert value(sample, "mouth_to_ear_seconds", f"g711_plc/{direction}") < 0.06

    def test_a_far_clock_that_is_set_during_the_test_leaves_no_score(self) -> None:
        with scripted_reflector(step_ns=-2 * 10**9, step_from=10) as port:
            sample = measure(port)
        assert not [one for one in sample.statistics if one.name in ("mos", "r_factor")]
        assert any("far clock was set by about -2000 ms" in note for note in sample.notes)
        assert {singleton.outcome for singleton in sample.singletons} == {Outcome.RECEIVED}


def answered(
    sequence: int, number: int, *, up_ms: float = 10, down_ms: float = 30, skew_ns: int = 0
) -> tuple[Singleton, Reply]:
    """A packet each 20 ms with the given delays; T2 and T3 on a far clock `skew_ns` ahead."""
    sent_ns = 10**12 + sequence * 20 * MS
    far_ns = sent_ns + round(up_ms * MS) + skew_ns
    received_ns = sent_ns + round((up_ms + down_ms) * MS)
    singleton = Singleton(
        sequence=sequence,
        outcome=Outcome.RECEIVED,
        sent=Stamp(sent_ns, sent_ns, StampSource.KERNEL),
        received=Stamp(received_ns, received_ns, StampSource.KERNEL),
        delay_ns=received_ns - sent_ns,
        delay_source=StampSource.KERNEL,
    )
    return singleton, Reply(sequence, number, far_ns, far_ns, UNKNOWN_ERROR)


def lost(sequence: int) -> Singleton:
    sent_ns = 10**12 + sequence * 20 * MS
    return Singleton(
        sequence=sequence, outcome=Outcome.LOST, sent=Stamp(sent_ns, sent_ns, StampSource.KERNEL)
    )


def parts(
    numbers: dict[int, int | None],
    *,
    stateful: bool = True,
    doubled: Mapping[int, int] | None = None,
    clocks: tuple[float, float] | None = None,
    skew_ns: int = 0,
) -> TwoWays:
    """Our number → the reflector's, or none for a packet that was not answered.

    `doubled` maps numbers of the reflector to the packets of ours that it numbered twice. `clocks` are the
    up delay by both clocks and their summed error, in milliseconds.
    """
    singletons, replies = [], []
    for ours, theirs in numbers.items():
        if theirs is None:
            singletons.append(lost(ours))
            continue
        singleton, reply = answered(ours, theirs, skew_ns=skew_ns)
        if clocks is not None:
            up_ns, error_ns = round(clocks[0] * MS), round(clocks[1] * MS)
            one_way = (OneWayDelay(direction=Direction.UP, delay_ns=up_ns, error_ns=error_ns),)
            singleton = dataclasses.replace(singleton, one_way=one_way)
        singletons.append(singleton)
        replies.append(reply)
    replies += [answered(ours, number)[1] for number, ours in (doubled or {}).items()]
    found = take_apart(singletons, replies, interval_seconds=0.02, stateful=stateful)
    assert isinstance(found, TwoWays)
    return found


def arrivals(passages: Sequence[Passage]) -> str:
    return "".join("." if passage.arrived_ns is None else "x" for passage in passages)


class TestTakenApart:
    def test_the_example_of_the_manual(self) -> None:
        found = parts({0: 0, 1: None, 2: None, 3: None, 4: 2, 5: 3})
        assert arrivals(found.up) == "x..xx"
        assert arrivals(found.down) == "x.xx"
        assert found.counted_twice == 0

    def test_the_same_stream_by_a_reflector_that_does_not_number_loses_in_both(self) -> None:
        found = parts({0: 0, 1: None, 2: None, 3: None, 4: 4, 5: 5}, stateful=False)
        assert arrivals(found.up) == arrivals(found.down) == "x...xx"
        assert found.counted_twice == 3

    @pytest.mark.parametrize("seed", range(30))
    def test_every_split_is_exact_up_to_the_last_answer(self, seed: int) -> None:
        """Loss and duplication at random; whoever plays the reflector knows what was lost where."""
        rng = random.Random(seed)
        numbers: dict[int, int | None] = {}
        doubled: dict[int, int] = {}
        own, lost_up, lost_down, gap = 0, 0, 0, (0, 0)
        for ours in range(200):
            numbers[ours] = None
            if rng.random() < 0.15:
                gap = (gap[0] + 1, gap[1])
                continue
            if rng.random() < 0.15:
                gap, own = (gap[0], gap[1] + 1), own + 1
                continue
            numbers[ours], own = own, own + 1
            lost_up, lost_down, gap = lost_up + gap[0], lost_down + gap[1], (0, 0)
            if rng.random() < 0.05:
                doubled[own] = ours
                own += 1
        found = parts(numbers, doubled=doubled)
        assert found.counted_twice == sum(gap)
        assert arrivals(found.up).count(".") == lost_up + sum(gap)
        assert arrivals(found.down).count(".") == lost_down + sum(gap)
        assert len(found.up) == 200 - lost_down
        assert len(found.down) == 200 - lost_up

    def test_losses_before_the_first_answer_are_split_too(self) -> None:
        found = parts({0: None, 1: None, 2: 1, 3: 2})
        assert (arrivals(found.up), arrivals(found.down)) == (".xx", ".xx")
        assert found.counted_twice == 0

    def test_numbers_that_do_not_fit_are_not_believed(self) -> None:
        found = parts({0: 0, 1: None, 2: 4_000_000_000})
        assert arrivals(found.up) == arrivals(found.down) == "x.x"
        assert found.counted_twice == 1

    def test_a_reflector_that_begins_to_number_anew_is_not_believed(self) -> None:
        """It forgot the session after four packets; the answers to the next two were lost on the way back."""
        numbers = {0: 0, 1: 1, 2: 2, 3: 3, 4: None, 5: None, 6: 2, 7: 3, 8: 4, 9: 5}
        found = parts(numbers)
        assert found.counted_twice == 2
        assert arrivals(found.up) == arrivals(found.down) == "xxxx..xxxx"
        # Nor where no number comes twice: its own time went on while its numbers fell.
        found = parts({0: 0, 1: None, 2: None, 3: 3, 4: None, 5: 1, 6: 2})
        assert found.counted_twice == 3
        # The twin: had it counted on, the two would have been lost on the way down alone.
        found = parts({0: 0, 1: 1, 2: 2, 3: 3, 4: None, 5: None, 6: 6, 7: 7})
        assert (arrivals(found.up), arrivals(found.down)) == ("xxxxxx", "xxxx..xx")

    def test_reordered_numbers_are_no_loss(self) -> None:
        found = parts({0: 0, 1: 2, 2: 1, 3: 3})
        assert arrivals(found.up) == arrivals(found.down) == "xxxx"

    def test_the_answers_are_heard_in_the_order_they_were_sent(self) -> None:
        found = parts({0: 0, 1: None, 2: 2, 3: 3})
        times = [passage.sent_ns for passage in found.down]
        assert times == sorted(times)
        assert arrivals(found.down) == "x.xx"

    def test_what_was_never_sent_is_in_neither_direction(self) -> None:
        one, reply = answered(0, 0)
        unsent = Singleton(sequence=1, outcome=Outcome.NOT_SENT)
        found = take_apart([one, unsent], [reply], interval_seconds=0.02, stateful=True)
        assert isinstance(found, TwoWays)
        assert (arrivals(found.up), arrivals(found.down)) == ("x", "x")

    def test_an_answer_after_the_threshold_is_heard_as_late_as_it_came(self) -> None:
        one, reply = answered(0, 0, down_ms=5000)
        late = dataclasses.replace(one, outcome=Outcome.LATE, delay_ns=None, delay_source=None)
        found = take_apart([late], [reply], interval_seconds=0.02, stateful=True)
        assert isinstance(found, TwoWays)
        (down,) = found.down
        assert down == Passage(0, 5000 * MS)

    def test_the_way_down_begins_when_the_answer_really_left(self) -> None:
        """A delay corrected by a follow-up tells it: T3 was written 7 ms before the packet left."""
        one, reply = answered(0, 0)
        assert one.delay_ns is not None
        corrected = dataclasses.replace(one, delay_ns=one.delay_ns - 7 * MS)
        found = take_apart([corrected], [reply], interval_seconds=0.02, stateful=True)
        assert isinstance(found, TwoWays)
        assert found.down == (Passage(0, 23 * MS),)

    def test_what_this_host_stalled_is_in_neither_direction(self) -> None:
        """The second packet left half a second late; the network took as long as ever."""
        (one, reply), (other, other_reply) = answered(0, 0), answered(1, 1)
        assert other.sent is not None
        assert other.received is not None
        late = dataclasses.replace(
            other,
            sent=dataclasses.replace(other.sent, mono_ns=other.sent.mono_ns + 500 * MS),
            received=dataclasses.replace(other.received, mono_ns=other.received.mono_ns + 500 * MS),
        )
        far_ns = other_reply.received_wall_ns + 500 * MS
        late_reply = Reply(1, 1, far_ns, far_ns, UNKNOWN_ERROR)
        stalled = take_apart([one, late], [reply, late_reply], interval_seconds=0.02, stateful=True)
        assert stalled == take_apart([one, other], [reply, other_reply], interval_seconds=0.02, stateful=True)

    def test_half_the_round_trip_is_an_assumption_and_says_so(self) -> None:
        found = parts({0: 0, 1: 1}, skew_ns=10**15)
        assert (found.delay.up_ns, found.delay.down_ns) == (20 * MS, 20 * MS)
        assert "assumed" in found.delay.definition

    def test_clocks_that_know_their_error_give_each_way_its_own_delay(self) -> None:
        found = parts({0: 0, 1: 1}, clocks=(10, 5))
        assert (found.delay.up_ns, found.delay.down_ns) == (10 * MS, 30 * MS)
        assert found.delay.definition == "one-way delay by two clocks within 5.000 ms"

    def test_clocks_that_know_worse_than_the_assumption_are_not_used(self) -> None:
        assert "assumed" in parts({0: 0, 1: 1}, clocks=(10, 20)).delay.definition

    @pytest.mark.parametrize(("by_clocks_ms", "up_ms"), [(-4, 0), (43, 40)])
    def test_a_clock_error_never_makes_a_delay_negative_or_longer_than_the_round_trip(
        self, by_clocks_ms: float, up_ms: int
    ) -> None:
        found = parts({0: 0}, clocks=(by_clocks_ms, 5))
        assert (found.delay.up_ns, found.delay.down_ns) == (up_ms * MS, (40 - up_ms) * MS)


class TestRating:
    def ways(self, up: Sequence[Passage], down: Sequence[Passage]) -> TwoWays:
        delay = NetworkDelay(up_ns=40 * MS, down_ns=60 * MS, definition="given")
        return TwoWays(up=tuple(up), down=tuple(down), counted_twice=0, delay=delay)

    def stream(self, count: int, unheard: Sequence[int], late: bool) -> list[Passage]:
        """A packet each 20 ms of which some are lost, or a second late."""
        return [
            Passage(
                number * 20 * MS,
                number * 20 * MS + (1000 * MS if number in unheard else 0)
                if late or number not in unheard
                else None,
            )
            for number in range(count)
        ]

    def scores(self, ways: TwoWays) -> dict[str, float]:
        terminal = Terminal(codec=PLC, packet_seconds=0.02, buffer=FixedBuffer(delay_seconds=0.04))
        return {
            one.of: one.value
            for one in rate(ways, terminal)
            if one.name == "r_factor" and one.value is not None
        }

    def test_a_late_packet_costs_what_a_lost_one_does(self) -> None:
        whole = self.stream(100, [], late=False)
        lost_ones = self.scores(self.ways(self.stream(100, [20, 50], late=False), whole))
        late_ones = self.scores(self.ways(self.stream(100, [20, 50], late=True), whole))
        assert late_ones == lost_ones
        # Ta = 40 + 40 + 20 + 3.75 ms.
        expected = emodel.rating(PLC.impairment, mouth_to_ear_seconds=0.10375, loss_ratio=0.02)
        assert lost_ones["g711_plc/up"] == pytest.approx(expected)
        assert lost_ones["g711_plc"] == min(lost_ones["g711_plc/up"], lost_ones["g711_plc/down"])

    def test_a_run_of_losses_costs_more_than_the_same_number_scattered(self) -> None:
        whole = self.stream(100, [], late=False)
        scattered = self.scores(self.ways(self.stream(100, [10, 30, 50, 70], late=False), whole))
        bunched = self.scores(self.ways(self.stream(100, [10, 11, 12, 13], late=False), whole))
        assert bunched["g711_plc/up"] < scattered["g711_plc/up"] - 0.5

    def test_a_direction_of_which_nothing_was_heard_has_no_rating_and_neither_has_the_call(self) -> None:
        silent = [Passage(number * 20 * MS, None) for number in range(10)]
        assert set(self.scores(self.ways(silent, self.stream(10, [], late=False)))) == {"g711_plc/down"}


class TestSettings:
    @pytest.mark.parametrize(
        ("knobs", "key"),
        [
            ({"codec": "opus"}, "codec"),
            ({"codec": "g729a", "interval_seconds": 0.025}, "interval_seconds"),
            ({"spacing": "poisson"}, "spacing"),
            ({"buffer_seconds": 0.3}, "buffer_seconds"),
            ({"jitter_buffer": "none"}, "jitter_buffer"),
        ],
    )
    def test_that_describe_no_telephone_are_refused_by_key(self, knobs: dict[str, Any], key: str) -> None:
        with pytest.raises(ConfigError, match=rf"probe\.toml:{key}: "):
            convert(knobs, VoiceConfig, "probe.toml", environment={})

    def test_by_default_are_ten_seconds_of_g711_in_packets_of_20_ms(self) -> None:
        config = VoiceConfig()
        assert config.count * config.interval_seconds == 10
        assert config.terminal.codec.id == "g711_plc"


@pytest.mark.lab
class TestLink:
    """The lab's own counters are the truth; the score expected of them is the E-model's."""

    def over(self, lab_link: LabLink, up: Effects, down: Effects, **knobs: Any) -> tuple[Sample, Any]:
        lab = lab_link(up=up, down=down)
        with inside(f"{lab.name}-far"):
            reflector = Reflector(lab.address("far"), 0, clock=SystemClock())
            reflector.start()
        with contextlib.closing(reflector), inside(f"{lab.name}-near"):
            settings = {"count": 1000, "interval_seconds": 0.005, "loss_threshold_seconds": 1.0} | knobs
            sample = measure(reflector.address[1], lab.address("far"), **settings)
        return sample, lab.truth().link("pair")

    def test_loss_lowers_the_score_of_its_direction_as_the_e_model_says(self, lab_link: LabLink) -> None:
        sample, link = self.over(
            lab_link,
            Effects(delay_seconds=0.03, loss_ratio=0.05),
            Effects(delay_seconds=0.03),
            codec="g711",
            jitter_buffer="fixed",
        )
        up = link.up.counters["udp"]
        assert up.dropped_loss > 20
        assert sample.directional_loss is not None
        # The answers of some of the last packets may be the missing ones.
        undetermined = sample.directional_loss.undetermined
        assert sample.directional_loss.lost_up + undetermined == up.dropped_loss
        assert sample.directional_loss.lost_down == link.down.counters["udp"].dropped_loss == 0
        true_loss = up.dropped_loss / up.arrived
        g711 = voice_codecs().named("g711").impairment
        burst = value(sample, "voice_burst_ratio", "g711/up")
        assert burst == pytest.approx(1, abs=0.35)
        # Ta = 30 + 40 + 5 ms stays below 100 ms: only loss counts.
        expected = emodel.rating(
            g711, mouth_to_ear_seconds=0.075, loss_ratio=true_loss, burst_ratio=max(burst, 1.0)
        )
        assert value(sample, "r_factor", "g711/up") == pytest.approx(expected, abs=1.0)
        assert value(sample, "mos", "g711/up") == pytest.approx(emodel.mean_opinion_score(expected), abs=0.06)
        assert value(sample, "mos", "g711/down") > 4.3
        assert value(sample, "mos", "g711") == value(sample, "mos", "g711/up")

    def test_delay_lowers_the_score_as_the_e_model_says(self, lab_link: LabLink) -> None:
        sample, link = self.over(
            lab_link,
            Effects(delay_seconds=0.2),
            Effects(delay_seconds=0.2),
            count=200,
            jitter_buffer="fixed",
        )
        assert link.up.counters["udp"].dropped_loss == link.down.counters["udp"].dropped_loss == 0
        expected = emodel.rating(PLC.impairment, mouth_to_ear_seconds=0.2 + 0.04 + 0.00875, loss_ratio=0)
        for direction in ("up", "down"):
            what = f"g711_plc/{direction}"
            assert value(sample, "mouth_to_ear_seconds", what) == pytest.approx(0.24875, abs=0.002)
            assert value(sample, "r_factor", what) == pytest.approx(expected, abs=0.5)
        assert value(sample, "mos", "g711_plc") < 4.3

    def test_jitter_beyond_a_fixed_buffer_is_discarded_in_its_direction(self, lab_link: LabLink) -> None:
        """Uniform between 0 and 60 ms: a third of independent delays exceeds 40 ms.

        The link keeps packets in order, so that a slow one holds up those behind it and more are late.
        """
        sample, link = self.over(
            lab_link,
            Effects(delay_seconds=0.02),
            Effects(delay_seconds=0.02, jitter_distribution="uniform", jitter_seconds=0.03),
            interval_seconds=0.01,
            count=500,
            jitter_buffer="fixed",
            buffer_seconds=0.04,
        )
        assert link.down.counters["udp"].dropped_loss == 0
        assert value(sample, "jitter_buffer_discard_ratio", "g711_plc/up") == 0
        discarded = value(sample, "jitter_buffer_discard_ratio", "g711_plc/down")
        assert 1 / 3 < discarded < 0.9
        assert value(sample, "one_way_pdv_p95_seconds", "g711_plc/down") == pytest.approx(0.058, abs=0.006)
        assert value(sample, "rtp_jitter_seconds", "g711_plc/down") > 20 * value(
            sample, "rtp_jitter_seconds", "g711_plc/up"
        )
        assert value(sample, "mos", "g711_plc/down") < 3.5 < 4.4 < value(sample, "mos", "g711_plc/up") + 0.01

    def test_an_adaptive_buffer_hears_more_of_the_same_line_and_pays_with_delay(
        self, lab_link: LabLink
    ) -> None:
        sample, _link = self.over(
            lab_link,
            Effects(delay_seconds=0.02),
            Effects(delay_seconds=0.02, jitter_distribution="uniform", jitter_seconds=0.03),
            interval_seconds=0.01,
            count=500,
        )
        assert value(sample, "jitter_buffer_discard_ratio", "g711_plc/down") < 0.2
        assert value(sample, "jitter_buffer_delay_seconds", "g711_plc/down") > 0.045
        assert value(sample, "jitter_buffer_delay_seconds", "g711_plc/up") < 0.035
