"""Connections that end: a cap on how many there are, and a deadline for every step of a request.

::

    connected ──header deadline──> headers read ──body deadline──> body read ──answer deadline──> answered
        ^                                                                                            │
        └───────────────────────────── idle deadline (keep-alive) ───────────────────────────────────┘

uvicorn waits for ever for the first request of a connection and for the rest of a body; a sender of one octet
a minute would hold its descriptor until none is left. Its parser also collects the head of a request, and the
trailer fields behind a chunked body, without end. So octets are handed to it in pieces, and what brings
neither the end of a head nor a part of a body may not exceed ``limits.header_octets``. The caps lie below
RLIMIT_NOFILE, because an accept that fails for want of descriptors makes asyncio write its log full.
"""

from __future__ import annotations

import asyncio
import resource
from asyncio import TimerHandle
from collections import Counter
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from collector.collector_config import Limits

DESCRIPTORS_FOR_THE_REST = 128
"""Files, database readers and listening sockets that must always open."""


class Gate:
    """Counts connections, in total and by source, and says which may stay."""

    def __init__(self, limits: Limits, refused: Callable[[str], None]) -> None:
        self.limits = limits
        self.refused = refused
        self.at_most = connection_cap(limits)
        self._total = 0
        self._by_source: Counter[str] = Counter()

    def enter(self, source: str | None) -> bool:
        """Whether a connection from `source` may stay; None is this host's own unix socket."""
        if self._total >= self.at_most:
            self.refused("connections")
            return False
        if source is not None:
            if self._by_source[source] >= self.limits.connections_per_source:
                self.refused("connections_of_source")
                return False
            self._by_source[source] += 1
        self._total += 1
        return True

    def leave(self, source: str | None) -> None:
        """A connection that `enter` let stay is gone."""
        self._total -= 1
        if source is not None:
            self._by_source[source] -= 1
            if not self._by_source[source]:
                del self._by_source[source]


def connection_cap(limits: Limits) -> int:
    """How many connections may be open: what is configured, but below the process's descriptors."""
    descriptors, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(limits.connections, descriptors - DESCRIPTORS_FOR_THE_REST))


def protocol_behind(gate: Gate) -> type[asyncio.Protocol]:
    """The protocol class uvicorn makes one of for each connection."""

    class DeadlineProtocol(HttpToolsProtocol):
        def __init__(
            self,
            config: Config,
            server_state: ServerState,
            app_state: dict[str, Any],
            _loop: asyncio.AbstractEventLoop | None = None,
        ) -> None:
            super().__init__(config, server_state, app_state, _loop)
            self._deadline: TimerHandle | None = None
            self._inside = False
            self._source: str | None = None
            self._head_octets = 0
            self._got_on = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._source = self.client[0] if self.client else None
            self._inside = gate.enter(self._source)
            if self._inside:
                self._within(gate.limits.header_seconds, "header_timeout")
            else:
                transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            self._clear()
            if self._inside:
                self._inside = False
                gate.leave(self._source)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
                self._within(gate.limits.header_seconds, "header_timeout")
            rest = memoryview(data)
            while rest and not self.transport.is_closing():
                room = gate.limits.header_octets - self._head_octets
                if room <= 0:
                    self._refuse_head()
                    return
                part, rest = rest[:room], rest[room:]
                self._got_on = False
                super().data_received(part)  # type: ignore[arg-type] # any buffer will do for the parser
                self._head_octets = 0 if self._got_on else self._head_octets + len(part)

        def on_body(self, body: bytes) -> None:
            self._got_on = True
            super().on_body(body)

        def on_headers_complete(self) -> None:
            self._got_on = True
            self._within(gate.limits.body_seconds, "body_timeout")
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._got_on = True
            # A request refused before its body came is answered already; what is left of it was thrown away.
            answered = self.cycle.response_complete
            self._within(
                *(_idle(gate.limits) if answered else (gate.limits.answer_seconds, "answer_timeout"))
            )
            super().on_message_complete()

        def on_response_complete(self) -> None:
            self._clear()
            super().on_response_complete()

        def timeout_keep_alive_handler(self) -> None:
            # close() would wait for ever to hand over an answer nobody reads.
            self.transport.abort()

        def _refuse_head(self) -> None:
            gate.refused("header_too_large")
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(_HEAD_TOO_LARGE)
                self.transport.close()
            else:  # An answer is under way, and this one must not end up in the middle of it.
                self.transport.abort()

        def _within(self, seconds: float, what: str) -> None:
            self._clear()
            self._deadline = self.loop.call_later(seconds, self._too_late, what)

        def _too_late(self, what: str) -> None:
            self._deadline = None
            gate.refused(what)
            self.transport.abort()

        def _clear(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return DeadlineProtocol


_HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: application/json\r\ncontent-length: 69\r\nconnection: close\r\n\r\n"
    b'{"error":"the head of the request is too large","remedy":"send less"}'
)
"""RFC 6585 section 5."""


def _idle(limits: Limits) -> tuple[float, str]:
    return limits.idle_seconds, "idle"
