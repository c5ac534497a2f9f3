"""Questions on connections, one after another: over TCP, TLS and HTTPS alike.

An attempt opens a connection, or takes the one that is kept, and asks. With a kept connection a question that
finds it closed by the server in the meantime is asked again on a new one, once, as every client must do
(RFC 7766 section 6.2.4). After anything but an answer the connection is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from nhip.measurement import Outcome, Phase, Singleton, Stamp, StampSource
from nhip.statistics import NANOSECONDS_PER_SECOND
from probes.api import ProbeContext
from probes.dns.answers import Answers, Judged, Retry
from probes.dns.config import DnsConfig
from probes.dns.connection import Connection, Connector, Traffic
from probes.dns.keeper import stamping_keeper
from probes.dns.question import HEADER_OCTETS, Question, judge, make_question
from probes.line.way import WayWatch
from probes.stamped_stream import StampedStream
from probes.stream import StreamError
from probes.timestamping import KERNEL_STAMP_ERROR_NS

# A server may repeat an earlier answer for ever.
_MOST_REPEATED = 16


@dataclass(slots=True)
class _Attempt:
    """How far one attempt came; what is known when it breaks off."""

    lag_ns: int
    sent: Stamp | None = None
    host_sent_ns: int | None = None
    received: Stamp | None = None
    host_received_ns: int | None = None
    own_error_ns: int = 0
    by_kernel: bool = False
    """Whether both `sent` and `received` are the kernel's."""
    phases: list[Phase] = field(default_factory=list)

    @property
    def query_ns(self) -> int:
        """From question to answer."""
        return self.received.mono_ns - self.sent.mono_ns if self.received and self.sent else 0


