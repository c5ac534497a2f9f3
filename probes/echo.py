"""Send a stream of requests, hear their answers, and keep honest books of each one's fate.

ICMP echo and STAMP are the same game with other packets: number the requests, stamp them, match answers.
:class:`Ledger` is the bookkeeping, pure and free of sockets; :func:`exchange` plays the game on a socket.

Fate of a request::

    due ──send──▶ sent ──answer within the threshold──▶ received ──another answer──▶ + duplicate
     │             ├─────answer after the threshold───▶ late
     │             ├─────ICMP error quoting it────────▶ refused / unreachable
     │             └─────nothing until the end────────▶ lost
     └──no buffer──▶ not_sent

A test that is cancelled says ``not_sent`` of every request whose fate is still open: it must not be called
lost when nobody waited for its answer. One that had its whole threshold is lost all the same.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from nhip.measurement import Outcome, Singleton, Stamp
from nhip.statistics import NANOSECONDS_PER_SECOND
from probes.api import LONGEST_PAUSE_SECONDS, ProbeContext
from probes.icmp_errors import queued_errors, report_errors
from probes.network import Address, errno_name, outcome_of
from probes.timestamping import Datagram, ReceiveClock
from probes.way import WayWatch

_RECEIVE_OCTETS = 65_536
# After the last answer, how many times the longest delay seen to wait for duplicates of it.
_DUPLICATE_WAIT_FACTOR = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """What a protocol read out of a datagram: whose answer it is, and how long the far end held it."""

    sequence: int
    turnaround_ns: int = 0
    intact: bool = True


class EchoProtocol(Protocol):
    """The packets of one session."""

    def request(self, sequence: int, sent: Stamp) -> bytes:
        """The request numbered `sequence`."""

    def answer(self, datagram: Datagram) -> Answer | None:
        """The answer in a datagram, or `None` when it is no answer of this session."""

    def quoted(self, octets: bytes) -> int | None:
        """The number of our request inside an ICMP error, or `None`."""


@dataclass(slots=True)
class Ledger:
    """Who was sent, who answered, and what that makes of each; `close` gives the singletons."""

    loss_threshold_ns: int
    foreign: int = 0
    longest_delay_ns: int = 0
    _sent: dict[int, Stamp] = field(default_factory=dict)
    _settled: dict[int, Singleton] = field(default_factory=dict)
    _duplicates: list[Singleton] = field(default_factory=list)

    def sent(self, sequence: int, stamp: Stamp) -> None:
        """A request left."""
        self._sent[sequence] = stamp

    def failed(self, sequence: int, outcome: Outcome, detail: str) -> None:
        """A request was not sent, or came back as an error; the first word about it stands."""
        self._settled.setdefault(
            sequence,
            Singleton(sequence=sequence, outcome=outcome, sent=self._sent.get(sequence), detail=detail),
        )

    def answered(self, answer: Answer, received: Stamp) -> None:
        """An answer arrived. Numbers never sent are foreign.

        The delay excludes the far end's turnaround. It is undefined when the far end claims to have held the
        packet longer than the whole round trip took, which its clock being stepped can do.
        """
        sent = self._sent.get(answer.sequence)
        if sent is None:
            self.foreign += 1
            return
        elapsed_ns = received.mono_ns - sent.mono_ns
        delay_ns = elapsed_ns - answer.turnaround_ns
        late = elapsed_ns > self.loss_threshold_ns
        settled = self._settled.get(answer.sequence)
        if settled is not None and settled.outcome in (Outcome.RECEIVED, Outcome.LATE):
            self._duplicates.append(
                Singleton(sequence=answer.sequence, outcome=Outcome.DUPLICATE, sent=sent, received=received)
            )
            return
        outcome = Outcome.LATE if late else Outcome.RECEIVED if answer.intact else Outcome.CORRUPT
        defined = outcome is Outcome.RECEIVED and delay_ns >= 0
        self.longest_delay_ns = max(self.longest_delay_ns, elapsed_ns)
        self._settled[answer.sequence] = Singleton(
            sequence=answer.sequence,
            outcome=outcome,
            sent=sent,
            received=received,
            delay_ns=delay_ns if defined else None,
            delay_source=received.source if defined else None,
        )

    def open(self) -> int:
        """How many sent requests have no fate yet."""
        return sum(sequence not in self._settled for sequence in self._sent)

    def without_fate(self, planned: int, now_ns: int) -> list[int]:
        """Those of the first `planned` requests that were not sent, or may still be answered in time."""
        return [
            sequence
            for sequence in range(planned)
            if sequence not in self._settled
            and (
                sequence not in self._sent or now_ns - self._sent[sequence].mono_ns <= self.loss_threshold_ns
            )
        ]

    def close(self) -> tuple[Singleton, ...]:
        """One singleton for each request, the silent ones lost, then the duplicates; in sending order."""
        for sequence, sent in self._sent.items():
            self._settled.setdefault(sequence, Singleton(sequence=sequence, outcome=Outcome.LOST, sent=sent))
        return tuple(
            sorted([*self._settled.values(), *self._duplicates], key=lambda singleton: singleton.sequence)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What one stream gave."""

    singletons: tuple[Singleton, ...]
    octets_sent: int
    octets_received: int
    foreign: int


