"""One lane of the engine: the targets of one group and IP version, their socket, and their probes.

::

    plan ─▶ send (a tick: what is due within half a tick) ─▶ drain (error queue, replies) ─▶ settle

A lane never blocks and never sleeps; the engine calls it. What cannot be sent in time is missed and counted.
"""

from __future__ import annotations

import errno
import socket
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nhip.clock import Clock
from nhip.errors import CannotMeasureError
from nhip.measurement import Outcome
from probes.engine import control, fate
from probes.engine.addresses import AddressBook
from probes.engine.batch import ReceiveBlock, SendBlock
from probes.engine.book import LARGEST_LAG, NO_DELAY, Book, Settled, Windows
from probes.engine.departure_numbers import DepartureNumbers
from probes.engine.endpoint import Endpoint, open_endpoint, probes_in_buffer
from probes.engine.flight import Flight
from probes.engine.group import Group
from probes.engine.line_watch import LineWatch
from probes.engine.packet import Int64s, PacketFormat
from probes.engine.planner import Planner
from probes.engine.settle import Rules, settle
from probes.engine.steps import StepWatch
from probes.network import Network, errno_name, outcome_of

_HALF_TICK_SLOW_NS, _HALF_TICK_NS, _HALF_TICK_FAST_NS = 1_000_000, 400_000, 250_000
_SLOW_PROBES_PER_SECOND = 5_000
_WAITING, _WAITING_FAST = 256, 128
_READ_EVERY_NS, _READ_UNSTAMPED_NS = 200_000_000, 1_000_000
_FAST_PROBES_PER_SECOND = 50_000
# A probe that cannot be handed over this soon after it was due is missed.
_LATEST_NS, _LATEST_FAST_NS = 25_000_000, 10_000_000
_LEAST_AHEAD_NS, _MOST_AHEAD_NS, _PLANNED_AT_ONCE = 4_000_000, 250_000_000, 400
_MOST_PLANNED = 4096
_MOST_BLOCK_OCTETS = 4 * 1024 * 1024
_MOST_IN_BLOCK = 512
_SEND_TRIES = 16
_KIND_OF = {Outcome.REFUSED: fate.REFUSED}


@dataclass(slots=True)
class Sending:
    """What a lane did with what was due. Every planned probe is in exactly one of the others in the end."""

    planned: int = 0
    handed_over: int = 0
    missed: int = 0
    """Not sent in time: this host was too slow."""
    refused: Counter[str] = field(default_factory=Counter)
    """Not taken by this host's own network stack, by errno."""
    unresolved: int = 0


@dataclass(slots=True)
class _Chunk:
    """Probes planned together; they are settled together."""

    serials: Int64s
    first_serial: int
    due_ns: list[int]
    next: int = 0
    batches: list[tuple[int, int]] = field(default_factory=list)
    """How many were handed over, and when."""
    offset_ns: int = 0
    last_handed_ns: int = 0


