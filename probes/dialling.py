"""TCP connections to a name or an address, by one IP version or by racing both (Happy Eyeballs, RFC 8305).

One after the other, as each address of the name gets its turn::

    IPv6  |-- SYN ------------------ ... nothing heard
          |<------ delay ------>|
    IPv4                        |-- SYN ------ SYN/ACK --|    the first to connect wins, the others are closed

An attempt that fails gives the next one its turn at once. The families alternate, beginning with the one the
host's resolver prefers (RFC 6724). The names themselves are resolved before the race, both families at once.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest

from nhip.errors import CannotMeasureError
from nhip.measurement import Outcome, Phase, Stamp, Statistic
from nhip.statistics import NANOSECONDS_PER_SECOND, quantile
from probes.api import LONGEST_PAUSE_SECONDS, ProbeContext
from probes.line.way import WayWatch
from probes.network import Address, errno_name, outcome_of
from probes.stream import TIMED_OUT, StreamError
from probes.tcp_info import TcpInfo, tcp_info

# Names with more addresses than this exist; an attempt that tried them all would be an attack.
_MOST_ADDRESSES = 6


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection just made; the socket is the caller's to close."""

    sock: socket.socket
    address: Address
    begun: Stamp
    """When the SYN of this very connection was handed over."""
    ended: Stamp
    waited_ns: int
    """How long the race had run by then: the time other addresses had cost."""
    handshake: TcpInfo
    """What the kernel knew of the connection right then."""

    @property
    def round_trip_ns(self) -> int | None:
        """From SYN to SYN/ACK by the kernel; `None` when the SYN was repeated (Karn's rule)."""
        repeated = self.handshake.retransmitted_segments
        return None if repeated else self.handshake.round_trip_us * 1000 or None

    @property
    def took_ns(self) -> int:
        """From the SYN of this connection until it was made, as this program saw it."""
        return self.ended.mono_ns - self.begun.mono_ns


class DialError(StreamError):
    """No connection came about; carries when the first SYN was handed over, if one was."""

    def __init__(self, outcome: Outcome, detail: str, begun: Stamp | None) -> None:
        super().__init__(outcome, detail)
        self.begun = begun


