"""Questions in HTTP requests (RFC 8484): HTTP/2 where the server agrees to it, else HTTP/1.1.

Parsers are h2 and h11; the octets come from the probe's own stream, so that who sent what when is known here.
A redirect is not followed: a resolver that moves elsewhere is another resolver.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import TYPE_CHECKING

from nhip import __version__
from nhip.measurement import Outcome
from probes.dns.config import DnsConfig
from probes.dns.question import LONGEST_MESSAGE_OCTETS
from probes.stream import Stream, StreamError

if TYPE_CHECKING:
    import h2.events

MEDIA_TYPE = "application/dns-message"
_BUFFER_OCTETS = 65_536
_LONGEST_HEAD_OCTETS = 65_536
# A server may send for ever what belongs to no answer: interim heads, pings, settings, padding.
_MOST_OCTETS_BESIDE_ANSWER = 1_048_576
_MOST_INTERIM_HEADS = 16
# Of a frame's header: where its type stands, and that of SETTINGS (RFC 9113 sections 4.1 and 6.5).
_TYPE_OCTET, _SETTINGS = 3, 4
_CLOSED = "closed without an answer"


class Http2Channel:
    """One HTTP/2 connection (RFC 9113); each message is a stream of it."""

    http_version = "2"

    def __init__(self, stream: Stream, config: DnsConfig, authority: str) -> None:
        import h2.config
        import h2.connection
        import h2.settings

        from probes.http.http2 import Frames

        self._stream = stream
        self._config = config
        self._authority = authority
        self._parser = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="latin-1"))
        self._parser.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: _LONGEST_HEAD_OCTETS,
            },
        )
        self._buffer = memoryview(bytearray(_BUFFER_OCTETS))
        self._frames = Frames()
        self._begun = False
        self._deaf = False
        self._stream_id = 0
        self._preface = b""

    def send(self, message: bytes) -> None:
        import h2.exceptions

        if self._frames.leaving:
            # Without an error the server only lets what was asked finish (RFC 9113 section 6.8).
            raise StreamError(Outcome.RESET, _CLOSED)
        self._frames.octets_beside_body = 0
        if not self._begun:
            # Preface, settings and the first question leave together; nothing has to be waited for.
            self._parser.initiate_connection()
            self._begun = True
        method, path, body = _request(self._config, message)
        try:
            self._stream_id = self._parser.get_next_available_stream_id()
            self._parser.send_headers(
                self._stream_id,
                [
                    (":method", method),
                    (":scheme", "https"),
                    (":authority", self._authority),
                    (":path", path),
                    *_fields(body),
                ],
                end_stream=not body,
            )
            if body:
                self._parser.send_data(self._stream_id, body, end_stream=True)
        except h2.exceptions.ProtocolError as error:
            raise StreamError(Outcome.RESET, f"HTTP/2 {type(error).__name__}") from error
        self._stream.send(self._parser.data_to_send())

    def receive(self) -> bytes:
        import h2.events

        from probes.http.http2 import head_of

        body = bytearray()
        answered = ended = False
        interim = 0
        while not ended:
            for event in self._read(anything=answered):
                ours = getattr(event, "stream_id", None) == self._stream_id
                if isinstance(event, h2.events.ResponseReceived) and ours:
                    head = head_of(list(event.headers or []))
                    _check_head(head.status, head.fields.get("content-type", ""))
                    answered = True
                elif isinstance(event, h2.events.InformationalResponseReceived) and ours:
                    interim += 1
                    _check_interim(interim)
                elif isinstance(event, h2.events.DataReceived):
                    octets, part = (
                        event.flow_controlled_length or 0,
                        bytes(event.data or b"") if ours else b"",
                    )
                    self._parser.acknowledge_received_data(octets, event.stream_id or 0)
                    self._frames.octets_beside_body += octets - len(part)
                    body += part
                    _check_length(len(body))
                elif isinstance(event, h2.events.StreamEnded) and ours:
                    ended = True
                elif not ended:
                    self._check_alive(event)
            self._flush()
        if not answered:
            raise StreamError(Outcome.CORRUPT, "no HTTP answer")
        return bytes(body)

    def _read(self, *, anything: bool) -> list[h2.events.Event]:
        """What the server said next; `anything` tells whether its answer has begun."""
        import h2.exceptions

        count = self._stream.receive_into(self._buffer)
        if count == 0:
            raise _closed_early(anything)
        self._check_preface(self._buffer[:count])
        octets = self._frames.whole(bytes(self._buffer[:count]), self._stream_id)
        _check_beside(self._frames.octets_beside_body)
        try:
            return self._parser.receive_data(octets)
        except (h2.exceptions.ProtocolError, ValueError) as error:
            raise StreamError(Outcome.CORRUPT, f"no HTTP/2: {type(error).__name__}") from error

    def _check_preface(self, octets: memoryview) -> None:
        """The server's first frame is SETTINGS (RFC 9113 section 3.4).

        The parser would take other octets for the length of a frame and wait for it until the deadline.
        """
        if len(self._preface) <= _TYPE_OCTET:
            self._preface += bytes(octets[: _TYPE_OCTET + 1])
            if len(self._preface) > _TYPE_OCTET and self._preface[_TYPE_OCTET] != _SETTINGS:
                raise StreamError(Outcome.CORRUPT, "no HTTP/2")

    def _check_alive(self, event: h2.events.Event) -> None:
        import h2.events

        if isinstance(event, h2.events.StreamReset) and event.stream_id == self._stream_id:
            raise StreamError(Outcome.RESET, f"HTTP/2 stream reset, error {int(event.error_code or 0)}")
        if isinstance(event, h2.events.ConnectionTerminated):
            # Without an error the server is only leaving (RFC 9113 section 6.8), as if it had closed.
            detail = f"HTTP/2 error {int(event.error_code)}" if event.error_code else _CLOSED
            raise StreamError(Outcome.RESET, detail)

    def _flush(self) -> None:
        """Send what the protocol itself has to say: acknowledged settings, pings, window updates."""
        octets = self._parser.data_to_send()
        if not octets or self._deaf:
            return
        try:
            self._stream.send(octets)
        except StreamError as error:
            # The server may have closed its reading end with the whole answer still on its way to us.
            if error.outcome is not Outcome.RESET:
                raise
            self._deaf = True


class Http1Channel:
    """One HTTP/1.1 connection (RFC 9112)."""

    http_version = "1.1"

    def __init__(self, stream: Stream, config: DnsConfig, authority: str) -> None:
        import h11

        self._stream = stream
        self._config = config
        self._authority = authority
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST_HEAD_OCTETS)
        self._buffer = memoryview(bytearray(_BUFFER_OCTETS))
        self._anything = False
        self._ended = False
        self._octets = 0

    def send(self, message: bytes) -> None:
        import h11

        method, path, body = _request(self._config, message)
        try:
            if self._parser.our_state is not h11.IDLE:
                self._parser.start_next_cycle()
            octets = self._parser.send(
                h11.Request(method=method, target=path, headers=[("host", self._authority), *_fields(body)])
            )
            if body:
                octets = (octets or b"") + (self._parser.send(h11.Data(data=body)) or b"")
            self._parser.send(h11.EndOfMessage())
        except h11.LocalProtocolError as error:
            # The answer before this one ended the connection ("Connection: close").
            raise StreamError(Outcome.RESET, _CLOSED) from error
        self._anything = False
        self._octets = 0
        self._stream.send(octets or b"")

    def receive(self) -> bytes:
        import h11

        body = bytearray()
        interim = 0
        while True:
            event = self._next_event()
            _check_beside(self._octets - len(body))
            if isinstance(event, h11.Response):
                _check_head(event.status_code, _text_fields(event.headers).get("content-type", ""))
            elif isinstance(event, h11.Data):
                body += event.data
                _check_length(len(body))
            elif isinstance(event, h11.EndOfMessage):
                return bytes(body)
            elif isinstance(event, h11.InformationalResponse):
                interim += 1
                _check_interim(interim)
            else:
                raise _closed_early(self._anything)

    def _next_event(self) -> object:
        import h11

        while True:
            try:
                event = self._parser.next_event()
            except h11.RemoteProtocolError as error:
                raise (
                    _closed_early(self._anything)
                    if self._ended
                    else StreamError(Outcome.CORRUPT, "no HTTP answer")
                ) from error
            if event is not h11.NEED_DATA:
                return event
            count = self._stream.receive_into(self._buffer)
            # The end of the connection is the end of a body without a length (RFC 9112 section 6.3).
            self._ended = count == 0
            self._anything = self._anything or not self._ended
            self._octets += count
            _check_beside(self._octets - LONGEST_MESSAGE_OCTETS)
            self._parser.receive_data(bytes(self._buffer[:count]))


def _request(config: DnsConfig, message: bytes) -> tuple[str, str, bytes]:
    """Method, path and body (RFC 8484 section 4.1)."""
    if config.http_method == "POST":
        return "POST", config.path, message
    encoded = base64.urlsafe_b64encode(message).rstrip(b"=").decode()
    return "GET", f"{config.path}{'&' if '?' in config.path else '?'}dns={encoded}", b""


def _fields(body: bytes) -> list[tuple[str, str]]:
    fields = [("accept", MEDIA_TYPE), ("user-agent", f"nhip/{__version__}")]
    if body:
        fields += [("content-type", MEDIA_TYPE), ("content-length", str(len(body)))]
    return fields


def _text_fields(fields: Iterable[tuple[bytes | str, bytes | str]]) -> dict[str, str]:
    def text(value: bytes | str) -> str:
        return value if isinstance(value, str) else value.decode("latin-1")

    return {text(name): text(value) for name, value in fields}


def _check_head(status: int, content_type: str) -> None:
    if not 200 <= status < 300:
        raise StreamError(Outcome.REJECTED, f"HTTP {status}")
    found = content_type.partition(";")[0].strip().lower()
    if found != MEDIA_TYPE:
        shown = "".join(letter if letter.isprintable() else "?" for letter in found)[:100]
        raise StreamError(Outcome.CORRUPT, f"content type {shown or 'missing'}")


def _check_beside(octets: int) -> None:
    if octets > _MOST_OCTETS_BESIDE_ANSWER:
        raise StreamError(Outcome.CORRUPT, "no end of octets beside the answer")


def _check_interim(heads: int) -> None:
    if heads > _MOST_INTERIM_HEADS:
        raise StreamError(Outcome.CORRUPT, "no end of interim answers")


def _check_length(octets: int) -> None:
    if octets > LONGEST_MESSAGE_OCTETS:
        raise StreamError(Outcome.CORRUPT, f"answer longer than {LONGEST_MESSAGE_OCTETS} octets")


def _closed_early(anything: bool) -> StreamError:
    if anything:
        return StreamError(Outcome.TRUNCATED, "closed in the middle of the answer")
    return StreamError(Outcome.RESET, _CLOSED)
