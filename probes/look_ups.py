"""Names asked of the C library, with the deadline and the bound that it does not have itself.

``getaddrinfo`` cannot be told to stop: behind a dead resolver it blocks for many seconds, and where a daemon
answers for the C library and hangs, for ever. So each look-up has a thread that is left behind at its
deadline, and the threads have a bound, or a probe with a hung resolver would collect them without end.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from nhip.errors import CannotMeasureError
from probes.line.namespace import Namespace

MOST_AT_ONCE = 32

Answers = list[tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]]
Resolver = Callable[..., Any]


class LookUps:
    """Look-ups of this process, at most so many under way or stuck; `ask` is called as getaddrinfo is."""

    def __init__(self, most_at_once: int = MOST_AT_ONCE, ask: Resolver = socket.getaddrinfo) -> None:
        self._most_at_once = most_at_once
        self._ask = ask
        self._free = threading.BoundedSemaphore(most_at_once)

    def look_up(
        self,
        host: str,
        port: int,
        family: socket.AddressFamily,
        *,
        namespace: Namespace | None,
        timeout_seconds: float,
    ) -> Answers:
        """What the resolver answers within the time; nothing when it says no or says nothing.

        CannotMeasureError when the namespace cannot be entered, and when all look-ups of this process are
        stuck for as long.
        """
        until = time.monotonic() + timeout_seconds
        if not self._free.acquire(timeout=max(0.0, timeout_seconds)):
            raise CannotMeasureError(
                f"look-ups are stuck: {self._most_at_once} names wait for the resolver of this host",
                remedy="check the name servers (resolv.conf) and nscd or systemd-resolved, if they run; "
                "give addresses instead of names",
            )
        found: Answers = []
        failed: list[CannotMeasureError] = []

        def look_up() -> None:
            try:
                if namespace is not None:
                    namespace.enter_with_files()
                found.extend(self._ask(host, port, family, socket.SOCK_STREAM, 0, 0))
            except CannotMeasureError as error:
                failed.append(error)
            except OSError:
                pass  # the resolver's no
            finally:
                self._free.release()

        thread = threading.Thread(target=look_up, name="resolve", daemon=True)
        try:
            thread.start()
        except BaseException:
            self._free.release()
            raise
        thread.join(max(0.0, until - time.monotonic()))
        if failed:
            raise failed[0]
        return list(found)


def read_address(host: str, port: int, family: socket.AddressFamily, namespace: Namespace | None) -> Answers:
    """An address as sockets want it, without any resolver; nothing when its scope is no interface there."""

    def read() -> Answers:
        try:
            return socket.getaddrinfo(  # type: ignore[return-value]
                host, port, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST
            )
        except OSError:
            return []

    return read() if namespace is None else namespace.run(read)


LOOK_UPS = LookUps()
"""The bound is one of the process, whatever networks ask."""
