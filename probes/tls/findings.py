"""What the TLS handshakes of one test have shown of a server: version, cipher, names and dates.

A handshake that fails shows nothing: the library drops the certificate it refused. One further connection
then looks at the server without checking anything and is closed at once; nothing is asked over it. So an
expired certificate still has its date. There is at most one such look in a test, after its last attempt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from nhip.measurement import Outcome, Statistic
from nhip.statistics import NANOSECONDS_PER_SECOND
from probes.api import ProbeContext
from probes.network import Address
from probes.stream import Stream, StreamError
from probes.tls.certificate import Certificate, CertificateError, parse_certificate
from probes.tls.context import TlsSession, looking_context

LONGEST_FACT = 200
_LONGEST_LOOK_SECONDS = 5.0


@dataclass(slots=True)
class TlsFindings:
    """Gathers the handshakes of one test; `facts` and `statistics` are what a sample says of them."""

    verify: bool
    _session: TlsSession | None = None
    _seen: dict[tuple[str, bytes], Certificate] = field(default_factory=dict)
    _refusal: str = ""
    _agreed: bool = False
    _unreadable: str = ""
    _looked: bool = False

    def agreed(self, session: TlsSession, host: str) -> None:
        """Note a handshake that succeeded."""
        self._agreed = True
        self._note(session, host)

    def failed(self, detail: str, host: str, session: TlsSession | None = None) -> None:
        """Note a handshake that failed, and what it showed nevertheless."""
        self._refusal = self._refusal or detail
        if session is not None:
            self._note(session, host)

    def look(
        self, address: Address, host: str, context: ProbeContext, *, alpn: Sequence[str], seconds: float
    ) -> None:
        """After a failed handshake, find out by a connection that checks nothing whom we talk to; once."""
        if self._looked or self._seen:
            return
        self._looked = True
        longest_ns = round(min(seconds, _LONGEST_LOOK_SECONDS) * NANOSECONDS_PER_SECOND)
        stream = Stream(
            context.network.tcp(address.family),
            clock=context.clock,
            deadline_ns=context.clock.mono_ns() + longest_ns,
            cancelled=context.cancelled,
        )
        with stream:
            try:
                stream.connect(address)
                stream.start_tls(looking_context(alpn), server_name=host)
            except StreamError:
                return  # whatever the server does not show stays unknown
            session = stream.tls_session()
        if session is not None:
            self._note(session, host)

    def facts(self) -> dict[str, str]:
        """What was learnt, by key; of several certificates the one that expires first."""
        facts: dict[str, str] = {}
        if self._session is not None:
            facts["tls_version"] = self._session.version
            facts["tls_cipher"] = self._session.cipher
            facts["alpn"] = self._session.alpn or "none"
        if self._seen or self._refusal:
            facts["certificate_verified"] = self._verdict()
        if self._unreadable:
            facts["certificate_unreadable"] = self._unreadable
        if self._seen:
            (host, _der), certificate = min(self._seen.items(), key=lambda entry: entry[1].not_after)
            names = [*certificate.dns_names, *map(str, certificate.addresses)]
            facts |= {
                "certificate_subject": certificate.subject or "empty",
                "certificate_issuer": certificate.issuer or "empty",
                "certificate_names": ", ".join(names) or "none",
                "certificate_name_matches": "yes" if certificate.is_for(host) else "no",
                "certificate_not_before": _date(certificate.not_before),
                "certificate_not_after": _date(certificate.not_after),
            }
            if len(self._seen) > 1:
                facts["certificates_seen"] = str(len(self._seen))
        return {key: value[:LONGEST_FACT] for key, value in facts.items()}

    def statistics(self) -> tuple[Statistic, ...]:
        """When the certificate expires."""
        if not self._seen:
            return ()
        earliest = min(certificate.not_after for certificate in self._seen.values())
        return (
            Statistic(
                name="certificate_expiry_timestamp",
                value=earliest.timestamp(),
                unit="seconds",
                count=len(self._seen),
                definition="notAfter of the server's own certificate (RFC 5280 section 4.1.2.5), Unix time; "
                "the earliest of those seen",
            ),
        )

    def _note(self, session: TlsSession, host: str) -> None:
        self._session = session
        if session.certificate is None:
            return
        try:
            self._seen[host, session.certificate] = parse_certificate(session.certificate)
        except CertificateError as error:
            self._unreadable = str(error)

    def _verdict(self) -> str:
        if self._refusal:
            return f"no: {self._refusal}"
        return "yes" if self.verify and self._agreed else "not checked"


def is_tls_failure(error: StreamError) -> bool:
    """Whether a connection ended for a reason a further look at the server may explain."""
    return error.outcome is Outcome.TLS_FAILED


def _date(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
