"""HTTP: one request and its answer, split into phases (HTTP/1.1, RFC 9112).

Each attempt resolves the target's name, opens a new connection and asks for ``path``. The phases are ``dns``
(only when the target is a name), ``tcp`` (connect), ``tls`` (handshake), ``first_byte`` (first octet of the
request handed to the socket until first octet of the answer read) and ``transfer`` (until the last octet of
the body). An attempt has no delay: ``first_byte`` holds the server's thinking time too, so it is no round
trip of the network and never stands among such.

An answer counts as received when its status is one of ``expected_status`` (any 2xx or 3xx when the list is
empty) and its body came whole; another status is ``rejected``. Redirects are never followed: where one
leads is in the detail. At most ``max_body_octets`` are read; an answer longer than that is received, has no
``transfer`` phase and says so. Certificates are checked, against ``ca_file`` when it is given.

Settings: ``count`` attempts ``interval_seconds`` apart, each ended after ``loss_threshold_seconds`` in all;
``tls``, ``server_name`` (the target's host by default), ``verify_certificate``, ``ca_file``; ``method``,
``path``, ``expected_status``, ``max_body_octets``.
"""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import msgspec

from nhip.clock import clock_state
from nhip.measurement import (
    Method,
    Outcome,
    Phase,
    Sample,
    Singleton,
    Stamp,
    StampSource,
    Target,
    TypeP,
)
from nhip.statistics import NANOSECONDS_PER_SECOND, worst_source
from probes.api import ProbeContext
from probes.http1 import Exchange, Head, host_field
from probes.network import Address, notes_on_name
from probes.phases import end_phase
from probes.stream import Stream, StreamError
from probes.tls import client_context
from probes.way import WayWatch

DEFAULT_PORT, DEFAULT_TLS_PORT = 80, 443

_LONGEST_DETAIL = 120


class HttpConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Knobs of an http test."""

    count: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 3
    interval_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 1.0
    loss_threshold_seconds: Annotated[float, msgspec.Meta(gt=0, le=300)] = 10.0
    tls: bool = True
    server_name: Annotated[str, msgspec.Meta(max_length=253)] = ""
    verify_certificate: bool = True
    ca_file: str | None = None
    method: Literal["GET", "HEAD"] = "GET"
    path: Annotated[str, msgspec.Meta(pattern=r"^/[!-~]*$", max_length=2000)] = "/"
    expected_status: list[Annotated[int, msgspec.Meta(ge=100, le=599)]] = []
    max_body_octets: Annotated[int, msgspec.Meta(ge=0, le=100_000_000)] = 1_000_000


@dataclass(slots=True)
class _Progress:
    """How far one attempt came; what is known when it breaks off."""

    address: Address | None = None
    sent: Stamp | None = None
    received: Stamp | None = None
    phases: list[Phase] = field(default_factory=list)
    octets_sent: int = 0
    octets_received: int = 0


class Http:
    """Measures how long a web server takes to answer, phase by phase."""

    kind: ClassVar = "http"
    method: ClassVar = Method("http1", "1")
    Config: ClassVar = HttpConfig
    exclusive: ClassVar = False
    has_port: ClassVar = True

    def __init__(self, config: HttpConfig) -> None:
        self.config = config

    def measure(self, target: Target, context: ProbeContext) -> Sample:
        config = self.config
        started, clock = context.now(), clock_state()
        port = target.port or (DEFAULT_TLS_PORT if config.tls else DEFAULT_PORT)
        tls = client_context(config.ca_file, verify=config.verify_certificate) if config.tls else None
        way = WayWatch(context.network)
        singletons, attempts = [], []
        for sequence in range(config.count):
            due_ns = started.mono_ns + round(sequence * config.interval_seconds * NANOSECONDS_PER_SECOND)
            if not context.wait_until(due_ns):
                singletons.append(Singleton(sequence=sequence, outcome=Outcome.NOT_SENT, detail="cancelled"))
                continue
            progress = _Progress()
            singletons.append(self._attempt(sequence, target, port, tls, context, progress, way))
            attempts.append(progress)
        address = next((progress.address for progress in attempts if progress.address), None)
        sample = Sample(
            kind=self.kind,
            method=self.method,
            target=target,
            type_p=TypeP(
                protocol="tcp",
                ip_version=address.ip_version if address else None,
                destination_port=port,
            ),
            started=started,
            ended=context.now(),
            loss_threshold_seconds=config.loss_threshold_seconds,
            singletons=tuple(singletons),
            timestamp_source=worst_source(singletons),
            address=address.host if address else None,
            source_address=context.network.source,
            interface=context.network.interface,
            clock=clock,
            octets_sent=sum(progress.octets_sent for progress in attempts),
            octets_received=sum(progress.octets_received for progress in attempts),
            parameters={
                "count": config.count,
                "interval_seconds": config.interval_seconds,
                "method": config.method,
                "path": config.path,
                "tls": config.tls,
                "verify_certificate": config.verify_certificate,
            },
            notes=notes_on_name(context.network, target.host),
        )
        return way.confirmed(sample)

    def _attempt(
        self,
        sequence: int,
        target: Target,
        port: int,
        tls: ssl.SSLContext | None,
        context: ProbeContext,
        progress: _Progress,
        way: WayWatch,
    ) -> Singleton:
        """One whole exchange with everything that can break it off turned into an outcome."""
        try:
            outcome, detail = self._exchange(target, port, tls, context, progress, way)
        except StreamError as error:
            outcome, detail = error.outcome, error.detail
            if outcome is Outcome.LOST and progress.received is not None:
                outcome = Outcome.TRUNCATED
            if outcome is Outcome.UNREACHABLE and progress.address is not None:
                way.failed(outcome, progress.address)
        return Singleton(
            sequence=sequence,
            outcome=outcome,
            sent=progress.sent,
            received=progress.received,
            phases=tuple(progress.phases),
            detail=detail,
        )

    def _exchange(
        self,
        target: Target,
        port: int,
        tls: ssl.SSLContext | None,
        context: ProbeContext,
        progress: _Progress,
        way: WayWatch,
    ) -> tuple[Outcome, str]:
        config = self.config
        begun_ns = context.clock.mono_ns()
        deadline_ns = begun_ns + round(config.loss_threshold_seconds * NANOSECONDS_PER_SECOND)
        address = context.network.resolve(target.host, port, timeout_seconds=config.loss_threshold_seconds)
        if address is None:
            return Outcome.NOT_RESOLVED, ""
        progress.address = address
        if not _is_address(target.host):
            begun_ns = end_phase(progress.phases, "dns", begun_ns, context.clock)
        way.check(address)
        stream = Stream(
            context.network.tcp(address.family),
            clock=context.clock,
            deadline_ns=deadline_ns,
            cancelled=context.cancelled,
        )
        with stream:
            try:
                begun_ns = context.clock.mono_ns()
                stream.connect(address)
                begun_ns = end_phase(progress.phases, "tcp", begun_ns, context.clock)
                if tls is not None:
                    stream.start_tls(tls, server_name=config.server_name or target.host)
                    end_phase(progress.phases, "tls", begun_ns, context.clock)
                return self._ask(target, port, stream, context, progress)
            finally:
                progress.octets_sent = stream.octets_sent
                progress.octets_received = stream.octets_received

    def _ask(
        self, target: Target, port: int, stream: Stream, context: ProbeContext, progress: _Progress
    ) -> tuple[Outcome, str]:
        config = self.config
        exchange = Exchange(stream, context.clock)
        host = host_field(
            config.server_name or target.host, port, DEFAULT_TLS_PORT if config.tls else DEFAULT_PORT
        )
        progress.sent = context.now()
        try:
            exchange.send_head(config.method, config.path, host)
            exchange.end_request()
            head = exchange.receive_head()
        finally:
            if exchange.first_octet_ns is not None:
                # The octet was read before this line; the wall clock is put back by as much.
                behind_ns = context.clock.mono_ns() - exchange.first_octet_ns
                progress.received = Stamp(
                    context.clock.wall_ns() - behind_ns, exchange.first_octet_ns, StampSource.USER
                )
                progress.phases.append(Phase("first_byte", exchange.first_octet_ns - progress.sent.mono_ns))
        detail = _status_detail(head)
        if not self._expected(head.status):
            return Outcome.REJECTED, detail
        octets = 0
        while (part := exchange.receive_part()) is not None:
            octets += len(part)
            if octets > config.max_body_octets:
                return Outcome.RECEIVED, f"{detail}, body longer than {config.max_body_octets} octets"
        if exchange.first_octet_ns is not None:
            end_phase(progress.phases, "transfer", exchange.first_octet_ns, context.clock)
        return Outcome.RECEIVED, detail

    def _expected(self, status: int) -> bool:
        return status in self.config.expected_status if self.config.expected_status else 200 <= status < 400


def _status_detail(head: Head) -> str:
    place = head.fields.get("location", "")
    if not 300 <= head.status < 400 or not place:
        return f"HTTP {head.status}"
    shown = "".join(letter if letter.isprintable() else "?" for letter in place)
    return f"HTTP {head.status} to {shown[:_LONGEST_DETAIL]}"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
