"""An HTTP/3 server on loopback: aioquic's own, in a thread with its own event loop."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest

from tests.lab.certificate import Certificate

Fields = list[tuple[bytes, bytes]]
Script = Callable[[Any, int, Fields], None]
"""Called with the connection's protocol (`http`, `_quic`, `transmit`), the stream and the request's head."""


@contextmanager
def http3_server(
    script: Script,
    certificate: Certificate,
    host: str = "127.0.0.1",
    *,
    alpn: tuple[str, ...] = ("h3",),
    where: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Iterator[int]:
    """Calls `script` with each request; gives the UDP port. Its thread runs inside `where`."""
    pytest.importorskip("aioquic", reason="aioquic is not installed (extra http3)")
    from aioquic.asyncio import QuicConnectionProtocol, serve
    from aioquic.h3.connection import H3Connection
    from aioquic.h3.events import HeadersReceived
    from aioquic.quic.configuration import QuicConfiguration

    failures: list[Exception] = []

    class Protocol(QuicConnectionProtocol):
        http: H3Connection | None = None

        def quic_event_received(self, event: object) -> None:
            if self.http is None:
                self.http = H3Connection(self._quic)
            for found in self.http.handle_event(event):
                if isinstance(found, HeadersReceived):
                    try:
                        script(self, found.stream_id, found.headers)
                    except Exception as error:  # shown by the test that owns the server
                        failures.append(error)
                    self.transmit()

    configuration = QuicConfiguration(is_client=False, alpn_protocols=list(alpn))
    configuration.load_cert_chain(certificate.certificate, certificate.key)
    with where():
        port = _free_port(host)
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        server = await serve(host, port, configuration=configuration, create_protocol=Protocol)
        ready.set()
        await stop.wait()
        server.close()
        # The loop closes the socket in its next round.
        await asyncio.sleep(0)

    def work() -> None:
        with where(), asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert ready.wait(10), "the HTTP/3 server did not start"
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
    assert not failures, failures


def respond(protocol: Any, stream_id: int, fields: Fields, body: bytes = b"") -> None:
    """A whole answer."""
    protocol.http.send_headers(stream_id, fields, end_stream=not body)
    if body:
        protocol.http.send_data(stream_id, body, end_stream=True)


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
    return port
