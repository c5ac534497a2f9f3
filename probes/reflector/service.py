"""A STAMP Session-Reflector (RFC 8762 section 4.3, RFC 8972): one socket, one thread, until closed.

Answers each test packet with one of exactly its size, so that a forged source address gains nothing; sends
at most `packets_per_second` to one client, so that one client cannot starve the others. T2 is the kernel's
arrival stamp, T3 is written as the last thing before the packet leaves. When an answer really left, the
kernel tells afterwards; a sender that asks with a Follow-Up Telemetry TLV hears it in the next answer.

It does not answer packets that claim to come from a port below 1024, where another service (another
reflector, on 862) would answer back, nor packets that look like a reflector's answer: two reflectors would
keep one forged packet going between them for ever.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
from collections.abc import Iterator

from nhip.clock import Clock
from probes.metrics import Reading
from probes.packets.stamp import ntp_from_wall_ns
from probes.packets.stamp_tlv import FollowUp, Method
from probes.reflector.counters import REFUSALS, ReflectorCounters
from probes.reflector.responder import Responder
from probes.reflector.sessions import Session
from probes.reflector.settings import ReflectorSettings, StampSection
from probes.reflector.stamped_socket import Request, StampedSocket

log = logging.getLogger("nhip.reflector")

# Jumbo frames and a little more; a longer datagram is answered with no more than it had.
_LARGEST_OCTETS = 9_216
# Between looks at the stop signal, which a flood must not hide.
_READS_AT_ONCE = 64
# Answers whose departure is still unknown; a driver that never tells must not fill the memory.
_DEPARTURES_AWAITED = 1_024


class Reflector:
    """One UDP socket that answers STAMP and TWAMP Light packets until closed."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        clock: Clock,
        packets_per_second: float = 2_000.0,
        settings: ReflectorSettings | None = None,
    ) -> None:
        self._packets_per_second = packets_per_second
        self._settings = settings or ReflectorSettings()
        self._clock = clock
        self._socket = StampedSocket(host, port, clock)
        self._thread: threading.Thread | None = None
        self._stop: tuple[socket.socket, socket.socket] | None = None
        self._responder: Responder | None = None
        self._awaited: dict[int, tuple[Session, int, int]] = {}
        self._faults: set[type[Exception]] = set()
        self.counters = ReflectorCounters()

    @classmethod
    def of(cls, section: StampSection, clock: Clock) -> Reflector:
        """The reflector that a configuration describes; ConfigError when one of its keys cannot be used."""
        return cls(
            section.host,
            section.port,
            clock=clock,
            packets_per_second=section.packets_per_second,
            settings=section.settings(),
        )

    @property
    def description(self) -> str:
        """What it is, for the log: addresses, mode and limits."""
        host, port = self.address
        mode = "authenticated" if self._settings.authenticated else "unauthenticated"
        state = "stateful" if self._settings.stateful else "stateless"
        return (
            f"STAMP reflector on {host} port {port}, {mode}, {state}, "
            f"{self._packets_per_second:g} packets/s to one client"
        )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port really bound, once started."""
        name = self._socket.sock.getsockname()
        return str(name[0]), int(name[1])

    @property
    def sessions(self) -> int:
        """How many sessions are remembered."""
        return 0 if self._responder is None else len(self._responder.sessions)

    def readings(self) -> Iterator[Reading]:
        """What the server's metrics page shows of it."""
        counters = self.counters
        yield Reading("nhip_reflector_packets_received_total", counters.received)
        yield Reading("nhip_reflector_packets_reflected_total", counters.reflected)
        for reason in REFUSALS:
            yield Reading("nhip_reflector_packets_refused_total", getattr(counters, reason), (reason,))
        yield Reading("nhip_reflector_send_failures_total", counters.send_failures)
        yield Reading("nhip_reflector_internal_errors_total", counters.internal_errors)
        yield Reading("nhip_reflector_integrity_failures_total", counters.integrity_failures)
        yield Reading("nhip_reflector_packets_corrected_total", counters.follow_ups)
        yield Reading("nhip_reflector_sessions", self.sessions)
        yield Reading("nhip_reflector_sessions_evicted_total", counters.sessions_evicted)

    def start(self) -> None:
        """Bind and answer from a thread of its own; CannotMeasureError when the port cannot be had."""
        self._socket.open()
        self._awaited.clear()
        self._responder = Responder(
            self._settings,
            packets_per_second=self._packets_per_second,
            clock=self._clock,
            counters=self.counters,
            address=self.address,
        )
        self._stop = socket.socketpair()
        self._thread = threading.Thread(
            target=self._serve, args=(self._responder, self._stop[0]), name="stamp-reflector", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop answering and free the port; safe to call at any time."""
        if self._stop is not None and self._thread is not None:
            self._stop[1].send(b"x")
            self._thread.join()
            self._thread = None
        self._socket.close()
        for sock in self._stop or ():
            sock.close()
        self._stop = None

    def _serve(self, responder: Responder, stop: socket.socket) -> None:
        poll = select.poll()
        sock = self._socket.sock
        poll.register(sock, select.POLLIN)
        poll.register(stop, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if stop.fileno() in ready:
                return
            if ready.get(sock.fileno(), 0) & select.POLLERR:
                try:
                    self._note_departures()
                except Exception as error:
                    self._note_fault(error)
            for _ in range(_READS_AT_ONCE):
                try:
                    if not self._serve_one(responder):
                        break
                except Exception as error:
                    # A packet that finds a fault of ours must not silence the reflector for all others.
                    self._note_fault(error)

    def _serve_one(self, responder: Responder) -> bool:
        """Answer the next request; False when there is none."""
        try:
            request = self._socket.receive(_LARGEST_OCTETS)
        except BlockingIOError:
            return False
        except OSError:
            # An ICMP error of an earlier answer: nobody is waiting for it here.
            self.counters.send_failures += 1
        else:
            self._answer(responder, request)
        return True

    def _note_fault(self, error: Exception) -> None:
        """Count it, and log the first of its kind: one for each packet would fill the disk."""
        self.counters.internal_errors += 1
        if type(error) not in self._faults:
            self._faults.add(type(error))
            log.error("the STAMP reflector left a packet unanswered by its own fault", exc_info=error)

    def _answer(self, responder: Responder, request: Request) -> None:
        counters = self.counters
        counters.received += 1
        # The answer may have to tell when the one before it left.
        if self._awaited:
            self._note_departures()
        answer = responder.answer(request)
        if isinstance(answer, str):
            setattr(counters, answer, getattr(counters, answer) + 1)
            return
        try:
            number = self._socket.send(
                answer.finish(self._clock.wall_ns()),
                request,
                traffic_class=answer.dscp << 2,
                departure=answer.wants_follow_up,
            )
        except OSError:
            counters.send_failures += 1
            return
        counters.reflected += 1
        if number is not None and answer.session is not None:
            self._awaited[number] = (answer.session, answer.session.generation, answer.sequence)
            if len(self._awaited) > _DEPARTURES_AWAITED:
                del self._awaited[next(iter(self._awaited))]

    def _note_departures(self) -> None:
        for number, left_wall_ns in self._socket.departures():
            session, generation, sequence = self._awaited.pop(number, (None, 0, 0))
            if session is not None and session.generation == generation:
                session.follow_up = FollowUp(sequence, ntp_from_wall_ns(left_wall_ns), Method.SOFTWARE)
