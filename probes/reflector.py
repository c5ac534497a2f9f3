"""A STAMP Session-Reflector: stateless, unauthenticated mode (RFC 8762 section 4.3).

Answers each test packet with one of exactly its size, so that a forged source address gains nothing; sends
at most `packets_per_second` to one client address, so that one client cannot starve the others. T2 is the
kernel's arrival stamp, T3 is written as the last thing before the packet leaves. It does not answer packets
that claim to come from a port below 1024, where another service (another reflector, on 862) would answer
back, nor packets that look like a reflector's answer: two reflectors would keep one forged packet going
between them for ever.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nhip.clock import Clock, clock_state
from nhip.errors import CannotMeasureError, WireError
from nhip.statistics import NANOSECONDS_PER_SECOND
from probes.metrics import Reading
from probes.packets import stamp
from probes.timestamping import ReceiveClock
from probes.token_bucket import TokenBuckets

# Jumbo frames and a little more; a longer datagram is answered with no more than it had.
_LARGEST_OCTETS = 9_216
# The clock's state changes slowly; asking the kernel for every packet would only delay T3.
_CLOCK_STATE_AGE_NS = NANOSECONDS_PER_SECOND
_CLIENTS_REMEMBERED = 4_096
# Between looks at the stop signal, which a flood must not hide.
_READS_AT_ONCE = 64


@dataclass(slots=True)
class ReflectorCounters:
    """What the reflector saw since it started."""

    received: int = 0
    reflected: int = 0
    malformed: int = 0
    rate_limited: int = 0
    refused_port: int = 0
    already_reflected: int = 0
    send_failures: int = 0


class Reflector:
    """One UDP socket that answers STAMP packets until closed."""

    def __init__(self, host: str, port: int, *, clock: Clock, packets_per_second: float = 2_000.0) -> None:
        self._host, self._port = host, port
        self._packets_per_second = packets_per_second
        self._clock = clock
        self._buckets = TokenBuckets(packets_per_second, most_clients=_CLIENTS_REMEMBERED)
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._stop: tuple[socket.socket, socket.socket] | None = None
        self._error = stamp.error_estimate(None, synchronised=False)
        self._error_read_ns: int | None = None
        self.counters = ReflectorCounters()

    @property
    def description(self) -> str:
        """What it is, for the log: addresses and limits."""
        host, port = self.address
        return f"STAMP reflector on {host} port {port}, {self._packets_per_second:g} packets/s to one client"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port really bound, once started."""
        if self._socket is None:
            raise CannotMeasureError("the reflector is not started", remedy="call start first")
        name = self._socket.getsockname()
        return str(name[0]), int(name[1])

    def readings(self) -> Iterator[Reading]:
        """What the server's metrics page shows of it."""
        counters = self.counters
        yield Reading("nhip_reflector_packets_received_total", counters.received)
        yield Reading("nhip_reflector_packets_reflected_total", counters.reflected)
        for reason in ("malformed", "rate_limited", "refused_port", "already_reflected"):
            yield Reading("nhip_reflector_packets_refused_total", getattr(counters, reason), (reason,))

    def start(self) -> None:
        """Bind and answer from a thread of its own; CannotMeasureError when the port cannot be had."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            if family is socket.AF_INET6 and self._host == "::":
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind((self._host, self._port))
        except OSError as error:
            sock.close()
            raise CannotMeasureError(
                f"the STAMP reflector cannot bind {self._host} port {self._port}: {error.strerror}",
                remedy="give another port, or run with CAP_NET_BIND_SERVICE for a port below 1024",
            ) from error
        self._socket = sock
        self._stop = socket.socketpair()
        self._thread = threading.Thread(
            target=self._serve, args=(sock, self._stop[0]), name="stamp-reflector", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop answering and free the port; safe to call at any time."""
        if self._stop is not None and self._thread is not None:
            self._stop[1].send(b"x")
            self._thread.join()
            self._thread = None
        for sock in (self._socket, *(self._stop or ())):
            if sock is not None:
                sock.close()
        self._socket = self._stop = None

    def _serve(self, sock: socket.socket, stop: socket.socket) -> None:
        receive_clock = ReceiveClock(self._clock)
        receive_clock.enable(sock)
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        poll.register(stop, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _events in poll.poll()}
            if stop.fileno() in ready:
                return
            for _ in range(_READS_AT_ONCE):
                try:
                    datagram = receive_clock.receive(sock, _LARGEST_OCTETS)
                except BlockingIOError:
                    break
                except OSError:
                    # An ICMP error of an earlier answer: nobody is waiting for it here.
                    self.counters.send_failures += 1
                    continue
                self._answer(
                    sock, datagram.data, datagram.address, datagram.stamp.wall_ns, datagram.hop_limit
                )

    def _answer(
        self, sock: socket.socket, request: bytes, address: Any, received_wall_ns: int, hop_limit: int | None
    ) -> None:
        self.counters.received += 1
        if address[1] < 1024:
            self.counters.refused_port += 1
            return
        if stamp.is_reflected(request):
            self.counters.already_reflected += 1
            return
        if not self._buckets.take(address[0], self._clock.mono_ns()):
            self.counters.rate_limited += 1
            return
        try:
            answer = stamp.reflect(
                request,
                received_wall_ns=received_wall_ns,
                hop_limit=hop_limit or 0,
                error=self._error_estimate(),
            )
            stamp.set_sent(answer, self._clock.wall_ns())
            sock.sendto(answer, address)
        except WireError:
            self.counters.malformed += 1
        except OSError:
            self.counters.send_failures += 1
        else:
            self.counters.reflected += 1

    def _error_estimate(self) -> stamp.ErrorEstimate:
        now_ns = self._clock.mono_ns()
        if self._error_read_ns is None or now_ns - self._error_read_ns > _CLOCK_STATE_AGE_NS:
            state = clock_state()
            known = state.maximum_error_ns if state.synchronised else None
            self._error = stamp.error_estimate(
                None if known is None else known / NANOSECONDS_PER_SECOND,
                synchronised=bool(state.synchronised),
            )
            self._error_read_ns = now_ns
        return self._error
