"""Send a stream of requests, hear their answers, and keep honest books of each one's fate.

ICMP echo and STAMP are the same game with other packets: number the requests, stamp them, match answers.
:class:`~probes.ledger.Ledger` is the bookkeeping, pure and free of sockets; :func:`exchange` plays the game
on a socket.

A request leaves when it is due, and its own lateness is kept with it. A host that stalled does not make up
for it in a burst, which would measure the burst: once sending is `_LONGEST_CATCHING_UP_NS` behind, the rest
of the plan moves back by as much, and the exchange says by how much in all.

A test that is cancelled says ``not_sent`` of every request whose fate is still open: it must not be called
lost when nobody waited for its answer. One that had its whole threshold is lost all the same.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from nhip.errors import CannotMeasureError
from nhip.measurement import DirectionalLoss, Outcome, Singleton, Stamp, Statistic
from nhip.statistics import NANOSECONDS_PER_SECOND
from probes.api import LONGEST_PAUSE_SECONDS, ProbeContext
from probes.error_queue import QueuedError, report_errors
from probes.interrupt_moderation import interrupt_moderation_ns
from probes.ledger import Answer, Dispatch, Ledger
from probes.line.way import WayWatch
from probes.network import Address, errno_name, outcome_of
from probes.receive_buffer import dropped, make_room
from probes.timestamping import Datagram, PacketClock

_RECEIVE_OCTETS = 65_536
# Between looks at the plan and at the stop signal, which a flood must not hide.
_READS_AT_ONCE = 64
# After the last answer, how long to wait for duplicates of it: so many times the longest delay seen, and not
# less than a slow far end takes to send once more.
_DUPLICATE_WAIT_FACTOR = 2
_SHORTEST_DUPLICATE_WAIT_NS = 20_000_000
# A plan this far behind is not caught up with. Below it, gaps shorten for a moment, as any scheduler does.
_LONGEST_CATCHING_UP_NS = 5_000_000
# Reading the two clocks one after the other makes no suspension.
_LONGEST_SLEEP_NS = 10_000_000
# No receive buffer of ours holds more packets.
_BUFFER_HOLDS = 16_384
# poll(2) waits whole milliseconds; the rest of a wait is slept, while the kernel stamps what arrives.
_POLL_STEP_NS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a protocol makes of a whole stream: its singletons, perhaps corrected, and what else it learnt."""

    singletons: tuple[Singleton, ...]
    statistics: tuple[Statistic, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    directional_loss: DirectionalLoss | None = None
    notes: tuple[str, ...] = ()


class EchoProtocol(Protocol):
    """The packets of one session."""

    def request(self, sequence: int, sent: Stamp) -> bytes:
        """The request numbered `sequence`."""

    def answer(self, datagram: Datagram) -> Answer | None:
        """The answer in a datagram, or `None` when it is no answer of this session."""

    def quoted(self, octets: bytes) -> int | None:
        """The number of our request inside an ICMP error, or `None`."""

    def concluded(self, singletons: tuple[Singleton, ...]) -> Findings:
        """What the session makes of its singletons once all have their fate."""
        return Findings(singletons=singletons)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What one stream gave. `held_back_ns` is by how much the plan moved back because this host stalled."""

    singletons: tuple[Singleton, ...]
    octets_sent: int
    octets_received: int
    foreign: int
    held_back_ns: int
    duplicates_left_out: int = 0
    clock_steps: int = 0


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
    last request. CannotMeasureError when the interface under the socket or the route is gone, or when this
    host itself dropped answers and some are missing.
    """
    stream = _Stream(
        sock,
        address,
        protocol,
        context,
        Ledger(round(loss_threshold_seconds * NANOSECONDS_PER_SECOND)),
        offsets_ns,
    )
    asleep_ns = context.clock.suspended_ns()
    stream.play()
    way = context.network.way(address)
    singletons = stream.ledger.close(
        stream.packet_clock.uncertainty_ns, interrupt_moderation_ns(way.interface) if way else 0
    )
    if any(singleton.outcome in (Outcome.LOST, Outcome.LATE) for singleton in singletons):
        _refuse_own_losses(sock, context.clock.suspended_ns() - asleep_ns)
    return Exchange(
        singletons=singletons,
        octets_sent=stream.octets_sent,
        octets_received=stream.octets_received,
        foreign=stream.ledger.foreign,
        held_back_ns=stream.held_back_ns,
        duplicates_left_out=stream.ledger.duplicates_left_out,
        clock_steps=stream.packet_clock.clock_steps,
    )


def _refuse_own_losses(sock: socket.socket, asleep_ns: int) -> None:
    """CannotMeasureError when what is called lost may have come and found this host full or asleep."""
    if count := dropped(sock):
        raise CannotMeasureError(
            f"this host dropped {count} packets that had arrived, because its receive buffer was full",
            remedy="send less often, or allow more: sysctl -w net.core.rmem_max=4194304",
        )
    if asleep_ns > _LONGEST_SLEEP_NS:
        raise CannotMeasureError(
            f"this host was suspended for {asleep_ns / NANOSECONDS_PER_SECOND:.1f} s during the test",
            remedy="keep it awake while it measures: systemd-inhibit, or mask sleep.target",
        )


class _Stream:
    """One exchange under way."""

    def __init__(
        self,
        sock: socket.socket,
        address: Address,
        protocol: EchoProtocol,
        context: ProbeContext,
        ledger: Ledger,
        offsets_ns: Sequence[int],
    ) -> None:
        self._sock = sock
        self._address = address
        self._protocol = protocol
        self._context = context
        self._offsets_ns = offsets_ns
        self._way = WayWatch(context.network)
        self._poll = select.poll()
        self._sequence_of: dict[int, int] = {}
        self.ledger = ledger
        self.packet_clock = PacketClock(context.clock)
        self.octets_sent = self.octets_received = self.held_back_ns = 0

    def play(self) -> None:
        """Return when every request has its fate, or soon after the test was cancelled."""
        make_room(self._sock)
        self.packet_clock.enable(self._sock)
        report_errors(self._sock)
        self._poll.register(self._sock, select.POLLIN)
        clock, planned = self._context.clock, len(self._offsets_ns)
        begin_ns = clock.mono_ns()
        last_activity_ns, sequence = begin_ns, 0
        while not self._context.cancelled.is_set():
            now_ns = clock.mono_ns()
            if sequence < planned:
                until_ns = begin_ns + self.held_back_ns + self._offsets_ns[sequence]
                if now_ns >= until_ns:
                    self._send(sequence, until_ns)
                    if now_ns - until_ns > _LONGEST_CATCHING_UP_NS:
                        self.held_back_ns += now_ns - until_ns
                    sequence += 1
                    last_activity_ns = clock.mono_ns()
                    self._receive()
                    continue
            else:
                until_ns = last_activity_ns + self._patience_ns()
                if now_ns >= until_ns:
                    # This host may have slept over the end: what came in time waits in the socket, stamped.
                    self._receive(to_the_end=True)
                    return
            self._wait(until_ns - now_ns)
        for left in self.ledger.without_fate(planned, clock.mono_ns()):
            self.ledger.failed(left, Outcome.NOT_SENT, "cancelled")

    def _patience_ns(self) -> int:
        if self.ledger.open():
            return self.ledger.loss_threshold_ns
        wait_ns = max(_SHORTEST_DUPLICATE_WAIT_NS, _DUPLICATE_WAIT_FACTOR * self.ledger.longest_delay_ns)
        return min(self.ledger.loss_threshold_ns, wait_ns)

    def _wait(self, remaining_ns: int) -> None:
        whole_ms = min(remaining_ns // _POLL_STEP_NS, round(LONGEST_PAUSE_SECONDS * 1000))
        if whole_ms == 0:
            self._context.clock.sleep(remaining_ns / NANOSECONDS_PER_SECOND)
        elif self._poll.poll(whole_ms):
            self._receive()

    def _send(self, sequence: int, due_ns: int) -> None:
        """Send one request; an error waiting from an earlier one is drained and the request tried again."""
        for attempt in (1, 2):
            written = self._context.now()
            request = self._protocol.request(sequence, written)
            # The delay begins as late as we can say it: building the packet is no part of it.
            left_ns = self._context.clock.mono_ns()
            stamp = Stamp(written.wall_ns + left_ns - written.mono_ns, left_ns, written.source)
            try:
                number = self.packet_clock.send(self._sock, request, self._address.sockaddr)
            except OSError as error:
                if self._drain() and attempt == 1:
                    continue
                # Too big for this host to send is not too big for a router on the way.
                too_big = error.errno == errno.EMSGSIZE
                outcome = Outcome.NOT_SENT if too_big else self._way.failed(outcome_of(error), self._address)
                self.ledger.failed(sequence, outcome, errno_name(error))
                return
            self._sequence_of[number] = sequence
            self.ledger.sent(sequence, Dispatch(stamp, lag_ns=max(left_ns - due_ns, 0)))
            self.octets_sent += len(request)
            return

    def _receive(self, *, to_the_end: bool = False) -> None:
        """Read what waits: departures first, then answers, ICMP errors and departures since.

        `to_the_end` reads as much as a full buffer holds; else only so much that a flood stops nothing.
        """
        self._drain()
        for _ in range(_READS_AT_ONCE if not to_the_end else _BUFFER_HOLDS):
            try:
                datagram = self.packet_clock.receive(self._sock, _RECEIVE_OCTETS)
            except BlockingIOError:
                return
            except OSError as error:
                outcome_of(error)  # raises when the interface is gone
                self._drain()
                continue
            answer = self._protocol.answer(datagram)
            if answer is None:
                continue
            if datagram.address[0] != self._address.host:
                self.ledger.foreign += 1  # an answer from another address
                continue
            self.octets_received += len(datagram.data)
            self.ledger.answered(answer, datagram.stamp, datagram.host_mono_ns, datagram.hardware_ns)

    def _drain(self) -> bool:
        """Book departures, and settle the requests that ICMP errors quote; True when there was an error."""
        found = False
        for message in self.packet_clock.queued(self._sock):
            if isinstance(message, QueuedError):
                found = True
                sequence = self._protocol.quoted(message.quoted)
                if sequence is not None:
                    self.ledger.failed(sequence, outcome_of(message.error), message.detail)
            elif (sequence := self._sequence_of.get(message.number)) is not None:
                self.ledger.departed(sequence, message.stamp, message.hardware_ns)
        return found
