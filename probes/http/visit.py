"""One attempt of an http test: a page asked for, redirects followed as far as the task allows.

::

    place --resolve, open, ask--> head --redirect--> next place --resolve, open, ask--> ...
                                   |
                                   +--anything else--> body, checked --> outcome
"""

from __future__ import annotations

import importlib
import ssl
from contextlib import closing
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Protocol

from nhip.errors import CannotMeasureError
from nhip.measurement import Outcome, Phase, Singleton, Stamp
from nhip.statistics import NANOSECONDS_PER_SECOND
from probes.http.config import HttpConfig
from probes.http.content import ContentCheck
from probes.http.http1 import Exchange as Http1Exchange
from probes.http.http1 import Head
from probes.http.place import REDIRECTS, Place, RedirectRefusedError, followed
from probes.http.reach import step_refused
from probes.network import Address
from probes.opening import Opener, Progress
from probes.stream import TIMED_OUT, Stream, StreamError
from probes.tls.context import HTTP_2

_LONGEST_LOCATION, _LONGEST_DETAIL = 120, 600


class Exchange(Protocol):
    """One request and one answer, in whichever version of HTTP."""

    version: str
    first_octet_ns: int | None
    first_octet: Stamp | None
    last_octet: Stamp | None

    def request(self, method: str, path: str, host: str) -> None: ...
    def receive_head(self) -> Head: ...
    def receive_part(self) -> bytes | None: ...
    def departure(self, handed_over_ns: int) -> Stamp | None: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class Visits:
    """The attempts of one test, and what they showed of the server."""

    config: HttpConfig
    opener: Opener
    tls: ssl.SSLContext | None
    """Given wherever a connection of this test may have to be encrypted."""
    start: Place
    server_name: str
    made: list[Progress] = field(default_factory=list)
    """One for each connection, redirects included."""
    first_addresses: list[Address] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    _versions: set[str] = field(default_factory=set)

    def attempt(self, sequence: int) -> Singleton:
        """One whole visit with everything that can break it off turned into an outcome."""
        clock = self.opener.context.clock
        begun_ns = clock.mono_ns()
        deadline_ns = begun_ns + round(self.config.loss_threshold_seconds * NANOSECONDS_PER_SECOND)
        trail = _Trail(begun_ns, deadline_ns)
        place: Place | None = self.start
        outcome, detail = Outcome.RECEIVED, ""
        try:
            while place is not None:
                progress = Progress()
                self.made.append(progress)
                trail.enter(progress, clock.mono_ns())
                addresses = self._addresses(place, trail)
                outcome, detail, place = self._ask(place, addresses, trail)
                if place is not None:
                    trail.leave(detail, clock.mono_ns())
        except StreamError as error:
            outcome, detail = error.outcome, error.detail
            if outcome is Outcome.LOST and trail.progress.received is not None:
                outcome = Outcome.TRUNCATED
        self._note(trail)
        return Singleton(
            sequence=sequence,
            outcome=outcome,
            sent=trail.progress.sent,
            received=trail.progress.received,
            host_sent_mono_ns=trail.progress.host_sent_mono_ns,
            host_received_mono_ns=trail.progress.host_received_mono_ns,
            phases=trail.phases(),
            detail=", ".join(filter(None, (*trail.told, detail)))[:_LONGEST_DETAIL],
        )

    def _note(self, trail: _Trail) -> None:
        if address := trail.first.address:
            self.first_addresses.append(address)
        if self.config.redirects:
            self.facts["redirects"] = str(len(trail.told))

    def _addresses(self, place: Place, trail: _Trail) -> tuple[Address, ...]:
        before = trail.address_before
        if before is None:
            return self.opener.resolve(place.host, place.port, trail.deadline_ns, trail.progress)
        clock = self.opener.context.clock
        try:
            addresses = self.opener.resolve(place.host, place.port, trail.deadline_ns, trail.progress)
        except CannotMeasureError as error:
            # Where a server sends us is its affair, unless this host's own line is dead by now.
            self.opener.dialler.way.check(before)
            raise StreamError(Outcome.UNREACHABLE, f"redirect to {place.host}: {error.what}") from error
        except StreamError as error:
            if error.outcome is Outcome.NOT_RESOLVED and clock.mono_ns() >= trail.deadline_ns:
                # The redirects before had used up the time; of the name nothing is known.
                raise StreamError(Outcome.LOST, TIMED_OUT) from error
            raise
        for address in addresses:
            if refusal := step_refused(before.host, address.host):
                raise StreamError(Outcome.REJECTED, refusal)
        return addresses

    def _ask(
        self, place: Place, addresses: tuple[Address, ...], trail: _Trail
    ) -> tuple[Outcome, str, Place | None]:
        """What became of the request, in words, and where the answer leads if it is to be followed."""
        name = self.server_name if place.host == self.start.host else place.host
        if self.config.http_version == "http3":
            return self._ask_over_quic(place, name, addresses[0], trail)
        tls, progress = self.tls if place.tls else None, trail.progress
        with self.opener.open(addresses, name, tls, trail.deadline_ns, progress) as stream:
            try:
                return self._exchange(place, name, self._speaker(stream, place), trail)
            finally:
                progress.octets_sent = stream.octets_sent
                progress.octets_received = stream.octets_received

    def _ask_over_quic(
        self, place: Place, name: str, address: Address, trail: _Trail
    ) -> tuple[Outcome, str, Place | None]:
        quic, http3 = http3_modules()
        context, progress = self.opener.context, trail.progress
        if not place.tls:
            raise StreamError(Outcome.REJECTED, "redirect to http, which HTTP/3 does not speak")
        channel = quic.QuicChannel(
            context.network.udp(address.family),
            clock=context.clock,
            deadline_ns=trail.deadline_ns,
            cancelled=context.cancelled,
            server_name=name,
            alpn=http3.ALPN,
            ca_file=self.config.ca_file,
            verify=self.config.verify_certificate,
        )
        with closing(channel):
            try:
                channel.connect(address)
                progress.begun = channel.begun
                if channel.begun is not None and channel.arrival is not None:
                    took_ns = channel.arrival.mono_ns - channel.begun.mono_ns
                    progress.phases.append(Phase("quic", max(0, took_ns)))
                if session := channel.session():
                    self.opener.findings.agreed(session, name)
                return self._exchange(place, name, http3.Http3Exchange(channel), trail)
            except StreamError as error:
                if error.outcome is Outcome.TLS_FAILED:
                    self.opener.findings.failed(error.detail, name, channel.session())
                elif error.outcome is not Outcome.LOST and not context.cancelled.is_set():
                    self.opener.dialler.way.failed(error.outcome, address)
                raise
            finally:
                progress.octets_sent = channel.octets_sent
                progress.octets_received = channel.octets_received

    def _speaker(self, stream: Stream, place: Place) -> Exchange:
        clock = self.opener.context.clock
        session = stream.tls_session()
        chosen = session.alpn if session else None
        if self.config.http_version == "http2" and chosen not in (None, HTTP_2):
            raise StreamError(Outcome.REJECTED, f"the server chose {chosen or 'no protocol'}, not HTTP/2")
        if chosen == HTTP_2 or (chosen is None and self.config.http_version == "http2"):
            from probes.http.http2 import Http2Exchange

            return Http2Exchange(stream, clock, scheme=place.scheme)
        return Http1Exchange(stream, clock)

    def _exchange(
        self, place: Place, name: str, exchange: Exchange, trail: _Trail
    ) -> tuple[Outcome, str, Place | None]:
        config, context, progress = self.config, self.opener.context, trail.progress
        self._versions.add(exchange.version)
        self.facts["http_version"] = ", ".join(sorted(self._versions))
        asked = replace(place, host=name)
        with closing(exchange):
            progress.received, progress.sent = None, context.now()
            try:
                exchange.request(config.method, place.path, asked.authority)
                head = exchange.receive_head()
            finally:
                _note_first_byte(exchange, progress)
            self._note_head(head, asked)
            detail = status_detail(head)
            try:
                if onward := self._onward(asked, head, trail):
                    return Outcome.RECEIVED, detail, onward
            except RedirectRefusedError as error:
                return Outcome.REJECTED, f"{detail}: {error}", None
            if not config.expects(head.status):
                return Outcome.REJECTED, detail, None
            outcome, mismatch = self._read_body(exchange, head, progress)
            return outcome, f"{detail}, {mismatch}" if mismatch else detail, None

    def _onward(self, asked: Place, head: Head, trail: _Trail) -> Place | None:
        """Where to go next; ``None`` when this answer is the last."""
        if not self.config.redirects or head.status not in REDIRECTS or "location" not in head.fields:
            return None
        if len(trail.told) >= self.config.redirects:
            raise RedirectRefusedError(f"more than {self.config.redirects} redirects")
        onward = followed(asked, head.fields["location"], allow_downgrade=self.config.allow_downgrade)
        if onward.host == self.server_name.lower():
            # The same server, which is not always found by the name it goes by.
            return replace(onward, host=self.start.host)
        return onward

    def _read_body(self, exchange: Exchange, head: Head, progress: Progress) -> tuple[Outcome, str]:
        """Received or corrupt, and what is to be said about the body."""
        config = self.config
        check = ContentCheck(
            contains=config.body_contains,
            lacks=config.body_lacks,
            sha256=config.body_sha256,
            fields=config.header_contains,
        )
        octets, whole, remark = 0, True, ""
        while (part := exchange.receive_part()) is not None:
            octets += len(part)
            if octets > config.max_body_octets:
                check.read(part[: len(part) - (octets - config.max_body_octets)])
                whole, remark = False, f"body longer than {config.max_body_octets} octets"
                break
            check.read(part)
        if whole and progress.received is not None and exchange.last_octet is not None:
            took_ns = exchange.last_octet.mono_ns - progress.received.mono_ns
            progress.phases.append(Phase("transfer", max(0, took_ns)))
        if mismatch := check.mismatch(head.fields, whole=whole):
            return Outcome.CORRUPT, mismatch
        return Outcome.RECEIVED, remark

    def _note_head(self, head: Head, asked: Place) -> None:
        self.facts["http_status"] = str(head.status)
        if "alt-svc" in head.fields:
            self.facts["alt_svc"] = _printable(head.fields["alt-svc"])[:_LONGEST_LOCATION]
        if self.config.redirects:
            self.facts["final_url"] = str(asked)[:_LONGEST_LOCATION]


