"""Questions in datagrams (RFC 1035 section 4.2.1): each with its own socket, several under way at a time.

A socket of its own gives every question its own source port (RFC 5452 section 9.2). It is opened before its
question is due, so that opening it makes no question late. Sockets stay unconnected, so that an answer from a
wrong address is seen and counted. How stamps become delays is the ledger's to say.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from nhip.clock import Clock
from nhip.measurement import Outcome, Singleton
from nhip.statistics import NANOSECONDS_PER_SECOND
from probes.api import LONGEST_PAUSE_SECONDS, ProbeContext
from probes.dns.answers import Answers, Judged, Retry
from probes.dns.config import LATE_FACTOR, DnsConfig
from probes.dns.keeper import stamping_keeper
from probes.dns.question import LONGEST_MESSAGE_OCTETS, TRUNCATED, Question, Verdict, judge, make_question
from probes.error_queue import QueuedError, report_errors
from probes.ledger import Answer, Dispatch, Ledger
from probes.line.way import WayWatch
from probes.network import Address, errno_name, outcome_of
from probes.timestamping import Datagram, PacketClock

# A duplicate follows its original closely: this many times the longest delay is enough to see it.
_QUIET_FACTOR = 3
# Questions this far behind their plan are not caught up with in a burst; the plan moves back instead.
_LONGEST_CATCHING_UP_NS = 5_000_000
# poll(2) waits whole milliseconds; the rest of a wait is slept, while the kernel stamps what arrives.
_POLL_STEP_NS = 1_000_000
_RETRIES_AT_A_TIME = 8
_MOST_RETRIES = 100
# A retry has until so many thresholds after the latest question.
_RETRY_FACTOR = 2
# A resolver may send for ever: after so many datagrams of a socket, or so long, the plan is looked at again.
_MOST_READ_AT_ONCE = 64
_LONGEST_READING_NS = 2_000_000
_MOST_DUPLICATES = 16


@dataclass(slots=True, kw_only=True)
class _Inquiry:
    """One question's socket, from before it is asked until no late answer is waited for."""

    sequence: int
    sock: socket.socket
    packet_clock: PacketClock
    question: Question
    left_ns: int = 0
    judged: Judged | None = None
    duplicates: int = 0
    failed: bool = False

    @property
    def settled(self) -> bool:
        return self.judged is not None or self.failed

    @property
    def answered(self) -> bool:
        """Whether a whole answer came; further ones are duplicates."""
        return self.judged is not None and self.judged.verdict.outcome is not Outcome.CORRUPT


