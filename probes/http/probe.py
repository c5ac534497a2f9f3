"""HTTP: one page and how long each step to it took, over HTTP/1.1, HTTP/2 or HTTP/3.

Each attempt resolves the target's name, opens a new connection and asks for ``path``. The phases are

* ``dns`` (only when the target is a name), ``tcp`` (SYN to SYN/ACK), ``tls`` (ClientHello to the last of the
  server's part); over HTTP/3 ``quic`` instead of the two, from the first packet to the last of the handshake;
* ``first_byte``, from the request to the first octet of the answer (HTTP/1.1), or to the last of the answer's
  head (HTTP/2 and 3, whose servers send other frames before it);
* ``transfer``, from there until the last octet of the body.

All but ``dns`` are the times at which the kernel sent and received, where it tells them, so that a busy host
lengthens none; otherwise they are those at which this program did. The kernel keeps one time for what arrived
together unread, that of the last. An attempt has no delay: ``first_byte`` holds the server's thinking time
too, so it is no round trip of the network and never stands among such.

``http_version``: ``http1`` (HTTP/1.1, RFC 9112), ``http2`` (RFC 9113, by ALPN; without ``tls`` by prior
knowledge), ``http3`` (RFC 9114, over UDP; needs the extra ``nhip[http3]``), or ``auto``: HTTP/2 where the
server agrees to it, else 1.1. Which it was is the fact ``http_version``; figures of different settings bear
different method names. Octets are those of the connection's payload, over HTTP/3 of UDP. HTTP/3 is computed
in Python, which bounds the speed of ``transfer``.

An answer counts as received when its status is one of ``expected_status`` (any 2xx or 3xx when the list is
empty), its body came whole and holds what it should; another status is ``rejected``. ``header_contains``
(text in a field), ``body_contains``, ``body_lacks`` (literal texts) and ``body_sha256`` say what it should
hold; an answer without that is ``corrupt``. At most ``max_body_octets`` are read; an answer longer than that
is received, has no ``transfer`` phase and says so, unless that leaves a check undecided.

Redirects are not followed by default: where one leads is in the detail. With ``redirects`` at most so many
are, each over a connection of its own by the same interface, with a look-up of its own; all within one
``loss_threshold_seconds``. The phases are then those of the last connection and ``redirects`` is the time
everything before it took; the detail tells each redirect with its time. From https to http only with
``allow_downgrade``, and never further in than the server is that sends there: from a public address to no
private one, from a private one not to this host's own.

The facts ``http_status``, ``final_url`` and ``alt_svc`` are those of the last attempt that got an answer,
``redirects`` is how many the last attempt followed; what each attempt met is in its detail. The heads of an
answer may take 65 536 octets.

Over TLS the certificate is checked, and its facts and expiry are told, as by the kind ``tls``: where no
handshake showed them, by one further connection. That one, and that of ``happy_eyeballs`` to the other IP
version, follow the last attempt, and each takes as long as an attempt at most.

Settings beside these: ``count`` attempts ``interval_seconds`` apart, each ended after
``loss_threshold_seconds`` in all; ``tls``, ``server_name`` (the target's host by default),
``verify_certificate``, ``ca_file``; ``method`` (GET or HEAD); ``happy_eyeballs`` and
``happy_eyeballs_delay_seconds`` as for tcp_connect.
"""

from __future__ import annotations

from typing import ClassVar

from nhip.measurement import Method, Sample, Target
from probes.api import ProbeContext
from probes.attempts import Attempts
from probes.dialling import Dialler
from probes.http.config import HttpConfig
from probes.http.place import DEFAULT_PORT, DEFAULT_TLS_PORT, Place
from probes.http.visit import Visits, load
from probes.opening import Opener
from probes.tls.context import client_context
from probes.tls.findings import TlsFindings

_METHODS = {
    # Version 1 was timed by this program, and its requests waited for the handshake to be acknowledged.
    "http1": Method("http1", "2"),
    "http2": Method("http2", "1"),
    "http3": Method("http3", "1"),
    "auto": Method("http_auto", "1"),
}


class Http:
    """Measures how long a web server takes to answer, phase by phase."""

    kind: ClassVar = "http"
    method: ClassVar = _METHODS["http1"]
    Config: ClassVar = HttpConfig
    exclusive: ClassVar = False
    has_port: ClassVar = True

    def __init__(self, config: HttpConfig) -> None:
        self.config = config

    def measure(self, target: Target, context: ProbeContext) -> Sample:
        config = self.config
        load(config)
        attempts = Attempts.begin(target, context)
        port = target.port or (DEFAULT_TLS_PORT if config.tls else DEFAULT_PORT)
        dialler = Dialler(
            context,
            attempts.way,
            race=config.happy_eyeballs,
            delay_seconds=config.happy_eyeballs_delay_seconds,
        )
        tls = None
        if config.tls or config.redirects:
            tls = client_context(config.ca_file, verify=config.verify_certificate, alpn=config.alpn)
        findings = TlsFindings(verify=config.verify_certificate)
        opener = Opener(context, dialler, findings, config.alpn)
        visits = Visits(
            config,
            opener,
            tls,
            start=Place(config.tls, target.host, port, config.path),
            server_name=config.server_name or target.host,
        )
        singletons = attempts.make(config.count, config.interval_seconds, visits.attempt)
        opener.look_back(config.loss_threshold_seconds)
        return attempts.sample(
            singletons,
            kind=self.kind,
            method=_METHODS[config.http_version],
            protocol="udp" if config.http_version == "http3" else "tcp",
            port=port,
            address=dialler.usual_address(visits.first_addresses),
            loss_threshold_seconds=config.loss_threshold_seconds,
            octets_sent=sum(progress.octets_sent for progress in visits.made),
            octets_received=sum(progress.octets_received for progress in visits.made),
            parameters={
                "count": config.count,
                "interval_seconds": config.interval_seconds,
                "http_version": config.http_version,
                "method": config.method,
                "path": config.path,
                "redirects": config.redirects,
                "tls": config.tls,
                "verify_certificate": config.verify_certificate,
                **dialler.parameters(),
            },
            statistics=(*findings.statistics(), *dialler.statistics()),
            facts=visits.facts | findings.facts() | dialler.facts(),
        )
