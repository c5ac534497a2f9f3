"""DNS: one question to one resolver, over UDP, TCP, TLS (DoT) or HTTPS (DoH).

**What is measured.** The delay is the same over every ``transport``: from the question's leaving until its
whole answer has arrived. It holds the resolver's own time as well as the network's round trip, and a question
the resolver must itself ask others takes as long as they take; for the network alone measure towards a name
that the resolver has in its cache, or use stamp or icmp. Connecting is no part of it but has its own phases.

============  ==================  ====================================================
transport     port unless given   phases
============  ==================  ====================================================
``udp``       53 (RFC 1035)       none; a retry over TCP: ``retry_tcp``, ``retry_query``
``tcp``       53 (RFC 7766)       ``tcp``, ``query``
``tls``       853 (RFC 7858)      ``tcp``, ``tls``, ``query``
``https``     443 (RFC 8484)      ``tcp``, ``tls``, ``query``
============  ==================  ====================================================

Both ends of a delay are the kernel's stamps over every transport, so that a busy host lengthens none;
``query`` is the delay's time whatever the answer says, and the other phases are this program's own times.

Over UDP every question has its own socket, so its own source port, and a random id; an answer counts only
when it comes from the address asked and repeats id and question. Anything else that arrives is ignored and
counted in the notes. An answer after ``loss_threshold_seconds`` is ``late``, which is part of lost, and a
second answer is a ``duplicate``, of which 16 are kept for each question; both are listened for while the test
lasts, at most twice the threshold. Over the other transports questions follow one another: connecting may
take the threshold, and so may the answer after that; then the attempt is ``lost`` and its connection closed,
so that an answer can be ``late`` only where this host was too busy to give up in time. An answer with another
id or question is ``corrupt`` there, because nobody but the server can have written it. TLS sessions are never
resumed.

**Outcomes.** Another code than ``expected_rcode`` is ``rejected`` with the code in the detail (``SERVFAIL``,
``REFUSED``, ...), except NOERROR where another is expected, which is ``corrupt``: a name that must not exist
exists. A port unreachable or a refused connection is ``refused``; a connection that ends before the answer is
``reset``, one that ends in the middle of it ``truncated``; a failed handshake or certificate is
``tls_failed``; an HTTP status other than 2xx is ``rejected`` (redirects are not followed), another content
type ``corrupt``, and so is an answer of more than 256 records, and one that has no end. With
``expected_answers`` every record of the asked type at the end of the chain of aliases must be in that list,
and there must be one, else the answer is ``corrupt``: somebody rewrites answers. A pool that gives a part of
its addresses at a time passes.

**Facts and numbers.** ``rcode`` and how many answers had each (``dns_answers``); ``nsid``, the instance that
answered (RFC 5001), all of them where there were several, and their number (``dns_server_instances``);
``dnssec_authenticated``: whether answers carried the AD flag; ``tls_version``, ``tls_cipher``,
``http_version``, and of the certificate what the tls kind says too; ``dns_truncated_answers``,
``dns_answer_octets``, ``dns_connections``, and with ``reuse_connection`` ``dns_query_seconds`` of the first
question on a connection and of later ones apart.

Settings of the question: ``name`` and ``record_type`` (A, AAAA, CAA, CNAME, HTTPS, MX, NS, PTR, SOA, SRV,
TXT); ``count`` questions ``interval_seconds`` apart, ``loss_threshold_seconds``; ``mixed_case`` sends the
name in random capitals and takes only answers that repeat them (draft-vixie-dnsext-dns0x20), which some
resolvers do not; ``recursion_desired``; ``edns`` (RFC 6891) announces ``edns_payload_octets``, 1232 unless
given, and carries ``nsid`` (ask which instance answers), ``dnssec`` (the DO bit) and ``padding`` to 128
octets (RFC 8467, encrypted transports only). ``expected_rcode`` and ``expected_answers`` as above; an
address, or what stands behind the type in a zone file; for TXT the plain text.

Settings of the transport: ``retry_truncated`` asks again over TCP when a datagram's answer was truncated: the
delay stays the datagrams', the outcome becomes that of the retry. A retry has until two thresholds after the
latest question, and a test makes at most 100; the detail of the others says ``not retried``.
``reuse_connection`` keeps a connection for all questions; one that the server has closed in between is opened
anew and noted. ``path`` and ``http_method`` (POST, or GET, which caches on the way may answer) of HTTPS,
which is HTTP/2 where the server offers it, else HTTP/1.1. ``server_name`` is whom the certificate must name,
the target's host unless given; ``ca_file`` holds the authorities to trust instead of the host's own, and
``verify_certificate`` = false trusts anybody.
"""

from __future__ import annotations

import ssl
from typing import ClassVar

