"""A host that answers echo requests as a test tells it: late, twice, from elsewhere, broken, forged.

It stands in a network namespace of its own whose kernel answers none. Every address of 127.0.0.0/8 is one it
can answer from.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nhip.lab.namespace import inside
from probes.packets.icmp import checksum


@dataclass(frozen=True)
class Request:
    """One echo request as it arrived."""

    number: int
    source: str
    target: str
    message: bytes
    """From the ICMP header on."""


@dataclass(frozen=True)
class Reply:
    """What to send for it. Without `message` the request is echoed unchanged."""

    after_seconds: float = 0.0
    source: str | None = None
    message: bytes | None = None
    kind: int = 0
    code: int = 0


Script = Callable[[Request], list[Reply]]


def echo(_request: Request) -> list[Reply]:
    """What every host does."""
    return [Reply()]


@contextlib.contextmanager
def scripted_echo(namespace: str, script: Script) -> Iterator[list[Request]]:
    """Answer by `script` inside the block; gives the requests that came."""
    with inside(namespace):
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sock.settimeout(0.002)
    requests: list[Request] = []
    ended = threading.Event()
    thread = threading.Thread(target=_answer, args=(sock, script, requests, ended), daemon=True)
    thread.start()
    try:
        yield requests
    finally:
        ended.set()
        thread.join()
        sock.close()


def _answer(sock: socket.socket, script: Script, requests: list[Request], ended: threading.Event) -> None:
    waiting: list[tuple[float, bytes, str]] = []
    while not ended.is_set():
        with contextlib.suppress(TimeoutError):
            packet = sock.recv(65_536)
            message = packet[(packet[0] & 15) * 4 :]
            if message[:2] == b"\x08\0":
                source, target = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
                request = Request(len(requests), source, target, message)
                requests.append(request)
                for reply in script(request):
                    at = time.monotonic() + reply.after_seconds
                    waiting.append((at, _packet(request, reply), request.source))
        now = time.monotonic()
        for _at, octets, destination in sorted(entry for entry in waiting if entry[0] <= now):
            sock.sendto(octets, (destination, 0))
        waiting = [entry for entry in waiting if entry[0] > now]


def _packet(request: Request, reply: Reply) -> bytes:
    body = (reply.message or request.message)[4:]
    head = struct.pack("!BBH", reply.kind, reply.code, 0)
    total = checksum(head + body)
    message = struct.pack("!BBH", reply.kind, reply.code, total) + body
    source = socket.inet_aton(reply.source or request.target)
    length = 20 + len(message)
    return (
        struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, 64, socket.IPPROTO_ICMP, 0)
        + source
        + socket.inet_aton(request.source)
        + message
    )
