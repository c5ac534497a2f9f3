"""Whether this host itself can send: a dead modem or a missing route must never be called packet loss.

A probe looks before its first packet, and once more when anything of its sample got no answer. What it
finds is the way: the interface by which packets to the target leave, whether that is up and has a line, and
how often it has lost that line. A way that is not there, or was not there all the time, makes the test one
that could not be done (CannotMeasureError), whatever its packets say.

At the end the way is held against the interface's own counters. What a bound test sent must be in them, or
its packets have left otherwise; what else they hold is headers, and traffic of others.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from nhip.clock import Clock, SystemClock
from nhip.errors import CannotMeasureError
from nhip.measurement import Outcome, Sample
from probes.line.netlink import LineCount
from probes.line.proof import other_octets, shortfall, with_counts
from probes.network import Address, Network, Way

# Fates that a dead line of our own gives to packets, beside whatever the network does.
_SUSPECT = frozenset(
    {Outcome.LOST, Outcome.LATE, Outcome.UNREACHABLE, Outcome.RESET, Outcome.TRUNCATED, Outcome.NOT_SENT}
)
# Some network cards tell their counters only once in a second or two.
_COUNTER_PATIENCE_NS = 2_500_000_000
_COUNTER_PAUSE_SECONDS = 0.05


@dataclass(slots=True)
class WayWatch:
    """Watches this host's way to the addresses of one test."""

    network: Network
    clock: Clock = field(default_factory=SystemClock)
    _seen: dict[Address, Way | None] = field(default_factory=dict)

    def check(self, address: Address) -> None:
        """Return when packets to `address` can leave as at the first look; CannotMeasureError otherwise."""
        now = self.network.way(address)
        before = self._seen.setdefault(address, now)
        if now != before and now is not None and before is not None:
            what = "lost its line" if now.interface == before.interface else f"was left for {now.interface}"
            raise CannotMeasureError(
                f"interface {before.interface} {what} during the test",
                remedy=f"check the modem or the cable: ip -statistics link show {before.interface}",
            )

    def failed(self, outcome: Outcome, address: Address) -> Outcome:
        """Give back what the network did to a packet; CannotMeasureError when this host did it."""
        if outcome in _SUSPECT:
            self.check(address)
        return outcome

    def confirmed(self, sample: Sample) -> Sample:
        """Give back `sample` with what its interfaces carried meanwhile.

        CannotMeasureError when its losses may be this host's own, and when a bound test is not in the
        counters of its interface.
        """
        if any(
            singleton.outcome in _SUSPECT and singleton.detail != "cancelled"
            for singleton in sample.singletons
        ):
            for address in list(self._seen):
                self.check(address)
            if self._seen:
                self.network.check_line()
        return self._proven(
            replace(sample, parameters={**sample.parameters, **self.network.binding.parameters})
        )

    def _proven(self, sample: Sample) -> Sample:
        """`sample` with what its interfaces carried; CannotMeasureError when a bound test is not in it."""
        binding = self.network.binding
        # Of each interface the first look; a test that sent nothing never looked.
        ways = {way.index: way for way in reversed(self._seen.values()) if way is not None}
        if not self._seen:
            return sample
        if not ways or any(way.count is None for way in ways.values()):
            unproven = ("this host lets nobody read interface counters: the way is not proven by them",)
            return replace(sample, notes=(*sample.notes, *(unproven if binding.bound else ())))
        names = ", ".join(sorted({way.interface for way in ways.values()}))
        tied = binding.interface is not None
        carried = self._carried(sample, list(ways.values()), tied=tied)
        why = "nobody knows what was carried by" if carried is None else shortfall(sample, carried, tied=tied)
        if why and binding.bound:
            raise CannotMeasureError(
                f"{why} interface {names}: this host dropped the packets or sent them by another way",
                remedy=f"compare: ip -statistics link; {binding.route_command(sample.address or 'ADDRESS')}",
            )
        if why or carried is None:
            # Nobody bound this test to one line: several may share the load, or have taken over.
            return replace(sample, notes=(*sample.notes, f"{why} interface {names}"))
        looped = any(way.loopback for way in ways.values())
        others = None if looped else other_octets(sample, carried)
        return with_counts(sample, carried, interface=names, others=others)

    def _carried(self, sample: Sample, ways: list[Way], *, tied: bool) -> LineCount | None:
        """What the interfaces carried since the first look; `None` when one of them is gone."""
        patient_until_ns = self.clock.mono_ns() + _COUNTER_PATIENCE_NS
        while True:
            carried = LineCount(0, 0, 0, 0)
            for way in ways:
                now = self.network.count(way)
                if now is None or way.count is None:
                    return None
                carried = carried.plus(now.since(way.count))
            if not shortfall(sample, carried, tied=tied) or self.clock.mono_ns() >= patient_until_ns:
                return carried
            self.clock.sleep(_COUNTER_PAUSE_SECONDS)
