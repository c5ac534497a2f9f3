"""A connection opened step by step, each step a phase: the name, TCP, TLS."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field

from nhip.measurement import Outcome, Phase, Stamp
from probes.api import ProbeContext
from probes.dialling import DialError, Dialler
from probes.network import Address
from probes.phases import end_phase
from probes.stamped_stream import StampedStream
from probes.stream import Stream, StreamError
from probes.tls.findings import TlsFindings, is_tls_failure


@dataclass(slots=True)
class Progress:
    """How far one attempt came; what is known when it breaks off."""

    address: Address | None = None
    begun: Stamp | None = None
    """When the first packet to the target was handed over."""
    sent: Stamp | None = None
    received: Stamp | None = None
    host_sent_mono_ns: int | None = None
    host_received_mono_ns: int | None = None
    phases: list[Phase] = field(default_factory=list)
    octets_sent: int = 0
    octets_received: int = 0


class OpenedStream(StampedStream):
    """A stamped stream that ends strictly at its deadline: a server may never stop sending."""

    def receive_into(self, view: memoryview) -> int:
        return Stream.receive_into(self, view)


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens streams for one test; StreamError carries the fate of one that cannot be opened."""

    context: ProbeContext
    dialler: Dialler
    findings: TlsFindings
    alpn: Sequence[str]
    _refused: list[tuple[Address, str]] = field(default_factory=list)
    """Where handshakes failed, each with the server's name."""

    def resolve(self, host: str, port: int, deadline_ns: int, progress: Progress) -> tuple[Address, ...]:
        """Where to connect to; the phase ``dns`` is only there when `host` is a name."""
        clock = self.context.clock
        begun_ns = clock.mono_ns()
        remaining_seconds = max(0.001, (deadline_ns - begun_ns) / 1e9)
        addresses = self.dialler.resolve(host, port, timeout_seconds=remaining_seconds)
        if not addresses:
            raise StreamError(Outcome.NOT_RESOLVED)
        progress.address = addresses[0]
        if not is_address(host):
            end_phase(progress.phases, "dns", begun_ns, clock)
        return addresses

    def open(
        self,
        addresses: Sequence[Address],
        server_name: str,
        tls: ssl.SSLContext | None,
        deadline_ns: int,
        progress: Progress,
    ) -> OpenedStream:
        """A connected stream, over TLS where `tls` is given; the caller closes it."""
        clock = self.context.clock
        try:
            made = self.dialler.connect(addresses, deadline_ns)
        except DialError as error:
            progress.begun = error.begun
            raise
        progress.address, progress.begun = made.address, made.begun
        progress.phases.extend(self.dialler.phases(made, by_kernel=True))
        stream = OpenedStream(
            made.sock, clock=clock, deadline_ns=deadline_ns, cancelled=self.context.cancelled
        )
        try:
            stream.enable()
            if tls is not None:
                begun_ns = clock.mono_ns()
                stream.start_tls(tls, server_name=server_name)
                ended = self.context.now()
                left = stream.departure(1, begun_ns)  # of the first octet, and so of the ClientHello
                left_ns, progress.received = handshake_times(begun_ns, left, stream.arrival, ended)
                progress.phases.append(Phase("tls", max(0, progress.received.mono_ns - left_ns)))
                if session := stream.tls_session():
                    self.findings.agreed(session, server_name)
        except StreamError as error:
            stream.close()
            if is_tls_failure(error):
                self.findings.failed(error.detail, server_name)
                self._refused.append((made.address, server_name))
            raise
        except BaseException:
            stream.close()
            raise
        return stream

    def look_back(self, timeout_seconds: float) -> None:
        """What no attempt showed: the other IP version's time, and whom a failed handshake was with.

        A connection each at most, and so after the last attempt: within one they would make it outlast its
        end, and would hold back the next.
        """
        self.dialler.compare(timeout_seconds)
        if self._refused and not self.context.cancelled.is_set():
            address, name = self._refused[0]
            self.findings.look(address, name, self.context, alpn=self.alpn, seconds=timeout_seconds)


def handshake_times(
    begun_ns: int, left: Stamp | None, arrived: Stamp | None, ended: Stamp
) -> tuple[int, Stamp]:
    """When a handshake began and when it ended: by the kernel as far as its stamps fit each other.

    `begun_ns` and `ended` are when this program began and was done. A stamp outside of these is of other
    octets, or from before a step of the wall clock, and counts for nothing.
    """
    if arrived is None or not begun_ns <= arrived.mono_ns <= ended.mono_ns:
        arrived = ended
    if left is None or left.mono_ns > arrived.mono_ns:
        return begun_ns, arrived
    return left.mono_ns, arrived


def is_address(host: str) -> bool:
    """Whether `host` needs no name server."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
