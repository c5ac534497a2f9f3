"""Messages behind their length on a stream (RFC 1035 section 4.2.2, RFC 7766 section 8)::

 0                   1
 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5
+-------------------------------+
|       octets of message       |
+-------------------------------+
|           message ...         |
"""

from __future__ import annotations

from nhip.measurement import Outcome
from probes.stream import TIMED_OUT, Stream, StreamError

_LENGTH_OCTETS = 2


class LengthPrefixed:
    """The framing that TCP and TLS share."""

    http_version = None

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def send(self, message: bytes) -> None:
        # In one piece: some servers do not wait for the rest of a length (RFC 7766 section 8).
        self._stream.send(len(message).to_bytes(_LENGTH_OCTETS, "big") + message)

    def receive(self) -> bytes:
        length = int.from_bytes(self._exactly(_LENGTH_OCTETS, "length"), "big")
        return self._exactly(length, "answer")

    def _exactly(self, octets: int, what: str) -> bytes:
        buffer = bytearray(octets)
        view = memoryview(buffer)
        have = 0
        while have < octets:
            try:
                count = self._stream.receive_into(view[have:])
            except StreamError as error:
                if error.outcome is Outcome.LOST and (have or what == "answer"):
                    raise StreamError(Outcome.LOST, f"{TIMED_OUT} after {have} of {octets} octets") from error
                raise
            if count == 0:
                if not have and what == "length":
                    raise StreamError(Outcome.RESET, "closed without an answer")
                raise StreamError(Outcome.TRUNCATED, f"closed after {have} of {octets} octets")
            have += count
        return bytes(buffer)