def exchange(
    sock: socket.socket,
    address: Address,
    protocol: EchoProtocol,
    *,
    offsets_ns: Sequence[int],
    loss_threshold_seconds: float,
    context: ProbeContext,
) -> Exchange:
    """Send one request at each of `offsets_ns` from now and hear answers until all are settled.

    The end comes when every request is answered, plus time for a duplicate, or one threshold after the
    last request. CannotMeasureError when the interface under the socket or the route is gone.
    """
    way = WayWatch(context.network)
    ledger = Ledger(round(loss_threshold_seconds * NANOSECONDS_PER_SECOND))
    receive_clock = ReceiveClock(context.clock)
    receive_clock.enable(sock)
    report_errors(sock)
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    begin_ns = context.clock.mono_ns()
    octets_sent = octets_received = sent_count = 0
    last_activity_ns = begin_ns
    while True:
        now_ns = context.clock.mono_ns()
        if context.cancelled.is_set():
            for sequence in ledger.without_fate(len(offsets_ns), now_ns):
                ledger.failed(sequence, Outcome.NOT_SENT, "cancelled")
            break
        if sent_count < len(offsets_ns):
            until_ns = begin_ns + offsets_ns[sent_count]
            if now_ns >= until_ns:
                octets_sent += _send(sock, address, protocol, sent_count, ledger, context, way)
                sent_count += 1
                last_activity_ns = context.clock.mono_ns()
                continue
        else:
            patience_ns = (
                ledger.loss_threshold_ns
                if ledger.open()
                else min(ledger.loss_threshold_ns, _DUPLICATE_WAIT_FACTOR * ledger.longest_delay_ns)
            )
            until_ns = last_activity_ns + patience_ns
            if now_ns >= until_ns:
                break
        if poll.poll(min((until_ns - now_ns) / 1e6, LONGEST_PAUSE_SECONDS * 1000)):
            octets_received += _receive(sock, address, protocol, ledger, receive_clock)
    return Exchange(
        singletons=ledger.close(),
        octets_sent=octets_sent,
        octets_received=octets_received,
        foreign=ledger.foreign,
    )


def _send(
    sock: socket.socket,
    address: Address,
    protocol: EchoProtocol,
    sequence: int,
    ledger: Ledger,
    context: ProbeContext,
    way: WayWatch,
) -> int:
    """Send one request; an error waiting from an earlier one is drained and the request tried once more."""
    for attempt in (1, 2):
        written = context.now()
        request = protocol.request(sequence, written)
        # The delay begins as late as we can say it: building the packet is no part of it.
        left_ns = context.clock.mono_ns()
        stamp = Stamp(written.wall_ns + left_ns - written.mono_ns, left_ns, written.source)
        try:
            sock.sendto(request, address.sockaddr)
        except OSError as error:
            if _drain_errors(sock, protocol, ledger) and attempt == 1:
                continue
            # Too big for this host to send is not too big for a router on the way.
            too_big = error.errno == errno.EMSGSIZE
            outcome = Outcome.NOT_SENT if too_big else way.failed(outcome_of(error), address)
            ledger.failed(sequence, outcome, errno_name(error))
            return 0
        ledger.sent(sequence, stamp)
        return len(request)
    return 0


def _receive(
    sock: socket.socket,
    address: Address,
    protocol: EchoProtocol,
    ledger: Ledger,
    receive_clock: ReceiveClock,
) -> int:
    """Read everything that waits: answers and ICMP errors. An answer from another address is foreign."""
    octets = 0
    while True:
        try:
            datagram = receive_clock.receive(sock, _RECEIVE_OCTETS)
        except BlockingIOError:
            _drain_errors(sock, protocol, ledger)
            return octets
        except OSError as error:
            outcome_of(error)  # raises when the interface is gone
            _drain_errors(sock, protocol, ledger)
            continue
        answer = protocol.answer(datagram)
        if answer is None:
            continue
        if datagram.address[0] != address.host:
            ledger.foreign += 1
            continue
        octets += len(datagram.data)
        ledger.answered(answer, datagram.stamp)


def _drain_errors(sock: socket.socket, protocol: EchoProtocol, ledger: Ledger) -> bool:
    """Settle the requests that ICMP errors quote; True when there was any error."""
    found = False
    for queued in queued_errors(sock):
        found = True
        sequence = protocol.quoted(queued.quoted)
        if sequence is not None:
            ledger.failed(sequence, outcome_of(queued.error), queued.detail)
    return found
