"""Which probe the kernel means by a number: departures are told by how many packets left the socket before.

Whether the kernel counts a packet that it then does not send depends on the kernel and the reason, and a
count that is off by one gives every probe its neighbour's departure. So after every refusal the counting is
begun anew, as well as long before its 32 bits come round.
"""

from __future__ import annotations

import numpy as np

from probes.engine.packet import Int64s

RENEW_AFTER = 1 << 31


class DepartureNumbers:
    """The serials of the last `capacity` packets by number."""

    def __init__(self, capacity: int) -> None:
        self._serials: Int64s = np.full(capacity, -1, np.int64)
        self._runs: list[tuple[int, int, int]] = []
        self._next = 0
        self.renew_after = RENEW_AFTER

    @property
    def is_spent(self) -> bool:
        """Whether it is time to begin anew."""
        return self._next >= self.renew_after

    def sent(self, serial: int, count: int) -> None:
        """The kernel took `count` packets, whose serials follow each other. Written down when it matters."""
        if self._runs and self._runs[-1][1] + self._runs[-1][2] == serial:
            number, first, before = self._runs[-1]
            self._runs[-1] = (number, first, before + count)
        else:
            self._runs.append((self._next, serial, count))
        self._next += count

    def serials(self, numbers: Int64s) -> Int64s:
        """The serials that were sent with these numbers; -1 for one that was not."""
        self._write_down()
        found: Int64s = self._serials[numbers % len(self._serials)]
        return found

    def begin_anew(self) -> None:
        """The next packet has the number 0."""
        self._write_down()
        self._next = 0

    def _write_down(self) -> None:
        for number, serial, count in self._runs:
            places = np.arange(number, number + count) % len(self._serials)
            self._serials[places] = np.arange(serial, serial + count)
        self._runs.clear()