@dataclass(slots=True)
class Dialler:
    """Makes one test's connections and keeps what each IP version took; `race` asks for Happy Eyeballs."""

    context: ProbeContext
    way: WayWatch
    race: bool = False
    delay_seconds: float = 0.25
    _candidates: tuple[Address, ...] = ()
    """Those of the test's first connection."""
    _won: list[Address] = field(default_factory=list)
    _took_ns: dict[int, list[int]] = field(default_factory=lambda: {4: [], 6: []})
    _failures: dict[int, str] = field(default_factory=dict)

    def resolve(self, host: str, port: int, *, timeout_seconds: float) -> tuple[Address, ...]:
        """Where to connect to, in order; nothing when the name has no address.

        CannotMeasureError when this host has a way to none of them. In a race one family without a way is
        left out: a host without IPv6 is a host without IPv6.
        """
        network = self.context.network
        if not self.race:
            # The first that this host has a way to: behind its resolver may lie IPv6 that its line lacks.
            address = network.resolve(host, port, timeout_seconds=timeout_seconds)
            if address is None:
                return ()
            self.way.check(address)
            return (address,)
        usable, failure = [], None
        found = alternating(network.resolve_all(host, port, timeout_seconds=timeout_seconds))
        for address in found[:_MOST_ADDRESSES]:
            try:
                self.way.check(address)
            except CannotMeasureError as error:
                failure = failure or error
                self._failures[address.ip_version] = "no route on this host"
            else:
                usable.append(address)
        if failure is not None and not usable:
            raise failure
        return tuple(usable)

    def connect(self, addresses: Sequence[Address], deadline_ns: int) -> Connected:
        """The first connection made to any of `addresses`; DialError with the fate when none was."""
        self._candidates = self._candidates or tuple(addresses)
        contest = _Contest(self.context, addresses, round(self.delay_seconds * NANOSECONDS_PER_SECOND))
        try:
            won = contest.run(deadline_ns)
        except StreamError as error:
            contest.close_losers()
            self._note(contest)
            # A loss is looked into at the end of the test, when it may be this host's own doing.
            if error.outcome is not Outcome.LOST and not self.context.cancelled.is_set():
                for address in addresses:
                    self.way.failed(error.outcome, address)
            raise DialError(error.outcome, error.detail, contest.begun) from error
        finally:
            contest.close_losers()
        self._won.append(won.address)
        self._connected(won)
        self._note(contest)
        return won

    def compare(self, timeout_seconds: float) -> None:
        """Connect by the IP version no race of this test has tried; after the last attempt, to disturb none.

        One connection in a whole test: without it the slower version would have no figure where the
        faster one always answers within the delay.
        """
        if not self.race or self.context.cancelled.is_set():
            return
        tried = {version for version in (4, 6) if self._took_ns[version] or version in self._failures}
        for address in self._candidates:
            if address.ip_version not in tried:
                contest = _Contest(self.context, (address,), 0)
                timeout_ns = round(timeout_seconds * NANOSECONDS_PER_SECOND)
                try:
                    made = contest.run(self.context.clock.mono_ns() + timeout_ns)
                    made.sock.close()
                    self._connected(made)
                except StreamError:
                    pass  # why is noted below
                finally:
                    contest.close_losers()
                self._note(contest)
                return

    def statistics(self) -> tuple[Statistic, ...]:
        """The median connect time of each IP version, where both were tried."""
        return tuple(
            Statistic(
                name=f"tcp_connect_ipv{version}",
                value=quantile([took_ns / NANOSECONDS_PER_SECOND for took_ns in taken], 0.5),
                unit="seconds",
                count=len(taken),
                definition="median of the kernel's SYN to SYN/ACK (TCP_INFO) over the connections made; for "
                "one whose SYN was repeated, the whole time it took",
            )
            for version, taken in sorted(self._took_ns.items())
            if self.race and taken
        )

    def facts(self) -> dict[str, str]:
        """Which IP version won, and why one did not connect at all."""
        if not self.race:
            return {}
        versions = [address.ip_version for address in self._won]
        counts = {f"ipv{version}": versions.count(version) for version in (6, 4)}
        winners = [name for name, wins in counts.items() if wins]
        told = ", ".join(f"{name} {counts[name]} times" for name in winners)
        facts = {"happy_eyeballs": winners[0] if len(winners) == 1 else told or "none connected"}
        for version, failure in sorted(self._failures.items()):
            if not self._took_ns[version]:
                facts[f"happy_eyeballs_ipv{version}"] = failure
        return facts

    def phases(self, made: Connected, *, by_kernel: bool) -> tuple[Phase, ...]:
        """What a connection's time went into; the wait for its turn only where there were turns.

        `by_kernel` takes the kernel's word for the handshake where it gives one; this program's own view
        holds what a busy host adds.
        """
        took_ns = (made.round_trip_ns if by_kernel else None) or made.took_ns
        handshake = Phase("tcp", took_ns)
        return (Phase("happy_eyeballs", made.waited_ns), handshake) if self.race else (handshake,)

    def parameters(self) -> dict[str, str | int | float | bool]:
        """How connections were made, where that is not the ordinary way."""
        if not self.race:
            return {}
        return {"happy_eyeballs": True, "happy_eyeballs_delay_seconds": self.delay_seconds}

    def usual_address(self, addresses: Sequence[Address]) -> Address | None:
        """Of `addresses`, the one that won most often; the first where none ever did."""
        won = [address for address in self._won if address in addresses]
        return max(addresses, key=won.count, default=None)

    def _connected(self, made: Connected) -> None:
        self._took_ns[made.address.ip_version].append(made.round_trip_ns or made.took_ns)

    def _note(self, contest: _Contest) -> None:
        for entry in contest.entries:
            version = entry.address.ip_version
            if entry.failure and not self._took_ns[version]:
                self._failures[version] = entry.failure


