"""A collector that fails as it is told: what a probe's delivery must survive.

It keeps what it "stored", which is not always what it acknowledged; a test compares both with the spool.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any


class Act(StrEnum):
    """What becomes of one delivery."""

    OK = "stored and acknowledged"
    LOSE_ANSWER = "stored, but the connection breaks before the acknowledgement"
    WRONG_HASH = "answered 200 with the hash of another batch"
    PORTAL = "answered 200 with a log-in page by somebody in between"
    REDIRECT = "answered 302 to a log-in page"
    BUSY = "answered 503 with Retry-After"
    UNKNOWN_KEY = "answered 401"
    RESET = "the connection is reset before anything is read"
    HALF_ANSWER = "the connection closes in the middle of the answer"
    HANG = "nothing is ever answered"
    NOT_HTTP = "answered with octets that are no HTTP"
    DEEP_JSON = "answered 200 with arrays nested without end"
    CLOSE_AFTER = "stored and acknowledged, then the idle connection is closed"


class ScriptedCollector:
    """Plays `script`, one act for each delivery; after it every delivery is stored and acknowledged.

    `judge` may refuse a batch by what is in it: it gives the status to answer with, or `None`.
    """

    def __init__(
        self,
        script: Iterable[Act] = (),
        *,
        tls: ssl.SSLContext | None = None,
        unix: Path | None = None,
        retry_after: str = "0",
        judge: Callable[[dict[str, Any]], int | None] = lambda batch: None,
    ) -> None:
        self._script: Iterator[Act] = iter(script)
        self._tls, self._unix, self._retry_after = tls, unix, retry_after
        self._judge = judge
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self.stored: list[dict[str, Any]] = []
        self.acts: list[Act] = []
        self.batches: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.port = 0

    def __enter__(self) -> ScriptedCollector:
        if self._unix:
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listener.bind(str(self._unix))
            self._listener.listen()
        else:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.port = self._listener.getsockname()[1]
        self._listener.settimeout(0.05)
        self._begin(self._accept)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(10)
        self._listener.close()

    @property
    def url(self) -> str:
        if self._unix:
            return f"unix://{self._unix}"
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    def stored_ids(self) -> list[str]:
        """The record ids as stored, repeated where a delivery was repeated."""
        with self._lock:
            return [record["record_id"] for record in self.stored]

    def _begin(self, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                sock, _address = self._listener.accept()
                self.connections += 1
                self._begin(self._serve, sock)

    def _serve(self, raw: socket.socket) -> None:
        raw.settimeout(30)
        with contextlib.closing(raw), contextlib.suppress(OSError, ssl.SSLError):
            sock = self._tls.wrap_socket(raw, server_side=True) if self._tls else raw
            with self._lock:
                self._open.append(sock)
            with contextlib.closing(sock):
                while not self._stop.is_set() and self._one(sock):
                    pass

    def _one(self, sock: socket.socket) -> bool:
        """Play one act; True when the connection stays."""
        with contextlib.closing(sock.makefile("rb")) as reader:
            if not reader.readline():
                return False
            headers: dict[str, str] = {}
            while (line := reader.readline().strip()) != b"":
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            with self._lock:
                act = next(self._script, Act.OK)
                self.acts.append(act)
                self.headers.append(headers)
            if act is Act.RESET:
                # A close with zero linger sends a reset.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                return False
            body = gzip.decompress(reader.read(int(headers["content-length"])))
        batch = json.loads(body)
        refused = self._judge(batch)
        with self._lock:
            self.batches.append(batch)
            if refused is None and act in (Act.OK, Act.LOSE_ANSWER, Act.CLOSE_AFTER):
                self.stored += batch["records"]
        if refused is not None:
            sock.sendall(f"HTTP/1.1 {refused} X\r\nContent-Length: 2\r\n\r\nno".encode())
            return True
        return self._answer(sock, act, body, batch)

    def _answer(self, sock: socket.socket, act: Act, body: bytes, batch: dict[str, Any]) -> bool:
        import hashlib

        good = {
            "batch_sha256": hashlib.sha256(body).hexdigest(),
            "stored": len(batch["records"]),
            "duplicate": 0,
        }
        if act is Act.HANG:
            self._stop.wait(30)
            return False
        if act is Act.LOSE_ANSWER:
            return False
        if act is Act.NOT_HTTP:
            sock.sendall(b"\x16\x03\x01 hello\r\n\r\n")
            return False
        if act is Act.HALF_ANSWER:
            sock.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"batch')
            return False
        answers = {
            Act.WRONG_HASH: (200, json.dumps({**good, "batch_sha256": "0" * 64}), {}),
            Act.PORTAL: (200, "<!DOCTYPE html><title>Đăng nhập Wi-Fi</title>", {"Content-Type": "text/html"}),
            Act.REDIRECT: (302, "", {"Location": "http://portal.example/"}),
            Act.BUSY: (503, "busy", {"Retry-After": self._retry_after}),
            Act.UNKNOWN_KEY: (401, "unknown key", {}),
            Act.DEEP_JSON: (200, "[" * 100_000, {}),
        }
        status, text, extra = answers.get(act, (200, json.dumps(good), {}))
        content = text.encode()
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in extra.items()]
        sock.sendall("\r\n".join([*lines, "", ""]).encode() + content)
        return act is not Act.CLOSE_AFTER