class _Trail:
    """The connections of one attempt, in order."""

    def __init__(self, begun_ns: int, deadline_ns: int) -> None:
        self.deadline_ns = deadline_ns
        self.told: list[str] = []
        """Each redirect followed, in words."""
        self.progress = Progress()
        self._all: list[Progress] = []
        self._begun_ns = begun_ns
        self._entered_ns = begun_ns

    def enter(self, progress: Progress, now_ns: int) -> None:
        self.progress = progress
        self._all.append(progress)
        self._entered_ns = now_ns

    def leave(self, detail: str, now_ns: int) -> None:
        self.told.append(f"{detail} ({(now_ns - self._entered_ns) / 1e6:.1f} ms)")

    @property
    def first(self) -> Progress:
        """The connection to the target itself."""
        return self._all[0]

    @property
    def address_before(self) -> Address | None:
        """Where the connection stood over which we were sent on; `None` at the first."""
        return self._all[-2].address if len(self._all) > 1 else None

    def phases(self) -> tuple[Phase, ...]:
        """Those of the last connection, after the time all redirects before it took together."""
        if not self.told:
            return tuple(self.progress.phases)
        return (Phase("redirects", self._entered_ns - self._begun_ns), *self.progress.phases)


def load(config: HttpConfig) -> None:
    """Load what the test will need: up to a third of a second that is nobody's measurement."""
    if config.http_version == "http3":
        http3_modules()
    elif config.http_version != "http1":
        importlib.import_module("probes.http.http2")


