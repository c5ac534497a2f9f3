"""One QUIC connection over this host's own, bound UDP socket (RFC 9000), its protocol kept by aioquic.

aioquic only turns datagrams into events and back; the socket, the clock, the deadline and the waiting are
ours, so that a test bound to a line leaves by that line, and one that is cancelled ends soon.

::

    socket --receive--> receive_datagram --> events
       ^                                       |
       +-- datagrams_to_send <-- timer, answers +
"""

from __future__ import annotations

import logging
import os
import re
import select
import socket
import ssl
import threading
from pathlib import Path

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent
from aioquic.quic.packet import QuicErrorCode
from aioquic.tls import AlertDescription
from cryptography.hazmat.primitives.serialization import Encoding

from nhip.clock import Clock
from nhip.measurement import Outcome, Stamp, StampSource
from probes.api import LONGEST_PAUSE_SECONDS
from probes.network import Address, errno_name, outcome_of
from probes.stream import TIMED_OUT, StreamError
from probes.timestamping import Departure, PacketClock
from probes.tls.context import TlsSession

# What becomes of a connection is an outcome; aioquic would write it to the log as well.
logging.getLogger("quic").setLevel(logging.CRITICAL)

_WINDOW_OCTETS = 16_777_216
_LONGEST_DATAGRAM_OCTETS = 65_535
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")
# So many datagrams are taken in one go before the protocol answers; a flood must not starve the timers.
_MOST_AT_ONCE = 64
_ALERTS = range(QuicErrorCode.CRYPTO_ERROR, QuicErrorCode.CRYPTO_ERROR + 0x100)


