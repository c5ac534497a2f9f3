"""What is spooled goes to the collector batch by batch, and no single record may stand in the way.

::

    batch ──200──▶ removed, the next batch may be larger again
      │ ──400/413──▶ half the batch, down to one record ──▶ put aside, the rest goes on
      │ ──401/403/409──▶ everything is kept and tried again slowly
      └ ──anything else──▶ everything is kept and tried again

A record is put aside only when the collector, asked in the same moment, takes a batch without any record:
where it refuses even that, the fault is not the record's.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from nhip import wire
from probes.ship import BatchRefusedError, Shipper
from probes.spool import Spool, Spooled

log = logging.getLogger("nhip.probe")


class Delivery:
    """Moves records from a spool, guarded by `lock`, to a collector; one thread at a time."""

    def __init__(
        self,
        *,
        probe_id: str,
        spool: Spool,
        lock: threading.Lock,
        shipper: Shipper,
        status: Callable[[], wire.AgentStatus],
        most_records: int,
        most_octets: int,
    ) -> None:
        self._probe_id = probe_id
        self._spool, self._lock = spool, lock
        self._shipper = shipper
        self._status = status
        self._most_records, self._most_octets = most_records, most_octets
        self._records = most_records
        """How many go at once: halved by a refusal, doubled by a success."""

    def deliver_one(self) -> tuple[bool, wire.AgentStatus | None]:
        """Deliver one batch, even an empty one as a sign of life.

        True when nothing more waits, and the status that arrived with it, if one did. ShipError and
        StoreError as the shipper and the spool give them; what was not acknowledged stays.
        """
        with self._lock:
            spooled = self._spool.oldest(self._records, self._most_octets)
        bodies = spooled.bodies if spooled else ()
        status = self._status()
        try:
            self._deliver(bodies, status)
        except BatchRefusedError as error:
            if spooled is None:
                raise
            self._refused(spooled, error)
            return False, None
        self._records = min(2 * self._records, self._most_records)
        if spooled is None:
            return True, status
        with self._lock:
            self._spool.remove_through(spooled.through)
            return self._spool.oldest(1, 1) is None, status

    def _deliver(self, bodies: Sequence[bytes], status: wire.AgentStatus) -> None:
        acknowledgement = self._shipper.deliver(wire.encode_batch(self._probe_id, bodies, status))
        for rejection in acknowledgement.rejected:
            log.warning("the collector put record %d aside: %s", rejection.position, rejection.reason)

    def _refused(self, spooled: Spooled, error: BatchRefusedError) -> None:
        count = len(spooled.bodies)
        if count > 1:
            self._records = count // 2
            log.warning("a batch of %d was refused, the next has %d: %s", count, self._records, error)
            return
        self._deliver((), self._status())
        with self._lock:
            self._spool.refuse(spooled.through, str(error))
            total = self._spool.state().refused_total
        log.error("record put aside in the spool, %d so far: %s", total, error)
