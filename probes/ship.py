"""Delivers batches to the collector and believes only an acknowledgement that echoes the batch's hash."""

from __future__ import annotations

import gzip
import http.client
import random
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from nhip import __version__
from nhip.errors import ConfigError, ShipError
from nhip.secret import checked_key, read_key_file
from nhip.wire import Acknowledgement, batch_sha256

RECORDS_PATH = "/api/v1/records"
FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 300.0
# A wrong key mends itself only through a person.
FIRST_RETRY_OF_A_STRANGER_SECONDS = 10.0
_ANSWER_OCTETS = 1 << 20
# How a kept connection shows that the other end closed it meanwhile.
_STALE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


class BatchRefusedError(ShipError):
    """The collector will never take this batch: it is malformed (400) or too large (413)."""


class StrangerError(ShipError):
    """The collector does not let this probe deliver: key or name are wrong, or are in use (401, 403, 409)."""


class Shipper:
    """One connection to the collector, opened when needed and kept while it works."""

    def __init__(self, url: str, key: str, *, timeout_seconds: float, ca_file: Path | None = None) -> None:
        self._url, self._key = url, key
        self._timeout_seconds = timeout_seconds
        self._ca_file = ca_file
        self._connection: http.client.HTTPConnection | None = None
        self._reused = False

    def deliver(self, body: bytes) -> Acknowledgement:
        """Hand over one batch; on return the collector has it on disk.

        ShipError says why not, and after how long to try again when the collector said so;
        BatchRefusedError and StrangerError when trying the same again is in vain. Nothing but the right
        hash counts: a captive portal's 200 is an error.
        """
        headers = {
            "Authorization": f"Bearer {self._key}",
            "Content-Type": "application/json",
            "Content-Encoding": "gzip",
            "User-Agent": f"nhip/{__version__}",
        }
        packed = gzip.compress(body, 5)
        try:
            try:
                response, answer = self._post(packed, headers)
            except _STALE:
                if not self._reused:
                    raise
                # The collector closed a connection that had been idle; that is no failed delivery.
                self.close()
                response, answer = self._post(packed, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            why = _printable(str(error)) or type(error).__name__
            raise ShipError(f"{self._url} was not reached: {why}") from error
        if response.will_close:
            self.close()
        if response.status != 200:
            raise _KINDS.get(response.status, ShipError)(
                f"{self._url} answered {response.status}: {_printable(answer.decode('utf-8', 'replace'))}",
                remedy=_REMEDIES.get(response.status, ""),
                retry_after_seconds=_seconds(response.headers.get("Retry-After")),
            )
        try:
            acknowledgement = msgspec.json.decode(answer, type=Acknowledgement)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ShipError(
                f"{self._url} answered 200 but it is no acknowledgement",
                remedy="something between probe and collector answers in its place (a captive portal?)",
            ) from error
        if acknowledgement.batch_sha256 != batch_sha256(body):
            raise ShipError(f"{self._url} acknowledged another batch", remedy="look for a proxy that caches")
        return acknowledgement

    def close(self) -> None:
        """Drop the connection; the next delivery opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _post(self, packed: bytes, headers: dict[str, str]) -> tuple[http.client.HTTPResponse, bytes]:
        self._reused = self._connection is not None
        self._connection = self._connection or self._connect()
        self._connection.request("POST", RECORDS_PATH, packed, headers)
        with self._connection.getresponse() as response:
            answer = b""
            while len(answer) < _ANSWER_OCTETS and (part := response.read(_ANSWER_OCTETS)):
                answer += part
            if response.length:  # cut short, or longer than any answer of a collector
                raise http.client.IncompleteRead(answer, response.length)
            return response, answer

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self._url)
        if parts.scheme == "unix":
            return _UnixConnection(parts.path, self._timeout_seconds)
        host = parts.hostname or ""
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, parts.port, timeout=self._timeout_seconds)
        context = ssl.create_default_context(cafile=self._ca_file)
        return http.client.HTTPSConnection(host, parts.port, timeout=self._timeout_seconds, context=context)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket file, for a collector on the same machine."""

    def __init__(self, path: str, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path, self._timeout_seconds = path, timeout_seconds

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout_seconds)
        self.sock.connect(self._path)


def retry_seconds(
    failures: int,
    rng: random.Random,
    asked_seconds: float | None = None,
    *,
    first_seconds: float = FIRST_RETRY_SECONDS,
) -> float:
    """How long to wait after `failures` in a row: doubling from `first_seconds` to 5 min, half of it random.

    What the collector asked for is the least, and up to half as much again is added to it: the jitter keeps
    a country of probes from coming back in the same second.
    """
    longest = min(first_seconds * 2.0 ** min(failures - 1, 20), LONGEST_RETRY_SECONDS)
    asked = asked_seconds or 0.0
    return max(asked, longest / 2) + rng.uniform(0, max(asked, longest) / 2)


def read_key(key: str | None, key_file: Path | None) -> str:
    """The probe's key, from the environment or its file; ConfigError when there is none that can be used."""
    if key and key.strip():
        return checked_key(key.strip(), "the probe's key")
    if key_file is None:
        raise ConfigError("the probe has no key", remedy="set collector.key_file or NHIP_PROBE_KEY")
    return read_key_file(key_file)


_KINDS: dict[int, type[ShipError]] = {
    400: BatchRefusedError,
    413: BatchRefusedError,
    401: StrangerError,
    403: StrangerError,
    409: StrangerError,
}
_REMEDIES = {
    401: "check the probe's key",
    403: "register this probe's id with this key at the collector",
    409: "hold [access] against the collector's list, and see that no two probes share this key",
    413: "lower collector.batch_records",
}


def _printable(text: str) -> str:
    """What a stranger said, fit for one line of a log."""
    return "".join(letter if letter.isprintable() else "?" for letter in text.strip()[:200])


def _seconds(header: str | None) -> float | None:
    try:
        seconds = float(header) if header else None
    except ValueError:
        return None
    return min(seconds, LONGEST_RETRY_SECONDS) if seconds is not None and seconds >= 0 else None
