"""Listening: one accepting thread, one thread for each connection that was admitted.

Threads with plain sockets move a file faster than an event loop in Python does, and their number is capped
anyway: more transfers at once than the line carries would make every one of them wrong.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import ssl
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Protocol

from nhip.clock import Clock, SystemClock
from nhip.errors import ConfigError
from nhip.measurement import Direction
from nhip.statistics import NANOSECONDS_PER_SECOND
from probes.metrics import MetricsPage, MetricsSection, Reading
from probes.payload import random_block
from probes.server.admission import Account, Admission
from probes.server.config import ServerConfig
from probes.server.connection import Connection, answer_head

log = logging.getLogger("nhip.server")

_BACKLOG = 128
_PAUSE_MS = 200
_REFUSED_SECONDS = 1.0
_MOST_REFUSED = 64
_CLOSE_SECONDS = 3.0


class Brick(Protocol):
    """Anything that runs beside the server in its process."""

    def start(self) -> None: ...

    def close(self) -> None: ...

    @property
    def description(self) -> str:
        """What it is, once started: addresses and limits."""

    def readings(self) -> Iterator[Reading]:
        """What the metrics page shows of it."""


class MeasurementServer:
    """Serves file transfers until it is closed."""

    def __init__(self, config: ServerConfig, clock: Clock) -> None:
        self.config = config
        self._clock = clock
        self._admission = Admission(
            clock=clock,
            max_transfers=config.max_transfers,
            max_connections=config.max_connections,
            max_connections_per_client=config.max_connections_per_client,
        )
        self._closing = threading.Event()
        self._listeners: list[socket.socket] = []
        self._tls: ssl.SSLContext | None = None
        self._acceptor: threading.Thread | None = None
        self._workers: set[threading.Thread] = set()
        # Refused connections stay open for a moment, so that the answer is read before the close.
        self._refused: deque[tuple[int, socket.socket]] = deque()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where the server listens, once started: addresses and ports."""
        return [listener.getsockname()[:2] for listener in self._listeners]

    @property
    def port(self) -> int:
        """The port of the first address."""
        return self.addresses[0][1]

    @property
    def description(self) -> str:
        """What it is, for the log: addresses and limits."""
        where = ", ".join(f"{host} port {port}" for host, port in self.addresses)
        return (
            f"file transfer{' over TLS' if self._tls else ''} on {where}, "
            f"{self.config.max_transfers} transfers and {self.config.max_connections} connections at once"
        )

    def readings(self) -> Iterator[Reading]:
        """What the server's metrics page shows of it; directions as the subscriber sees them."""
        account = self.account()
        down, up = Direction.DOWN.value, Direction.UP.value
        yield Reading("nhip_server_transfers_total", account.downloads_total, (down,))
        yield Reading("nhip_server_transfers_total", account.uploads_total, (up,))
        yield Reading("nhip_server_transfers_refused_total", account.refused_total)
        yield Reading("nhip_server_payload_bytes_total", account.octets_sent_total, (down,))
        yield Reading("nhip_server_payload_bytes_total", account.octets_received_total, (up,))

    def start(self) -> None:
        """Listen; ConfigError when an address, the port or the certificate cannot be used."""
        self._tls = _server_context(self.config)
        random_block()  # drawn before the first transfer, not during it
        try:
            for host in self.config.hosts or [""]:
                self._listeners.append(_listen(host, self.config))
        except BaseException:
            self.close()
            raise
        self._acceptor = threading.Thread(target=self._accept, name="nhip-server", daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """Stop listening and end every connection; may be called more than once."""
        self._closing.set()
        for thread in (self._acceptor, *list(self._workers)):
            if thread is not None and thread is not threading.current_thread():
                thread.join(_CLOSE_SECONDS)
        for listener in self._listeners:
            listener.close()
        while self._refused:
            self._refused.popleft()[1].close()

    def account(self) -> Account:
        """What the server is doing and has done."""
        return self._admission.account()

    def _accept(self) -> None:
        poll = select.poll()
        by_descriptor = {listener.fileno(): listener for listener in self._listeners}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLIN)
        while not self._closing.is_set():
            for descriptor, _events in poll.poll(_PAUSE_MS):
                try:
                    sock, peer = by_descriptor[descriptor].accept()
                except BlockingIOError:
                    continue
                except OSError:
                    # Out of descriptors, or the peer left before it was accepted: the others go on.
                    self._closing.wait(_PAUSE_MS / 1000)
                    continue
                self._admit(sock, str(peer[0]))
            self._forget_refused()

    def _admit(self, sock: socket.socket, host: str) -> None:
        sock.setblocking(False)
        status = self._admission.enter(host)
        if status is not None:
            self._refuse(sock, status)
            return
        worker = threading.Thread(target=self._serve, args=(sock, host), name=f"nhip-{host}", daemon=True)
        self._workers.add(worker)
        try:
            worker.start()
        except RuntimeError:
            # No more threads on this host: that is being busy too.
            self._workers.discard(worker)
            self._admission.leave(host)
            self._refuse(sock, 503)

    def _serve(self, sock: socket.socket, host: str) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Connection(
                sock,
                config=self.config,
                clock=self._clock,
                admission=self._admission,
                tls=self._tls,
                closing=self._closing,
            ).serve()
        finally:
            sock.close()
            self._admission.leave(host)
            self._workers.discard(threading.current_thread())

    def _refuse(self, sock: socket.socket, status: int) -> None:
        """Say "busy" without spending a thread on it; under TLS there is nobody to say it to."""
        if self._tls is not None or len(self._refused) >= _MOST_REFUSED:
            sock.close()
            return
        body = b"busy\n"
        head = answer_head(status, len(body), {"Retry-After": str(self.config.retry_after_seconds)})
        with suppress(OSError):
            sock.send(head + body)
            sock.shutdown(socket.SHUT_WR)
        until_ns = self._clock.mono_ns() + round(_REFUSED_SECONDS * NANOSECONDS_PER_SECOND)
        self._refused.append((until_ns, sock))

    def _forget_refused(self) -> None:
        now_ns = self._clock.mono_ns()
        while self._refused and self._refused[0][0] <= now_ns:
            self._refused.popleft()[1].close()


