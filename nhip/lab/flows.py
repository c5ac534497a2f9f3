"""How fast TCP transfers really were: new payload bytes that a link delivered, by sequence number.

A byte counts once, when its first copy is delivered, however often it is sent again. A flow is followed
in each direction on its own; :func:`join_halves` puts the two together.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from nhip.lab.report import FlowHalf, TcpFlow

_SYN, _ACK = 0x02, 0x10
_MOST_FLOWS = 1024


@dataclass(slots=True)
class Half:
    """One direction of one TCP connection so far; times are monotonic nanoseconds."""

    opened_ns: int
    from_client: bool
    seen_ns: int = 0
    payload_bytes: int = 0
    repeated_bytes: int = 0
    first_payload_ns: int = 0
    first_payload_bytes: int = 0
    first_arrival_ns: int = 0
    """When the first payload reached the link, even if that copy was lost in it."""
    last_payload_ns: int = 0
    origin: int = 0
    """The sequence number that counts as offset 0."""
    reach: int = 0
    """Offset just after the highest byte delivered."""
    holes: list[tuple[int, int]] | None = None
    """Stretches below `reach` not delivered yet."""


class TcpFlows:
    """The TCP connections seen in one direction of a link, newest last, at most 1024."""

    def __init__(self) -> None:
        self._halves: dict[bytes, Half] = {}
        self.forgotten = 0
        """Connections dropped because too many came after them."""

    def delivered(self, packet: bytes, now_ns: int, arrived_ns: int) -> None:
        """Count a TCP packet that the link delivers at `now_ns` and that had reached it at `arrived_ns`."""
        found = _segment(packet)
        if found is None:
            return
        key, tcp, size = found
        flags = packet[tcp + 13]
        half = self._halves.get(key)
        if half is None or flags & _SYN:
            half = self._open(key, half, packet, tcp, now_ns)
        half.seen_ns = now_ns
        if size > 0:
            half.first_arrival_ns = half.first_arrival_ns or arrived_ns
            _count(half, int.from_bytes(packet[tcp + 4 : tcp + 8], "big"), size, now_ns)

    def lost(self, packet: bytes, arrived_ns: int) -> None:
        """Note a TCP packet that the link lost: what it carried had been sent by then."""
        found = _segment(packet)
        half = self._halves.get(found[0]) if found else None
        if found and half is not None and found[2] > 0:
            half.first_arrival_ns = half.first_arrival_ns or arrived_ns

    def since(self, since_ns: int) -> list[tuple[bytes, Half]]:
        """The flows that moved at or after `since_ns` (monotonic)."""
        return [(key, half) for key, half in self._halves.items() if half.seen_ns >= since_ns]

    def _open(self, key: bytes, old: Half | None, packet: bytes, tcp: int, now_ns: int) -> Half:
        flags = packet[tcp + 13]
        sequence = int.from_bytes(packet[tcp + 4 : tcp + 8], "big")
        # A SYN takes one number; data of a flow first met in its middle begins where it is met.
        origin = (sequence + 1 if flags & _SYN else sequence) & 0xFFFFFFFF
        if old is not None:
            if old.origin == origin:
                return old  # The same SYN, sent again.
            del self._halves[key]  # The ports are taken anew: a new connection, and the newest.
        half = Half(opened_ns=now_ns, from_client=flags & (_SYN | _ACK) == _SYN, origin=origin)
        self._halves[key] = half
        if len(self._halves) > _MOST_FLOWS:
            del self._halves[next(iter(self._halves))]
            self.forgotten += 1
        return half


def _segment(packet: bytes) -> tuple[bytes, int, int] | None:
    """Key, offset of the TCP header and payload size (IPv4, or IPv6 without extension headers)."""
    if packet[0] >> 4 == 4:
        tcp = (packet[0] & 15) * 4
        if packet[6] & 0x1F or packet[7]:
            return None  # A later fragment carries no TCP header.
        key = packet[12:20] + packet[tcp : tcp + 4]
        length = (packet[2] << 8 | packet[3]) - tcp
    else:
        tcp = 40
        key = packet[8:44]
        length = packet[4] << 8 | packet[5]
    if len(packet) < tcp + 20:
        return None
    return key, tcp, length - (packet[tcp + 12] >> 4) * 4


def join_halves(
    up: dict[bytes, FlowHalf], down: dict[bytes, FlowHalf], clients: dict[bytes, bool]
) -> tuple[TcpFlow, ...]:
    """Flows out of the halves met on the way up and on the way down, by opening time.

    `clients` tells, by the key of the up half, whether its sender opened the connection.
    """
    flows = []
    for key in up.keys() | {reverse_key(key) for key in down}:
        upward, downward = up.get(key), down.get(reverse_key(key))
        near, near_port, far, far_port = addresses_of(key)
        opened = [half.opened_wall_ns for half in (upward, downward) if half is not None]
        from_near = clients.get(key, True)
        client, server = (
            ((near, near_port), (far, far_port)) if from_near else ((far, far_port), (near, near_port))
        )
        flows.append(
            TcpFlow(
                client=client[0],
                client_port=client[1],
                server=server[0],
                server_port=server[1],
                opened_wall_ns=min(opened),
                up=upward,
                down=downward,
            )
        )
    return tuple(sorted(flows, key=lambda flow: flow.opened_wall_ns))


def reverse_key(key: bytes) -> bytes:
    """The key of the same connection seen in the other direction."""
    size = (len(key) - 4) // 2
    return key[size : 2 * size] + key[:size] + key[-2:] + key[-4:-2]


def addresses_of(key: bytes) -> tuple[str, int, str, int]:
    """Source address, source port, destination address, destination port of a key."""
    size = (len(key) - 4) // 2
    family = socket.AF_INET if size == 4 else socket.AF_INET6
    return (
        socket.inet_ntop(family, key[:size]),
        int.from_bytes(key[-4:-2], "big"),
        socket.inet_ntop(family, key[size : 2 * size]),
        int.from_bytes(key[-2:], "big"),
    )


def _count(half: Half, sequence: int, size: int, now_ns: int) -> None:
    """Add the bytes of one segment that were not delivered before."""
    # Sequence numbers wrap at 2^32: take the offset nearest to the highest one seen.
    ahead = (sequence - half.origin - half.reach) & 0xFFFFFFFF
    start = half.reach + (ahead - 0x100000000 if ahead & 0x80000000 else ahead)
    end = start + size
    if start == half.reach:
        new, half.reach = size, end
    else:
        new = _fill(half, start, end)
    half.repeated_bytes += size - new
    if new:
        if half.payload_bytes == 0:
            half.first_payload_ns, half.first_payload_bytes = now_ns, new
        half.payload_bytes += new
        half.last_payload_ns = now_ns


def _fill(half: Half, start: int, end: int) -> int:
    """New bytes of a segment that does not continue where the flow had come to."""
    holes, new = half.holes or [], 0
    left: list[tuple[int, int]] = []
    for low, high in holes:
        if end <= low or high <= start:
            left.append((low, high))
            continue
        new += min(end, high) - max(start, low)
        left += [(low, start)] if low < start else []
        left += [(end, high)] if end < high else []
    if end > half.reach:
        if start > half.reach:
            left.append((half.reach, start))
        new += end - max(start, half.reach)
        half.reach = end
    half.holes = left or None
    return new
