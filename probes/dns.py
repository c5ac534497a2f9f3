"""DNS: the round trip of one question to one resolver over UDP (RFC 1035).

The target is the resolver (port 53 unless given). Every question has its own socket, so its own source port,
and a random id; an answer counts only when it comes from the address asked and repeats id and question.
Anything else that arrives is ignored and counted in the notes. The arrival is stamped by the kernel.

An answer with an error code (``NXDOMAIN``, ``SERVFAIL``, ``REFUSED``, ...) is ``rejected`` with the code in
the detail; a port unreachable is ``refused``. An answer after ``loss_threshold_seconds`` is ``late``, which
is part of lost, and a second answer is a ``duplicate``; both are listened for while the test lasts, at most
twice the threshold. ``truncated`` in the detail marks an answer with the TC bit.

Settings: ``name`` and ``record_type`` (A or AAAA) of the question, ``count`` questions ``interval_seconds``
apart, ``loss_threshold_seconds``; ``mixed_case`` sends the name in random capitals and takes only answers
that repeat them (draft-vixie-dnsext-dns0x20), which some resolvers do not.
"""

from __future__ import annotations

import secrets
import select
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import msgspec

from nhip.clock import clock_state
from nhip.errors import ConfigError
from nhip.measurement import Method, Outcome, Sample, Singleton, Stamp, Target, TypeP
from nhip.statistics import NANOSECONDS_PER_SECOND, worst_source
from probes.api import LONGEST_PAUSE_SECONDS, ProbeContext
from probes.icmp_errors import queued_errors, report_errors
from probes.network import Address, errno_name, notes_on_name, outcome_of
from probes.timestamping import Datagram, ReceiveClock
from probes.way import WayWatch

if TYPE_CHECKING:
    import dns.message

DEFAULT_PORT = 53

# How many thresholds a question's socket stays open for a late answer.
_LATE_FACTOR = 2
# A duplicate follows its original closely: this many times the longest delay is enough to see it.
_QUIET_FACTOR = 3
_MOST_OPEN_QUESTIONS = 500
_LONGEST_ANSWER_OCTETS = 65_535
_NAME_PATTERN = r"^(?=.{1,253}\.?$)([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.?)+$"


class DnsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Knobs of a dns test."""

    name: Annotated[str, msgspec.Meta(pattern=_NAME_PATTERN, max_length=254)] = "example.com"
    record_type: Literal["A", "AAAA"] = "A"
    count: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 10
    interval_seconds: Annotated[float, msgspec.Meta(ge=0.01, le=3600)] = 1.0
    loss_threshold_seconds: Annotated[float, msgspec.Meta(gt=0, le=120)] = 2.0
    mixed_case: bool = False

    def __post_init__(self) -> None:
        open_questions = min(self.count, _LATE_FACTOR * self.loss_threshold_seconds / self.interval_seconds)
        if open_questions > _MOST_OPEN_QUESTIONS:
            raise ConfigError(
                f"interval_seconds: {self.interval_seconds:g} keeps {open_questions:.0f} questions open",
                remedy="lengthen interval_seconds or shorten loss_threshold_seconds",
            )


class Dns:
    """Measures the round-trip delay and loss of questions to one resolver."""

    kind: ClassVar = "dns"
    method: ClassVar = Method("dns_udp", "1")
    Config: ClassVar = DnsConfig
    exclusive: ClassVar = False
    has_port: ClassVar = True

    def __init__(self, config: DnsConfig) -> None:
        self.config = config

    def measure(self, target: Target, context: ProbeContext) -> Sample:
        size_octets = len(_query(self.config).to_wire())
        started, clock = context.now(), clock_state()
        port = target.port or DEFAULT_PORT
        address = context.network.resolve(
            target.host, port, timeout_seconds=self.config.loss_threshold_seconds
        )
        inquiry = _Inquiry(self.config, address, context)
        if address is not None:
            inquiry.way.check(address)
        try:
            inquiry.ask_all()
        finally:
            inquiry.close()
        singletons = inquiry.singletons()
        sample = Sample(
            kind=self.kind,
            method=self.method,
            target=target,
            type_p=TypeP(
                protocol="udp",
                ip_version=address.ip_version if address else None,
                size_octets=size_octets,
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
            octets_sent=inquiry.octets_sent,
            octets_received=inquiry.octets_received,
            parameters={
                "count": self.config.count,
                "interval_seconds": self.config.interval_seconds,
                "name": self.config.name,
                "record_type": self.config.record_type,
                "mixed_case": self.config.mixed_case,
            },
            notes=(
                *((f"{inquiry.foreign} foreign answers ignored",) if inquiry.foreign else ()),
                *notes_on_name(context.network, target.host),
            ),
        )
        return inquiry.way.confirmed(sample)


@dataclass(slots=True, kw_only=True)
class _Question:
    """One question under way: its socket and what has become of it so far."""

    sequence: int
    sock: socket.socket
    query: dns.message.Message
    sent: Stamp
    answer: Singleton | None = None


class _Inquiry:
    """All questions of one test: asks each when it is due and listens to every open one in between."""

    def __init__(self, config: DnsConfig, address: Address | None, context: ProbeContext) -> None:
        self.octets_sent = 0
        self.octets_received = 0
        self.foreign = 0
        self.way = WayWatch(context.network)
        self._config = config
        self._address = address
        self._context = context
        self._threshold_ns = round(config.loss_threshold_seconds * NANOSECONDS_PER_SECOND)
        self._receive_clock = ReceiveClock(context.clock)
        self._poll = select.poll()
        self._open: dict[int, _Question] = {}  # by file descriptor, oldest first
        self._settled: list[Singleton] = []
        self._longest_delay_ns = 0

    def ask_all(self) -> None:
        """Return when every question is settled, or soon after the test was cancelled."""
        begin_ns = self._context.clock.mono_ns()
        interval_ns = round(self._config.interval_seconds * NANOSECONDS_PER_SECOND)
        for sequence in range(self._config.count):
            due_ns = begin_ns + sequence * interval_ns
            self._listen_until(due_ns)
            if not self._context.wait_until(due_ns):
                self._settle(sequence, Outcome.NOT_SENT, detail="cancelled")
            elif self._address is None:
                self._settle(sequence, Outcome.NOT_RESOLVED)
            else:
                self._ask(sequence, self._address)
        while pending := [question for question in self._open.values() if question.answer is None]:
            end_ns = pending[-1].sent.mono_ns + self._threshold_ns
            if self._context.cancelled.is_set() or self._context.clock.mono_ns() >= end_ns:
                return
            self._listen_until(end_ns, pending[-1])
        quiet_ns = min(_QUIET_FACTOR * self._longest_delay_ns, self._threshold_ns)
        self._listen_until(self._context.clock.mono_ns() + quiet_ns)

    def singletons(self) -> list[Singleton]:
        """What became of every question, in the order they were asked, duplicates after their original."""
        return sorted(self._settled, key=lambda singleton: singleton.sequence)

    def close(self) -> None:
        """Close every socket; a question that is still open is settled as it stands."""
        for question in list(self._open.values()):
            self._retire(question)

    def _ask(self, sequence: int, address: Address) -> None:
        sock = self._context.network.udp(address.family)
        try:
            self._receive_clock.enable(sock)
            # The socket stays unconnected, so that an answer from a wrong address is seen and counted;
            # this option then still brings the ICMP errors about what it sent.
            report_errors(sock)
            query = _query(self._config)
            octets = query.to_wire()
            sent = self._context.now()
            sock.sendto(octets, address.sockaddr)
        except OSError as error:
            sock.close()
            outcome = self.way.failed(outcome_of(error), address)
            self._settle(sequence, outcome, detail=errno_name(error))
            return
        self.octets_sent += len(octets)
        self._open[sock.fileno()] = _Question(sequence=sequence, sock=sock, query=query, sent=sent)
        self._poll.register(sock, select.POLLIN)

    def _listen_until(self, end_ns: int, awaited: _Question | None = None) -> None:
        """Take what arrives until `end_ns`, or until `awaited` is answered."""
        while self._open and not self._context.cancelled.is_set():
            now_ns = self._context.clock.mono_ns()
            for question in list(self._open.values()):
                if now_ns - question.sent.mono_ns < _LATE_FACTOR * self._threshold_ns:
                    break
                self._retire(question)
            if now_ns >= end_ns or (awaited is not None and awaited.answer is not None):
                return
            pause_ms = min((end_ns - now_ns) / 1e6, LONGEST_PAUSE_SECONDS * 1000)
            for descriptor, _events in self._poll.poll(pause_ms):
                self._take(self._open[descriptor])

    def _take(self, question: _Question) -> None:
        """One datagram, or one ICMP error, of one question's socket."""
        try:
            datagram = self._receive_clock.receive(question.sock, _LONGEST_ANSWER_OCTETS)
        except BlockingIOError:
            _drop_errors(question.sock)
            return
        except OSError as error:
            _drop_errors(question.sock)
            if question.answer is None:
                question.answer = Singleton(
                    sequence=question.sequence,
                    outcome=outcome_of(error),
                    sent=question.sent,
                    detail=errno_name(error),
                )
            return
        self.octets_received += len(datagram.data)
        verdict = None
        if self._address is not None and datagram.address[:2] == self._address.sockaddr[:2]:
            verdict = _judge(question.query, datagram.data, exact=self._config.mixed_case)
        if verdict is None:
            self.foreign += 1
        elif question.answer is None:
            question.answer = self._answer(question, datagram, *verdict)
        else:
            self._settle(question.sequence, Outcome.DUPLICATE, sent=question.sent, received=datagram.stamp)

    def _answer(self, question: _Question, datagram: Datagram, outcome: Outcome, detail: str) -> Singleton:
        received = datagram.stamp
        if received.mono_ns < question.sent.mono_ns:
            received = self._context.now()  # the wall clock was moved by less than a stamp can show
        delay_ns = received.mono_ns - question.sent.mono_ns
        self._longest_delay_ns = max(self._longest_delay_ns, delay_ns)
        if delay_ns > self._threshold_ns:
            outcome = Outcome.LATE
        defined = outcome is Outcome.RECEIVED
        return Singleton(
            sequence=question.sequence,
            outcome=outcome,
            sent=question.sent,
            received=received,
            delay_ns=delay_ns if defined else None,
            delay_source=received.source if defined else None,
            detail=detail,
        )

    def _retire(self, question: _Question) -> None:
        descriptor = question.sock.fileno()
        self._poll.unregister(descriptor)
        del self._open[descriptor]
        question.sock.close()
        if question.answer is not None:
            self._settled.append(question.answer)
            return
        # Cancelling ends the waiting, not the question: only a wait that was whole shows a loss.
        waited_ns = self._context.clock.mono_ns() - question.sent.mono_ns
        if waited_ns < self._threshold_ns:
            self._settle(question.sequence, Outcome.NOT_SENT, sent=question.sent, detail="cancelled")
        else:
            self._settle(question.sequence, Outcome.LOST, sent=question.sent)

    def _settle(
        self,
        sequence: int,
        outcome: Outcome,
        *,
        sent: Stamp | None = None,
        received: Stamp | None = None,
        detail: str = "",
    ) -> None:
        self._settled.append(
            Singleton(sequence=sequence, outcome=outcome, sent=sent, received=received, detail=detail)
        )