class QuicChannel:
    """A client's connection until `deadline_ns`; StreamError carries the fate of whatever breaks it off.

    `sock` is a non-blocking datagram socket and belongs to the channel from here on.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        clock: Clock,
        deadline_ns: int,
        cancelled: threading.Event,
        server_name: str,
        alpn: list[str],
        ca_file: str | None = None,
        verify: bool = True,
    ) -> None:
        self.octets_sent = 0
        """Octets of UDP payload, headers and repetitions of QUIC included."""
        self.octets_received = 0
        self.connected = False
        self.last_read_ns = 0
        """When the last datagram was read, on the monotonic clock."""
        self.arrival: Stamp | None = None
        """When it had come, by the kernel where it told."""
        self.last_number = -1
        """Of the datagram sent last; see :meth:`departure`."""
        self.begun: Stamp | None = None
        """When the first datagram left, as far as it is known."""
        self._stamps = PacketClock(clock)
        self._departures: dict[int, Stamp] = {}
        self.protocol = QuicConnection(
            configuration=_configuration(server_name, alpn, ca_file, verify=verify)
        )
        self._sock = sock
        self._clock = clock
        self._deadline_ns = deadline_ns
        self._cancelled = cancelled
        self._poll = select.poll()
        self._address: tuple[object, ...] = ()

    def connect(self, address: Address) -> None:
        """Return when the handshake is done and the certificate was found good."""
        self._address = address.sockaddr
        try:
            # A connected socket hears of ICMP errors, and of nobody but its peer.
            self._sock.connect(address.sockaddr)
            self._stamps.enable(self._sock)
        except OSError as error:
            raise StreamError(outcome_of(error), errno_name(error)) from error
        self.begun = Stamp(self._clock.wall_ns(), self._clock.mono_ns(), StampSource.USER)
        self._poll.register(self._sock, select.POLLIN)
        self.protocol.connect(self._address, now=self._now())
        while not self.connected:
            event = self.next_event()
            self.connected = isinstance(event, HandshakeCompleted)
        self.begun = self.departure(0) or self.begun

    def next_event(self) -> QuicEvent:
        """The next thing that happened, after sending whatever the protocol owes."""
        while True:
            self.check()
            event = self.protocol.next_event()
            if isinstance(event, ConnectionTerminated):
                raise StreamError(*self._fate(event))
            if event is not None:
                return event
            self.flush()
            if (ending := self.ending()) is not None:
                raise StreamError(*self._fate(ending))
            self._wait()

    def flush(self) -> None:
        """Send what the protocol has ready."""
        for datagram, _address in self.protocol.datagrams_to_send(now=self._now()):
            try:
                self.last_number = self._stamps.send(self._sock, datagram, self._address)
            except (BlockingIOError, InterruptedError):
                continue  # lost before it left; QUIC sends again what matters
            except OSError as error:
                raise StreamError(outcome_of(error), errno_name(error)) from error
            self.octets_sent += len(datagram)

    def departure(self, number: int) -> Stamp | None:
        """When the datagram of that number left, by the kernel; `None` where it did not tell."""
        self._note_departures()
        return self._departures.get(number)

    def ending(self) -> ConnectionTerminated | None:
        """Why the connection is being closed, by whichever side; `None` while it is not.

        aioquic tells of an end only after a closing period of three probe timeouts (RFC 9000 section 10.2),
        which is no part of anybody's measurement; it has no public name for knowing earlier.
        """
        ending: ConnectionTerminated | None = getattr(self.protocol, "_close_event", None)
        return ending

    def session(self) -> TlsSession | None:
        """What the TLS handshake inside showed so far, a refused certificate included.

        aioquic has no public name for the peer's certificate.
        """
        tls = getattr(self.protocol, "tls", None)
        certificate = getattr(tls, "_peer_certificate", None)
        if tls is None or certificate is None:
            return None
        suite = tls.key_schedule.cipher_suite if tls.key_schedule else None
        return TlsSession(
            version="TLSv1.3",  # RFC 9001 section 4.2: nothing older
            cipher=f"TLS_{suite.name}" if suite else "",
            alpn=tls.alpn_negotiated or "",
            certificate=certificate.public_bytes(Encoding.DER),
        )

    def close(self) -> None:
        """Tell the peer, as far as that can be done at once, and give the socket back."""
        try:
            if self._address:
                self.protocol.close()
                self.flush()
        except StreamError:
            pass  # there is nobody left to tell
        finally:
            self._sock.close()

    def _wait(self) -> None:
        """Read what arrives until a timer of the protocol is due."""
        now_ns = self._clock.mono_ns()
        timer = self.protocol.get_timer()
        until_seconds = max(0.0, min((self._deadline_ns - now_ns) / 1e9, LONGEST_PAUSE_SECONDS))
        if timer is not None:
            until_seconds = min(until_seconds, max(0.0, timer - self._now()))
        # A millisecond is poll's finest; rounding down would spin until the timer is due.
        if self._poll.poll(int(until_seconds * 1000) + 1):
            self._note_departures()  # what waits there would wake every later poll
            self._read()
        if timer is not None and self._now() >= timer:
            self.protocol.handle_timer(now=self._now())

    def check(self) -> None:
        """Return before the deadline and while the test is not cancelled; StreamError otherwise."""
        if self._cancelled.is_set():
            raise StreamError(Outcome.NOT_SENT, "cancelled")
        if self._clock.mono_ns() >= self._deadline_ns:
            raise StreamError(Outcome.LOST, TIMED_OUT)

    def _read(self) -> None:
        for _ in range(_MOST_AT_ONCE):
            self.check()  # a datagram may hold thousands of frames
            try:
                found = self._stamps.receive(self._sock, _LONGEST_DATAGRAM_OCTETS)
            except BlockingIOError:
                return
            except OSError as error:
                raise StreamError(outcome_of(error), errno_name(error)) from error
            self.last_read_ns, self.arrival = found.host_mono_ns, found.stamp
            self.octets_received += len(found.data)
            self.protocol.receive_datagram(found.data, self._address, now=self._now())

    def _note_departures(self) -> None:
        for entry in self._stamps.queued(self._sock):
            if isinstance(entry, Departure) and entry.stamp is not None:
                self._departures[entry.number] = entry.stamp

    def _now(self) -> float:
        return self._clock.mono_ns() / 1e9

    def _fate(self, event: ConnectionTerminated) -> tuple[Outcome, str]:
        code, reason = event.error_code, _printable(event.reason_phrase)
        if event.frame_type is not None and code in _ALERTS:
            return Outcome.TLS_FAILED, reason or _alert_name(code - QuicErrorCode.CRYPTO_ERROR)
        if code == QuicErrorCode.CONNECTION_REFUSED:
            return Outcome.REFUSED, reason or "QUIC CONNECTION_REFUSED"
        if reason == "Idle timeout":
            return Outcome.LOST, "nothing heard until QUIC's idle timeout"
        if "common protocol version" in reason:
            return Outcome.REJECTED, "no common version of QUIC"
        if not self.connected and code == QuicErrorCode.NO_ERROR:
            return Outcome.RESET, "closed during the handshake"
        return Outcome.RESET, f"QUIC error {code:#x}{': ' if reason else ''}{reason}"


def _configuration(
    server_name: str, alpn: list[str], ca_file: str | None, *, verify: bool
) -> QuicConfiguration:
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=alpn,
        server_name=server_name,
        max_data=_WINDOW_OCTETS,
        max_stream_data=_WINDOW_OCTETS,
        idle_timeout=600.0,  # the deadline is ours
        verify_mode=ssl.CERT_REQUIRED if verify else ssl.CERT_NONE,
    )
    if ca_file is not None:
        configuration.load_verify_locations(cafile=ca_file)
    elif verify:
        configuration.load_verify_locations(*_host_certificates())
    return configuration


def _host_certificates() -> tuple[str | None, str | None]:
    """File or folder of what this host trusts: as over TCP, where aioquic would take a list of its own.

    aioquic reads the file within the handshake, which takes milliseconds; out of a folder of hashed names
    (openssl-rehash(1)) only the one certificate is read that is wanted.
    """
    paths = ssl.get_default_verify_paths()
    chosen_file = paths.openssl_cafile_env in os.environ
    if not chosen_file and paths.capath:
        names = (entry.name for entry in Path(paths.capath).iterdir())
        if any(map(_HASHED.fullmatch, names)):
            return None, paths.capath
    return paths.cafile, paths.capath


def _alert_name(alert: int) -> str:
    try:
        return AlertDescription(alert).name
    except ValueError:
        return f"TLS alert {alert}"


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:120]
