"""The books of an echo stream: who was sent, who answered, and what that makes of each. No sockets here.

Fate of a request::

    due ──send──▶ sent ──answer within the threshold──▶ received ──another answer──▶ + duplicate
     │             ├─────answer after the threshold───▶ late
     │             ├─────ICMP error quoting it────────▶ refused / unreachable
     │             └─────nothing until the end────────▶ lost
     └──no buffer──▶ not_sent

A request has two departures: when this program handed it over (host time) and, where the kernel or the card
told it, when it left (wire time). The delay runs from wire to wire as far as these are known.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nhip.measurement import Outcome, Singleton, Stamp, StampSource
from nhip.statistics import worse_source
from probes.timestamping import KERNEL_STAMP_ERROR_NS

# The card's clock and the kernel's differ in rate by far less; more between them is another card's stamp.
_HARDWARE_TOLERANCE_NS = 10_000_000
# A packet cannot have left before it was handed over; the two clocks are read some microseconds apart.
_DEPARTURE_NOISE_NS = 50_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What a protocol read out of a datagram: whose answer it is, and how long the far end held it."""

    sequence: int
    turnaround_ns: int = 0
    intact: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    answer: Answer
    received: Stamp
    host_mono_ns: int | None
    hardware_ns: int | None


@dataclass(slots=True)
class Dispatch:
    """A request handed over: its stamp in user space, and how late that was."""

    stamp: Stamp
    lag_ns: int | None = None
    wire: Stamp | None = None
    hardware_ns: int | None = None

    @property
    def departure(self) -> Stamp:
        """The best there is: the wire's time, else the hand-over."""
        return self.wire or self.stamp


