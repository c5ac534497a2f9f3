"""The collector's HTTP side as a bare ASGI application: a table of routes and nothing in between.

=========================  ======  =================================================================
``/api/v1/records``        POST    one :class:`nhip.wire.Batch`, plain or gzip; answers when on disk
``/api/v1/forecasts``      POST    a JSON array of :class:`nhip.wire.LinkForecast`
``/api/v1/forecasts``      GET     the newest of each link
``/api/v1/status``         GET     :class:`nhip.status.StatusView` as JSON
``/api/sd``                GET     Prometheus HTTP service discovery
``/metrics``               GET     Prometheus text format
``/-/healthy``             GET     this process lives
``/-/ready``               GET     it also takes records
``/``, ``/vi``, ``/en``    GET     the status page
=========================  ======  =================================================================

A refusal says in JSON what was wrong and what to do. 401/403 key, 400 no batch, 409 all of it from
another access than the list says, 413 too large, 415 not JSON, 431 head too large, 429/503
come again after ``Retry-After``, 507 disk full. Nothing a GET does changes anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

import msgspec

from collector.collector_config import CollectorConfig, ProbeEntry
from collector.discovery import Group
from collector.export.prometheus import CONTENT_TYPE, Exporter
from collector.forecasts import Forecasts
from collector.ingest import Ingest, MisplacedError, OverloadedError, StrangerError
from collector.keys import bearer, key_sha256, opens
from collector.store.api import StoreFullError
from collector.unpack import TooLargeError, unpack_gzip
from nhip.errors import NhipError, StoreError, WireError
from nhip.status import Render, StatusView

log = logging.getLogger("nhip.collector.http")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none';"
        b" form-action 'none'; frame-ancestors 'none'",
    ),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One response."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `body` is read by whoever wants it."""

    method: str
    path: str
    headers: dict[bytes, bytes]
    receive: Receive


class RefusedError(Exception):
    """A request that gets `answer` instead of what it asked for; `reason` is a word for the counter."""

    def __init__(self, answer: Answer, reason: str) -> None:
        super().__init__(reason)
        self.answer = answer
        self.reason = reason


class GoneError(Exception):
    """The sender left before its body was complete."""