from nhip.measurement import Method, Outcome, Sample, Singleton, Target
from probes.api import ProbeContext
from probes.attempts import Attempts
from probes.dns import findings
from probes.dns.answers import Answers
from probes.dns.config import DnsConfig, Transport
from probes.dns.connection import Connector
from probes.dns.question import make_question
from probes.dns.streamed import StreamQuestions, ask_again
from probes.dns.udp import DatagramQuestions
from probes.http.http1 import host_field
from probes.line.way import WayWatch
from probes.tls.context import HTTP_1_1, HTTP_2, client_context
from probes.tls.findings import TlsFindings

DEFAULT_PORTS = {Transport.UDP: 53, Transport.TCP: 53, Transport.TLS: 853, Transport.HTTPS: 443}
_METHODS = {
    Transport.UDP: Method("dns_udp", "2"),
    Transport.TCP: Method("dns_tcp", "1"),
    Transport.TLS: Method("dns_tls", "1"),
    Transport.HTTPS: Method("dns_https", "1"),
}
# The names registered for ALPN; "dot" is that of RFC 7858.
_ALPN = {Transport.TLS: ["dot"], Transport.HTTPS: [HTTP_2, HTTP_1_1]}


class Dns:
    """Measures the delay, loss and content of answers to questions to one resolver."""

    kind: ClassVar = "dns"
    method: ClassVar = _METHODS[Transport.UDP]
    Config: ClassVar = DnsConfig
    exclusive: ClassVar = False
    has_port: ClassVar = True

    def __init__(self, config: DnsConfig) -> None:
        self.config = config

    def measure(self, target: Target, context: ProbeContext) -> Sample:
        config = self.config
        by_datagram = config.transport is Transport.UDP
        size_octets = len(make_question(config).octets)
        tls, tls_findings = self._tls(), TlsFindings(verify=config.verify_certificate)
        test = Attempts.begin(target, context)
        port = target.port or DEFAULT_PORTS[config.transport]
        address = test.resolve(port, timeout_seconds=config.loss_threshold_seconds)
        answers = Answers(
            singletons=tuple(
                Singleton(sequence=sequence, outcome=Outcome.NOT_RESOLVED) for sequence in range(config.count)
            )
        )
        if address is not None:
            name = config.server_name or target.host
            connector = Connector(
                config=config,
                address=address,
                server_name=name,
                authority=host_field(name, port, DEFAULT_PORTS[Transport.HTTPS]),
                tls=tls,
                findings=tls_findings,
                context=context,
                phase_prefix="retry_" if by_datagram else "",
            )
            answers = self._ask(connector, test.way)
            if any(singleton.outcome is Outcome.TLS_FAILED for singleton in answers.singletons):
                alpn, seconds = _ALPN[config.transport], config.loss_threshold_seconds
                tls_findings.look(address, name, context, alpn=alpn, seconds=seconds)
        return test.sample(
            answers.singletons,
            kind=self.kind,
            method=_METHODS[config.transport],
            protocol="udp" if by_datagram else "tcp",
            port=port,
            address=address,
            loss_threshold_seconds=config.loss_threshold_seconds,
            parameters=self._parameters(),
            size_octets=size_octets if by_datagram else None,
            octets_sent=answers.octets_sent,
            octets_received=answers.octets_received,
            statistics=(*findings.numbers(answers, config), *tls_findings.statistics()),
            facts=findings.facts(answers, config) | tls_findings.facts(),
            notes=answers.notes,
        )

    def _ask(self, connector: Connector, way: WayWatch) -> Answers:
        config, context = self.config, connector.context
        if config.transport is not Transport.UDP:
            return StreamQuestions(connector, config, context, way).ask_all()
        return DatagramQuestions(
            config,
            connector.address,
            context,
            way,
            retry=lambda question, end_ns: ask_again(connector, question, config, context, end_ns),
        ).ask_all()

    def _tls(self) -> ssl.SSLContext | None:
        if self.config.transport not in _ALPN:
            return None
        return client_context(
            self.config.ca_file, verify=self.config.verify_certificate, alpn=_ALPN[self.config.transport]
        )

    def _parameters(self) -> dict[str, str | int | float | bool]:
        config = self.config
        found: dict[str, str | int | float | bool] = {
            "transport": config.transport.value,
            "count": config.count,
            "interval_seconds": config.interval_seconds,
            "name": config.name,
            "record_type": config.record_type,
            "mixed_case": config.mixed_case,
            "recursion_desired": config.recursion_desired,
            "edns_payload_octets": config.edns_payload_octets if config.edns else 0,
            "nsid": config.edns and config.nsid,
            "dnssec": config.dnssec,
            "expected_rcode": config.expected_rcode,
            "expected_answers": len(config.expected_answers),
        }
        if config.transport is Transport.UDP:
            found["retry_truncated"] = config.retry_truncated
            return found
        found["reuse_connection"] = config.reuse_connection
        if config.transport is not Transport.TCP:
            found["padding"] = config.padding
            found["verify_certificate"] = config.verify_certificate
        if config.transport is Transport.HTTPS:
            found["http_method"] = config.http_method
        return found
