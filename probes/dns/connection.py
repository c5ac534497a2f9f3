"""One connection to a server that takes DNS questions, and the ways in which messages travel on it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Protocol

from nhip.measurement import Outcome, Phase
from probes.api import ProbeContext
from probes.dns.config import DnsConfig, Transport
from probes.dns.framing import LengthPrefixed
from probes.network import Address
from probes.phases import end_phase
from probes.stamped_stream import StampedStream
from probes.stream import Stream, StreamError
from probes.tls.context import HTTP_2
from probes.tls.findings import TlsFindings


class Channel(Protocol):
    """How messages are framed on a connection; StreamError carries the fate of what breaks it off."""

    def send(self, message: bytes) -> None:
        """Hand one message to the connection."""

    def receive(self) -> bytes:
        """The next whole message."""

    @property
    def http_version(self) -> str | None:
        """``2`` or ``1.1``; `None` where no HTTP is spoken."""


@dataclass(slots=True)
class Connection:
    """A connection that is ready for questions."""

    stream: StampedStream
    channel: Channel
    asked: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Connector:
    """Opens connections of one test."""

    config: DnsConfig
    address: Address
    server_name: str
    """Whom the certificate must name: a host name or an address."""
    authority: str
    """Host and port as an HTTPS request names them."""
    tls: ssl.SSLContext | None
    findings: TlsFindings
    context: ProbeContext
    phase_prefix: str = ""

    def open(self, phases: list[Phase], traffic: Traffic, deadline_ns: int) -> Connection:
        """A new connection; `phases` are filled as they end. StreamError with its fate when it fails."""
        clock = self.context.clock
        begun_ns = clock.mono_ns()
        stream = StampedStream(
            self.context.network.tcp(self.address.family),
            clock=clock,
            deadline_ns=deadline_ns,
            cancelled=self.context.cancelled,
        )
        traffic.streams.append(stream)
        try:
            stream.connect(self.address)
            begun_ns = end_phase(phases, f"{self.phase_prefix}tcp", begun_ns, clock)
            if self.tls is not None:
                self._shake_hands(stream, self.tls)
                end_phase(phases, f"{self.phase_prefix}tls", begun_ns, clock)
            return Connection(stream, self._channel(stream))
        except BaseException:
            stream.close()
            raise

    def _shake_hands(self, stream: Stream, tls: ssl.SSLContext) -> None:
        try:
            stream.start_tls(tls, server_name=self.server_name)
        except StreamError as error:
            if error.outcome is Outcome.TLS_FAILED:
                self.findings.failed(error.detail, self.server_name)
            raise
        if session := stream.tls_session():
            self.findings.agreed(session, self.server_name)

    def _channel(self, stream: Stream) -> Channel:
        if self.config.transport is not Transport.HTTPS:
            return LengthPrefixed(stream)
        # The parsers take 40 ms to load, which a task over another transport need not spend.
        from probes.dns.https import Http1Channel, Http2Channel

        session = stream.tls_session()
        kind = Http2Channel if session and session.alpn == HTTP_2 else Http1Channel
        return kind(stream, self.config, self.authority)


@dataclass(slots=True)
class Traffic:
    """The streams of one test, for the octets they moved."""

    streams: list[StampedStream] = field(default_factory=list)

    @property
    def octets_sent(self) -> int:
        return sum(stream.octets_sent for stream in self.streams)

    @property
    def octets_received(self) -> int:
        return sum(stream.octets_received for stream in self.streams)
