"""One direction of one relayed link: datagrams and streams meet its effects here, in user space."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, fields

from nhip.lab.channel import HELD, LOST, QUEUE_FULL, TWICE, Channel
from nhip.lab.effects import Effects, expected_loss_ratio
from nhip.lab.histogram import Histogram
from nhip.lab.report import PACKET_CLASSES, Counters, DirectionTruth, FlowHalf, OwnError

_UDP_HEADERS_BYTES = 28
_STREAM_PART_BYTES = 8192
_WIRE_SHARE = 1500 / 1448
"""Bytes of IP packets for each byte of a stream: what the headers of full segments add."""


class RelayPipe:
    """One direction of one link: its channel, its counters, and how late it delivered."""

    def __init__(self, effects: Effects, *, seed: str) -> None:
        self.channel = Channel(effects, seed=seed)
        self.error = Histogram()
        names = [field.name for field in fields(Counters)]
        self.counts = {name: dict.fromkeys(names, 0) for name in PACKET_CLASSES}
        self._sequence = 0
        self._newest = 0

    def datagram(self, size: int, deliver: Callable[[], None]) -> None:
        """Decide the fate of a datagram of `size` payload bytes and have it delivered at its time."""
        counts, now_ns = self.counts["udp"], time.monotonic_ns()
        wire = size + _UDP_HEADERS_BYTES
        counts["arrived"] += 1
        counts["bytes_in"] += wire
        fate, deadline_ns = self.channel.admit(now_ns, wire)
        if fate in (LOST, QUEUE_FULL):
            counts["dropped_loss" if fate == LOST else "dropped_queue"] += 1
            return
        counts["held_back"] += fate == HELD
        counts["duplicated"] += fate == TWICE
        for _ in range(2 if fate == TWICE else 1):
            self._sequence += 1
            arguments = (deadline_ns, self._sequence, wire, deliver)
            asyncio.get_running_loop().call_at(deadline_ns / 1e9, self._deliver, *arguments)

    def _deliver(self, deadline_ns: int, sequence: int, wire: int, deliver: Callable[[], None]) -> None:
        counts = self.counts["udp"]
        counts["delivered"] += 1
        counts["bytes_out"] += wire
        counts["reordered"] += sequence < self._newest
        self._newest = max(self._newest, sequence)
        self.error.add(time.monotonic_ns() - deadline_ns)
        deliver()

    async def stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, half: StreamHalf
    ) -> None:
        """Carry one direction of a TCP connection to its end."""
        under_way: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        counts = self.counts["tcp"]
        async with asyncio.TaskGroup() as tasks:
            # When the receiver breaks off, its task fails and the reading below is cancelled with it.
            tasks.create_task(self._deliver_stream(under_way, writer, half))
            while data := await reader.read(_STREAM_PART_BYTES):
                wire = round(len(data) * _WIRE_SHARE)
                half.arrived()
                counts["arrived"] += 1
                counts["bytes_in"] += wire
                while (deadline_ns := self.channel.admit_stream(time.monotonic_ns(), wire)) is None:
                    await asyncio.sleep(0.001)
                under_way.put_nowait((deadline_ns, data))
            under_way.put_nowait(None)

    def truth(self) -> DirectionTruth:
        """What happened in this direction so far."""
        effects = self.channel.effects
        return DirectionTruth(
            effects=effects,
            expected_loss_ratio=expected_loss_ratio(effects),
            counters={name: Counters(**self.counts[name]) for name in PACKET_CLASSES},
            own_error=OwnError(**self.error.summary()),
            dropped_interface=0,
        )

    async def _deliver_stream(
        self,
        under_way: asyncio.Queue[tuple[int, bytes] | None],
        writer: asyncio.StreamWriter,
        half: StreamHalf,
    ) -> None:
        counts, loop = self.counts["tcp"], asyncio.get_running_loop()
        while (part := await under_way.get()) is not None:
            deadline_ns, data = part
            await asyncio.sleep(deadline_ns / 1e9 - loop.time())
            self.error.add(time.monotonic_ns() - deadline_ns)
            writer.write(data)
            counts["delivered"] += 1
            counts["bytes_out"] += round(len(data) * _WIRE_SHARE)
            half.delivered(len(data))
            await writer.drain()
        writer.write_eof()


@dataclass
class StreamHalf:
    """One direction of a TCP connection through the relay."""

    opened_wall_ns: int
    payload_bytes: int = 0
    first_bytes: int = 0
    first_wall_ns: int | None = None
    last_wall_ns: int | None = None
    arrival_wall_ns: int | None = None

    def arrived(self) -> None:
        """Note that payload reached the relay now."""
        if self.arrival_wall_ns is None:
            self.arrival_wall_ns = time.time_ns()

    def delivered(self, size: int) -> None:
        """Count `size` payload bytes delivered now."""
        now_ns = time.time_ns()
        if self.first_wall_ns is None:
            self.first_wall_ns, self.first_bytes = now_ns, size
        self.payload_bytes += size
        self.last_wall_ns = now_ns

    def truth(self) -> FlowHalf:
        """The figures so far."""
        first, last, speed = self.first_wall_ns, self.last_wall_ns, None
        if first is not None and last is not None and last > first:
            speed = (self.payload_bytes - self.first_bytes) * 8e9 / (last - first)
        return FlowHalf(self.opened_wall_ns, self.payload_bytes, 0, first, last, speed, self.arrival_wall_ns)
