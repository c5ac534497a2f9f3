"""The probes under way: a ring of columns, one place for each until its fate is settled.

A probe's serial, counted up from 0 and never reused, is its name; its place in the ring is the serial modulo
the ring's size. A reply is taken only if its serial is under way and it carries the nonce drawn for that
serial, so neither 16-bit sequence numbers that come round nor a guess can put a reply to the wrong probe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probes.engine import fate
from probes.engine.batch import Octets
from probes.engine.packet import Bools, Int64s, Replies, UInt64s


@dataclass(slots=True)
class Strays:
    """Datagrams that answer no probe of ours that is under way."""

    foreign: int = 0
    """Another program's, no echo reply, or from another address than was asked."""
    forged: int = 0
    """Our token with a serial or nonce we did not send."""
    stale: int = 0
    """Of ours, and so late that its probe's fate was settled: late or duplicate, nobody can tell any more."""


class Flight:
    """The ring. Serials from `settled` to `begun` are under way."""

    def __init__(self, capacity: int, *, check_nonce: bool = True) -> None:
        self.capacity = capacity
        self.begun = 0
        self.settled = 0
        self.strays = Strays()
        self._check_nonce = check_nonce
        self.target: NDArray[np.int32] = np.zeros(capacity, np.int32)
        self.round: Int64s = np.zeros(capacity, np.int64)
        self.nonce: UInt64s = np.zeros(capacity, np.uint64)
        self.due_ns: Int64s = np.zeros(capacity, np.int64)
        self.handed_ns: Int64s = np.zeros(capacity, np.int64)
        self.sent_wall_ns: Int64s = np.zeros(capacity, np.int64)
        """The kernel's departure stamp; 0 while there is none."""
        self.received_wall_ns: Int64s = np.zeros(capacity, np.int64)
        """Of the first whole reply; 0 while there is none."""
        self.flags: NDArray[np.uint8] = np.zeros(capacity, np.uint8)
        self.duplicates: NDArray[np.uint8] = np.zeros(capacity, np.uint8)

    @property
    def free(self) -> int:
        """How many more probes may be begun."""
        return self.capacity - (self.begun - self.settled)

    def begin(self, targets: Int64s, rounds: Int64s, due_ns: Int64s) -> Int64s:
        """Take the next places for these probes; their serials."""
        serials = np.arange(self.begun, self.begun + len(targets))
        places = serials % self.capacity
        self.target[places] = targets
        self.round[places] = rounds
        self.due_ns[places] = due_ns
        self.handed_ns[places] = 0
        self.sent_wall_ns[places] = 0
        self.received_wall_ns[places] = 0
        self.flags[places] = fate.OPEN
        self.duplicates[places] = 0
        self.begun += len(targets)
        return serials

    def is_under_way(self, serials: Int64s) -> Bools:
        """Which of `serials` have a place now."""
        return (serials >= self.settled) & (serials < self.begun)

    def departed(self, serials: Int64s, wall_ns: Int64s) -> None:
        """Note the kernel's departure stamps."""
        known = self.is_under_way(serials)
        if not known.all():
            serials, wall_ns = serials[known], wall_ns[known]
        self.sent_wall_ns[serials % self.capacity] = wall_ns

    def failed(self, serial: int, kind: int) -> bool:
        """Note that the network reported an error about one probe; False when it is not under way."""
        if not self.settled <= serial < self.begun:
            return False
        place = serial % self.capacity
        if not self.flags[place] & fate.FATE:
            self.flags[place] |= kind
        return True

    def replied(
        self, replies: Replies, wall_ns: Int64s, by_user: Bools, hosts: Sequence[Octets], newest: Int64s
    ) -> None:
        """Note replies in the order they arrived.

        `hosts` holds the address octets of each target, now and perhaps before; `newest` each target's
        highest round answered so far, and is brought up to date.
        """
        self.strays.foreign += replies.foreign
        under_way = self.is_under_way(replies.serials)
        self.strays.stale += int(((replies.serials < self.settled) & (replies.serials >= 0)).sum())
        self.strays.forged += int(((replies.serials >= self.begun) | (replies.serials < 0)).sum())
        places = replies.serials % self.capacity
        genuine = under_way
        if self._check_nonce:
            genuine = under_way & (self.nonce[places] == replies.nonces)
            self.strays.forged += int((under_way & ~genuine).sum())
        targets = self.target[places].astype(np.int64)
        asked = np.zeros(len(targets), np.bool_)
        for octets in hosts:
            asked |= (replies.hosts == octets[targets]).all(axis=1)
        self.strays.foreign += int((genuine & ~asked).sum())
        taken = genuine & asked
        broken = taken & ~replies.intact
        if broken.any():
            self._corrupt(places[broken])
        whole = np.flatnonzero(taken & replies.intact)
        if not len(whole):
            return
        places, targets = places[whole], targets[whole]
        first, indices = np.unique(places, return_index=True)  # the index is that of the first occurrence
        fresh = self.received_wall_ns[first] == 0
        indices = np.sort(indices[fresh])
        if len(indices) < len(places):
            again = np.ones(len(places), np.bool_)
            again[indices] = False
            where, extra = np.unique(places[again], return_counts=True)
            self.duplicates[where] = np.minimum(255, self.duplicates[where] + extra)
            places, targets, whole = places[indices], targets[indices], whole[indices]
        self.received_wall_ns[places] = wall_ns[whole]
        flags = np.where(by_user[whole], fate.RECEIVED_BY_USER_STAMP, 0).astype(np.uint8)
        flags[_overtaken(targets, self.round[places], newest)] |= fate.REORDERED
        self.flags[places] |= flags

    def latest(self, target: int, sequence: int) -> int | None:
        """The last probe under way to `target` whose serial ends in the 16 bits `sequence`."""
        serial = self.begun - 1 - ((self.begun - 1 - sequence) & 0xFFFF)
        while serial >= self.settled:
            if self.target[serial % self.capacity] == target:
                return serial
            serial -= 0x10000
        return None

    def _corrupt(self, places: NDArray[np.int64]) -> None:
        undecided = places[(self.flags[places] & fate.FATE) == fate.OPEN]
        self.flags[undecided] |= fate.CORRUPT


def _overtaken(targets: Int64s, rounds: Int64s, newest: Int64s) -> Bools:
    """Which replies, in order of arrival, came after one to a later round of the same target."""
    before = newest[targets]
    np.maximum.at(newest, targets, rounds)
    overtaken = rounds < before
    if not (rounds < newest[targets]).any():
        return overtaken
    # Some target has several replies here. A running maximum within each target: targets ascending, so
    # that the pair (target, round) as one number never falls from one target to the next.
    order = np.argsort(targets, kind="stable")
    sorted_rounds = np.maximum(rounds[order], 0)
    rank = np.cumsum(np.diff(targets[order], prepend=targets[order][:1]) != 0)
    running = np.maximum.accumulate(rank << 40 | sorted_rounds) & ((1 << 40) - 1)
    within = np.empty(len(targets), np.bool_)
    within[order] = sorted_rounds < running
    return overtaken | within
