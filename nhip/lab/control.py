"""Questions to a running lab: one line of JSON there, one line of JSON back, on a unix socket.

``{"do": "truth"}`` is answered ``{"ok": ...}``; what cannot be done is answered ``{"error": "..."}``.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nhip.errors import LabError

Answer = Callable[[dict[str, Any]], Any]
"""Takes a request, returns what JSON can hold; a LabError becomes the error the asker sees."""

_MOST_REQUEST_BYTES = 65_536


def ask(path: Path, request: dict[str, Any], *, timeout_seconds: float = 5.0) -> Any:
    """The answer of whoever serves `path`; LabError when nobody does, or what they refused and why."""
    return json.loads(ask_raw(path, request, timeout_seconds=timeout_seconds))["ok"]


def ask_raw(path: Path, request: dict[str, Any], *, timeout_seconds: float = 5.0) -> bytes:
    """Like :func:`ask`, but the whole line of the answer, undecoded."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client, short_path(path) as name:
            client.settimeout(timeout_seconds)
            client.connect(name)
            line = _exchange(client, request)
    except OSError as error:
        raise LabError(
            f"{path}: the lab does not answer ({error})",
            remedy="`nhip lab status` tells what still runs, `nhip lab down` clears it away",
        ) from error
    if line.startswith(b'{"error"'):
        raise LabError(json.loads(line)["error"])
    return line


class Conversation:
    """A connection kept open for many questions; `close` always works."""

    def __init__(self, path: Path, *, timeout_seconds: float = 5.0) -> None:
        self._path = path
        self._timeout_seconds = timeout_seconds
        self._client: socket.socket | None = None

    def ask(self, request: dict[str, Any]) -> Any:
        """The answer; LabError as :func:`ask`, and the next question connects anew."""
        try:
            if self._client is None:
                self._client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._client.settimeout(self._timeout_seconds)
                with short_path(self._path) as name:
                    self._client.connect(name)
            answer = json.loads(_exchange(self._client, request))
        except (OSError, ValueError) as error:
            self.close()
            raise LabError(f"{self._path}: the lab does not answer ({error})") from error
        if "error" in answer:
            raise LabError(answer["error"])
        return answer["ok"]

    def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            self._client.close()
            self._client = None


class ControlServer:
    """Answers questions inside somebody else's loop, which calls :meth:`serve` for each ready descriptor."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self._path = path
        self._answer = answer
        self._clients: dict[int, tuple[socket.socket, bytearray]] = {}
        self._listener: socket.socket | None = None

    def start(self) -> int:
        """Listen; the descriptor to watch. Only the owner of the process may connect."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._path.unlink(missing_ok=True)
        with short_path(self._path) as name:
            listener.bind(name)
        self._path.chmod(0o600)
        listener.listen(16)
        listener.setblocking(False)
        self._listener = listener
        return listener.fileno()

    def serve(self, descriptor: int) -> int | None:
        """Do what `descriptor` is ready for; a new descriptor to watch, if there is one."""
        assert self._listener is not None  # noqa: S101 - start comes first
        if descriptor == self._listener.fileno():
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return None
            client.settimeout(1.0)
            self._clients[client.fileno()] = (client, bytearray())
            return client.fileno()
        if descriptor in self._clients:
            self._read(descriptor)
        return None

    def watches(self, descriptor: int) -> bool:
        """Whether `descriptor` still belongs to this server; false once its client hung up."""
        listening = self._listener is not None and descriptor == self._listener.fileno()
        return listening or descriptor in self._clients

    def close(self) -> None:
        """Hang up on everyone and remove the socket."""
        for client, _ in self._clients.values():
            client.close()
        self._clients = {}
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            self._path.unlink(missing_ok=True)

    def _read(self, descriptor: int) -> None:
        client, waiting = self._clients[descriptor]
        try:
            data = client.recv(65_536)
            waiting += data
            while b"\n" in waiting:
                line, _, rest = waiting.partition(b"\n")
                waiting[:] = rest
                client.sendall(self._reply(bytes(line)) + b"\n")
        except OSError:
            data = b""
        if not data or len(waiting) > _MOST_REQUEST_BYTES:
            # Closing takes the descriptor out of the epoll set that watched it.
            client.close()
            del self._clients[descriptor]

    def _reply(self, line: bytes) -> bytes:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise LabError("a request is a JSON object")
            answer = self._answer(request)
        except (LabError, ValueError) as error:
            return json.dumps({"error": str(error)}).encode()
        if isinstance(answer, bytes):  # Already JSON.
            return b'{"ok": ' + answer + b"}"
        return json.dumps({"ok": answer}).encode()


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name of `path` short enough for a unix socket, whose names end at 107 bytes."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _exchange(client: socket.socket, request: dict[str, Any]) -> bytes:
    client.sendall(json.dumps(request).encode() + b"\n")
    parts = []
    while True:
        part = client.recv(1 << 18)
        if not part:
            raise ConnectionError("the connection ended before the answer")
        parts.append(part)
        if part.endswith(b"\n"):
            return b"".join(parts)
