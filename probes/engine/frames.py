"""What an engine in a process of its own and its agent say to each other, over pipes. Without numpy.

Each frame is its length (4 octets, little-endian) and one message in MessagePack. The agent sends one
:class:`Job` and then nothing; that its end is closed tells the engine to stop.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Any

import msgspec

from probes.line.config import LineSection

LENGTH = struct.Struct("<I")


class GroupJob(msgspec.Struct, frozen=True, kw_only=True):
    """A group, its targets as lines of ``id host target_class``."""

    id: str
    targets: str
    interval_seconds: float
    poisson: bool
    window_seconds: float
    size_octets: int
    dscp: int
    dont_fragment: bool
    loss_threshold_seconds: float


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is to do. Without a ceiling it measures what this host can."""

    groups: list[GroupJob]
    line: LineSection = LineSection()
    most_probes_per_second: float | None = None


class Started(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Sockets are open and the first probes are under way."""

    targets: int
    most_probes_per_second: float


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The engine cannot do its job: `error` is ConfigError or CannotMeasureError."""

    error: str
    what: str
    remedy: str


class Said(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A line for the agent's log."""

    level: int
    text: str


class Told(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What the engine says of itself, as :class:`probes.engine.readings.EngineReadings` has it."""

    readings: dict[str, Any]


class WindowColumns(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Windows of some targets of one group: the octets of the columns, in this machine's byte order."""

    group: int
    ip_version: int
    offset_ns: int
    positions: bytes
    addresses: bytes
    known: bytes
    started_ns: bytes
    ended_ns: bytes
    status: bytes
    delays_ns: bytes
    lags_us: bytes
    duplicates: bytes
    missed: bytes


Message = Started | Refused | Said | Told | WindowColumns

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


def frame(message: Message) -> bytes:
    """The octets of one message."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


def read_messages(descriptor: int, each: Callable[[Message], None]) -> None:
    """Give every message to `each` until the other end is closed."""
    waiting = bytearray()
    while octets := os.read(descriptor, 1 << 16):
        waiting += octets
        while len(waiting) >= LENGTH.size:
            (size,) = LENGTH.unpack_from(waiting)
            if len(waiting) < LENGTH.size + size:
                break
            each(_decoder.decode(memoryview(waiting)[LENGTH.size : LENGTH.size + size].tobytes()))
            del waiting[: LENGTH.size + size]
