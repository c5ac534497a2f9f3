"""One connection to the measurement server: read one request, answer it, close.

::

    accepted ──TLS──► head read ──► GET /v1/file ──► octets out ──► closed
        │               │      └──► POST /v1/file ──► octets in ──► receipt ──► lingering ──► closed
        └── head_seconds over ──► closed          (stall_seconds, transfer_seconds over ──► closed)

Each arrow has a deadline that no peer can move. h11 parses the head, which is all that an attacker can
shape; the file's octets are read and written as they are.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from urllib.parse import parse_qs, urlsplit

import h11
import msgspec

from nhip.clock import Clock
from nhip.errors import CannotMeasureError
from nhip.measurement import Direction, Outcome
from nhip.statistics import NANOSECONDS_PER_SECOND
from probes.payload import pieces
from probes.server.admission import Admission
from probes.server.config import ServerConfig
from probes.stream import Stream, StreamError
from probes.transfer_protocol import (
    CONGESTION_FIELD,
    FILE_PATH,
    FORMAT,
    FORMAT_FIELD,
    STATUS_PATH,
    Receipt,
)

_BUFFER_OCTETS = 262_144
_HEAD_BUFFER_OCTETS = 16_384
_LINGER_SECONDS = 2.0
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    411: "Length Required",
    413: "Content Too Large",
    429: "Too Many Requests",
    503: "Service Unavailable",
}


class Connection:
    """Serves one accepted socket in the caller's thread."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        config: ServerConfig,
        clock: Clock,
        admission: Admission,
        tls: ssl.SSLContext | None,
        closing: threading.Event,
    ) -> None:
        self._config = config
        self._clock = clock
        self._admission = admission
        self._tls = tls
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BUFFER_OCTETS)
        self._first_octet_ns = 0
        self._stream = Stream(
            sock,
            clock=clock,
            deadline_ns=self._after(config.head_seconds),
            cancelled=closing,
            idle_seconds=config.stall_seconds,
        )

    def serve(self) -> None:
        """Return when the connection is over, whatever its peer did."""
        with self._stream, suppress(StreamError, CannotMeasureError):
            if self._tls is not None:
                self._stream.start_tls(self._tls)
            try:
                request = self._read_head()
            except h11.RemoteProtocolError as error:
                self._answer(error.error_status_hint, "no request\n")
                self._linger()
                return
            if request is not None:
                self._stream.deadline_ns = self._after(self._config.transfer_seconds)
                self._route(request)

    def _read_head(self) -> h11.Request | None:
        """The request's head; ``None`` when the peer left without one."""
        buffer = memoryview(bytearray(_HEAD_BUFFER_OCTETS))
        while True:
            event = self._parser.next_event()
            if isinstance(event, h11.Request):
                return event
            if event is not h11.NEED_DATA:
                return None
            count = self._stream.receive_into(buffer)
            if not self._first_octet_ns:
                self._first_octet_ns = self._clock.mono_ns()
            self._parser.receive_data(bytes(buffer[:count]))

    def _route(self, request: h11.Request) -> None:
        method = request.method.decode("ascii")
        place = urlsplit(request.target.decode("ascii", "replace"))
        allowed = {FILE_PATH: ("GET", "POST"), STATUS_PATH: ("GET",), "/": ("GET",)}.get(place.path)
        if allowed is None:
            self._answer(404, "no such path\n")
        elif method not in allowed:
            self._answer(405, "method not allowed\n", {"Allow": ", ".join(allowed)})
        elif place.path == FILE_PATH:
            self._file(request, place.query)
            return
        elif place.path == STATUS_PATH:
            account = asdict(self._admission.account())
            account["max_transfers"] = self._config.max_transfers
            self._answer(200, msgspec.json.encode(account).decode(), {"Content-Type": "application/json"})
        else:
            self._answer(200, "ok\n")
        self._linger()

    def _file(self, request: h11.Request, query: str) -> None:
        download = request.method == b"GET"
        octets = _wanted(query) if download else _announced(request)
        refusal = None
        if octets is None:
            refusal = (400, "octets must be a number\n") if download else (411, "announce Content-Length\n")
        elif not 1 <= octets <= self._config.max_octets:
            refusal = (413, f"from 1 to {self._config.max_octets} octets\n")
        if octets is None or refusal is not None:
            self._answer(*(refusal or (400, "")))
            self._linger()
            return
        if not self._admission.begin_transfer(Direction.DOWN if download else Direction.UP):
            self._answer(503, "busy\n", {"Retry-After": str(self._config.retry_after_seconds)})
            self._linger()
            return
        whole = False
        try:
            if download:
                self._send_file(octets)
            else:
                self._receive_file(octets)
            whole = True
        finally:
            self._admission.end_transfer(whole=whole)

    def _send_file(self, octets: int) -> None:
        self._stream.send(self._head(200, octets, {"Content-Type": "application/octet-stream"}))
        for piece in pieces(octets, _BUFFER_OCTETS):
            self._stream.send(piece)
            self._admission.moved(Direction.DOWN, len(piece))
        self._stream.finish_sending()
        # The place is taken until the client has everything, not until the socket buffer has.
        with suppress(StreamError):
            self._drain()

    def _receive_file(self, octets: int) -> None:
        if self._parser.they_are_waiting_for_100_continue:
            self._stream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        received = min(len(self._parser.trailing_data[0]), octets)
        self._admission.moved(Direction.UP, received)
        buffer = memoryview(bytearray(_BUFFER_OCTETS))
        while received < octets:
            count = self._stream.receive_into(buffer[: octets - received])
            if count == 0:
                raise StreamError(Outcome.TRUNCATED, f"{received} of {octets} octets")
            received += count
            self._admission.moved(Direction.UP, count)
        duration_ns = self._clock.mono_ns() - self._first_octet_ns
        receipt = Receipt(octets=received, duration_ns=duration_ns)
        self._answer(200, msgspec.json.encode(receipt).decode(), {"Content-Type": "application/json"})
        self._linger()

    def _answer(self, status: int, body: str, fields: Mapping[str, str] | None = None) -> None:
        octets = body.encode()
        self._stream.send(self._head(status, len(octets), fields or {}) + octets)
        self._stream.finish_sending()

    def _head(self, status: int, length: int, fields: Mapping[str, str]) -> bytes:
        return answer_head(
            status,
            length,
            {CONGESTION_FIELD: self._stream.info().congestion_control, **fields},
        )

    def _linger(self) -> None:
        """Read on for a moment: closing with octets unread would reset the connection over the answer."""
        self._stream.deadline_ns = self._after(_LINGER_SECONDS)
        self._drain()

    def _drain(self) -> None:
        buffer = memoryview(bytearray(_BUFFER_OCTETS))
        while self._stream.receive_into(buffer):
            pass

    def _after(self, seconds: float) -> int:
        return self._clock.mono_ns() + round(seconds * NANOSECONDS_PER_SECOND)


def answer_head(status: int, length: int, fields: Mapping[str, str]) -> bytes:
    """The head of an answer with a body of `length` octets, after which the connection closes."""
    lines = [
        f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}",
        f"Content-Length: {length}",
        "Connection: close",
        "Cache-Control: no-store, no-transform",
        f"{FORMAT_FIELD}: {FORMAT}",
        *(f"{name}: {value}" for name, value in fields.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _wanted(query: str) -> int | None:
    return _number(parse_qs(query).get("octets", [""])[0])


def _announced(request: h11.Request) -> int | None:
    fields = dict(request.headers)
    if b"transfer-encoding" in fields:
        return None
    return _number(fields.get(b"content-length", b"").decode("latin-1"))


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None
