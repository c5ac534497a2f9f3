"""The echo packets of the engine: written and read as columns.

::

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |     Type      |     Code      |          Checksum             |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |           Identifier          |  Sequence (serial mod 65536)  |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                  Token of this session (64)                   |
    +                                                               +
    |                                                               |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |            Serial: place of the probe in the lane (64)        |
    +                                                               +
    |                                                               |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |              Nonce: drawn for this probe alone (64)           |
    +                                                               +
    |                                                               |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                         Target (32)                           |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                         Round (32)                            |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |     Pattern of this session, to the size asked for ...
    +-+-+-+-+-+-+-+-+-

The sequence field has 16 bits and comes round within a second at high rates; nothing relies on it but ICMP
errors that quote no more. A nonce from the system's random source answers for each probe, so that whoever
did not see the packet cannot make a reply that is taken, not even a target of the same session.
"""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from probes.engine.batch import Octets, ReceiveBlock, SendBlock, host_part
from probes.engine.sizes import LEAST_DATA_OCTETS

ICMP_OCTETS = 8
Int64s: TypeAlias = NDArray[np.int64]
UInt64s: TypeAlias = NDArray[np.uint64]
Bools: TypeAlias = NDArray[np.bool_]

_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}
# Words of eight octets from the ICMP header on.
_TOKEN, _SERIAL, _NONCE, _PLACE = 1, 2, 3, 4
_DATA_HEAD = ICMP_OCTETS + LEAST_DATA_OCTETS


@dataclass(frozen=True, slots=True)
class Replies:
    """What one block of datagrams holds: the rows that carry our token, and how many others there were."""

    rows: NDArray[np.intp]
    serials: Int64s
    nonces: UInt64s
    targets: Int64s
    intact: Bools
    """Length and pattern are what was sent."""
    hosts: Octets
    """The address octets each came from."""
    foreign: int


class PacketFormat:
    """Writes requests into a block and reads replies out of one, for one session and packet size."""

    def __init__(self, family: socket.AddressFamily, size_octets: int, *, raw: bool) -> None:
        self.family = family
        self.packet_octets = ICMP_OCTETS + size_octets
        self.token = np.frombuffer(secrets.token_bytes(8), np.uint64)[0]
        self._own_checksum = raw and family is socket.AF_INET
        # A raw IPv4 socket delivers the IP header in front; four free octets put what follows on a word.
        self.lead = 4 if self._own_checksum else 0
        self.ip_octets = 20 if self._own_checksum else 0
        self._start = self.lead + self.ip_octets
        self._pattern: Octets = np.frombuffer(secrets.token_bytes(size_octets - LEAST_DATA_OCTETS), np.uint8)
        self._identifier = secrets.randbelow(0x10000)

    def prepare(self, block: SendBlock) -> None:
        """Write once what is the same in every request."""
        block.data[:, 0] = _REQUEST[self.family]
        block.data[:, 4:6] = (self._identifier >> 8, self._identifier & 0xFF)
        block.data.view(np.uint64)[:, _TOKEN] = self.token
        block.data[:, _DATA_HEAD : self.packet_octets] = self._pattern

    def write(self, block: SendBlock, serials: Int64s, targets: Int64s, rounds: Int64s) -> UInt64s:
        """Write the first requests of `block`; the nonce drawn for each."""
        count = len(serials)
        nonces = np.frombuffer(os.urandom(8 * count), np.uint64)
        words = block.data[:count].view(np.uint64)
        words[:, _SERIAL] = serials.astype(">u8").view(np.uint64)
        words[:, _NONCE] = nonces
        halves = block.data[:count].view(">u4")
        halves[:, 2 * _PLACE] = targets
        halves[:, 2 * _PLACE + 1] = rounds
        shorts = block.data[:count].view(">u2")
        shorts[:, 3] = serials & 0xFFFF
        if self._own_checksum:
            shorts[:, 1] = 0
            shorts[:, 1] = _checksums(block.data[:count, : self.packet_octets])
        return nonces

    def read(self, block: ReceiveBlock, count: int) -> Replies:
        """The replies among the first `count` datagrams of `block`."""
        if self._own_checksum:
            self._align(block, count)
        data = block.data[:count, self._start :]
        words = block.data[:count].view(np.uint64)[:, self._start // 8 :]
        lengths = block.lengths[:count] - np.uint32(self.ip_octets)
        ours = (
            (data[:, 0] == _REPLY[self.family]) & (words[:, _TOKEN] == self.token) & (lengths >= _DATA_HEAD)
        )
        rows = np.flatnonzero(ours)
        if len(rows) < count:
            words, data, lengths = words[rows], data[rows], lengths[rows]
        serials = words[:, _SERIAL].astype(np.uint64).view(">u8").astype(np.int64)
        places = np.ascontiguousarray(words[:, _PLACE]).view(">u4").astype(np.int64)
        intact = lengths == self.packet_octets
        if len(self._pattern):
            intact &= (data[:, _DATA_HEAD : self.packet_octets] == self._pattern).all(axis=1)
        return Replies(
            rows=rows,
            serials=serials,
            nonces=words[:, _NONCE],
            targets=places[::2],
            intact=intact,
            hosts=block.addresses[rows, host_part(self.family)],
            foreign=count - len(rows),
        )

    def quoted_serial(self, quoted: bytes) -> int | None:
        """The serial that an ICMP error's quotation of our packet tells; `None` when it tells none."""
        if len(quoted) < ICMP_OCTETS + 16 or quoted[8:16] != self.token.tobytes():
            return None
        return int.from_bytes(quoted[16:24], "big")

    def quoted_sequence(self, quoted: bytes) -> int | None:
        """The 16 bits of a quotation that stops after the ICMP header (RFC 792 asks for no more)."""
        if len(quoted) < ICMP_OCTETS or quoted[0] != _REQUEST[self.family]:
            return None
        # A longer quotation that carries another token is somebody else's packet.
        if not self.token.tobytes().startswith(quoted[8:16]):
            return None
        return int.from_bytes(quoted[6:8], "big")

    def _align(self, block: ReceiveBlock, count: int) -> None:
        """Move what follows an IPv4 header with options to where it stands after one without."""
        heads = (block.data[:count, self.lead] & 0x0F).astype(np.int64) * 4
        for row in np.flatnonzero(heads > self.ip_octets):
            octets = block.data[row, self.lead + int(heads[row]) :].copy()
            block.data[row, self._start : self._start + len(octets)] = octets
            block.lengths[row] -= np.uint32(int(heads[row]) - self.ip_octets)


def _checksums(packets: Octets) -> NDArray[np.uint32]:
    """The Internet checksum of each row (RFC 1071)."""
    if packets.shape[1] % 2:
        packets = np.pad(packets, ((0, 0), (0, 1)))
    sums = np.ascontiguousarray(packets).view(">u2").sum(axis=1, dtype=np.uint32)
    sums = (sums & 0xFFFF) + (sums >> 16)
    sums = (sums & 0xFFFF) + (sums >> 16)
    found: NDArray[np.uint32] = ~sums & np.uint32(0xFFFF)
    return found
