"""Voice: how a telephone call towards a STAMP reflector would sound, up and down apart.

A stream shaped like a call is sent: one packet each ``interval_seconds`` (20 ms), as large as an RTP packet
of that much speech, marked ``dscp`` (46, Expedited Forwarding), ``count`` of them (500: 10 seconds). The
packets are STAMP packets (RFC 8762), so the far end is any STAMP reflector, and no smaller than one, 44
octets, even where RTP's would be (G.729A: 32). From the four time stamps of each answer both directions are
played through a jitter buffer, without synchronised clocks, and rated with the E-model (ITU-T G.107,
narrowband).

The delay from mouth to ear is the network's fastest one-way delay, the buffer's, one packet's length, and the
codec's own. The network's part is measured where both clocks know their error well enough, else taken as half
the round trip; the statistic says which. Loss is split by direction where the reflector numbers its answers
(stateful); where it does not, or begins to number anew within the test, each loss counts in both directions
and a note says so. Packets that have room ask the reflector to mark its answers with ``dscp`` too, which ours
does unasked, and to tell the mark they arrived with.

A stream of which nothing came back has no score. Echo is taken as cancelled; the time telephones need for
processing is not counted.

Settings: ``codec`` (``g711_plc``, ``g711``, ``g729a``: constants in configs/voice/codecs.toml),
``interval_seconds`` a whole number of the codec's frames, ``count``, ``dscp``, ``loss_threshold_seconds``,
``jitter_buffer`` (``adaptive`` or ``fixed``), ``buffer_seconds`` (the delay of a fixed buffer; of an adaptive
one its first second's), ``maximum_buffer_seconds`` of an adaptive one; ``key_file`` for a reflector in
authenticated mode; ``reflector`` (``any``, ``stateful``, ``stateless``) as for ``stamp``; ``spacing`` is
always ``periodic``. The target's port is 862 unless given.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import socket
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import msgspec

from nhip.clock import clock_state
from nhip.errors import ConfigError, UnknownNameError
from nhip.jitter_buffer import AdaptiveBuffer, FixedBuffer
from nhip.measurement import Method, Sample, Singleton, Target, TypeP
from nhip.measurement import Stamp as TimeStamp
from nhip.voice_codecs import voice_codecs
from probes.api import ProbeContext
from probes.echo import EchoProtocol, Findings
from probes.echo_stream import EchoConfig, measure_echo
from probes.ledger import Answer
from probes.network import Address
from probes.pacing import Spacing
from probes.packets import stamp
from probes.packets.stamp_tlv import HEADER_OCTETS
from probes.stamp.directions import numbering
from probes.stamp.key import read_stamp_key
from probes.stamp.plan import Mode, Plan, planned
from probes.stamp.session import StampSession
from probes.timestamping import Datagram
from probes.voice.rating import Terminal, rate
from probes.voice.stream import take_apart

_RTP_HEADER_OCTETS = 12


class VoiceConfig(EchoConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Knobs of a voice test."""

    count: Annotated[int, msgspec.Meta(ge=1, le=200_000)] = 500
    interval_seconds: Annotated[float, msgspec.Meta(ge=0.001, le=1.0)] = 0.02
    dscp: Annotated[int, msgspec.Meta(ge=0, le=63)] = 46
    codec: str = "g711_plc"
    jitter_buffer: Literal["adaptive", "fixed"] = "adaptive"
    buffer_seconds: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.04
    maximum_buffer_seconds: Annotated[float, msgspec.Meta(gt=0, le=2)] = 0.2
    key_file: str | None = None
    reflector: Literal["any", "stateful", "stateless"] = "any"

    def __post_init__(self) -> None:
        if self.spacing is not Spacing.PERIODIC:
            raise ConfigError("spacing: a telephone sends periodically", remedy="leave spacing out")
        try:
            codec = voice_codecs().named(self.codec)
        except UnknownNameError as error:
            raise ConfigError(f"codec: {error.what}", remedy=error.remedy) from error
        if codec.payload_octets(self.interval_seconds) is None:
            raise ConfigError(
                f"interval_seconds: {self.interval_seconds:g} is no whole number of frames of {codec.id}",
                remedy=f"use a multiple of {codec.frame_seconds:g}",
            )
        if self.jitter_buffer == "adaptive" and self.buffer_seconds > self.maximum_buffer_seconds:
            raise ConfigError(
                f"buffer_seconds: {self.buffer_seconds:g} is above maximum_buffer_seconds",
                remedy="begin with less, or allow more",
            )

    @property
    def terminal(self) -> Terminal:
        """The telephone these settings describe."""
        adaptive = AdaptiveBuffer(
            start_seconds=self.buffer_seconds,
            minimum_seconds=min(AdaptiveBuffer().minimum_seconds, self.maximum_buffer_seconds),
            maximum_seconds=self.maximum_buffer_seconds,
        )
        fixed = FixedBuffer(delay_seconds=self.buffer_seconds)
        return Terminal(
            codec=voice_codecs().named(self.codec),
            packet_seconds=self.interval_seconds,
            buffer=adaptive if self.jitter_buffer == "adaptive" else fixed,
        )

    @property
    def plan(self) -> Plan:
        """The make-up of the packets: of RTP's size, filled up with padding, and what fits asked for.

        RFC 3550 section 5.1: 12 octets of header before the speech. Sizes that no STAMP packet can have are
        rounded up to one that can.
        """
        mode = Mode.UNAUTHENTICATED if self.key_file is None else Mode.AUTHENTICATED
        base = Plan(mode=mode, size_octets=0).base_octets
        speech = voice_codecs().named(self.codec).payload_octets(self.interval_seconds) or 0
        octets = max(_RTP_HEADER_OCTETS + speech, base)
        if 0 < octets - base < HEADER_OCTETS:
            octets = base + HEADER_OCTETS
        most = functools.partial(
            planned,
            mode,
            size_octets=octets,
            location=False,
            timestamp_information=False,
            direct_measurement=False,
        )
        # Our reflector marks its answers like their requests; another may do so only when asked.
        with contextlib.suppress(ConfigError):
            return most(follow_up=True, class_of_service=self.dscp)
        return most(follow_up=None, class_of_service=None)


