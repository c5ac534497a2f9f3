"""TCP connect: the round trip of a handshake, without sending any data.

Each attempt opens one connection to the target's port and closes it. The delay is the handshake's round
trip as this host's kernel measured it (``TCP_INFO``), from SYN to SYN/ACK, so that a busy host does not
lengthen it. When the SYN had to be repeated nobody knows which one was answered (Karn's rule); the delay is
then the whole time the connection took, as the subscriber feels it, and the detail says so. A refused port is
an answer of the far end: it is reported as ``refused`` and counts neither as received nor as lost.

The address is the first that the host's resolver gives and to which there is a way by the task's line. With
``happy_eyeballs`` a name's IPv6 and IPv4 addresses race as in a browser (RFC 8305): the second begins
``happy_eyeballs_delay_seconds`` after the first, or at once when the first fails, and the first to connect
wins. The phase ``happy_eyeballs`` is the time the winner had to wait for its turn, ``tcp`` its own handshake;
the fact ``happy_eyeballs`` names the winner, and ``tcp_connect_ipv4`` and ``tcp_connect_ipv6`` what each
took. When no race had to try the second one, one further connection after the last attempt finds out, for as
long as an attempt at most.

Settings: ``count`` attempts, ``interval_seconds`` apart, each given up after ``loss_threshold_seconds``;
``happy_eyeballs``, ``happy_eyeballs_delay_seconds``.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from nhip.measurement import Method, Outcome, Sample, Singleton, StampSource, Target
from nhip.statistics import NANOSECONDS_PER_SECOND
from probes.api import ProbeContext
from probes.attempts import Attempts
from probes.dialling import DialError, Dialler
from probes.network import Address

DEFAULT_PORT = 443
# TCP_INFO gives whole microseconds; against a capture its round trip was off by 15 µs (99th percentile).
_KERNEL_ERROR_NS = 20_000


class TcpConnectConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Knobs of a tcp_connect test."""

    count: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 10
    interval_seconds: Annotated[float, msgspec.Meta(ge=0.01, le=3600)] = 1.0
    loss_threshold_seconds: Annotated[float, msgspec.Meta(gt=0, le=120)] = 2.0
    happy_eyeballs: bool = False
    happy_eyeballs_delay_seconds: Annotated[float, msgspec.Meta(ge=0.01, le=2)] = 0.25


class TcpConnect:
    """Measures the TCP handshake's round-trip delay and reachability of one port."""

    kind: ClassVar = "tcp_connect"
    method: ClassVar = Method("tcp_connect", "1")
    Config: ClassVar = TcpConnectConfig
    exclusive: ClassVar = False
    has_port: ClassVar = True

    def __init__(self, config: TcpConnectConfig) -> None:
        self.config = config

    def measure(self, target: Target, context: ProbeContext) -> Sample:
        config = self.config
        attempts = Attempts.begin(target, context)
        port = target.port or DEFAULT_PORT
        dialler = Dialler(
            context,
            attempts.way,
            race=config.happy_eyeballs,
            delay_seconds=config.happy_eyeballs_delay_seconds,
        )
        addresses = dialler.resolve(target.host, port, timeout_seconds=config.loss_threshold_seconds)
        singletons = attempts.make(
            config.count,
            config.interval_seconds,
            lambda sequence: self._attempt(sequence, addresses, context, dialler),
        )
        dialler.compare(config.loss_threshold_seconds)
        return attempts.sample(
            singletons,
            kind=self.kind,
            method=self.method,
            protocol="tcp",
            size_octets=0,
            port=port,
            address=dialler.usual_address(addresses),
            loss_threshold_seconds=config.loss_threshold_seconds,
            parameters={
                "count": config.count,
                "interval_seconds": config.interval_seconds,
                **dialler.parameters(),
            },
            statistics=dialler.statistics(),
            facts=dialler.facts(),
        )

    def _attempt(
        self, sequence: int, addresses: tuple[Address, ...], context: ProbeContext, dialler: Dialler
    ) -> Singleton:
        if not addresses:
            return Singleton(sequence=sequence, outcome=Outcome.NOT_RESOLVED)
        threshold_ns = round(self.config.loss_threshold_seconds * NANOSECONDS_PER_SECOND)
        try:
            made = dialler.connect(addresses, context.clock.mono_ns() + threshold_ns)
        except DialError as error:
            detail = "" if error.outcome is Outcome.LOST else error.detail
            return Singleton(sequence=sequence, outcome=error.outcome, sent=error.begun, detail=detail)
        made.sock.close()
        repeated, by_kernel = made.handshake.retransmitted_segments, made.round_trip_ns is not None
        return Singleton(
            sequence=sequence,
            outcome=Outcome.RECEIVED,
            sent=made.begun,
            received=made.ended,
            delay_ns=made.round_trip_ns or made.took_ns,
            delay_source=StampSource.KERNEL if by_kernel else StampSource.USER,
            own_error_ns=_KERNEL_ERROR_NS if by_kernel else None,
            phases=dialler.phases(made, by_kernel=False),
            detail=f"SYN repeated {repeated} times" if repeated else "",
        )
