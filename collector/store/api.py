"""What every store keeps and promises; tests/contracts/test_every_store.py holds each of them to it.

The promises, for whatever order and number of deliveries:

* when ``append`` returns, every record it called stored survives the loss of power;
* a record is stored once; one that was stored before is called a duplicate, also after a restart;
* what cannot be kept raises :class:`~nhip.errors.StoreError` and leaves nothing behind;
* nothing is ever deleted to recover: what cannot be read is put aside and named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from nhip.errors import StoreError
from nhip.wire import Identifier, Record


class StoreFullError(StoreError):
    """No room left on the disk; nothing of this append was kept, everything older still is."""


class Fate(StrEnum):
    """What became of one record handed to a store."""

    STORED = "stored"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class Entry:
    """One record as it is kept: the bytes, what they say, and when they came."""

    record: Record
    body: bytes
    """The record as it came, fields of a newer version included."""
    received_wall_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """A record put in quarantine: the bytes as they came, and why they are not among the records."""

    probe_id: str
    reason: str
    """A word of a closed list, see :class:`collector.admission.Reason`."""
    detail: str
    body: bytes
    received_wall_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCounts:
    """How much a store holds now."""

    records: int
    journal_records: int
    """Records not yet in the archive; all of them where there is no archive."""
    quarantined: int
    archive_failures: int = 0
    quarantine_evicted: int = 0
    """Records that left a full quarantine since the store was started."""


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[store]`` table of the collector's configuration."""

    name: str = "delta"
    """``delta``: journal, then archive. ``sqlite``: the journal alone keeps everything."""
    quarantine_records_per_probe: Annotated[int, Meta(ge=1)] = 1_000
    """The oldest record in a probe's quarantine makes room for the next one beyond this."""
    quarantine_octets_per_probe: Annotated[int, Meta(ge=1024)] = 16 * 2**20
    """So it does beyond so many octets."""
    collector_id: Identifier = "main"
    """Names this collector among those that share an archive."""
    flush_interval_seconds: Annotated[float, Meta(gt=0)] = 300.0
    """How long a record waits in the journal before it moves to the archive; it is safe in either."""
    flush_records: Annotated[int, Meta(ge=1)] = 20_000
    """So many records are moved at most at once, and sooner when so many wait."""
    checkpoint_commits: Annotated[int, Meta(ge=1)] = 50
    """The archive's log gets a checkpoint each time so many moves were made."""
    remember_ids_days: Annotated[float, Meta(ge=0)] = 8.0
    """How long the identifier of a record without a spool sequence is remembered after it was archived, and
    an epoch after it was last used; longer than the oldest record the collector accepts."""


class Store(Protocol):
    """Keeps records. One thread appends; any thread reads."""

    def start(self) -> None:
        """Open what is on disk, mending what a crash left; StoreError when it cannot be trusted."""

    def append(self, entries: Sequence[Entry], aside: Sequence[Aside] = ()) -> list[Fate]:
        """Keep all of it durably or none; the fate of each entry, in the order given.

        Entries of one probe and epoch with a sequence must come in ascending order of delivery: a
        sequence at or below the highest one stored is a duplicate. StoreFullError, StoreError.
        """

    def records(
        self, start_wall_ns: int, end_wall_ns: int, *, probe_id: str | None = None, kind: str | None = None
    ) -> Iterator[Entry]:
        """Records started in [start, end), ordered by start and identifier, as of this call."""

    def latest(self, since_wall_ns: int) -> list[Entry]:
        """The last record of every series (probe, kind, target) started at or after `since_wall_ns`."""

    def quarantine(self) -> Iterator[Aside]:
        """What was put aside, oldest first; also before ``start``."""

    def readmit(self, found_good: Sequence[tuple[Aside, Entry]]) -> list[Fate]:
        """Take records out of quarantine and keep them, all durably or none; the fate of each.

        A record is known by its identifier here, whatever its sequence: later ones of its epoch were stored
        while it lay aside. A duplicate leaves the quarantine as well. Called while nothing is appended.
        """

    def remember_seen(self, wall_ns: Mapping[str, int]) -> None:
        """Keep durably when each probe was last heard; a probe not named keeps what it had."""

    def last_seen(self) -> dict[str, int]:
        """When each probe was last heard, as far as it was remembered."""

    def counts(self) -> StoreCounts:
        """How much is kept; cheap enough to be asked at every scrape."""

    def close(self) -> None:
        """Let go of everything; also after a failure, also twice."""


StoreFactory = Callable[[Path, StoreSettings], Store]
"""Makes a store that keeps its files under a directory; does nothing until ``start``."""
