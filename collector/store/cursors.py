"""How far each probe's epochs were stored, (probe, epoch) → highest sequence, and which may be forgotten.

A delivery is repeated when its acknowledgement was lost, and a probe goes on only after the acknowledgement.
So what comes again is the last batch of its probe, and its epochs are those used last. A batch has at most 16
epochs (``limits.epochs_per_batch``) and :data:`KEPT` are remembered, in the order of their last use: the
batch that can come again is always recognised, however many epochs a probe that restarts all day has used.

An epoch not used for longer than the oldest record taken (``store.remember_ids_days``) goes as well: its
records started before their last delivery, so whatever comes of it now is refused for its date.

Last use is a date that never goes backwards within a probe: this host's clock may be set back, and an epoch
that is new must not look older than one that is not.
"""

from __future__ import annotations

import sqlite3

from collector.store.api import Entry

KEPT = 64
"""Epochs remembered of each probe; those used in one append are kept in any case."""

_DAY_NS = 86_400 * 1_000_000_000


class Cursors:
    """The cursors as one transaction sees and moves them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._tops: dict[tuple[str, str], int] = {}
        self._new: set[str] = set()
        """Probes with an epoch never seen before."""
        self._received_wall_ns: dict[str, int] = {}

    def top(self, entry: Entry) -> int:
        """The highest sequence stored of the epoch of `entry`, which thereby counts as used; 0 before any."""
        spool = entry.record.probe_id, entry.record.epoch
        if spool not in self._tops:
            row = self._connection.execute(
                "SELECT sequence FROM cursor WHERE probe_id = ? AND epoch = ?", spool
            ).fetchone()
            self._tops[spool] = row[0] if row else 0
            if row is None:
                self._new.add(spool[0])
        before_wall_ns = self._received_wall_ns.get(spool[0], 0)
        self._received_wall_ns[spool[0]] = max(before_wall_ns, entry.received_wall_ns)
        return self._tops[spool]

    def raise_to(self, entry: Entry) -> None:
        """Let the cursor stand at the sequence of `entry`, unless it stands higher."""
        self._tops[entry.record.probe_id, entry.record.epoch] = max(self.top(entry), entry.record.sequence)

    def write(self, remember_days: float) -> None:
        """Put all of it into the database, and forget what may be forgotten."""
        for probe_id, received_wall_ns in self._received_wall_ns.items():
            (last_used_ns,) = self._connection.execute(
                "SELECT coalesce(max(last_received_wall_ns), -1) FROM cursor WHERE probe_id = ?", (probe_id,)
            ).fetchone()
            used_ns = max(received_wall_ns, last_used_ns + 1)
            self._connection.executemany(
                "INSERT OR REPLACE INTO cursor (probe_id, epoch, sequence, last_received_wall_ns)"
                " VALUES (?, ?, ?, ?)",
                ((*spool, top, used_ns) for spool, top in self._tops.items() if spool[0] == probe_id),
            )
            if probe_id in self._new:
                self._forget(probe_id, used_ns, received_wall_ns - round(remember_days * _DAY_NS))

    def _forget(self, probe_id: str, used_ns: int, oldest_ns: int) -> None:
        self._connection.execute(
            "DELETE FROM cursor WHERE probe_id = ? AND last_received_wall_ns < ?"
            " AND (last_received_wall_ns < ? OR epoch NOT IN (SELECT epoch FROM cursor WHERE probe_id = ?"
            "  ORDER BY last_received_wall_ns DESC LIMIT ?))",
            (probe_id, used_ns, oldest_ns, probe_id, KEPT),
        )