@dataclass(slots=True)
class StreamQuestions:
    """All questions of one test."""

    connector: Connector
    config: DnsConfig
    context: ProbeContext
    way: WayWatch
    _traffic: Traffic = field(default_factory=Traffic)
    _connection: Connection | None = None
    _judged: list[Judged] = field(default_factory=list)
    _singletons: list[Singleton] = field(default_factory=list)
    _asked_on_connection: dict[int, int] = field(default_factory=dict)
    """Sequence by id, of the questions the kept connection has carried."""
    _http_versions: dict[str, None] = field(default_factory=dict)
    _closed_meanwhile: int = 0
    _connections: int = 0
    _held_back_ns: int = 0
    _longest_lag_ns: int = 0

    def ask_all(self) -> Answers:
        """Return when every question is settled, or soon after the test was cancelled."""
        keeper = stamping_keeper(self.context, self.connector.address)
        begin_ns = ready_ns = self.context.clock.mono_ns()
        interval_ns = round(self.config.interval_seconds * NANOSECONDS_PER_SECOND)
        try:
            for sequence in range(self.config.count):
                due_ns = begin_ns + self._held_back_ns + sequence * interval_ns
                # An attempt longer than the interval moves the plan back: no burst follows it.
                self._held_back_ns += max(ready_ns - due_ns, 0)
                due_ns = max(due_ns, ready_ns)
                if not self.context.wait_until(due_ns):
                    self._singletons.append(
                        Singleton(sequence=sequence, outcome=Outcome.NOT_SENT, detail="cancelled")
                    )
                    continue
                lag_ns = max(self.context.clock.mono_ns() - due_ns, 0)
                self._longest_lag_ns = max(self._longest_lag_ns, lag_ns)
                self._singletons.append(self._attempt(sequence, _Attempt(lag_ns=lag_ns)))
                ready_ns = self.context.clock.mono_ns()
        finally:
            self._drop()
            keeper.close()
        return self._answers()

    def _attempt(self, sequence: int, attempt: _Attempt) -> Singleton:
        """One question with everything that can break it off turned into an outcome."""
        try:
            outcome, detail = self._ask(sequence, attempt)
        except StreamError as error:
            self._drop()
            outcome, detail = error.outcome, error.detail
            if outcome in (Outcome.REJECTED, Outcome.CORRUPT) and attempt.sent is not None:
                attempt.received = attempt.received or self.context.now()
            if outcome is Outcome.UNREACHABLE:
                self.way.failed(outcome, self.connector.address)
        if not self.config.reuse_connection:
            self._drop()
        sent, received = attempt.sent, attempt.received
        delay_ns = None
        if outcome is Outcome.RECEIVED and sent is not None and received is not None:
            delay_ns = received.mono_ns - sent.mono_ns
        source = StampSource.KERNEL if attempt.by_kernel else StampSource.USER
        return Singleton(
            sequence=sequence,
            outcome=outcome,
            sent=sent,
            received=received,
            delay_ns=delay_ns,
            delay_source=None if delay_ns is None else source,
            host_sent_mono_ns=attempt.host_sent_ns,
            host_received_mono_ns=attempt.host_received_ns,
            send_lag_ns=attempt.lag_ns,
            own_error_ns=None if delay_ns is None else attempt.own_error_ns,
            phases=tuple(attempt.phases),
            detail=detail,
        )

    def _ask(self, sequence: int, attempt: _Attempt) -> tuple[Outcome, str]:
        question = make_question(self.config)
        if self._connection is not None:
            try:
                return self._exchange(sequence, question, attempt, self._connection)
            except StreamError as error:
                if error.outcome is not Outcome.RESET:
                    raise
                self._drop()
                self._closed_meanwhile += 1
                attempt.phases.clear()
        return self._exchange(sequence, question, attempt, self._connect(attempt))

    def _connect(self, attempt: _Attempt) -> Connection:
        threshold_ns = round(self.config.loss_threshold_seconds * NANOSECONDS_PER_SECOND)
        deadline_ns = self.context.clock.mono_ns() + threshold_ns
        connection = self._connection = self.connector.open(attempt.phases, self._traffic, deadline_ns)
        self._connections += 1
        self._asked_on_connection.clear()
        if version := connection.channel.http_version:
            self._http_versions[version] = None
        return connection

    def _exchange(
        self, sequence: int, question: Question, attempt: _Attempt, connection: Connection
    ) -> tuple[Outcome, str]:
        context = self.context
        threshold_ns = round(self.config.loss_threshold_seconds * NANOSECONDS_PER_SECOND)
        reused = connection.asked > 0
        connection.asked += 1
        handed_over = attempt.sent = context.now()
        attempt.host_sent_ns = handed_over.mono_ns
        connection.stream.deadline_ns = handed_over.mono_ns + threshold_ns
        connection.channel.send(question.octets)
        call_ns = context.clock.mono_ns() - handed_over.mono_ns
        written = connection.stream.written
        for _ in range(_MOST_REPEATED + 1):
            octets = connection.channel.receive()
            read = context.now()
            if not self._is_repeated(octets, question, read):
                break
        else:
            raise StreamError(Outcome.CORRUPT, "no end of repeated answers")
        self._stamp(attempt, connection.stream, handed_over, read, written, call_ns)
        query_ns = attempt.query_ns
        attempt.phases.append(Phase(f"{self.connector.phase_prefix}query", query_ns))
        self._asked_on_connection[question.message.id] = sequence
        verdict = judge(question, octets, self.config)
        if verdict is None:
            # Nobody off the path can write into a connection: the server itself mixed answers up.
            raise StreamError(Outcome.CORRUPT, "answer to another question")
        self._judged.append(
            Judged(sequence=sequence, verdict=verdict, octets=len(octets), query_ns=query_ns, reused=reused)
        )
        return (Outcome.LATE if query_ns > threshold_ns else verdict.outcome), verdict.detail

    @staticmethod
    def _stamp(
        attempt: _Attempt,
        stream: StampedStream,
        handed_over: Stamp,
        read: Stamp,
        written: int,
        call_ns: int,
    ) -> None:
        """Put the best stamps there are on an attempt, and how far they may be off by this host's doing."""
        departure, arrival = stream.departure(written, handed_over.mono_ns), stream.arrival
        sent, received = departure or handed_over, arrival or read
        if received.mono_ns < sent.mono_ns:
            # The wall clock was moved by less than can be noticed.
            departure, arrival, sent, received = None, None, handed_over, read
        attempt.sent, attempt.received, attempt.host_received_ns = sent, received, read.mono_ns
        attempt.by_kernel = departure is not None and arrival is not None
        departure_ns = KERNEL_STAMP_ERROR_NS if departure else call_ns
        arrival_ns = KERNEL_STAMP_ERROR_NS if arrival else 0  # else see _with_error
        attempt.own_error_ns = departure_ns + arrival_ns + 2 * stream.uncertainty_ns

    def _is_repeated(self, octets: bytes, question: Question, received: Stamp) -> bool:
        """Note one more answer to an earlier question of this connection."""
        if len(octets) < HEADER_OCTETS or not question.message.id:
            return False
        number = int.from_bytes(octets[:2], "big")
        earlier = self._asked_on_connection.get(number)
        if earlier is None or number == question.message.id:
            return False
        self._singletons.append(
            Singleton(sequence=earlier, outcome=Outcome.DUPLICATE, sent=None, received=received)
        )
        return True

    def _with_error(self, singleton: Singleton) -> Singleton:
        """What delays a sender delays a reader: a stamp of ours may be off by as much as we were late."""
        error_ns, received = singleton.own_error_ns, singleton.received
        if error_ns is None or received is None or received.source is not StampSource.USER:
            return singleton
        return replace(singleton, own_error_ns=error_ns + self._longest_lag_ns)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.stream.close()
            self._connection = None

    def _answers(self) -> Answers:
        notes = []
        if self._closed_meanwhile:
            notes.append(f"the server closed the kept connection {self._closed_meanwhile} times")
        if self._held_back_ns:
            seconds = self._held_back_ns / NANOSECONDS_PER_SECOND
            notes.append(
                f"attempts took longer than the interval: the plan was moved back by {seconds:.3f} s"
            )
        return Answers(
            singletons=tuple(
                sorted(map(self._with_error, self._singletons), key=lambda singleton: singleton.sequence)
            ),
            judged=tuple(self._judged),
            octets_sent=self._traffic.octets_sent,
            octets_received=self._traffic.octets_received,
            connections=self._connections,
            http_versions=tuple(self._http_versions),
            notes=tuple(notes),
        )