def http3_modules() -> tuple[ModuleType, ModuleType]:
    """The modules that speak QUIC and HTTP/3; CannotMeasureError where their extra is not installed."""
    try:
        return importlib.import_module("probes.http.quic"), importlib.import_module("probes.http.http3")
    except ModuleNotFoundError as error:
        raise CannotMeasureError(
            f"HTTP/3 needs the module {(error.name or '').partition('.')[0]!r}, which is not installed",
            remedy="install it with: pip install 'nhip[http3]'",
        ) from error


def _note_first_byte(exchange: Exchange, progress: Progress) -> None:
    """The time from the request to the answer's first octet: by the kernel at both ends, or as we saw it."""
    handed_over, answered = progress.sent, exchange.first_octet
    if handed_over is None or answered is None:
        return
    left = exchange.departure(handed_over.mono_ns) or handed_over
    if answered.mono_ns < left.mono_ns:
        # Somebody spoke before being asked: the kernel's times are of other octets than we think.
        left = handed_over
    progress.sent, progress.received = left, answered
    progress.host_sent_mono_ns, progress.host_received_mono_ns = handed_over.mono_ns, exchange.first_octet_ns
    progress.phases.append(Phase("first_byte", max(0, answered.mono_ns - left.mono_ns)))


def status_detail(head: Head) -> str:
    """The status in words, and where a redirect leads."""
    place = head.fields.get("location", "")
    if not 300 <= head.status < 400 or not place:
        return f"HTTP {head.status}"
    return f"HTTP {head.status} to {_printable(place)[:_LONGEST_LOCATION]}"


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
