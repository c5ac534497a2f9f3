"""A STAMP reflector written by hand from the layout of the RFC, which can be told to lie."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.lab.peers import udp_peer

NTP_EPOCH = 2_208_988_800
FOLLOW_UP_TYPE = 7


def ntp(wall_ns: int) -> bytes:
    """64 bits by whole numbers, another way than the code under test."""
    return struct.pack("!II", wall_ns // 10**9 + NTP_EPOCH, (wall_ns % 10**9) * 2**32 // 10**9)


def ptp(wall_ns: int) -> bytes:
    """Truncated PTP: seconds and nanoseconds."""
    return struct.pack("!II", wall_ns // 10**9, wall_ns % 10**9)


@dataclass
class Script:
    """What the next answer says; tests subclass or fill in what they want changed."""

    estimate: bytes = b"\x80\x01"
    stamp: Callable[[int], bytes] = ntp
    number: Callable[[int, int], int] = lambda _count, sequence: sequence
    """The reflector's own number, of how many it answered before and the sender's number."""
    drop_up: frozenset[int] = frozenset()
    """Sender's numbers that never reached it."""
    drop_down: frozenset[int] = frozenset()
    """Sender's numbers whose answers never come back."""
    times: Callable[[int], tuple[int, int]] = lambda now_ns: (now_ns, now_ns + 1_000)
    """T2 and T3, of the wall clock."""
    follow_up: Callable[[int, int, int], tuple[int, int] | None] = lambda _number, _t2_ns, _t3_ns: None
    """Number and departure to tell next, of the answer just sent."""
    change: Callable[[bytes], bytes] = lambda answer: answer
    requests: list[bytes] = field(default_factory=list)
    answered: int = 0
    told: tuple[int, int] | None = None

    def answer(self, request: bytes) -> bytes | None:
        """The answer to `request`, by RFC 8762 figure 5, or silence."""
        self.requests.append(request)
        (sequence,) = struct.unpack("!I", request[:4])
        if sequence in self.drop_up:
            return None
        number = self.number(self.answered, sequence)
        self.answered += 1
        t2_ns, t3_ns = self.times(time.time_ns())
        answer = (
            struct.pack("!I", number)
            + self.stamp(t3_ns)
            + self.estimate
            + b"\0\0"
            + self.stamp(t2_ns)
            + request[0:4]
            + request[4:12]
            + request[12:14]
            + b"\0\0"
            + b"\x40\0\0\0"
            + self._extensions(request[44:])
        )
        self.told = self.follow_up(number, t2_ns, t3_ns)
        return None if sequence in self.drop_down else self.change(answer)

    def _extensions(self, octets: bytes) -> bytes:
        """A follow-up filled in where one is asked for at the front; the rest as it came."""
        if self.told is None or octets[1:2] != bytes([FOLLOW_UP_TYPE]):
            return octets
        number, left_ns = self.told
        value = struct.pack("!I", number) + self.stamp(left_ns) + b"\x02\0\0\0"
        return b"\0" + octets[1:4] + value + octets[20:]


@contextlib.contextmanager
def scripted(script: Script, host: str = "127.0.0.1") -> Iterator[int]:
    """The reflector at work; gives its port."""

    def reflect(sock: socket.socket, request: bytes, peer: tuple[str, int]) -> None:
        answer = script.answer(request)
        if answer is not None:
            sock.sendto(answer, peer)

    with udp_peer(reflect, host) as port:
        yield port


def own_count(count: int, _sequence: int) -> int:
    """How a stateful reflector numbers."""
    return count