@dataclass(slots=True)
class DatagramQuestions:
    """All questions of one test: asks each when it is due and listens to every open one in between."""

    config: DnsConfig
    address: Address
    context: ProbeContext
    way: WayWatch
    retry: Callable[[Question, Callable[[], int]], Retry | None]
    """Asks a truncated answer's question again over TCP until the time that the second argument tells; `None`
    when there was none left."""
    octets_sent: int = 0
    octets_received: int = 0
    held_back_ns: int = 0
    _ledger: Ledger = field(init=False)
    _poll: select.poll = field(default_factory=select.poll)
    _open: dict[int, _Inquiry] = field(default_factory=dict)  # by file descriptor, oldest first
    _prepared: _Inquiry | None = None
    _keeper: socket.socket | None = None
    _judged: dict[int, Judged] = field(default_factory=dict)
    _uncertainty_ns: int = 0
    _retries: dict[int, Future[Retry | None]] = field(default_factory=dict)
    _latest_question_ns: int = 0
    _duplicates_left_out: int = 0
    _pool: ThreadPoolExecutor | None = None

    def __post_init__(self) -> None:
        self._ledger = Ledger(round(self.config.loss_threshold_seconds * NANOSECONDS_PER_SECOND))

    def ask_all(self) -> Answers:
        """Return when every question is settled, or soon after the test was cancelled."""
        try:
            self._ask_all()
            # What arrived while this host did not let us read arrived all the same; its stamps tell when.
            for inquiry in list(self._open.values()):
                self._retire(inquiry)
            for sequence in self._ledger.without_fate(self.config.count, self.context.clock.mono_ns()):
                self._ledger.failed(sequence, Outcome.NOT_SENT, "cancelled")
            return self._answers()
        finally:
            self._close()

    def _ask_all(self) -> None:
        clock = self.context.clock
        if self.context.cancelled.is_set():
            return
        self._keeper = stamping_keeper(self.context, self.address)
        interval_ns = round(self.config.interval_seconds * NANOSECONDS_PER_SECOND)
        begin_ns: int | None = None
        for sequence in range(self.config.count):
            if self.context.cancelled.is_set():
                return
            inquiry = self._prepared = self._prepare(sequence)
            if begin_ns is None:
                begin_ns = clock.mono_ns()  # the first question is due when it can be asked
            due_ns = begin_ns + self.held_back_ns + sequence * interval_ns
            self._listen_until(due_ns)
            if not self.context.wait_until(due_ns):
                return
            self._prepared = None
            self._ask(inquiry, due_ns)
            behind_ns = inquiry.left_ns - due_ns
            if behind_ns > _LONGEST_CATCHING_UP_NS:
                self.held_back_ns += behind_ns
        while pending := [inquiry for inquiry in self._open.values() if not inquiry.settled]:
            end_ns = pending[-1].left_ns + self._ledger.loss_threshold_ns
            if self.context.cancelled.is_set() or clock.mono_ns() > end_ns:
                return
            self._listen_until(end_ns + 1, pending[-1])
        quiet_ns = min(_QUIET_FACTOR * self._ledger.longest_delay_ns, self._ledger.loss_threshold_ns)
        self._listen_until(clock.mono_ns() + quiet_ns)

    def _prepare(self, sequence: int) -> _Inquiry:
        sock = self.context.network.udp(self.address.family)
        try:
            packet_clock = PacketClock(_WithoutPause(self.context.clock))
            packet_clock.enable(sock)
            report_errors(sock)
            question = make_question(self.config)
        except BaseException:
            sock.close()
            raise
        return _Inquiry(sequence=sequence, sock=sock, packet_clock=packet_clock, question=question)

    def _ask(self, inquiry: _Inquiry, due_ns: int) -> None:
        stamp = self.context.now()
        inquiry.left_ns = self._latest_question_ns = stamp.mono_ns
        try:
            inquiry.packet_clock.send(inquiry.sock, inquiry.question.octets, self.address.sockaddr)
        except OSError as error:
            inquiry.sock.close()
            outcome = self.way.failed(outcome_of(error), self.address)
            self._ledger.failed(inquiry.sequence, outcome, errno_name(error))
            return
        lag_ns = max(stamp.mono_ns - due_ns, 0)
        self._ledger.sent(inquiry.sequence, Dispatch(stamp, lag_ns=lag_ns))
        self.octets_sent += len(inquiry.question.octets)
        self._open[inquiry.sock.fileno()] = inquiry
        self._poll.register(inquiry.sock, select.POLLIN)

    def _listen_until(self, end_ns: int, awaited: _Inquiry | None = None) -> None:
        """Take what arrives until `end_ns`, or until `awaited` is answered."""
        patience_ns = LATE_FACTOR * self._ledger.loss_threshold_ns
        while self._open and not self.context.cancelled.is_set():
            now_ns = self.context.clock.mono_ns()
            for inquiry in list(self._open.values()):
                if now_ns - inquiry.left_ns < patience_ns:
                    break
                self._retire(inquiry)
            if now_ns >= end_ns or (awaited is not None and awaited.settled):
                return
            whole_ms = min((end_ns - now_ns) // _POLL_STEP_NS, round(LONGEST_PAUSE_SECONDS * 1000))
            if whole_ms == 0:
                self.context.clock.sleep((end_ns - now_ns) / NANOSECONDS_PER_SECOND)
            # The newest first: where there is too much to read, an answer is rather there than a duplicate.
            for descriptor, _events in reversed(self._poll.poll(whole_ms)):
                self._take(self._open[descriptor])
                if self.context.clock.mono_ns() >= end_ns:
                    break

    def _take(self, inquiry: _Inquiry) -> None:
        """What waits at one question's socket: its departure first, ICMP errors, answers.

        Of a flood only a part, so that it hides neither the plan nor the stop signal.
        """
        self._take_queued(inquiry)
        end_ns = self.context.clock.mono_ns() + _LONGEST_READING_NS
        for _ in range(_MOST_READ_AT_ONCE):
            try:
                datagram = inquiry.packet_clock.receive(inquiry.sock, LONGEST_MESSAGE_OCTETS)
            except BlockingIOError:
                return
            except OSError as error:
                outcome = outcome_of(error)  # raises when the interface is gone
                self._fail(inquiry, outcome, errno_name(error))
                self._take_queued(inquiry)
                return
            self.octets_received += len(datagram.data)
            self._judge(inquiry, datagram)
            if self.context.clock.mono_ns() >= end_ns:
                return

    def _take_queued(self, inquiry: _Inquiry) -> None:
        for message in inquiry.packet_clock.queued(inquiry.sock):
            if isinstance(message, QueuedError):
                # The socket has sent one question, so this is about it.
                self._fail(inquiry, outcome_of(message.error), message.detail)
            else:
                self._ledger.departed(inquiry.sequence, message.stamp, message.hardware_ns)

    def _fail(self, inquiry: _Inquiry, outcome: Outcome, detail: str) -> None:
        self._ledger.failed(inquiry.sequence, outcome, detail)
        inquiry.failed = True

    def _judge(self, inquiry: _Inquiry, datagram: Datagram) -> None:
        if inquiry.duplicates >= _MOST_DUPLICATES:
            self._duplicates_left_out += 1
            return
        verdict: Verdict | None = None
        if datagram.address[:2] == self.address.sockaddr[:2]:
            verdict = judge(inquiry.question, datagram.data, self.config)
        if verdict is None:
            self._ledger.foreign += 1
            return
        intact = verdict.outcome is not Outcome.CORRUPT
        self._ledger.answered(
            Answer(inquiry.sequence, intact=intact),
            datagram.stamp,
            datagram.host_mono_ns,
            datagram.hardware_ns,
        )
        if inquiry.answered:
            inquiry.duplicates += 1
            return
        inquiry.judged = Judged(
            sequence=inquiry.sequence,
            verdict=verdict,
            octets=len(datagram.data),
            query_ns=max(datagram.stamp.mono_ns - inquiry.left_ns, 0),
        )
        self._judged[inquiry.sequence] = inquiry.judged
        if not (verdict.truncated and self.config.retry_truncated):
            return
        if len(self._retries) < _MOST_RETRIES and inquiry.sequence not in self._retries:
            # Beside the questions still to be asked: waiting for a connection here would make them late.
            self._pool = self._pool or ThreadPoolExecutor(_RETRIES_AT_A_TIME, "dns-retry")
            self._retries[inquiry.sequence] = self._pool.submit(
                self.retry, inquiry.question, self._retries_end_ns
            )

    def _retries_end_ns(self) -> int:
        return self._latest_question_ns + _RETRY_FACTOR * self._ledger.loss_threshold_ns

    def _retire(self, inquiry: _Inquiry) -> None:
        descriptor = inquiry.sock.fileno()
        self._take(inquiry)
        self._uncertainty_ns = max(self._uncertainty_ns, inquiry.packet_clock.uncertainty_ns)
        self._poll.unregister(descriptor)
        del self._open[descriptor]
        inquiry.sock.close()

    def _answers(self) -> Answers:
        # None of them lasts beyond the end that all have in common.
        results = {sequence: future.result() for sequence, future in self._retries.items()}
        retried = {sequence: retry for sequence, retry in results.items() if retry is not None}
        self.octets_sent += sum(retry.octets_sent for retry in retried.values())
        self.octets_received += sum(retry.octets_received for retry in retried.values())
        notes = []
        if self._ledger.foreign:
            notes.append(f"{self._ledger.foreign} foreign answers ignored")
        if left_out := self._duplicates_left_out + self._ledger.duplicates_left_out:
            notes.append(f"{left_out} further duplicates counted and not read")
        if self.held_back_ns:
            stalled_seconds = self.held_back_ns / NANOSECONDS_PER_SECOND
            notes.append(f"this host stalled: the plan was moved back by {stalled_seconds:.3f} s in all")
        singletons = tuple(
            _called(singleton, self._judged.get(singleton.sequence), retried.get(singleton.sequence))
            for singleton in self._ledger.close(self._uncertainty_ns)
        )
        if self.config.retry_truncated:
            singletons = tuple(map(_not_retried, singletons))
        return Answers(
            singletons=singletons,
            judged=tuple(self._judged.values()),
            octets_sent=self.octets_sent,
            octets_received=self.octets_received,
            connections=sum(bool(retry.phases) for retry in retried.values()),
            notes=tuple(notes),
        )

    def _close(self) -> None:
        for inquiry in self._open.values():
            inquiry.sock.close()
        if self._prepared is not None:
            self._prepared.sock.close()
        if self._keeper is not None:
            self._keeper.close()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


class _WithoutPause:
    """A clock that does not wait: with the keeper open the kernel stamps already when a socket asks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def wall_ns(self) -> int:
        return self._clock.wall_ns()

    def mono_ns(self) -> int:
        return self._clock.mono_ns()

    def sleep(self, seconds: float) -> None:
        """Return at once."""

    def suspended_ns(self) -> int:
        return self._clock.suspended_ns()


def _called(singleton: Singleton, judged: Judged | None, retry: Retry | None) -> Singleton:
    """The singleton with what the answer said; the ledger knows only that a whole one came in time."""
    if judged is None or singleton.outcome not in (Outcome.RECEIVED, Outcome.CORRUPT, Outcome.LATE):
        return singleton
    if singleton.outcome is Outcome.LATE:
        return replace(singleton, detail=judged.verdict.detail)
    outcome, detail, phases = judged.verdict.outcome, judged.verdict.detail, singleton.phases
    if retry is not None and retry.outcome is not Outcome.NOT_SENT:
        phases = retry.phases
        outcome = retry.outcome if outcome is Outcome.RECEIVED else outcome
        detail = f"{TRUNCATED}, over TCP: {retry.detail or retry.outcome.value}"
    defined = outcome is Outcome.RECEIVED
    return replace(
        singleton,
        outcome=outcome,
        detail=detail,
        phases=phases,
        delay_ns=singleton.delay_ns if defined else None,
        delay_source=singleton.delay_source if defined else None,
        own_error_ns=singleton.own_error_ns if defined else None,
    )


def _not_retried(singleton: Singleton) -> Singleton:
    """The singleton with a word that its truncated answer stayed one, where it did."""
    if singleton.detail != TRUNCATED:
        return singleton
    return replace(singleton, detail=f"{TRUNCATED}, not retried")
