"""One HTTP/2 request and its answer over a stream (RFC 9113), framed by h2.

The preface, this end's settings and the request leave together; nothing waits for the server's settings. The
windows are wide, so that a body's speed is the network's and not that of our permissions to send.
"""

from __future__ import annotations

import struct
from collections import deque

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from nhip import __version__
from nhip.clock import Clock
from nhip.measurement import Outcome, Stamp
from probes.http.http1 import Head
from probes.stream import Stream, StreamError

_BUFFER_OCTETS = 65_536
_WINDOW_OCTETS = 16_777_216
_LONGEST_HEAD_OCTETS = 65_536
# A server may send frames for ever that belong to no answer: pings, settings, heads of nothing.
_MOST_OCTETS_BESIDE_BODY = 1_048_576
_FRAME_HEAD_OCTETS, _LONGEST_FRAME_OCTETS = 9, 16_384
_DATA, _GOAWAY = 0x0, 0x7
_NO_ANSWER = "no HTTP/2 answer"


class Http2Exchange:
    """One request and one answer; StreamError carries the fate of whatever breaks it off."""

    version = "2"

    def __init__(self, stream: Stream, clock: Clock, *, scheme: str) -> None:
        self.first_octet_ns: int | None = None
        """When the read ended that completed the head of the answer; frames before it are no answer."""
        self.first_octet: Stamp | None = None
        """When what it read had come, by the kernel where that was asked."""
        self.last_octet: Stamp | None = None
        """When the latest octets came."""
        self._written = 0
        self._stream = stream
        self._clock = clock
        self._scheme = scheme
        self._connection = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        )
        self._connection.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW_OCTETS,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: _LONGEST_HEAD_OCTETS,
            },
        )
        self._buffer = memoryview(bytearray(_BUFFER_OCTETS))
        self._events: deque[h2.events.Event] = deque()
        self._id = 1
        self._read_ns = 0
        self._frames = Frames()
        self._answered = False
        self._deaf = False

    def request(self, method: str, path: str, host: str) -> None:
        """Send the preface, the settings and a request without body."""
        self._connection.initiate_connection()
        self._connection.increment_flow_control_window(_WINDOW_OCTETS - 65_535)
        self._id = self._connection.get_next_available_stream_id()
        self._connection.send_headers(
            self._id, request_fields(method, path, host, self._scheme), end_stream=True
        )
        self._stream.send(self._connection.data_to_send())
        self._written = self._stream.written

    def receive_head(self) -> Head:
        """The answer's head; interim answers (1xx) are passed over."""
        while True:
            event = self._next_event()
            if isinstance(event, h2.events.InformationalResponseReceived | h2.events.ResponseReceived):
                if self.first_octet_ns is None:
                    self.first_octet_ns, self.first_octet = self._read_ns, self.last_octet
                if isinstance(event, h2.events.ResponseReceived):
                    self._answered = True
                    return head_of(list(event.headers or []))

    def receive_part(self) -> bytes | None:
        """The next piece of the body; ``None`` after its end."""
        while True:
            event = self._next_event()
            if isinstance(event, h2.events.DataReceived):
                part = bytes(event.data or b"")
                self._frames.octets_beside_body += (event.flow_controlled_length or 0) - len(part)
                self._connection.acknowledge_received_data(event.flow_controlled_length or 0, self._id)
                return part
            if isinstance(event, h2.events.StreamEnded):
                return None

    def departure(self, handed_over_ns: int) -> Stamp | None:
        """When the request left, by the kernel; `None` where it did not tell."""
        return self._stream.departure(self._written, handed_over_ns)

    def close(self) -> None:
        """Say goodbye, as far as the peer still listens."""
        try:
            self._connection.close_connection()
            self._flush()
        except (h2.exceptions.ProtocolError, StreamError):
            return

    def _next_event(self) -> h2.events.Event:
        """The next thing the server said about our stream."""
        while True:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, h2.events.ConnectionTerminated):
                    self._goaway(event)
                elif isinstance(event, h2.events.StreamReset):
                    raise StreamError(*_fate_of_reset(event.error_code))
                elif getattr(event, "stream_id", None) == self._id:
                    return event
            self._flush()
            self._read()

    def _read(self) -> None:
        count = self._stream.receive_into(self._buffer)
        self._read_ns = self._clock.mono_ns()
        if count:
            self.last_octet = self._stream.read_at()
        else:
            if self._answered:
                raise StreamError(Outcome.TRUNCATED, "closed early")
            raise StreamError(Outcome.RESET, "closed without an answer")
        octets = self._frames.whole(bytes(self._buffer[:count]), self._id)
        if self._frames.octets_beside_body > _MOST_OCTETS_BESIDE_BODY:
            raise StreamError(Outcome.CORRUPT, "no end of frames beside the answer")
        try:
            self._events.extend(self._connection.receive_data(octets))
        except h2.exceptions.InvalidBodyLengthError as error:
            # The server itself said that this was all (RFC 9113 section 8.1.1): nothing broke off.
            told = f"body of {error.actual_length} octets, announced {error.expected_length}"
            raise StreamError(Outcome.CORRUPT, told) from error
        except (h2.exceptions.ProtocolError, ValueError) as error:
            raise StreamError(Outcome.CORRUPT, _NO_ANSWER) from error

    def _flush(self) -> None:
        """Send what the protocol owes: acknowledgements, permissions to send more."""
        octets = self._connection.data_to_send()
        if not octets or self._deaf:
            return
        try:
            self._stream.send(octets)
        except StreamError as error:
            # The server may have closed its reading end with the whole answer still on its way to us.
            if error.outcome is not Outcome.RESET:
                raise
            self._deaf = True

    def _goaway(self, event: h2.events.ConnectionTerminated) -> None:
        code = event.error_code
        if code == h2.errors.ErrorCodes.HTTP_1_1_REQUIRED:
            raise StreamError(Outcome.REJECTED, "the server wants HTTP/1.1")
        raise StreamError(Outcome.RESET, f"GOAWAY {_code_name(code)}")