class Voice:
    """Measures what a call to a STAMP reflector would sound like."""

    kind: ClassVar = "voice"
    method: ClassVar = Method("voice_stamp_e_model", "1")
    Config: ClassVar = VoiceConfig
    exclusive: ClassVar = False
    has_port: ClassVar = True

    def __init__(self, config: VoiceConfig) -> None:
        self.config = config

    def measure(self, target: Target, context: ProbeContext) -> Sample:
        """The sample of one test; ConfigError when its key cannot be used."""
        config, plan, port = self.config, self.config.plan, target.port or stamp.PORT
        key = None if config.key_file is None else read_stamp_key(Path(config.key_file))

        def open_session(address: Address) -> tuple[socket.socket, EchoProtocol]:
            sock = context.network.udp(address.family)
            session = StampSession(
                plan,
                key=key,
                read_clock=clock_state,
                reflector=config.reflector,
                own_host=None,
                own_port=lambda: int(sock.getsockname()[1]),
                far_host=address.host,
            )
            return sock, _Call(session, config)

        def type_p(address: Address | None) -> TypeP:
            return TypeP(
                protocol="udp",
                ip_version=address.ip_version if address else None,
                size_octets=plan.size_octets,
                dscp=config.dscp,
                destination_port=port,
            )

        sample = measure_echo(
            kind=self.kind,
            method=self.method,
            config=config,
            target=target,
            port=port,
            context=context,
            open_session=open_session,
            type_p=type_p,
        )
        ours: dict[str, str | int | float | bool] = {
            "codec": config.codec,
            "jitter_buffer": config.jitter_buffer,
            "buffer_seconds": config.buffer_seconds,
            "maximum_buffer_seconds": config.maximum_buffer_seconds,
        }
        return dataclasses.replace(sample, parameters={**sample.parameters, **ours})


class _Call(EchoProtocol):
    """A STAMP session whose answers are listened to."""

    def __init__(self, session: StampSession, config: VoiceConfig) -> None:
        self._session, self._config = session, config

    def request(self, sequence: int, sent: TimeStamp) -> bytes:
        return self._session.request(sequence, sent)

    def answer(self, datagram: Datagram) -> Answer | None:
        return self._session.answer(datagram)

    def quoted(self, octets: bytes) -> int | None:
        return self._session.quoted(octets)

    def concluded(self, singletons: tuple[Singleton, ...]) -> Findings:
        found, heard = self._session.concluded(singletons), self._session.heard
        numbered, _doubt = numbering(heard, self._config.reflector)
        ways = take_apart(
            found.singletons,
            heard.replies,
            interval_seconds=self._config.interval_seconds,
            stateful=numbered == "stateful" and found.directional_loss is not None,
        )
        if isinstance(ways, str):
            return dataclasses.replace(found, notes=(*found.notes, f"no opinion score: {ways}"))
        notes = found.notes
        if ways.counted_twice:
            notes = (*notes, f"{ways.counted_twice} packets lost nobody knows where count in both directions")
        return dataclasses.replace(
            found, statistics=(*rate(ways, self._config.terminal), *found.statistics), notes=notes
        )