def run(config: ServerConfig, *, beside: Sequence[Brick] = (), metrics: MetricsSection | None = None) -> None:
    """Serve, with the bricks `beside` it, until SIGINT or SIGTERM; to be called from the main thread.

    With `metrics` a page about all of them is served too.
    """
    # A handler may interrupt this thread anywhere, so it takes no lock: it writes to a pipe.
    woken, wake = os.pipe()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: os.write(wake, b"x"))
    started: list[Brick] = []
    page = (
        None
        if metrics is None
        else MetricsPage(metrics, lambda: (reading for brick in started for reading in brick.readings()))
    )
    try:
        for brick in (MeasurementServer(config, SystemClock()), *beside):
            started.append(brick)
            brick.start()
        if page is not None:
            page.start()
        log.info(
            "server started: %s%s",
            "; ".join(brick.description for brick in started),
            f"; metrics on port {page.port}" if page else "",
        )
        os.read(woken, 1)
    finally:
        if page is not None:
            page.close()
        for brick in reversed(started):
            brick.close()
    log.info("server stopped")


def _listen(host: str, config: ServerConfig) -> socket.socket:
    """A listening socket; for no host in particular one that takes IPv6 and IPv4."""
    both = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    try:
        listener = socket.create_server(
            (host, config.port), family=family, backlog=_BACKLOG, dualstack_ipv6=both
        )
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host or 'any address'} port {config.port}: {os.strerror(error.errno or 0)}",
            remedy="choose a free port and an address of this host",
        ) from error
    listener.setblocking(False)
    if config.congestion_control:
        try:
            # Accepted sockets inherit it.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, config.congestion_control.encode())
        except OSError as error:
            listener.close()
            raise ConfigError(
                f"congestion_control: {config.congestion_control!r} is unknown to this host",
                remedy="see: sysctl net.ipv4.tcp_available_congestion_control",
            ) from error
    return listener


def _server_context(config: ServerConfig) -> ssl.SSLContext | None:
    if config.certificate_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.certificate_file, config.key_file)
    except OSError as error:
        raise ConfigError(
            f"certificate_file: {config.certificate_file} cannot be used: {error.strerror or error}",
            remedy="certificate_file and key_file must be PEM files that belong together",
        ) from error
    context.set_alpn_protocols(["http/1.1"])
    return context
