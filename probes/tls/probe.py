"""TLS: how long the handshake takes, what both ends agree on, and how long the certificate is still valid.

Each attempt resolves the target's name, opens a new connection, shakes hands and closes; no session is
resumed and nothing is asked. The phases are ``dns`` (only when the target is a name), ``tcp`` (connect) and
``tls`` (from the ClientHello until the last of the server's part: one round trip in TLS 1.3, two in 1.2, and
the server's computing). Both are the kernel's figures where it gives them, so that a busy host does not
lengthen them. An attempt has no delay, because that computing is no round trip of the network.

An attempt is received when the handshake is done and the certificate is good for ``server_name``. Otherwise
it is ``tls_failed`` and the detail says why: expired, another name, self-signed, an unknown issuer, a version
that is too old, no TLS at all. A server that accepts the connection and then says nothing is ``lost``.

The facts are those of the server's own certificate (the chain above it is checked and not reported):
``tls_version``, ``tls_cipher``, ``alpn``, ``certificate_verified``, ``certificate_subject``, ``..._issuer``,
``..._names``, ``..._name_matches``, ``..._not_before``, ``..._not_after``; the statistic
``certificate_expiry_timestamp`` is the last as Unix time. Where a handshake failed and none succeeded, one
further connection, which checks nothing and is closed at once, finds them out: an expired certificate has a
date too. It follows the last attempt, and takes as long as an attempt at most, and 5 seconds at most. A
handshake carries no octets of anybody's; its own, four to eight thousand, are in the interface's counters.

Settings: ``count`` attempts ``interval_seconds`` apart, each ended after ``loss_threshold_seconds`` in all;
``server_name`` (the target's host by default), ``verify_certificate``, ``ca_file`` (certificates to trust
instead of the host's), ``minimum_version`` (TLSv1.2 or TLSv1.3), ``alpn`` (protocols to offer, none by
default); ``happy_eyeballs`` and ``happy_eyeballs_delay_seconds`` as for tcp_connect.
"""

from __future__ import annotations

import ssl
from typing import Annotated, ClassVar, Literal

import msgspec

from nhip.measurement import Method, Outcome, Sample, Singleton, Target
from nhip.statistics import NANOSECONDS_PER_SECOND
from probes.api import ProbeContext
from probes.attempts import Attempts
from probes.dialling import Dialler
from probes.opening import Opener, Progress
from probes.stream import StreamError
from probes.tls.context import client_context
from probes.tls.findings import TlsFindings

DEFAULT_PORT = 443


class TlsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Knobs of a tls test."""

    count: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 3
    interval_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 1.0
    loss_threshold_seconds: Annotated[float, msgspec.Meta(gt=0, le=120)] = 5.0
    server_name: Annotated[str, msgspec.Meta(max_length=253)] = ""
    verify_certificate: bool = True
    ca_file: str | None = None
    minimum_version: Literal["TLSv1.2", "TLSv1.3"] = "TLSv1.2"
    alpn: list[Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,64}$")]] = []
    happy_eyeballs: bool = False
    happy_eyeballs_delay_seconds: Annotated[float, msgspec.Meta(ge=0.01, le=2)] = 0.25


class Tls:
    """Measures TLS handshakes and reads the server's certificate."""

    kind: ClassVar = "tls"
    method: ClassVar = Method("tls", "1")
    Config: ClassVar = TlsConfig
    exclusive: ClassVar = False
    has_port: ClassVar = True

    def __init__(self, config: TlsConfig) -> None:
        self.config = config

    def measure(self, target: Target, context: ProbeContext) -> Sample:
        config = self.config
        attempts = Attempts.begin(target, context)
        port = target.port or DEFAULT_PORT
        tls = client_context(
            config.ca_file,
            verify=config.verify_certificate,
            alpn=config.alpn,
            minimum_version=config.minimum_version,
        )
        dialler = Dialler(
            context,
            attempts.way,
            race=config.happy_eyeballs,
            delay_seconds=config.happy_eyeballs_delay_seconds,
        )
        findings = TlsFindings(verify=config.verify_certificate)
        opener = Opener(context, dialler, findings, config.alpn)
        made: list[Progress] = []

        def attempt(sequence: int) -> Singleton:
            made.append(Progress())
            return self._attempt(sequence, target, port, tls, opener, made[-1])

        singletons = attempts.make(config.count, config.interval_seconds, attempt)
        opener.look_back(config.loss_threshold_seconds)
        return attempts.sample(
            singletons,
            kind=self.kind,
            method=self.method,
            protocol="tcp",
            port=port,
            address=dialler.usual_address([progress.address for progress in made if progress.address]),
            loss_threshold_seconds=config.loss_threshold_seconds,
            parameters={
                "count": config.count,
                "interval_seconds": config.interval_seconds,
                "verify_certificate": config.verify_certificate,
                "minimum_version": config.minimum_version,
                **dialler.parameters(),
            },
            statistics=(*findings.statistics(), *dialler.statistics()),
            facts=findings.facts() | dialler.facts(),
        )

    def _attempt(
        self,
        sequence: int,
        target: Target,
        port: int,
        tls: ssl.SSLContext,
        opener: Opener,
        progress: Progress,
    ) -> Singleton:
        """One handshake with everything that can break it off turned into an outcome."""
        clock = opener.context.clock
        deadline_ns = clock.mono_ns() + round(self.config.loss_threshold_seconds * NANOSECONDS_PER_SECOND)
        outcome, detail = Outcome.RECEIVED, ""
        try:
            addresses = opener.resolve(target.host, port, deadline_ns, progress)
            name = self.config.server_name or target.host
            opener.open(addresses, name, tls, deadline_ns, progress).close()
        except StreamError as error:
            outcome, detail = error.outcome, error.detail
        return Singleton(
            sequence=sequence,
            outcome=outcome,
            sent=progress.begun,
            received=progress.received,
            phases=tuple(progress.phases),
            detail=detail,
        )
