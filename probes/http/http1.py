"""One HTTP/1.1 request and its answer over a stream (RFC 9112), parsed by h11.

h11 reads the head and any framing; the octets themselves come from the probe's own socket, so that who
sent what when is known here and not inside a client library.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import h11

from nhip import __version__
from nhip.clock import Clock
from nhip.measurement import Outcome, Stamp
from probes.stream import Stream, StreamError

_BUFFER_OCTETS = 65_536
_LONGEST_HEAD_OCTETS = 65_536


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer: its status and its fields, names in lower case, the last of equals."""

    status: int
    fields: Mapping[str, str]

    @property
    def announced_octets(self) -> int | None:
        """The body's length if the server said it (RFC 9110 section 8.6)."""
        text = self.fields.get("content-length", "")
        return int(text) if text.isascii() and text.isdigit() else None


class Exchange:
    """One request and one answer; StreamError carries the fate of whatever breaks it off."""

    version = "1.1"

    def __init__(self, stream: Stream, clock: Clock) -> None:
        self.first_octet_ns: int | None = None
        """When the first octet of the answer was read, on the monotonic clock."""
        self.first_octet: Stamp | None = None
        """When it came, by the kernel where that was asked."""
        self.last_octet: Stamp | None = None
        """When the latest octets came."""
        self._written = 0
        self._stream = stream
        self._clock = clock
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST_HEAD_OCTETS)
        self._buffer = memoryview(bytearray(_BUFFER_OCTETS))
        self._ended = False

    def request(self, method: str, path: str, host: str) -> None:
        """Send a request without body."""
        self.send_head(method, path, host)
        self.end_request()
        self._written = self._stream.written

    def send_head(self, method: str, path: str, host: str, fields: Iterable[tuple[str, str]] = ()) -> None:
        """Send the request line and fields; a body, if announced in `fields`, is the caller's to send."""
        request = h11.Request(
            method=method,
            target=path,
            headers=[
                ("Host", host),
                ("User-Agent", f"nhip/{__version__}"),
                ("Accept", "*/*"),
                ("Accept-Encoding", "identity"),
                ("Connection", "close"),
                *fields,
            ],
        )
        octets = self._parser.send(request)
        if octets is None:
            raise AssertionError("h11 had nothing to send for a request")
        self._stream.send(octets)

    def end_request(self) -> None:
        """Tell the parser that the request has no body, or that its body has been sent."""
        self._parser.send(h11.EndOfMessage())

    def receive_head(self) -> Head:
        """The answer's head; interim answers (1xx) are passed over."""
        while True:
            event = self._next_event()
            if isinstance(event, h11.Response):
                fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
                return Head(event.status_code, fields)
            if not isinstance(event, h11.InformationalResponse):
                raise StreamError(Outcome.CORRUPT, "no HTTP answer")

    def departure(self, handed_over_ns: int) -> Stamp | None:
        """When the request left, by the kernel; `None` where it did not tell."""
        return self._stream.departure(self._written, handed_over_ns)

    def close(self) -> None:
        """Nothing to say: ``Connection: close`` was said with the request."""

    def leftover(self) -> bytes:
        """Octets of the body that came along with the head; from here on the caller reads the stream."""
        return self._parser.trailing_data[0]

    def receive_part(self) -> bytes | None:
        """The next piece of the body, unframed; ``None`` after its end."""
        while True:
            event = self._next_event()
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                return None

    def _next_event(self) -> object:
        while True:
            try:
                event = self._parser.next_event()
            except h11.RemoteProtocolError as error:
                fate = Outcome.TRUNCATED if self._ended else Outcome.CORRUPT
                raise StreamError(fate, "closed early" if self._ended else "no HTTP answer") from error
            if event is not h11.NEED_DATA:
                return event
            count = self._stream.receive_into(self._buffer)
            if self.first_octet_ns is None:
                if count == 0:
                    raise StreamError(Outcome.RESET, "closed without an answer")
                self.first_octet_ns = self._clock.mono_ns()
                self.first_octet = self._stream.read_at()
            self._ended = count == 0
            if count:
                self.last_octet = self._stream.read_at()
            self._parser.receive_data(bytes(self._buffer[:count]))


def host_field(host: str, port: int, default_port: int) -> str:
    """The value of the Host field (RFC 9110 section 7.2): IPv6 in brackets, no port where it is implied."""
    try:
        name = f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        name = host
    return name if port == default_port else f"{name}:{port}"