class Frames:
    """Cuts what arrives into frames (RFC 9113 section 4.1) before h2 reads them.

    ::

        | length 24 | type 8 | flags 8 | stream 32 | payload ... |

    h2 takes a GOAWAY for the end of the connection; one that lets our request finish is the server's way of
    saying "no further ones" (section 6.8), and is withheld here.
    """

    def __init__(self) -> None:
        self.octets_beside_body = 0
        """Octets of everything but the body's own, so far."""
        self.leaving = False
        """Whether the server said "no further ones": another request needs another connection."""
        self._rest = b""

    def whole(self, octets: bytes, stream_id: int) -> bytes:
        """The frames that are whole by now; the rest is kept for the next call."""
        data = self._rest + octets
        passed, at = [], 0
        while len(data) - at >= _FRAME_HEAD_OCTETS:
            length = int.from_bytes(data[at : at + 3], "big")
            kind = data[at + 3]
            end = at + _FRAME_HEAD_OCTETS + length
            if length > _LONGEST_FRAME_OCTETS:
                # Nobody was allowed longer ones; h2 would wait for millions of octets of a stray text.
                raise StreamError(Outcome.CORRUPT, _NO_ANSWER)
            if end > len(data):
                break
            if kind != _DATA or length == 0:
                self.octets_beside_body += end - at
            if kind == _GOAWAY and _lets_finish(data[at + _FRAME_HEAD_OCTETS : end], stream_id):
                self.leaving = True
            else:
                passed.append(data[at:end])
            at = end
        self._rest = data[at:]
        return b"".join(passed)


def _lets_finish(payload: bytes, stream_id: int) -> bool:
    if len(payload) < 8:
        return False
    last, code = struct.unpack_from(">II", payload)
    return bool(code == h2.errors.ErrorCodes.NO_ERROR and last & 0x7FFFFFFF >= stream_id)


def request_fields(method: str, path: str, host: str, scheme: str) -> list[tuple[str, str]]:
    """The head of a request in HTTP/2 and HTTP/3 (RFC 9113 section 8.3.1, RFC 9114 section 4.3.1)."""
    return [
        (":method", method),
        (":scheme", scheme),
        (":authority", host),
        (":path", path),
        ("user-agent", f"nhip/{__version__}"),
        ("accept", "*/*"),
        ("accept-encoding", "identity"),
    ]


def head_of(fields: list[tuple[str | bytes, str | bytes]]) -> Head:
    """A head from fields among which ``:status`` is one; StreamError when it is none."""
    found = {_word(name): _word(value) for name, value in fields}
    status = found.pop(":status", "")
    if not (status.isascii() and status.isdigit() and len(status) == 3):
        raise StreamError(Outcome.CORRUPT, "an answer without a status")
    return Head(int(status), found)


def _word(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _fate_of_reset(code: h2.errors.ErrorCodes | int | None) -> tuple[Outcome, str]:
    if code == h2.errors.ErrorCodes.HTTP_1_1_REQUIRED:
        return Outcome.REJECTED, "the server wants HTTP/1.1"
    return Outcome.RESET, f"stream reset: {_code_name(code)}"


def _code_name(code: h2.errors.ErrorCodes | int | None) -> str:
    return code.name if isinstance(code, h2.errors.ErrorCodes) else str(code)
