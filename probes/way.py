"""Whether this host itself can send: a dead modem or a missing route must never be called packet loss.

A probe looks before its first packet, and once more when anything of its sample got no answer. What it
finds is the way: the interface by which packets to the target leave, whether that is up and has a line, and
how often it has lost that line. A way that is not there, or was not there all the time, makes the test one
that could not be done (CannotMeasureError), whatever its packets say.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nhip.errors import CannotMeasureError
from nhip.measurement import Outcome, Sample
from probes.network import Address, Network, Way

# Fates that a dead line of our own gives to packets, beside whatever the network does.
_SUSPECT = frozenset(
    {Outcome.LOST, Outcome.LATE, Outcome.UNREACHABLE, Outcome.RESET, Outcome.TRUNCATED, Outcome.NOT_SENT}
)


@dataclass(slots=True)
class WayWatch:
    """Watches this host's way to the addresses of one test."""

    network: Network
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
        """Give back `sample`; CannotMeasureError when its losses may be this host's own."""
        if any(
            singleton.outcome in _SUSPECT and singleton.detail != "cancelled"
            for singleton in sample.singletons
        ):
            for address in list(self._seen):
                self.check(address)
        return sample
