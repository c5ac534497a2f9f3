"""A connection whose departures and arrivals the kernel stamps, under TLS too.

A program that reads the clock around its own calls measures its host's scheduler as well. For a datagram the
kernel's stamps come with it; on a connection they come with the octets: SO_TIMESTAMPING numbers what was sent
by its last octet (OPT_ID counts octets from where it was switched on), and tells with every read when the
last octet of it arrived. A TLS library that reads the socket itself would lose the latter, so it is given its
octets here::

    Stream ──▶ _TlsSocket ──▶ ssl.SSLObject ◀──▶ two memory buffers ◀──▶ StampedSocket ──▶ kernel

The kernel joins segments that wait unread and keeps the time of the latest. So an answer that is read late,
and behind which the server sent something more, has the time of that: later than its own, never earlier.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import Any, cast

from nhip.clock import Clock
from nhip.measurement import Outcome, Stamp, StampSource
from probes.clock_bridge import ClockBridge
from probes.error_queue import SCM_TIMESTAMPING, TransmitStamp, kernel_and_hardware_ns, queued_messages
from probes.network import Address
from probes.stream import Stream, StreamError
from probes.timestamping import SO_TIMESTAMPING
from probes.tls.context import TlsSession, session_of

# linux/net_tstamp.h: TX_SOFTWARE, RX_SOFTWARE, SOFTWARE, OPT_ID, OPT_CMSG, OPT_TSONLY.
_STAMPS = 2 | 8 | 16 | 1 << 7 | 1 << 10 | 1 << 11
_ANCILLARY_OCTETS = 512
_BUFFER_OCTETS = 65_536
# A departure before the hand-over is another packet's; the two clocks are read some microseconds apart.
_NOISE_NS = 50_000
# What may have waited unread at a deadline: the longest DNS message behind its length.
_GRACE_OCTETS = 65_537


class StampedSocket(socket.socket):
    """A stream socket that counts what it sends, and knows when it left and when the latest octets came."""

    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        super().__init__(sock.family, sock.type, sock.proto, sock.detach())
        self.setblocking(False)
        self.written = 0
        """Octets the kernel took since stamping was switched on."""
        self.arrival: Stamp | None = None
        """When the last octet of the latest read arrived, as far as the kernel told."""
        self._bridge = ClockBridge(clock)
        self._departures: dict[int, Stamp] = {}

    @property
    def uncertainty_ns(self) -> int:
        """How far a stamp on the monotonic clock may be off."""
        return self._bridge.uncertainty_ns

    def enable(self) -> None:
        """Ask for stamps; the connection must stand. Where the kernel refuses there are none."""
        self.written = 0
        with contextlib.suppress(OSError):
            self.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, _STAMPS)

    def send(self, data: Any, flags: int = 0) -> int:
        try:
            count = super().send(data, flags)
        except BlockingIOError:
            self._note_departures()  # what waits there would wake every later poll
            raise
        self.written += count
        return count

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        view = memoryview(buffer)[: nbytes or None]
        try:
            count, ancillary, _flags, _address = self.recvmsg_into([view], _ANCILLARY_OCTETS, flags)
        except BlockingIOError:
            self._note_departures()  # what waits there would wake every later poll
            raise
        self.arrival = None
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, SCM_TIMESTAMPING):
                wall_ns, _hardware_ns = kernel_and_hardware_ns(value)
                # Unlike for datagrams the kernel fills in no time of reading: what it did not stamp has none.
                if wall_ns is not None:
                    self.arrival = self._carried(wall_ns, self._bridge.look())
        return count

    def departure(self, written: int, handed_over_ns: int) -> Stamp | None:
        """When the last of `written` octets left; `None` where the kernel has not told.

        `handed_over_ns` is when they were handed over: a stamp from before is not theirs.
        """
        self._note_departures()
        for number in [number for number in self._departures if number < written - 1]:
            del self._departures[number]  # of what was sent before
        # What is sent shortly after another may leave in one segment with it, which is numbered by its end.
        return self.first_departure(handed_over_ns)

    def first_departure(self, handed_over_ns: int) -> Stamp | None:
        """When the first that was handed over since then left; `None` where the kernel has not told."""
        self._note_departures()
        since = [
            number
            for number, stamp in self._departures.items()
            if stamp.mono_ns >= handed_over_ns - _NOISE_NS
        ]
        return self._departures[min(since)] if since else None

    def _note_departures(self) -> None:
        for message in queued_messages(self):
            if isinstance(message, TransmitStamp) and message.kernel_wall_ns is not None:
                stamp = self._carried(message.kernel_wall_ns, self._bridge.look())
                if stamp is not None:
                    # Of a segment sent again the first departure counts.
                    self._departures.setdefault(message.number, stamp)

    def _carried(self, wall_ns: int, now_ns: int) -> Stamp | None:
        mono_ns = self._bridge.mono_ns(wall_ns, now_ns)
        return None if mono_ns is None else Stamp(wall_ns, mono_ns, StampSource.KERNEL)


class StampedStream(Stream):
    """A stream that tells when what it sent left and when what it read arrived."""

    def __init__(
        self, sock: socket.socket, *, clock: Clock, deadline_ns: int, cancelled: threading.Event
    ) -> None:
        self._stamped = StampedSocket(sock, clock)
        self._tls_socket: _TlsSocket | None = None
        self._grace_octets, self._grace_after_ns = _GRACE_OCTETS, deadline_ns
        super().__init__(self._stamped, clock=clock, deadline_ns=deadline_ns, cancelled=cancelled)

    @property
    def uncertainty_ns(self) -> int:
        """How far a kernel stamp on the monotonic clock may be off."""
        return self._stamped.uncertainty_ns

    @property
    def arrival(self) -> Stamp | None:
        """When the latest octets arrived; `None` where the kernel did not tell."""
        return self._stamped.arrival

    @property
    def written(self) -> int:
        """How many octets, those of TLS included, were handed to the kernel since connecting."""
        return self._stamped.written

    def departure(self, written: int, handed_over_ns: int) -> Stamp | None:
        """When the last of `written` octets left; `None` where the kernel has not told."""
        return self._stamped.departure(written, handed_over_ns)

    def connect(self, address: Address) -> None:
        super().connect(address)
        self.enable()

    def enable(self) -> None:
        """Ask for stamps on a connection that stands already."""
        self._stamped.enable()

    def start_tls(self, context: ssl.SSLContext, *, server_name: str | None = None) -> None:
        wrapper = _Wrapper(context, self._stamped)
        super().start_tls(cast("ssl.SSLContext", wrapper), server_name=server_name)
        self._tls_socket = wrapper.made

    def tls_session(self) -> TlsSession | None:
        if self._tls_socket is None:
            return None
        return session_of(cast("ssl.SSLSocket", self._tls_socket.tls))

    def receive_into(self, view: memoryview) -> int:
        """As :meth:`Stream.receive_into`; after the deadline what is there already, but nothing is awaited.

        A host that did not let this process run past the deadline must not make a loss of what came in time.
        But a server may never stop sending: after each deadline no more is taken than the longest answer.
        """
        try:
            return super().receive_into(view)
        except StreamError as error:
            if error.outcome is not Outcome.LOST:
                raise
            if self._grace_after_ns != self.deadline_ns:
                self._grace_octets, self._grace_after_ns = _GRACE_OCTETS, self.deadline_ns
            if not self._grace_octets:
                raise
            try:
                count = self._sock.recv_into(view[: self._grace_octets])
            except OSError:
                raise error from None
            self._grace_octets -= count
            self.octets_received += count
            return count


class _Wrapper:
    """What a stream needs of a TLS context: a socket wrapped so that its octets stay stamped."""

    def __init__(self, context: ssl.SSLContext, sock: StampedSocket) -> None:
        self.made: _TlsSocket | None = None
        self._context = context
        self._sock = sock

    def wrap_socket(
        self, _sock: object, *, server_hostname: str | None = None, **_rest: object
    ) -> _TlsSocket:
        self.made = _TlsSocket(self._context, self._sock, server_hostname)
        return self.made


class _TlsSocket:
    """The part of :class:`ssl.SSLSocket` that a stream uses, on memory buffers."""

    def __init__(self, context: ssl.SSLContext, sock: StampedSocket, server_name: str | None) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._unsent = b""
        self._buffer = memoryview(bytearray(_BUFFER_OCTETS))

    def do_handshake(self) -> None:
        try:
            self._shake_hands()
        except ssl.SSLWantReadError:
            self._fill()
            self._shake_hands()

    def recv_into(self, view: memoryview) -> int:
        try:
            return self._read(view)
        except ssl.SSLWantReadError:
            # Once: the caller looks at its deadline in between, however much comes that is no clear text.
            self._fill()
            return self._read(view)

    def send(self, data: bytes | memoryview) -> int:
        self._flush()
        count = self.tls.write(data)
        with contextlib.suppress(ssl.SSLWantWriteError):
            self._flush()  # what the kernel does not take now leaves with the next call
        return count

    def shutdown(self, how: int) -> None:
        self._sock.shutdown(how)

    def getsockopt(self, *words: int) -> Any:
        return self._sock.getsockopt(*words)

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def _shake_hands(self) -> None:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            raise
        self._flush()

    def _read(self, view: memoryview) -> int:
        try:
            return cast("int", self.tls.read(len(view), view))  # octets, where a buffer is given
        except ssl.SSLWantReadError:
            with contextlib.suppress(ssl.SSLWantWriteError):
                self._flush()
            raise
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return 0  # as ssl.SSLSocket has it: the end, announced or not

    def _fill(self) -> None:
        try:
            count = self._sock.recv_into(self._buffer)
        except BlockingIOError:
            raise ssl.SSLWantReadError from None
        if count:
            self._incoming.write(self._buffer[:count])
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        self._unsent += self._outgoing.read()
        while self._unsent:
            try:
                count = self._sock.send(self._unsent)
            except BlockingIOError:
                raise ssl.SSLWantWriteError from None
            self._unsent = self._unsent[count:]