class Application:
    """Calls the bricks; holds no state but the octets now being received."""

    def __init__(
        self,
        config: CollectorConfig,
        ingest: Ingest,
        forecasts: Forecasts,
        exporter: Exporter,
        view: Callable[[], StatusView],
        discovery: Callable[[], list[Group]],
        ready: Callable[[], bool],
        render: Render,
    ) -> None:
        self._config = config
        self._limits = config.limits
        self._ingest = ingest
        self._forecasts = forecasts
        self._exporter = exporter
        self._view = view
        self._discovery = discovery
        self._ready = ready
        self._render = render
        self._by_key: dict[str, ProbeEntry] = {probe.key_sha256: probe for probe in config.probes}
        self._in_flight_octets = 0
        self._rendering = asyncio.Semaphore(2)
        self._routes: dict[str, dict[str, Callable[[Request], Awaitable[Answer]]]] = {
            "/api/v1/records": {"POST": self._post_records},
            "/api/v1/forecasts": {"POST": self._post_forecasts, "GET": self._get_forecasts},
            "/api/v1/status": {"GET": self._get_status},
            "/api/sd": {"GET": self._get_discovery},
            "/metrics": {"GET": self._get_metrics},
            "/-/healthy": {"GET": self._get_healthy},
            "/-/ready": {"GET": self._get_ready},
            "/": {"GET": self._get_page},
            "/vi": {"GET": self._get_page},
            "/en": {"GET": self._get_page},
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one HTTP request (ASGI 3)."""
        request = Request(scope["method"], scope["path"], dict(scope["headers"]), receive)
        try:
            answer = await self._answer(request)
        except RefusedError as refused:
            self._ingest.counters.refused[refused.reason] += 1
            answer = refused.answer
        except GoneError:
            self._ingest.counters.refused["gone"] += 1
            return
        except Exception:
            log.exception("request failed", extra={"path": request.path})
            answer = _fault(500, "the collector failed", "see its log")
        headers = [
            (b"content-type", answer.content_type.encode()),
            (b"content-length", str(len(answer.body)).encode()),
            *SECURITY_HEADERS,
            *answer.headers,
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, request: Request) -> Answer:
        methods = self._routes.get(request.path)
        if methods is None:
            return _fault(404, "no such page", "see /")
        handler = methods.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            allowed = ", ".join(sorted(methods)).encode()
            return _fault(405, f"not with {request.method}", "", ((b"allow", allowed),))
        return await handler(request)

    async def _post_records(self, request: Request) -> Answer:
        probe = self._probe_of(request)
        body = await self._read_body(request)
        try:
            acknowledgement = await asyncio.wrap_future(self._ingest.accept(probe, body))
        except WireError as error:
            raise _refusal(400, error, "malformed") from error
        except StrangerError as error:
            raise _refusal(403, error, "forbidden") from error
        except MisplacedError as error:
            log.warning("batch refused: %s", error, extra={"probe": probe.id})
            raise _refusal(409, error, "identity", self._ingest.retry_after_seconds()) from error
        except OverloadedError as error:
            status, reason = (429, "greedy") if error.one_probe else (503, "busy")
            raise _refusal(status, error, reason, error.retry_after_seconds) from error
        except StoreFullError as error:
            raise _refusal(507, error, "disk_full", self._ingest.retry_after_seconds()) from error
        except StoreError as error:
            raise _refusal(503, error, "store", self._ingest.retry_after_seconds()) from error
        return Answer(200, msgspec.json.encode(acknowledgement))

    async def _post_forecasts(self, request: Request) -> Answer:
        _refuse_browsers(request)
        if not opens(bearer(request.headers.get(b"authorization")), self._config.forecast_key_sha256):
            raise _unauthorised("this key publishes no forecasts", "set forecast_key_sha256 to its hash")
        body = await self._read_body(request)
        try:
            published = await asyncio.to_thread(self._forecasts.publish, body)
        except WireError as error:
            raise _refusal(400, error, "malformed") from error
        except StoreError as error:
            raise _refusal(503, error, "store", self._ingest.retry_after_seconds()) from error
        return Answer(200, msgspec.json.encode(published))

    async def _get_forecasts(self, request: Request) -> Answer:
        self._check_reader(request)
        return Answer(200, msgspec.json.encode(self._forecasts.current()))

    async def _get_status(self, request: Request) -> Answer:
        self._check_reader(request)
        async with self._rendering:
            return Answer(200, msgspec.json.encode(await asyncio.to_thread(self._view)))

    async def _get_discovery(self, request: Request) -> Answer:
        self._check_reader(request)
        return Answer(200, msgspec.json.encode(self._discovery()))

    async def _get_metrics(self, request: Request) -> Answer:
        self._check_reader(request)
        packed = b"gzip" in request.headers.get(b"accept-encoding", b"")
        async with self._rendering:
            page = await asyncio.to_thread(self._exporter.page, compressed=packed)
        return Answer(200, page, CONTENT_TYPE, ((b"content-encoding", b"gzip"),) if packed else ())

    async def _get_healthy(self, request: Request) -> Answer:
        return Answer(200, b"healthy\n", TEXT)

    async def _get_ready(self, request: Request) -> Answer:
        return Answer(200, b"ready\n", TEXT) if self._ready() else Answer(503, b"not ready\n", TEXT)

    async def _get_page(self, request: Request) -> Answer:
        self._check_reader(request)
        accepted = request.headers.get(b"accept-language", b"").decode("latin-1")
        language = request.path[1:] or preferred_language(accepted)
        async with self._rendering:
            page = await asyncio.to_thread(self._draw, language)
        return Answer(200, page, HTML, ((b"content-language", language.encode()),))

    def _draw(self, language: str) -> bytes:
        return self._render(self._view(), language).encode()

    def _probe_of(self, request: Request) -> ProbeEntry:
        _refuse_browsers(request)
        presented = bearer(request.headers.get(b"authorization"))
        probe = self._by_key.get(key_sha256(presented)) if presented else None
        if probe is None or not opens(presented, probe.key_sha256):
            raise _unauthorised("no probe has this key", "add its hash to a [[probe]] of collector.toml")
        return probe

    def _check_reader(self, request: Request) -> None:
        wanted = self._config.listen.read_key_sha256
        if wanted is not None and not opens(bearer(request.headers.get(b"authorization")), wanted):
            raise _unauthorised("reading needs a key", "send the key behind listen.read_key_sha256")

    async def _read_body(self, request: Request) -> bytes:
        """The unpacked body; everything that bounds it raises RefusedError."""
        content_type = request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        coding = request.headers.get(b"content-encoding", b"identity").strip().lower()
        if content_type != b"application/json":
            raise _refused(415, "the body is not application/json", "send JSON", "unsupported")
        if coding not in (b"identity", b"gzip"):
            raise _refused(415, "the body is neither plain nor gzip", "use gzip", "unsupported")
        body = await self._receive(request)
        if coding == b"identity":
            return body
        try:
            return unpack_gzip(body, at_most=self._limits.unpacked_octets, ratio=self._limits.unpacked_ratio)
        except TooLargeError as error:
            raise _refusal(413, error, "too_large") from error
        except WireError as error:
            raise _refusal(400, error, "malformed") from error

    async def _receive(self, request: Request) -> bytes:
        limits, announced = self._limits, request.headers.get(b"content-length", b"0")
        too_large = _refused(
            413, f"more than {limits.body_octets} octets", "send smaller batches", "too_large", close=True
        )
        if not announced.isdigit() or int(announced) > limits.body_octets:
            raise too_large
        chunks: list[bytes] = []
        octets = 0
        try:
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise GoneError
                chunk: bytes = message.get("body", b"")
                octets += len(chunk)
                self._in_flight_octets += len(chunk)
                if octets > limits.body_octets:
                    raise too_large
                if self._in_flight_octets > limits.in_flight_octets:
                    wait = self._ingest.retry_after_seconds()
                    raise _refused(
                        503, "too much is arriving at once", f"send again in {wait} s", "busy", wait
                    )
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
        finally:
            self._in_flight_octets -= octets


def preferred_language(accept_language: str) -> str:
    """``vi`` or ``en``, whichever an Accept-Language header (RFC 9110 section 12.5.4) wants more; ``vi``."""
    weights = {"vi": 0.0, "en": 0.0}
    for part in accept_language.split(","):
        tag, _, parameter = part.strip().partition(";")
        language = tag.strip().lower().partition("-")[0]
        name, _, value = parameter.strip().partition("=")
        try:
            weight = float(value) if name == "q" else 1.0
        except ValueError:
            continue
        if language in weights:
            weights[language] = max(weights[language], weight)
    return "en" if weights["en"] > weights["vi"] else "vi"


def _refuse_browsers(request: Request) -> None:
    """No web page sends records: a request with an Origin comes from one, and is somebody else's idea."""
    if b"origin" in request.headers:
        raise _refused(403, "not from a web page", "send without Origin", "forbidden")


def _fault(status: int, what: str, remedy: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> Answer:
    return Answer(status, msgspec.json.encode({"error": what, "remedy": remedy}), JSON, tuple(headers))


def _refused(
    status: int, what: str, remedy: str, reason: str, retry_after: int | None = None, *, close: bool = False
) -> RefusedError:
    headers = [] if retry_after is None else [(b"retry-after", str(retry_after).encode())]
    if close:
        headers.append((b"connection", b"close"))
    return RefusedError(_fault(status, what, remedy, headers), reason)


def _refusal(status: int, error: NhipError, reason: str, retry_after: int | None = None) -> RefusedError:
    return _refused(status, error.what, error.remedy, reason, retry_after)


def _unauthorised(what: str, remedy: str) -> RefusedError:
    return RefusedError(_fault(401, what, remedy, ((b"www-authenticate", b"Bearer"),)), "unauthorised")
