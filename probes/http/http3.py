"""One HTTP/3 request and its answer over a QUIC connection (RFC 9114).

What a server may make this end unpack is bounded. By QPACK (RFC 9204) one octet may stand for a field of
four thousand that was sent before, so that a head of some hundred thousand octets would fill gigabytes. No
table for such fields is offered, and the heads of one answer are counted before they are unpacked.
"""

from __future__ import annotations

from collections import deque

import pylsqpack
from aioquic.h3.connection import H3_ALPN, H3Connection, Setting
from aioquic.h3.events import DataReceived, H3Event, Headers, HeadersReceived
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import QuicEvent, StreamReset

from nhip.errors import CannotMeasureError
from nhip.measurement import Outcome, Stamp
from probes.http.http1 import Head
from probes.http.http2 import head_of, request_fields
from probes.http.quic import QuicChannel
from probes.stream import StreamError

ALPN = list(H3_ALPN)
_REQUEST_REJECTED, _VERSION_FALLBACK = 0x10B, 0x110
_MOST_HEADS = 100
# Of all heads of an answer together, interim ones and trailers included: packed, and each unpacked.
_LONGEST_HEADS_OCTETS = 65_536
_MAX_FIELD_SECTION_SIZE = 0x06  # RFC 9114 section 7.2.4.1
_FIELD_OVERHEAD_OCTETS = 32  # RFC 9114 section 4.2.2
_TOO_LONG = f"heads of more than {_LONGEST_HEADS_OCTETS} octets"
# Beside the body a server sends heads, acknowledgements and the framing of both; repetitions of a lossy line
# come on top, as much as the body at most.
_MOST_OCTETS_BESIDE_BODY = 1_048_576


class Http3Exchange:
    """One request and one answer; StreamError carries the fate of whatever breaks it off."""

    version = "3"

    def __init__(self, channel: QuicChannel) -> None:
        self.first_octet_ns: int | None = None
        """When the datagram was read that completed the head of the answer."""
        self.first_octet: Stamp | None = None
        """When that datagram had come, by the kernel where it told."""
        self._request_number = -1
        self._channel = channel
        self._http = BoundedConnection(channel.protocol)
        self._events: deque[H3Event] = deque()
        self._id = 0
        self._ended = False
        self._heads = 0
        self._body_octets = 0

    def request(self, method: str, path: str, host: str) -> None:
        """Send a request without body."""
        self._id = self._channel.protocol.get_next_available_stream_id()
        fields = request_fields(method, path, host, "https")
        self._http.send_headers(
            self._id, [(name.encode(), value.encode()) for name, value in fields], end_stream=True
        )
        self._channel.flush()
        self._request_number = self._channel.last_number

    def receive_head(self) -> Head:
        """The answer's head; interim answers (1xx) are passed over."""
        while True:
            event = self._next_event()
            if event is None:
                raise StreamError(Outcome.RESET, "closed without an answer")
            if isinstance(event, HeadersReceived):
                if self.first_octet_ns is None:
                    self.first_octet_ns = self._channel.last_read_ns
                    self.first_octet = self._channel.arrival
                head = head_of([*event.headers])
                self._heads += 1
                if head.status >= 200:
                    return head
                if self._heads > _MOST_HEADS:
                    raise StreamError(Outcome.CORRUPT, "no end of interim answers")

    def receive_part(self) -> bytes | None:
        """The next piece of the body; ``None`` after its end."""
        while (event := self._next_event()) is not None:
            if isinstance(event, DataReceived):
                self._body_octets += len(event.data)
                return event.data
        return None

    @property
    def last_octet(self) -> Stamp | None:
        """When the latest datagram came."""
        return self._channel.arrival

    def departure(self, handed_over_ns: int) -> Stamp | None:
        """When the request left, by the kernel; `None` where it did not tell."""
        return self._channel.departure(self._request_number)

    def close(self) -> None:
        """Nothing beyond what the channel says at its end."""

    def _next_event(self) -> H3Event | None:
        """The next thing the server said about our stream; ``None`` after its end."""
        while True:
            if self._events:
                event = self._events.popleft()
                if not isinstance(event, DataReceived | HeadersReceived):
                    continue
                if event.stream_id != self._id or event.push_id is not None:
                    continue
                self._ended = self._ended or event.stream_ended
                return event
            if self._ended:
                return None
            if self._channel.octets_received > 2 * self._body_octets + _MOST_OCTETS_BESIDE_BODY:
                raise StreamError(Outcome.CORRUPT, "no end of frames beside the answer")
            self._events.extend(self._understood(self._channel.next_event()))
            self._channel.check()  # unpacking takes time as well

    def _understood(self, event: QuicEvent) -> list[H3Event]:
        if isinstance(event, StreamReset) and event.stream_id == self._id:
            if event.error_code == _VERSION_FALLBACK:
                raise StreamError(Outcome.REJECTED, "the server wants HTTP/1.1")
            raise StreamError(Outcome.RESET, f"stream reset: {event.error_code:#x}")
        ending = self._channel.ending()
        found = self._http.handle_event(event)
        if ending is None and (ours := self._channel.ending()) is not None:
            # This end has just closed the connection over what it read.
            self._channel.flush()
            if "content-length" in ours.reason_phrase:
                raise StreamError(Outcome.CORRUPT, "body of another length than announced")
            raise StreamError(Outcome.CORRUPT, "no HTTP/3 answer")
        return found


class BoundedConnection(H3Connection):
    """aioquic's connection that offers no dynamic table and unpacks heads of a bounded length only.

    aioquic has no setting for either, so this overrides methods it does not document. CannotMeasureError
    where a release has other ones, and would offer a table all the same.
    """

    def __init__(self, protocol: QuicConnection) -> None:
        self._packed_octets = 0
        super().__init__(protocol)
        if (self.sent_settings or {}).get(Setting.QPACK_MAX_TABLE_CAPACITY, 0) != 0:
            raise CannotMeasureError(
                "HTTP/3: this release of aioquic cannot be kept from unpacking heads without bound",
                remedy="install another one: pip install 'aioquic==1.7.2'",
            )

    def _init_connection(self) -> None:
        self._max_table_capacity = self._blocked_streams = 0
        self._decoder = pylsqpack.Decoder(0, 0)
        super()._init_connection()

    def _get_local_settings(self) -> dict[int, int]:
        return {**super()._get_local_settings(), _MAX_FIELD_SECTION_SIZE: _LONGEST_HEADS_OCTETS}

    def _decode_headers(self, stream_id: int, frame_data: bytes | None) -> Headers:
        self._packed_octets += len(frame_data or b"")
        if self._packed_octets > _LONGEST_HEADS_OCTETS:
            raise StreamError(Outcome.CORRUPT, _TOO_LONG)
        fields = super()._decode_headers(stream_id, frame_data)
        if sum(len(name) + len(value) + _FIELD_OVERHEAD_OCTETS for name, value in fields) > (
            _LONGEST_HEADS_OCTETS
        ):
            raise StreamError(Outcome.CORRUPT, _TOO_LONG)
        return fields