class Lane:
    """Probes the targets of one book of addresses. The constructor does nothing; `start` opens the socket."""

    def __init__(
        self,
        group: Group,
        addresses: AddressBook,
        clock: Clock,
        network: Network,
        *,
        steps: StepWatch,
        rng: np.random.Generator,
        late_wait_seconds: float = 1.0,
        check_nonce: bool = True,
    ) -> None:
        self.group = group
        self.addresses = addresses
        self.sending = Sending()
        self.lags_us: NDArray[np.int64] = np.zeros(LARGEST_LAG + 1, np.int64)
        """How many probes were handed over so many microseconds off their time."""
        self._clock, self._network, self._steps, self._rng = clock, network, steps, rng
        self._threshold_ns = round(group.loss_threshold_seconds * 1e9)
        self.hold_ns = self._threshold_ns + min(self._threshold_ns, round(late_wait_seconds * 1e9))
        rate = max(group.probes_per_second * len(addresses) / max(1, len(group.targets)), 1.0)
        self.rate = rate
        """Probes a second on average."""
        fast = rate >= _FAST_PROBES_PER_SECOND
        slow = rate < _SLOW_PROBES_PER_SECOND
        self.half_tick_ns = _HALF_TICK_FAST_NS if fast else _HALF_TICK_SLOW_NS if slow else _HALF_TICK_NS
        self._latest_ns = _LATEST_FAST_NS if fast else _LATEST_NS
        # Where probes are few there is none to wait for.
        self.gather_ns = self.half_tick_ns if rate * 2 * self.half_tick_ns >= 2e9 else 0
        """How long after the first due probe is waited for others, to hand them over in one call."""
        self.read_when_waiting = _WAITING_FAST if fast else _WAITING
        """How many probes handed over are reason enough to read."""
        self._most_at_once = max(32, round(3 * rate * self.half_tick_ns / 1e9) * 2)
        most = round(rate * (self.hold_ns / 1e9 + 0.5) * 1.1 + 12 * rate**0.5) + 2 * _MOST_PLANNED
        self.flight = Flight(most, check_nonce=check_nonce)
        self.book = Book(len(addresses), group.window_rounds)
        self._newest: Int64s = np.full(len(addresses), -1, np.int64)
        self._chunk: _Chunk | None = None
        self._chunks: deque[_Chunk] = deque()
        self._planned_until_ns = 0
        self.numbers = DepartureNumbers(most)
        self.line = LineWatch(
            group.id, addresses, network, threshold_ns=self._threshold_ns, hold_ns=self.hold_ns
        )
        self._reading_ns = self._reading_from = self._empty_ns = 0
        self._queue_empty = False
        self._finished: list[Windows] = []
        self.unread = 0
        """Handed over since the queues were last read."""

    # Life

    def start(self, now_ns: int) -> None:
        """Open the socket and draw the phases; CannotMeasureError when this host allows no ICMP."""
        group, family = self.group, self.addresses.family
        self.endpoint: Endpoint = open_endpoint(
            self._network, family, dscp=group.dscp, dont_fragment=group.dont_fragment
        )
        self._fd = self.endpoint.sock.fileno()
        self._format = PacketFormat(family, group.size_octets, raw=self.endpoint.raw)
        packet = self._format.packet_octets
        room = max(1, _MOST_BLOCK_OCTETS // (packet + 128))
        self._send = SendBlock(min(_MOST_PLANNED, room), packet, family)
        self._format.prepare(self._send)
        # A reply that is longer than what was asked must be seen to be so.
        self._replies = ReceiveBlock(
            min(_MOST_IN_BLOCK, room),
            self._format.ip_octets + 40 + packet + 8,
            control.CONTROL_OCTETS,
            lead=self._format.lead,
        )
        self._queue = ReceiveBlock(_MOST_IN_BLOCK, control.QUOTED_OCTETS, control.CONTROL_OCTETS)
        # What the kernel does not stamp is stamped when it is read.
        self.read_every_ns = _READ_EVERY_NS if self.endpoint.stamps else _READ_UNSTAMPED_NS
        self.read_when_waiting = max(1, min(self.read_when_waiting, self.probes_in_buffer // 4))
        self.begin(now_ns)
        self.line.look(now_ns, at_once=True)
        ahead_ns = min(_MOST_AHEAD_NS, max(_LEAST_AHEAD_NS, _PLANNED_AT_ONCE / self.rate * 1e9))
        self._ahead_ns = int(min(ahead_ns, 0.5 * self._send.capacity / self.rate * 1e9))

    def begin(self, now_ns: int) -> None:
        """Draw every target's phase, from now on."""
        self._planner = Planner(
            len(self.addresses),
            self.group.interval_seconds,
            poisson=self.group.poisson,
            start_ns=now_ns,
            rng=self._rng,
        )
        self._planned_until_ns = now_ns

    def end(self) -> None:
        """Send nothing more; probes made ready and not yet due are as if they had never been."""
        chunk, self._chunk = self._chunk, None
        if chunk is None:
            return
        unsent = len(chunk.due_ns) - chunk.next
        self.sending.planned -= unsent
        self.flight.begun -= unsent
        chunk.serials = chunk.serials[: chunk.next]
        if chunk.batches:
            self._finish_chunk(chunk)

    def close(self) -> None:
        """Close the socket; may be called more than once, and on a lane that was never started."""
        if hasattr(self, "endpoint"):
            self.endpoint.close()

    @property
    def probes_in_buffer(self) -> int:
        """How many unread probes the kernel keeps for this lane."""
        return probes_in_buffer(self.endpoint.buffer_octets, self._format.packet_octets)

    @property
    def ip_version(self) -> int:
        return 4 if self.addresses.family is socket.AF_INET else 6

    @property
    def offset_ns(self) -> int:
        """Wall minus monotonic clock now."""
        return self._steps.offset_ns

    @property
    def in_flight(self) -> int:
        """Probes whose fate is not settled."""
        return self.flight.begun - self.flight.settled

    # Planning and sending

    def next_due_ns(self) -> int:
        """When this lane wants to send or plan next."""
        chunk = self._chunk
        return self._planned_until_ns if chunk is None else chunk.due_ns[chunk.next]

    def plan(self, now_ns: int) -> bool:
        """Make the probes of the next moments ready, once those before are sent; False if it is not time."""
        if self._chunk is not None or self._planned_until_ns > now_ns + self.half_tick_ns:
            return False
        from_ns = max(self._planned_until_ns, now_ns - self._latest_ns)
        self._planned_until_ns = max(from_ns, now_ns) + self._ahead_ns
        room = min(self._send.capacity, self.flight.free)
        due = self._planner.plan(from_ns, self._planned_until_ns, room)
        self.sending.missed += due.missed
        self.sending.planned += due.missed + len(due.targets)
        due_ns, targets, rounds = due.due_ns, due.targets, due.rounds
        known = self.addresses.known[targets]
        if not known.all():
            self._book_unresolved(targets[~known], rounds[~known], now_ns)
            due_ns, targets, rounds = due_ns[known], targets[known], rounds[known]
        if not len(targets):
            self._planned_until_ns = max(self._planned_until_ns, self._planner.earliest_ns())
            return True
        serials = self.flight.begin(targets, rounds, due_ns)
        self.flight.nonce[serials % self.flight.capacity] = self._format.write(
            self._send, serials, targets, rounds
        )
        self._send.addresses[: len(targets)] = self.addresses.rows[targets]
        self._chunk = _Chunk(serials, int(serials[0]), due_ns.tolist(), offset_ns=self._steps.offset_ns)
        return True

    def send_due(self, now_ns: int) -> None:
        """Hand over what is due by now and half a tick, in one call; what is too late is missed."""
        chunk = self._chunk
        if chunk is None:
            return
        first = chunk.next
        upto = bisect_right(chunk.due_ns, now_ns + self.half_tick_ns, first)
        if upto == first:
            return
        if chunk.due_ns[first] < now_ns - self._latest_ns:
            late = bisect_left(chunk.due_ns, now_ns - self._latest_ns, first, upto)
            self._not_sent(chunk, late - first, now_ns)
            self.sending.missed += late - first
            first = late
        if self.line.failure is not None and upto > first:
            self._not_sent(chunk, upto - first, now_ns)
            self.sending.refused["no way"] += upto - first
            first = upto
        if upto > first:
            # After a pause what is still in time goes out in parts, and what comes back is read in between.
            self._hand_over(chunk, first, min(upto, first + self._most_at_once))
        if chunk.next == len(chunk.due_ns):
            self._finish_chunk(chunk)

    def _hand_over(self, chunk: _Chunk, first: int, upto: int) -> None:
        tries = 0
        while first < upto:
            handed_ns = self._clock.mono_ns()
            try:
                sent = self._send.send(self._fd, first, upto - first)
            except OSError as error:
                self._renumber()
                if error.errno in (errno.EAGAIN, errno.ENOBUFS) and tries >= 1:
                    return  # the way out is full; what does not get out in time is missed
                tries += 1
                if tries < _SEND_TRIES and error.errno != errno.EMSGSIZE:
                    # An ICMP error about another probe may have been reported here; the call took it away.
                    continue
                self._refused(chunk, error, handed_ns)
                first, tries = first + 1, 0
                continue
            self.numbers.sent(chunk.first_serial + first, sent)
            chunk.batches.append((sent, handed_ns))
            self.sending.handed_over += sent
            self.unread += sent
            if sent < upto - first or self.numbers.is_spent:
                self._renumber()
            first += sent
            chunk.next = first
            tries = 0

    def _refused(self, chunk: _Chunk, error: OSError, now_ns: int) -> None:
        """One packet that this host's own stack does not take."""
        try:
            outcome_of(error)
        except CannotMeasureError:
            self.line.look(now_ns, at_once=True)
        self._not_sent(chunk, 1, now_ns)
        self.sending.refused[errno_name(error)] += 1

    def _renumber(self) -> None:
        """Have departures be counted from 0 again, once those already told are read."""
        for _ in range(_SEND_TRIES):
            if self.drain_queue():
                break
        self.endpoint.restart_numbers()
        self.numbers.begin_anew()

    def _not_sent(self, chunk: _Chunk, count: int, now_ns: int) -> None:
        """Give the next `count` probes of the chunk up."""
        places = chunk.serials[chunk.next : chunk.next + count] % self.flight.capacity
        self.flight.flags[places] = fate.NOT_SENT
        chunk.batches.append((count, now_ns))
        chunk.next += count

    def _finish_chunk(self, chunk: _Chunk) -> None:
        counts, times = zip(*chunk.batches, strict=True)
        self.flight.handed_ns[chunk.serials % self.flight.capacity] = np.repeat(times, counts)
        chunk.last_handed_ns = times[-1]
        self._chunks.append(chunk)
        self._chunk = None

    def _book_unresolved(self, targets: Int64s, rounds: Int64s, now_ns: int) -> None:
        count = len(targets)
        self.sending.unresolved += count
        self._finished += self.book.settle(
            Settled(
                targets=targets,
                rounds=rounds,
                status=np.full(count, fate.NOT_RESOLVED, np.uint8),
                delays_ns=np.full(count, NO_DELAY, np.uint32),
                lags_us=np.zeros(count, np.uint16),
                duplicates=np.zeros(count, np.uint8),
                handed_ns=np.full(count, now_ns, np.int64),
            ),
            now_ns,
            self._planner.missed,
        )

    # Receiving

    def drain(self) -> bool:
        """Read one block of departures and one of replies; True when nothing more waits."""
        self.read_departures()
        return self.read_replies()

    def read_departures(self) -> None:
        """The first half of :meth:`drain`."""
        self._reading_ns, self._reading_from = self._clock.mono_ns(), self.sending.handed_over
        self._queue_empty = self.drain_queue()

    def read_replies(self) -> bool:
        """The second half; True when nothing of before the first half waits."""
        count = self._read(self._replies, 0)
        self._steps.look()
        if count:
            self._take_replies(count)
        self.unread = self.sending.handed_over - self._reading_from
        empty = self._queue_empty and count < self._replies.capacity
        if empty:
            self._empty_ns = self._reading_ns
        return empty

    def drain_queue(self) -> bool:
        """Read one block of the error queue; True when nothing more waits there."""
        count = self._read(self._queue, socket.MSG_ERRQUEUE)
        if not count:
            return True
        found = control.departures(self._queue, count, self.addresses.family)
        if len(found.numbers):
            self.flight.departed(self.numbers.serials(found.numbers), found.wall_ns)
        for row in found.other_rows:
            self._take_error(row)
        return count < self._queue.capacity

    def _read(self, block: ReceiveBlock, flags: int) -> int:
        for _ in range(_SEND_TRIES):
            try:
                return block.receive(self._fd, flags)
            except OSError:
                continue  # an ICMP error waits in the queue, where it is read with what it is about
        return 0

    def _take_replies(self, count: int) -> None:
        wall_ns, by_user = control.arrivals(self._replies, count)
        if by_user.any():
            wall_ns[by_user] = self._steps.seen_ns + self._steps.offset_ns
        replies = self._format.read(self._replies, count)
        if replies.foreign:
            wall_ns, by_user = wall_ns[replies.rows], by_user[replies.rows]
        self.flight.replied(replies, wall_ns, by_user, self.addresses.answering_hosts, self._newest)

    def _take_error(self, row: int) -> None:
        found = control.icmp_error(self._queue, row)
        if found is None:
            return
        serial = self._format.quoted_serial(found.quoted)
        if serial is None:
            sequence = self._format.quoted_sequence(found.quoted)
            target = self.addresses.position_of(found.host) if sequence is not None else None
            if sequence is not None and target is not None:
                serial = self.flight.latest(target, sequence)
        kind = _KIND_OF.get(_outcome(found.error), fate.UNREACHABLE)
        if serial is None or not self.flight.failed(serial, kind):
            self.flight.strays.foreign += 1

    # Settling

    def can_settle(self) -> bool:
        """Whether some probes' time was up when the queues were last found empty, and the way good."""
        known_ns = min(self._empty_ns, self.line.looked_ns)
        ripe = bool(self._chunks) and self._chunks[0].last_handed_ns + self.hold_ns <= known_ns
        return ripe or bool(self._finished)

    def settle(self, now_ns: int) -> list[Windows]:
        """Decide the fate of the oldest probes, if that can be; the windows that became full."""
        finished, self._finished = self._finished, []
        if self.can_settle():
            finished += self._settle_chunk(self._chunks.popleft(), now_ns)
        return finished

    def finish(self, now_ns: int) -> Iterator[Windows]:
        """At the end: what is settled and fills no window. What is still under way is in none of it."""
        yield from self._finished
        self._finished = []
        yield from self.book.rest(now_ns, self._planner.missed)

    def _settle_chunk(self, chunk: _Chunk, now_ns: int) -> list[Windows]:
        settled = settle(
            self.flight,
            chunk.serials,
            Rules(
                threshold_ns=self._threshold_ns,
                offset_ns=chunk.offset_ns,
                suspect_until_ns=self._steps.suspect_until_ns,
                blind_from_ns=self.line.blind_from_ns,
                blind_until_ns=self.line.blind_until_ns,
            ),
        )
        left = (settled.status & fate.FATE) != fate.NOT_SENT
        np.add.at(self.lags_us, settled.lags_us[left], 1)
        self.flight.settled += len(chunk.serials)
        return self.book.settle(settled, now_ns, self._planner.missed)


def _outcome(error: OSError) -> Outcome:
    try:
        return outcome_of(error)
    except CannotMeasureError:
        return Outcome.UNREACHABLE