@dataclass(slots=True)
class Ledger:
    """`sent`, `departed`, `answered` and `failed` as things happen; `close` gives the singletons."""

    loss_threshold_ns: int
    foreign: int = 0
    longest_delay_ns: int = 0
    most_duplicates: int = 10_000
    duplicates_left_out: int = 0
    _sent: dict[int, Dispatch] = field(default_factory=dict)
    _replies: dict[int, _Reply] = field(default_factory=dict)
    _failures: dict[int, tuple[Outcome, str]] = field(default_factory=dict)
    _duplicates: list[Singleton] = field(default_factory=list)
    _failed_after_sending: int = 0

    def sent(self, sequence: int, dispatch: Dispatch) -> None:
        """A request was handed over."""
        self._sent[sequence] = dispatch

    def departed(self, sequence: int, wire: Stamp | None, hardware_ns: int | None = None) -> None:
        """The kernel or the card told when a request left; before the hand-over it is another packet's."""
        dispatch = self._sent.get(sequence)
        if dispatch is None:
            return
        if wire is not None and wire.mono_ns >= dispatch.stamp.mono_ns - _DEPARTURE_NOISE_NS:
            dispatch.wire = wire
        if hardware_ns is not None:
            dispatch.hardware_ns = hardware_ns

    def failed(self, sequence: int, outcome: Outcome, detail: str) -> None:
        """A request was not sent, or came back as an error; the first word about it stands."""
        if sequence not in self._replies and sequence not in self._failures:
            self._failures[sequence] = (outcome, detail)
            self._failed_after_sending += sequence in self._sent

    def answered(
        self,
        answer: Answer,
        received: Stamp,
        host_mono_ns: int | None = None,
        hardware_ns: int | None = None,
    ) -> None:
        """An answer arrived. Numbers never sent are foreign; a whole answer replaces a changed one."""
        dispatch = self._sent.get(answer.sequence)
        if dispatch is None:
            self.foreign += 1
            return
        earlier = self._replies.get(answer.sequence)
        if earlier is not None and self._outcome(dispatch, earlier) is not Outcome.CORRUPT:
            # A flood of copies must not fill the memory; how many there were is told all the same.
            if len(self._duplicates) < self.most_duplicates:
                self._duplicates.append(
                    Singleton(
                        sequence=answer.sequence,
                        outcome=Outcome.DUPLICATE,
                        sent=dispatch.departure,
                        received=received,
                    )
                )
            else:
                self.duplicates_left_out += 1
            return
        if self._failures.pop(answer.sequence, None) is not None:
            self._failed_after_sending -= 1
        self._replies[answer.sequence] = _Reply(
            answer=answer, received=received, host_mono_ns=host_mono_ns, hardware_ns=hardware_ns
        )
        elapsed_ns = received.mono_ns - dispatch.departure.mono_ns
        self.longest_delay_ns = max(self.longest_delay_ns, elapsed_ns)

    def open(self) -> int:
        """How many sent requests have no fate yet."""
        return len(self._sent) - len(self._replies) - self._failed_after_sending

    def without_fate(self, planned: int, now_ns: int) -> list[int]:
        """Those of the first `planned` requests that were not sent, or may still be answered in time."""
        return [
            sequence
            for sequence in range(planned)
            if sequence not in self._replies
            and sequence not in self._failures
            and (
                sequence not in self._sent
                or now_ns - self._sent[sequence].departure.mono_ns <= self.loss_threshold_ns
            )
        ]

    def close(self, uncertainty_ns: int = 0, moderation_ns: int = 0) -> tuple[Singleton, ...]:
        """One singleton for each request, the silent ones lost, then the duplicates; in sending order.

        `uncertainty_ns` is how far carrying one kernel stamp to the monotonic clock may move it,
        `moderation_ns` how long the card may have held an arrival back. An arrival stamped in user space may
        be off by as much as this process was seen to be late in this stream, since what delays a sender
        delays a reader. Of a departure stamped there nobody knows: a queue may have held the packet after it
        was handed over.
        """
        lags = [dispatch.lag_ns for dispatch in self._sent.values() if dispatch.lag_ns is not None]
        longest_lag_ns = max(lags, default=None)
        found = [
            self._singleton(sequence, 2 * uncertainty_ns + moderation_ns, longest_lag_ns)
            for sequence in self._sent.keys() | self._failures.keys()
        ]
        return tuple(sorted([*found, *self._duplicates], key=lambda singleton: singleton.sequence))

    def _outcome(self, dispatch: Dispatch, reply: _Reply) -> Outcome:
        if reply.received.mono_ns - dispatch.departure.mono_ns > self.loss_threshold_ns:
            return Outcome.LATE
        return Outcome.RECEIVED if reply.answer.intact else Outcome.CORRUPT

    def _singleton(self, sequence: int, allowance_ns: int, longest_lag_ns: int | None) -> Singleton:
        dispatch, reply = self._sent.get(sequence), self._replies.get(sequence)
        outcome, detail = self._failures.get(sequence, (Outcome.LOST, ""))
        if dispatch is None:
            return Singleton(sequence=sequence, outcome=outcome, detail=detail)
        delay_ns: int | None = None
        source: StampSource | None = None
        own_error_ns: int | None = None
        if reply is not None:
            outcome, detail = self._outcome(dispatch, reply), ""
            if outcome is Outcome.RECEIVED:
                delay_ns, source = _delay(dispatch, reply)
                if delay_ns is not None:
                    by_card = source is StampSource.HARDWARE
                    own_error_ns = (
                        0 if by_card else _own_error_ns(dispatch, reply, allowance_ns, longest_lag_ns)
                    )
        return Singleton(
            sequence=sequence,
            outcome=outcome,
            sent=dispatch.departure,
            received=reply.received if reply else None,
            delay_ns=delay_ns,
            delay_source=source,
            host_sent_mono_ns=dispatch.stamp.mono_ns,
            host_received_mono_ns=reply.host_mono_ns if reply else None,
            send_lag_ns=dispatch.lag_ns,
            own_error_ns=own_error_ns,
            detail=detail,
        )


def _delay(dispatch: Dispatch, reply: _Reply) -> tuple[int | None, StampSource | None]:
    """The delay without the far end's turnaround, and the worse level it rests on.

    Undefined when the far end claims to have held the packet longer than the whole round trip took, which its
    clock being stepped can do.
    """
    elapsed_ns = reply.received.mono_ns - dispatch.departure.mono_ns
    source = worse_source(dispatch.departure.source, reply.received.source)
    if dispatch.hardware_ns is not None and reply.hardware_ns is not None:
        by_card_ns = reply.hardware_ns - dispatch.hardware_ns
        if abs(by_card_ns - elapsed_ns) <= _HARDWARE_TOLERANCE_NS:
            elapsed_ns, source = by_card_ns, StampSource.HARDWARE
    delay_ns = elapsed_ns - reply.answer.turnaround_ns
    return (delay_ns, source) if delay_ns >= 0 else (None, None)


def _own_error_ns(
    dispatch: Dispatch, reply: _Reply, allowance_ns: int, longest_lag_ns: int | None
) -> int | None:
    arrival_ns = longest_lag_ns if reply.received.source is StampSource.USER else KERNEL_STAMP_ERROR_NS
    if dispatch.wire is None or arrival_ns is None:
        return None
    return KERNEL_STAMP_ERROR_NS + arrival_ns + allowance_ns
