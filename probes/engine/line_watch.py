"""Whether this host itself can reach a lane's targets: while it cannot, nothing is sent and nothing is lost.

A dead modem answers as a dead network does, not at all. So the kernel is asked for its way again and again
(:meth:`probes.network.Network.way`), and what found no answer between the last good look and the next one is
of unknown fate.
"""

from __future__ import annotations

import logging

from nhip.errors import CannotMeasureError
from probes.engine.addresses import AddressBook
from probes.network import Network, Way

log = logging.getLogger("nhip.engine")

_EVERY_NS = 500_000_000
_ADDRESSES_ASKED = 4


class LineWatch:
    """The times at which one lane was blind."""

    def __init__(
        self, name: str, addresses: AddressBook, network: Network, *, threshold_ns: int, hold_ns: int
    ) -> None:
        self._name, self._addresses, self._network = name, addresses, network
        self._threshold_ns, self._hold_ns = threshold_ns, hold_ns
        self._way: Way | None = None
        self._good_ns = 0
        self.looked_ns = 0
        """When the kernel was last asked."""
        self.failure: CannotMeasureError | None = None
        """Why there is no way now; `None` while there is one."""
        self.blind_from_ns, self.blind_until_ns = 0, -1
        """What was handed over within has no fate unless it was answered."""

    def look(self, now_ns: int, *, at_once: bool = False) -> None:
        """Ask, if it is time again. Begin and end of blindness are logged."""
        if not at_once and now_ns - self.looked_ns < min(_EVERY_NS, self._hold_ns // 4):
            return
        before = self.failure
        way = self._ask()
        changed = way is not None and self._way is not None and way != self._way
        if self.failure is not None or changed or before is not None:
            # From the last good look on, and a threshold before: a reply to that could no longer come in.
            # One blindness soon after another is one with it, for probes of the first may not be settled.
            from_ns = self._good_ns - self._threshold_ns
            if from_ns > self.blind_until_ns + self._hold_ns:
                self.blind_from_ns = from_ns
            self.blind_until_ns = now_ns
        if self.failure is None:
            self._way, self._good_ns = way, now_ns
        if self.failure is not None and before is None:
            log.error("group %s: no probes are sent: %s", self._name, self.failure)
        if self.failure is None and before is not None:
            log.info("group %s: probes are sent again", self._name)
        self.looked_ns = now_ns

    def _ask(self) -> Way | None:
        """The way to one of some addresses: one without a route says nothing of the others."""
        self.failure = None
        for address in self._addresses.samples(_ADDRESSES_ASKED):
            try:
                way = self._network.way(address)
            except CannotMeasureError as error:
                self.failure = error
            else:
                self.failure = None
                return way
        return self._way
