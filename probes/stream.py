"""One TCP connection, plain or TLS, whose every step ends at one absolute deadline.

A peer that drips one octet a second, or takes one octet a second, renews a timeout for ever; it cannot move
a deadline. Every wait is cut into short pieces so that a cancelled test ends soon. Probes and the
measurement server use the same streams.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import threading
from types import TracebackType

from nhip.clock import Clock
from nhip.measurement import Outcome, Stamp, StampSource
from nhip.statistics import NANOSECONDS_PER_SECOND
from probes.api import LONGEST_PAUSE_SECONDS
from probes.network import Address, errno_name, outcome_of
from probes.tcp_info import TcpInfo, tcp_info
from probes.tls.context import TlsSession, session_of

TIMED_OUT = "timed out"
_EARLY_OCTETS = 16_384


class StreamError(Exception):
    """The fate of a connection that did not do what was asked; a probe turns it into its singleton."""

    def __init__(self, outcome: Outcome, detail: str = "") -> None:
        super().__init__(f"{outcome}: {detail}" if detail else str(outcome))
        self.outcome = outcome
        self.detail = detail


class Stream:
    """Octets to and from one peer until `deadline_ns` of the monotonic clock.

    `sock` is non-blocking and belongs to the stream from here on. `deadline_ns` may be moved between steps;
    `idle_seconds`, where given, also ends a wait in which nothing at all moved.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        clock: Clock,
        deadline_ns: int,
        cancelled: threading.Event,
        idle_seconds: float | None = None,
    ) -> None:
        self.deadline_ns = deadline_ns
        self.octets_sent = 0
        """Payload octets the socket took; under TLS, of the clear text."""
        self.octets_received = 0
        self._sock = sock
        self._clock = clock
        self._cancelled = cancelled
        self._idle_ns = None if idle_seconds is None else round(idle_seconds * NANOSECONDS_PER_SECOND)
        self._poll = select.poll()
        self._early = b""
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            # Nagle's algorithm would hold a request back until the handshake's last record before it is
            # acknowledged: a round trip that no browser waits for.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def connect(self, address: Address) -> None:
        """Return when the handshake is done; StreamError with its fate otherwise."""
        try:
            self._sock.connect(address.sockaddr)
        except BlockingIOError:
            pass
        except OSError as error:
            raise _broken(error) from error
        self._wait(select.POLLOUT)
        if code := self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise _broken(OSError(code, "connect"))

    def start_tls(self, context: ssl.SSLContext, *, server_name: str | None = None) -> None:
        """Return when both ends agreed on keys; this end is the server when there is no `server_name`."""
        try:
            wrapped = context.wrap_socket(
                self._sock,
                server_side=server_name is None,
                server_hostname=server_name,
                do_handshake_on_connect=False,
            )
            self._sock = wrapped
            while True:
                try:
                    wrapped.do_handshake()
                    return
                except ssl.SSLWantReadError:
                    self._wait(select.POLLIN)
                except ssl.SSLWantWriteError:
                    self._wait(select.POLLOUT)
        except ssl.SSLCertVerificationError as error:
            raise StreamError(Outcome.TLS_FAILED, error.verify_message) from error
        except ssl.SSLError as error:
            raise StreamError(Outcome.TLS_FAILED, _tls_failure(error)) from error
        except ValueError as error:
            raise StreamError(Outcome.TLS_FAILED, f"no TLS server name: {server_name}") from error
        except OSError as error:
            if not error.errno:
                # OpenSSL reports a peer that left in the middle of the handshake without an errno.
                raise StreamError(Outcome.TLS_FAILED, "closed during the handshake") from error
            raise _broken(error) from error

    def send(self, data: bytes | memoryview) -> None:
        """Hand all of `data` to the socket."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._send_some(rest, select.POLLOUT) :]

    def send_unless_answered(self, data: bytes | memoryview) -> bool:
        """Hand all of `data` to the socket; False when the peer spoke before it was all taken.

        A server that refuses an upload says so while the body is still being sent.
        """
        rest = memoryview(data)
        while rest:
            if self._answered():
                return False
            try:
                rest = rest[self._send_some(rest, select.POLLOUT | select.POLLIN) :]
            except StreamError as error:
                # A refusal may have arrived together with the reset that follows it.
                if error.outcome is Outcome.RESET and self._answered() and self._early:
                    return False
                raise
        return True

    def receive_into(self, view: memoryview) -> int:
        """Put what has arrived into `view`, waiting for the first octet; 0 when the peer has finished."""
        if self._early:
            count = min(len(view), len(self._early))
            view[:count] = self._early[:count]
            self._early = self._early[count:]
            return count
        while True:
            self._check(self._clock.mono_ns())
            try:
                count = self._sock.recv_into(view)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._wait(select.POLLIN)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT)
            except ssl.SSLError as error:
                raise StreamError(Outcome.CORRUPT, error.reason or type(error).__name__) from error
            except OSError as error:
                raise _broken(error) from error
            else:
                self.octets_received += count
                return count

    def finish_sending(self) -> None:
        """Tell the peer that nothing more will come, and keep listening."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the peer is gone already, which is what this was for

    def tls_session(self) -> TlsSession | None:
        """What the TLS handshake ended in; `None` on a plain connection."""
        return session_of(self._sock) if isinstance(self._sock, ssl.SSLSocket) else None

    @property
    def arrival(self) -> Stamp | None:
        """When the kernel had the latest octets read; `None` where it is not asked."""
        return None

    @property
    def written(self) -> int:
        """A mark for :meth:`departure`: how much was handed to the kernel by now."""
        return 0

    def departure(self, written: int, handed_over_ns: int) -> Stamp | None:
        """When the last of what had been handed over at that mark left; `None` where nobody told."""
        return None

    def read_at(self) -> Stamp:
        """When the latest octets came: by the kernel, or else that they have come by now."""
        return self.arrival or Stamp(self._clock.wall_ns(), self._clock.mono_ns(), StampSource.USER)

    def info(self) -> TcpInfo:
        """What the kernel knows of the connection now."""
        return tcp_info(self._sock)

    def close(self) -> None:
        self._sock.close()

    def _send_some(self, rest: memoryview, awaited: int) -> int:
        """Octets taken by the socket; 0 after a wait for one of the `awaited` events."""
        self._check(self._clock.mono_ns())
        try:
            count = self._sock.send(rest)
        except (BlockingIOError, ssl.SSLWantWriteError):
            self._wait(awaited)
            return 0
        except ssl.SSLWantReadError:
            self._wait(select.POLLIN)
            return 0
        except ssl.SSLError as error:
            raise StreamError(Outcome.RESET, error.reason or type(error).__name__) from error
        except OSError as error:
            raise _broken(error) from error
        self.octets_sent += count
        return count

    def _answered(self) -> bool:
        """True when the peer said something or closed; TLS housekeeping (session tickets) does not count."""
        self._poll.register(self._sock, select.POLLIN)
        if self._early or not self._poll.poll(0):
            return bool(self._early)
        try:
            octets = self._sock.recv(_EARLY_OCTETS)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except ssl.SSLError as error:
            raise StreamError(Outcome.CORRUPT, error.reason or type(error).__name__) from error
        except OSError as error:
            raise _broken(error) from error
        self.octets_received += len(octets)
        self._early = octets
        return True

    def _wait(self, events: int) -> None:
        self._poll.register(self._sock, events)
        started_ns = self._clock.mono_ns()
        while True:
            now_ns = self._clock.mono_ns()
            self._check(now_ns)
            remaining_ns = self.deadline_ns - now_ns
            if self._idle_ns is not None:
                remaining_ns = min(remaining_ns, started_ns + self._idle_ns - now_ns)
                if remaining_ns <= 0:
                    raise StreamError(Outcome.LOST, "stalled")
            if self._poll.poll(min(remaining_ns / 1e6, LONGEST_PAUSE_SECONDS * 1000)):
                return

    def _check(self, now_ns: int) -> None:
        if self._cancelled.is_set():
            raise StreamError(Outcome.NOT_SENT, "cancelled")
        if now_ns >= self.deadline_ns:
            raise StreamError(Outcome.LOST, TIMED_OUT)


# What OpenSSL's shorthand means where it does not say it.
_TLS_FAILURES = {
    "WRONG_VERSION_NUMBER": "no TLS spoken there",
    "UNSUPPORTED_PROTOCOL": "the server's TLS version is too old",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the server wants another TLS version",
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "the server speaks no protocol offered by ALPN",
    "UNEXPECTED_EOF_WHILE_READING": "closed during the handshake",
}


# How an error without a reason spells it: "[SSL] tlsv1 alert no application protocol (_ssl.c:1006)".
_SPELT_OUT = re.compile(r"\[[A-Z]+\] (?P<reason>[a-z0-9 ]+?)(?: \(|$)")


def _tls_failure(error: ssl.SSLError) -> str:
    spelt_out = _SPELT_OUT.search(str(error))
    reason = error.reason or (spelt_out["reason"].upper().replace(" ", "_") if spelt_out else str(error))
    return f"{_TLS_FAILURES[reason]} ({reason})" if reason in _TLS_FAILURES else reason


def _broken(error: OSError) -> StreamError:
    return StreamError(outcome_of(error), errno_name(error))
