"""TLS servers on loopback: one that shakes hands as told, and the openssl command as another opinion."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.lab.certificate import Certificate, make_certificate
from tests.lab.peers import tcp_peer


def server_context(certificate: Certificate, alpn: Sequence[str] = ()) -> ssl.SSLContext:
    """A server's context with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


@contextmanager
def tls_peer(
    context: ssl.SSLContext,
    script: Callable[[ssl.SSLSocket], None] = lambda sock: None,
    host: str = "127.0.0.1",
) -> Iterator[int]:
    """A TLS server running `script` on each connection whose handshake succeeded; gives its port."""

    def serve(sock: socket.socket) -> None:
        # A client that refuses the certificate breaks off, which is what such a test is about.
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(sock, server_side=True) as wrapped:
            script(wrapped)
            wrapped.recv(1)

    with tcp_peer(serve, host) as port:
        yield port


@contextmanager
def tls_far_end(folder: Path) -> Iterator[int | None]:
    """A TLS server for any test, with a certificate of its own; `None` where openssl is absent."""
    if shutil.which("openssl") is None:
        yield None
        return
    with tls_peer(server_context(make_certificate(folder, "localhost", "127.0.0.1"))) as port:
        yield port


@contextmanager
def openssl_server(certificate: Certificate, *options: str) -> Iterator[int]:
    """``openssl s_server`` with `options`; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port: int = reserved.getsockname()[1]
    process = subprocess.Popen(
        [
            *("openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-quiet"),
            *("-cert", str(certificate.certificate), "-key", str(certificate.key), *options),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port)
        yield port
    finally:
        process.terminate()
        process.wait(5)
        if process.stdin:
            process.stdin.close()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        threading.Event().wait(0.02)
    raise AssertionError(f"nobody listens on port {port}")
