"""Our STAMP reflector for tests, its clients, and requests to put to it."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from nhip.clock import Clock, SystemClock
from probes.packets import stamp, stamp_auth, stamp_tlv
from probes.reflector import Reflector, ReflectorSettings

ESTIMATE = stamp.ErrorEstimate(False, 0, 1)
KEY = b"0123456789abcdef0123456789abcdef"
SESSION_ID = 5


@contextlib.contextmanager
def running(
    host: str = "127.0.0.1", *, clock: Clock | None = None, packets_per_second: float = 1e6, **settings: Any
) -> Iterator[Reflector]:
    """A started reflector; `settings` are those of :class:`ReflectorSettings`."""
    reflector = Reflector(
        host,
        0,
        clock=clock or SystemClock(),
        packets_per_second=packets_per_second,
        settings=ReflectorSettings(**settings),
    )
    reflector.start()
    try:
        yield reflector
    finally:
        reflector.close()


@contextlib.contextmanager
def client(reflector: Reflector, host: str = "127.0.0.1", port: int = 0) -> Iterator[socket.socket]:
    """A socket on `host` connected to the reflector."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, port))
        bound, reflector_port = reflector.address
        sock.connect((host if bound in ("::", "0.0.0.0") else bound, reflector_port))  # noqa: S104
        sock.settimeout(2)
        yield sock


def sender_packet(
    sequence: int = 0, *, wall_ns: int | None = None, session_id: int = SESSION_ID
) -> stamp.SenderPacket:
    """What a sender says now."""
    return stamp.SenderPacket(
        sequence=sequence,
        sent_wall_ns=time.time_ns() if wall_ns is None else wall_ns,
        error=ESTIMATE,
        session_id=session_id,
    )


def request(sequence: int = 0, octets: int = 44, **more: Any) -> bytes:
    """An unauthenticated request, Extra Padding making it as long as `octets`; TWAMP padding below 48."""
    packed = stamp.pack_sender(sender_packet(sequence, **more))
    spare = octets - len(packed)
    if spare < stamp_tlv.HEADER_OCTETS:
        return packed.ljust(octets, b"\0")
    return packed + stamp_tlv.pack([stamp_tlv.padding(random.randbytes(spare - stamp_tlv.HEADER_OCTETS))])


def extended(*tlvs: stamp_tlv.Tlv, sequence: int = 0, **more: Any) -> bytes:
    """An unauthenticated request with extensions."""
    return stamp.pack_sender(sender_packet(sequence, **more)) + stamp_tlv.pack(tlvs)


def signed(sequence: int = 0, *tlvs: stamp_tlv.Tlv, key: bytes = KEY, **more: Any) -> bytes:
    """An authenticated request with signed extensions."""
    octets = stamp_auth.pack_sender(sender_packet(sequence, **more), key)
    return octets + (stamp_tlv.pack(tlvs, sequence=sequence, key=key) if tlvs else b"")


def asked(sock: socket.socket, octets: bytes) -> bytes:
    """The answer to a request."""
    sock.send(octets)
    return sock.recv(65_536)


def silent(sock: socket.socket, octets: bytes, seconds: float = 0.1) -> bool:
    """Whether a request gets no answer."""
    sock.settimeout(seconds)
    try:
        asked(sock, octets)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(2)
    return False


def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Return when `condition` holds; AssertionError when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.002)
