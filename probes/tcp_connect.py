"""TCP connect: the round trip of a handshake, without sending any data.

Each attempt opens one connection to the target's port and closes it. The delay is the handshake's round
trip as this host's kernel measured it (``TCP_INFO``), from SYN to SYN/ACK, so that a busy host does not
lengthen it. When the SYN had to be repeated nobody knows which one was answered (Karn's rule); the delay is
then the whole time the connection took, as the subscriber feels it, and the detail says so. A refused port is
an answer of the far end: it is reported as ``refused`` and counts neither as received nor as lost.

Settings: ``count`` attempts, ``interval_seconds`` apart, each given up after ``loss_threshold_seconds``.
"""

from __future__ import annotations

import select
import socket
from typing import Annotated, ClassVar

import msgspec

from nhip.clock import clock_state
from nhip.measurement import (
    Method,
    Outcome,
    Phase,
    Sample,
    Singleton,
    StampSource,
    Target,
    TypeP,
)
from nhip.statistics import NANOSECONDS_PER_SECOND, worst_source
from probes.api import LONGEST_PAUSE_SECONDS, ProbeContext
from probes.network import Address, errno_name, notes_on_name, outcome_of
from probes.tcp_info import tcp_info
from probes.way import WayWatch

DEFAULT_PORT = 443


class TcpConnectConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Knobs of a tcp_connect test."""

    count: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 10
    interval_seconds: Annotated[float, msgspec.Meta(ge=0.01, le=3600)] = 1.0
    loss_threshold_seconds: Annotated[float, msgspec.Meta(gt=0, le=120)] = 2.0


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
        started, clock = context.now(), clock_state()
        port = target.port or DEFAULT_PORT
        address = context.network.resolve(
            target.host, port, timeout_seconds=self.config.loss_threshold_seconds
        )
        way = WayWatch(context.network)
        if address is not None:
            way.check(address)
        begin_ns = context.clock.mono_ns()  # a slow name server must not push the first attempts together
        singletons = []
        for sequence in range(self.config.count):
            due_ns = begin_ns + round(sequence * self.config.interval_seconds * NANOSECONDS_PER_SECOND)
            if not context.wait_until(due_ns):
                singletons.append(Singleton(sequence=sequence, outcome=Outcome.NOT_SENT, detail="cancelled"))
            elif address is None:
                singletons.append(Singleton(sequence=sequence, outcome=Outcome.NOT_RESOLVED))
            else:
                singletons.append(self._attempt(sequence, address, context, way))
        sample = Sample(
            kind=self.kind,
            method=self.method,
            target=target,
            type_p=TypeP(
                protocol="tcp",
                ip_version=address.ip_version if address else None,
                size_octets=0,
                destination_port=port,
            ),
            started=started,
            ended=context.now(),
            loss_threshold_seconds=self.config.loss_threshold_seconds,
            singletons=tuple(singletons),
            timestamp_source=worst_source(singletons),
            address=address.host if address else None,
            source_address=context.network.source,
            interface=context.network.interface,
            clock=clock,
            parameters={"count": self.config.count, "interval_seconds": self.config.interval_seconds},
            notes=notes_on_name(context.network, target.host),
        )
        return way.confirmed(sample)

    def _attempt(self, sequence: int, address: Address, context: ProbeContext, way: WayWatch) -> Singleton:
        with context.network.tcp(address.family) as sock:
            sent = context.now()
            try:
                sock.connect(address.sockaddr)
            except BlockingIOError:
                pass
            except OSError as error:
                outcome = way.failed(outcome_of(error), address)
                return Singleton(sequence=sequence, outcome=outcome, sent=sent, detail=errno_name(error))
            deadline_ns = sent.mono_ns + round(self.config.loss_threshold_seconds * NANOSECONDS_PER_SECOND)
            if not _writable(sock, deadline_ns, context):
                if context.clock.mono_ns() >= deadline_ns:
                    return Singleton(sequence=sequence, outcome=Outcome.LOST, sent=sent)
                # Nobody waited for the answer: the fate is unknown, which is not lost.
                return Singleton(sequence=sequence, outcome=Outcome.NOT_SENT, sent=sent, detail="cancelled")
            received = context.now()
            if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                failure = OSError(code, "connect")
                outcome = way.failed(outcome_of(failure), address)
                return Singleton(sequence=sequence, outcome=outcome, sent=sent, detail=errno_name(failure))
            elapsed_ns = received.mono_ns - sent.mono_ns
            handshake = tcp_info(sock)
        repeated = handshake.retransmitted_segments
        by_kernel = handshake.round_trip_us > 0 and not repeated
        return Singleton(
            sequence=sequence,
            outcome=Outcome.RECEIVED,
            sent=sent,
            received=received,
            delay_ns=handshake.round_trip_us * 1000 if by_kernel else elapsed_ns,
            delay_source=StampSource.KERNEL if by_kernel else StampSource.USER,
            phases=(Phase("tcp", elapsed_ns),),
            detail=f"SYN repeated {repeated} times" if repeated else "",
        )


def _writable(sock: socket.socket, deadline_ns: int, context: ProbeContext) -> bool:
    """True when the handshake ended, well or badly, before the deadline."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    while not context.cancelled.is_set():
        remaining_ns = deadline_ns - context.clock.mono_ns()
        if remaining_ns <= 0:
            return False
        if poll.poll(min(remaining_ns / 1e6, LONGEST_PAUSE_SECONDS * 1000)):
            return True
    return False
