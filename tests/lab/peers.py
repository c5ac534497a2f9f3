"""Scripted peers on loopback: servers that do exactly what a test tells them, lies included."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PAUSE_SECONDS = 0.05


@contextmanager
def tcp_peer(script: Callable[[socket.socket], None], host: str = "127.0.0.1") -> Iterator[int]:
    """A TCP server running `script` on each connection; gives its port. A peer that leaves is no error."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family)
    stop = threading.Event()
    failures: list[Exception] = []

    def run(sock: socket.socket) -> None:
        with contextlib.closing(sock), contextlib.suppress(OSError):
            try:
                script(sock)
            except OSError:
                raise
            except Exception as error:  # shown by the test that owns the peer
                failures.append(error)

    def accept() -> None:
        threads = []
        while not stop.is_set():
            if select.select([listener], [], [], PAUSE_SECONDS)[0]:
                sock, _peer = listener.accept()
                sock.settimeout(20)
                threads.append(threading.Thread(target=run, args=(sock,), daemon=True))
                threads[-1].start()
        for thread in threads:
            thread.join(5)

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        acceptor.join(10)
        listener.close()
    assert not failures, failures


@contextmanager
def udp_peer(
    script: Callable[[socket.socket, bytes, tuple[str, int]], None], host: str = "127.0.0.1"
) -> Iterator[int]:
    """A UDP server calling `script` with each datagram; gives its port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    stop = threading.Event()
    failures: list[Exception] = []

    def serve() -> None:
        while not stop.is_set():
            if not select.select([sock], [], [], PAUSE_SECONDS)[0]:
                continue
            try:
                data, peer = sock.recvfrom(65_535)
                script(sock, data, peer)
            except OSError:
                continue
            except Exception as error:  # shown by the test that owns the peer
                failures.append(error)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield sock.getsockname()[1]
    finally:
        stop.set()
        thread.join(10)
        sock.close()
    assert not failures, failures


def closed_port(kind: socket.SocketKind, host: str = "127.0.0.1") -> int:
    """A port nobody listens on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind) as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
    return port


def read_head(sock: socket.socket) -> bytes:
    """The octets of a request up to and including its empty line, and what came with them."""
    octets = b""
    while b"\r\n\r\n" not in octets:
        part = sock.recv(65_536)
        if not part:
            return octets
        octets += part
    return octets