def ask_again(
    connector: Connector,
    question: Question,
    config: DnsConfig,
    context: ProbeContext,
    end_ns: Callable[[], int],
) -> Retry | None:
    """Ask `question` once more on a new connection, after an answer in a datagram came truncated.

    `end_ns` tells when all retries of a test end; `None` when that, or its cancelling, left no time for one.
    """
    phases: list[Phase] = []
    traffic = Traffic()
    threshold_ns = round(config.loss_threshold_seconds * NANOSECONDS_PER_SECOND)
    if context.cancelled.is_set() or context.clock.mono_ns() >= end_ns():
        return None
    try:
        connection = connector.open(phases, traffic, min(context.clock.mono_ns() + threshold_ns, end_ns()))
        with connection.stream as stream:
            sent_ns = context.clock.mono_ns()
            stream.deadline_ns = min(sent_ns + threshold_ns, end_ns())
            connection.channel.send(question.octets)
            octets = connection.channel.receive()
            query_ns = context.clock.mono_ns() - sent_ns
        phases.append(Phase(f"{connector.phase_prefix}query", query_ns))
        verdict = judge(question, octets, config)
        outcome, detail = (
            (verdict.outcome, verdict.detail) if verdict else (Outcome.CORRUPT, "answer to another question")
        )
    except StreamError as error:
        outcome, detail = error.outcome, error.detail
    return Retry(
        outcome=outcome,
        detail=detail,
        phases=tuple(phases),
        octets_sent=traffic.octets_sent,
        octets_received=traffic.octets_received,
    )