def alternating(addresses: Sequence[Address]) -> tuple[Address, ...]:
    """The addresses with their families in turn, the resolver's favourite first (RFC 8305 section 4)."""
    if not addresses:
        return ()
    favourite = addresses[0].family
    first = [address for address in addresses if address.family is favourite]
    second = [address for address in addresses if address.family is not favourite]
    return tuple(filter(None, chain.from_iterable(zip_longest(first, second))))


@dataclass(slots=True)
class _Entry:
    """One connection attempt within a race."""

    sock: socket.socket
    address: Address
    begun: Stamp
    ended: Stamp | None = None
    failure: str = ""
    outcome: Outcome = Outcome.LOST


class _Contest:
    """The attempts of one race; a race of one is an ordinary connect."""

    def __init__(self, context: ProbeContext, addresses: Sequence[Address], delay_ns: int) -> None:
        self.entries: list[_Entry] = []
        self._context = context
        self._waiting = list(addresses)
        self._delay_ns = delay_ns
        self._winner: _Entry | None = None

    @property
    def begun(self) -> Stamp | None:
        return self.entries[0].begun if self.entries else None

    def run(self, deadline_ns: int) -> Connected:
        """The first to connect; StreamError when none does by the deadline."""
        clock = self._context.clock
        turn_ns = clock.mono_ns()
        while True:
            if self._context.cancelled.is_set():
                raise StreamError(Outcome.NOT_SENT, "cancelled")
            now_ns = clock.mono_ns()
            if now_ns >= deadline_ns:
                self._expire()
                raise StreamError(Outcome.LOST, TIMED_OUT)
            running = [entry for entry in self.entries if not entry.failure]
            if self._waiting and (now_ns >= turn_ns or not running):
                self._start(self._waiting.pop(0))
                turn_ns = clock.mono_ns() + self._delay_ns
                continue
            if not running:
                # Nobody is left: the fate of the first attempt is the fate of the connection.
                raise StreamError(self.entries[0].outcome, self.entries[0].failure)
            until_ns = min(deadline_ns, turn_ns) if self._waiting else deadline_ns
            if won := self._poll(running, until_ns - now_ns):
                ended = won.ended or self._context.now()
                waited_ns = won.begun.mono_ns - self.entries[0].begun.mono_ns
                handshake = tcp_info(won.sock)
                self._winner = won
                return Connected(won.sock, won.address, won.begun, ended, waited_ns, handshake)

    def close_losers(self) -> None:
        """Close every socket but the winner's."""
        took = self._context.clock.mono_ns()
        for entry in self.entries:
            if entry is not self._winner:
                entry.sock.close()
                if not entry.failure:
                    waited_ms = (took - entry.begun.mono_ns) / 1e6
                    entry.failure = f"no answer within {waited_ms:.0f} ms"

    def _start(self, address: Address) -> None:
        sock = self._context.network.tcp(address.family)
        entry = _Entry(sock, address, self._context.now())
        self.entries.append(entry)
        try:
            sock.connect(address.sockaddr)
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(entry, error)

    def _poll(self, running: list[_Entry], remaining_ns: int) -> _Entry | None:
        """The attempt that connected in the meantime; failed ones are marked."""
        poll = select.poll()
        by_descriptor = {entry.sock.fileno(): entry for entry in running}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLOUT)
        for descriptor, _events in poll.poll(min(max(0, remaining_ns) / 1e6, LONGEST_PAUSE_SECONDS * 1000)):
            entry = by_descriptor[descriptor]
            ended = self._context.now()
            if code := entry.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._fail(entry, OSError(code, "connect"))
            else:
                entry.ended = ended
                return entry
        return None

    def _fail(self, entry: _Entry, error: OSError) -> None:
        entry.failure = errno_name(error)
        entry.outcome = outcome_of(error)

    def _expire(self) -> None:
        for entry in self.entries:
            entry.failure = entry.failure or TIMED_OUT