def _query(config: DnsConfig) -> dns.message.Message:
    """A question with a random id; with ``mixed_case`` the letters' case is random too."""
    import dns.message  # 70 ms that a host without a dns task need not spend

    name = config.name
    if config.mixed_case:
        name = "".join(letter.upper() if secrets.randbits(1) else letter.lower() for letter in name)
    return dns.message.make_query(name, config.record_type, id=secrets.randbits(16))


def _judge(query: dns.message.Message, octets: bytes, *, exact: bool) -> tuple[Outcome, str] | None:
    """What an answer says; ``None`` when it is no answer to `query` at all."""
    import dns.exception
    import dns.flags
    import dns.message
    import dns.rcode

    if int.from_bytes(octets[:2], "big") != query.id or len(octets) < 12:
        return None
    try:
        answer = dns.message.from_wire(octets, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        return Outcome.CORRUPT, "malformed"
    failed = answer.rcode() != dns.rcode.NOERROR
    # A server that could not read the question need not repeat it (RFC 1035 section 4.1.1, FORMERR).
    without_question = failed and not answer.question
    if not answer.flags & dns.flags.QR:
        return None
    if not without_question and not _same_question(query, answer, exact=exact):
        return None
    if failed:
        return Outcome.REJECTED, dns.rcode.to_text(answer.rcode())
    if answer.flags & dns.flags.TC:
        return Outcome.RECEIVED, "truncated"
    return Outcome.RECEIVED, "" if answer.answer else "no record of this type"


def _same_question(query: dns.message.Message, answer: dns.message.Message, *, exact: bool) -> bool:
    """True when the question came back (RFC 5452 section 9.1); `exact` holds it to the capitals too."""
    if query.question != answer.question:
        return False
    return not exact or query.question[0].name.labels == answer.question[0].name.labels


def _drop_errors(sock: socket.socket) -> None:
    for _error in queued_errors(sock):
        pass  # what they stand for came with the read; a question's socket has sent nothing else
