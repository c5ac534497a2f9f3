"""File transfer: the speed of downloading and uploading one incompressible object over HTTP.

One sample is ``count`` transfers in each direction asked for (``both`` alternates down, up), one after the
other, each over one stream of a new TCP connection to a measurement server (``nhip server``, port 8862
unless given). The speed of one transfer is its volume divided by its time, file octets × 8 ÷ seconds, as
QCVN 34 has it; slow start is part of it and nothing is taken off or added.

* Down: the time runs from the first octet of the request handed to the socket until the last octet of the
  file is read here.
* Up: the server counts. The time runs, on its clock, from the first octet of the request it reads until the
  last octet of the file it reads; the server says both numbers in its answer. What this host wrote is never
  taken for what arrived: a socket buffer swallows megabytes in no time.

Connecting and the TLS handshake come before either time and are phases of their own. A file that ends early
is ``truncated`` and has no speed; a server at its declared capacity (HTTP 429 or 503 with the measurement
server's own format field) is ``busy``, which says nothing about the network; another status, or those from
anybody else, is ``rejected``; octets or times that cannot be true are ``corrupt``.

Settings: ``direction`` (down, up, both), ``count``, ``interval_seconds`` between starts; the file's size
either as ``size_octets`` or as ``duration_seconds`` at ``expected_bits_per_second`` (name the highest speed
the line can have: the file then lasts at least that long; a transfer that ended sooner is noted);
``loss_threshold_seconds`` for one whole transfer; ``congestion_control`` of this host's sockets (uploads;
for downloads the server's decides, and is noted); ``tls``, ``server_name``, ``verify_certificate`` and
``ca_file`` as for http.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import msgspec

from nhip.clock import clock_state
from nhip.errors import CannotMeasureError, ConfigError
from nhip.measurement import (
    Direction,
    Method,
    Outcome,
    Phase,
    Sample,
    Singleton,
    Stamp,
    Target,
    Transfer,
    TypeP,
)
from nhip.statistics import NANOSECONDS_PER_SECOND, worst_source
from probes.api import ProbeContext
from probes.http.http1 import Exchange, Head, host_field
from probes.line.way import WayWatch
from probes.network import Address, notes_on_name
from probes.payload import pieces
from probes.phases import end_phase
from probes.stream import Stream, StreamError
from probes.tcp_info import TcpInfo
from probes.tls.context import client_context
from probes.transfer_protocol import (
    CONGESTION_FIELD,
    DEFAULT_PORT,
    FILE_PATH,
    FORMAT,
    FORMAT_FIELD,
    Receipt,
)

_BUFFER_OCTETS = 262_144
_LONGEST_RECEIPT_OCTETS = 4_096
_DEFAULT_SIZE_OCTETS = 25_000_000
_BUSY = frozenset({429, 503})
# The server's clock and this one may drift apart by this much within one transfer, and no more.
_CLOCK_TOLERANCE_NS = 1_000_000
_CLOCK_TOLERANCE_PARTS = 1e-3


class FileTransferConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Knobs of a file_transfer test."""

    direction: Literal["down", "up", "both"] = "both"
    count: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 1
    interval_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 1.0
    size_octets: Annotated[int, msgspec.Meta(ge=1, le=100_000_000_000)] | None = None
    duration_seconds: Annotated[float, msgspec.Meta(gt=0, le=60)] = 2.0
    expected_bits_per_second: Annotated[float, msgspec.Meta(ge=1_000, le=4e11)] | None = None
    loss_threshold_seconds: Annotated[float, msgspec.Meta(gt=0, le=600)] = 60.0
    congestion_control: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_-]{0,15}$")] = ""
    tls: bool = False
    server_name: Annotated[str, msgspec.Meta(max_length=253)] = ""
    verify_certificate: bool = True
    ca_file: str | None = None

    def __post_init__(self) -> None:
        if self.size_octets is not None and self.expected_bits_per_second is not None:
            raise ConfigError(
                "size_octets: stands beside expected_bits_per_second, which also sets the size",
                remedy="keep one of the two",
            )

    @property
    def octets(self) -> int:
        """The size of the file."""
        if self.size_octets is not None:
            return self.size_octets
        if self.expected_bits_per_second is not None:
            return max(1, round(self.duration_seconds * self.expected_bits_per_second / 8))
        return _DEFAULT_SIZE_OCTETS

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Which way each transfer goes, in order."""
        if self.direction == "both":
            return (Direction.DOWN, Direction.UP) * self.count
        return (Direction(self.direction),) * self.count


@dataclass(slots=True)
class _Progress:
    """How far one transfer came; what is known when it breaks off."""

    direction: Direction
    sent: Stamp | None = None
    received: Stamp | None = None
    octets: int = 0
    duration_ns: int | None = None
    phases: list[Phase] = field(default_factory=list)
    octets_sent: int = 0
    octets_received: int = 0
    info: TcpInfo | None = None
    server_congestion_control: str = ""


class FileTransfer:
    """Measures the speed of one TCP stream to a measurement server, each direction by its receiver."""

    kind: ClassVar = "file_transfer"
    method: ClassVar = Method("file_transfer", "1")
    Config: ClassVar = FileTransferConfig
    exclusive: ClassVar = True
    has_port: ClassVar = True

    def __init__(self, config: FileTransferConfig) -> None:
        self.config = config

    def measure(self, target: Target, context: ProbeContext) -> Sample:
        config = self.config
        started, clock = context.now(), clock_state()
        port = target.port or DEFAULT_PORT
        address = context.network.resolve(target.host, port, timeout_seconds=config.loss_threshold_seconds)
        tls = client_context(config.ca_file, verify=config.verify_certificate) if config.tls else None
        way = WayWatch(context.network)
        if address is not None:
            way.check(address)
        begin_ns = context.clock.mono_ns()  # a slow name server must not push the first attempts together
        singletons, attempts = [], []
        for sequence, direction in enumerate(config.directions):
            due_ns = begin_ns + round(sequence * config.interval_seconds * NANOSECONDS_PER_SECOND)
            if not context.wait_until(due_ns):
                singletons.append(Singleton(sequence=sequence, outcome=Outcome.NOT_SENT, detail="cancelled"))
            elif address is None:
                singletons.append(Singleton(sequence=sequence, outcome=Outcome.NOT_RESOLVED))
            else:
                progress = _Progress(direction)
                attempts.append(progress)
                singletons.append(self._attempt(sequence, target, address, tls, context, progress, way))
        sample = Sample(
            kind=self.kind,
            method=self.method,
            target=target,
            type_p=TypeP(
                protocol="tcp",
                ip_version=address.ip_version if address else None,
                destination_port=port,
            ),
            started=started,
            ended=context.now(),
            loss_threshold_seconds=config.loss_threshold_seconds,
            singletons=tuple(singletons),
            timestamp_source=worst_source(singletons),
            address=address.host if address else None,
            source_address=context.network.source,
            interface=context.network.interface,
            clock=clock,
            octets_sent=sum(progress.octets_sent for progress in attempts),
            octets_received=sum(progress.octets_received for progress in attempts),
            parameters=self._parameters(attempts),
            notes=(*self._notes(attempts), *notes_on_name(context.network, target.host)),
        )
        return way.confirmed(sample)

    def _parameters(self, attempts: list[_Progress]) -> dict[str, str | int | float | bool]:
        found: dict[str, str | int | float | bool] = {
            "count": self.config.count,
            "direction": self.config.direction,
            "interval_seconds": self.config.interval_seconds,
            "size_octets": self.config.octets,
            "streams": 1,
            "tls": self.config.tls,
        }
        if self.config.tls:
            found["verify_certificate"] = self.config.verify_certificate
        if self.config.expected_bits_per_second is not None:
            found["duration_seconds"] = self.config.duration_seconds
            found["expected_bits_per_second"] = self.config.expected_bits_per_second
        for progress in attempts:
            if progress.info is not None:
                found["congestion_control"] = progress.info.congestion_control
            if progress.server_congestion_control:
                found["server_congestion_control"] = progress.server_congestion_control
        return found

    def _notes(self, attempts: list[_Progress]) -> tuple[str, ...]:
        notes = []
        for number, progress in enumerate(attempts, start=1):
            if progress.info is not None:
                notes.append(
                    f"transfer {number} {progress.direction}: round trip {progress.info.round_trip_us} us, "
                    f"{progress.info.retransmitted_segments} segments sent again by this host"
                )
        expected_ns = self.config.duration_seconds * NANOSECONDS_PER_SECOND
        if self.config.expected_bits_per_second is not None and any(
            progress.duration_ns is not None and progress.duration_ns < expected_ns for progress in attempts
        ):
            notes.append("a transfer ended before duration_seconds: expected_bits_per_second is too low")
        return tuple(notes)

    def _attempt(
        self,
        sequence: int,
        target: Target,
        address: Address,
        tls: ssl.SSLContext | None,
        context: ProbeContext,
        progress: _Progress,
        way: WayWatch,
    ) -> Singleton:
        """One transfer with everything that can break it off turned into an outcome."""
        detail = ""
        try:
            outcome = self._transfer(target, address, tls, context, progress)
        except StreamError as error:
            outcome, detail = error.outcome, error.detail
            if outcome is Outcome.LOST and progress.octets:
                outcome = Outcome.TRUNCATED
            if outcome is Outcome.UNREACHABLE:
                way.failed(outcome, address)
        transfer = None
        if progress.duration_ns is not None:
            transfer = Transfer(
                direction=progress.direction,
                octets=progress.octets,
                duration_ns=progress.duration_ns,
                announced_octets=self.config.octets,
            )
        return Singleton(
            sequence=sequence,
            outcome=outcome,
            sent=progress.sent,
            received=progress.received,
            transfer=transfer,
            phases=tuple(progress.phases),
            detail=detail,
        )

    def _transfer(
        self,
        target: Target,
        address: Address,
        tls: ssl.SSLContext | None,
        context: ProbeContext,
        progress: _Progress,
    ) -> Outcome:
        begun_ns = context.clock.mono_ns()
        stream = Stream(
            self._socket(address, context),
            clock=context.clock,
            deadline_ns=begun_ns + round(self.config.loss_threshold_seconds * NANOSECONDS_PER_SECOND),
            cancelled=context.cancelled,
        )
        with stream:
            try:
                stream.connect(address)
                begun_ns = end_phase(progress.phases, "tcp", begun_ns, context.clock)
                if tls is not None:
                    stream.start_tls(tls, server_name=self.config.server_name or target.host)
                    end_phase(progress.phases, "tls", begun_ns, context.clock)
                host = host_field(target.host, target.port or DEFAULT_PORT, 443 if self.config.tls else 80)
                if progress.direction is Direction.DOWN:
                    self._download(stream, host, context, progress)
                else:
                    self._upload(stream, host, context, progress)
                progress.info = stream.info()
            finally:
                progress.octets_sent = stream.octets_sent
                progress.octets_received = stream.octets_received
        return Outcome.RECEIVED

    def _download(self, stream: Stream, host: str, context: ProbeContext, progress: _Progress) -> None:
        exchange = Exchange(stream, context.clock)
        wanted = self.config.octets
        buffer = memoryview(bytearray(_BUFFER_OCTETS))
        progress.sent = context.now()
        try:
            exchange.send_head("GET", f"{FILE_PATH}?octets={wanted}", host)
            exchange.end_request()
            self._accept(exchange.receive_head(), progress, announced=wanted)
            begun_ns = exchange.first_octet_ns or progress.sent.mono_ns
            progress.phases.append(Phase("first_byte", begun_ns - progress.sent.mono_ns))
            progress.octets = len(exchange.leftover())
            while progress.octets < wanted:
                count = stream.receive_into(buffer[: wanted - progress.octets])
                if count == 0:
                    raise StreamError(Outcome.TRUNCATED, f"{progress.octets} of {wanted} octets")
                progress.octets += count
            if progress.octets > wanted:
                raise StreamError(Outcome.CORRUPT, "more octets than announced")
        finally:
            if progress.octets:
                progress.received = context.now()
                progress.duration_ns = progress.received.mono_ns - progress.sent.mono_ns
        end_phase(progress.phases, "transfer", begun_ns, context.clock)

    def _upload(self, stream: Stream, host: str, context: ProbeContext, progress: _Progress) -> None:
        exchange = Exchange(stream, context.clock)
        length = self.config.octets
        progress.sent = context.now()
        exchange.send_head("POST", FILE_PATH, host, [("Content-Length", str(length))])
        for piece in pieces(length):
            if not stream.send_unless_answered(piece):
                break
        head = exchange.receive_head()
        body = b""
        while (part := exchange.receive_part()) is not None and len(body) <= _LONGEST_RECEIPT_OCTETS:
            body += part
        received = context.now()
        self._accept(head, progress, announced=None)
        try:
            receipt = msgspec.json.decode(body, type=Receipt)
        except (msgspec.MsgspecError, ValueError) as error:
            raise StreamError(Outcome.CORRUPT, "no receipt in the answer") from error
        elapsed_ns = received.mono_ns - progress.sent.mono_ns
        end_phase(progress.phases, "transfer", progress.sent.mono_ns, context.clock)
        if receipt.octets > length or not _possible(receipt.duration_ns, elapsed_ns):
            raise StreamError(
                Outcome.CORRUPT,
                f"receipt says {receipt.octets} octets in {receipt.duration_ns} ns, {elapsed_ns} ns passed",
            )
        progress.received = received
        progress.octets, progress.duration_ns = receipt.octets, receipt.duration_ns
        if receipt.octets < length:
            raise StreamError(Outcome.TRUNCATED, f"{receipt.octets} of {length} octets")

    def _accept(self, head: Head, progress: _Progress, *, announced: int | None) -> None:
        """Return when the answer is one of a measurement server that serves; StreamError otherwise."""
        # Only the measurement server itself may take a transfer out of the figures; anybody on the way
        # could otherwise remove what it slows down by answering 503.
        if head.status in _BUSY and head.fields.get(FORMAT_FIELD) == FORMAT:
            raise StreamError(Outcome.BUSY, f"HTTP {head.status}")
        if head.status != 200:
            raise StreamError(Outcome.REJECTED, f"HTTP {head.status}")
        if head.fields.get(FORMAT_FIELD) != FORMAT:
            raise StreamError(Outcome.CORRUPT, "the answer comes from no measurement server")
        if head.fields.get("content-encoding", "identity") != "identity":
            raise StreamError(Outcome.CORRUPT, "the file was encoded on the way")
        if announced is not None and head.announced_octets != announced:
            raise StreamError(
                Outcome.CORRUPT, f"asked for {announced} octets, announced {head.announced_octets}"
            )
        progress.server_congestion_control = head.fields.get(CONGESTION_FIELD, "")[:15]

    def _socket(self, address: Address, context: ProbeContext) -> socket.socket:
        sock = context.network.tcp(address.family)
        if self.config.congestion_control:
            try:
                sock.setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_CONGESTION, self.config.congestion_control.encode()
                )
            except OSError as error:
                sock.close()
                raise CannotMeasureError(
                    f"this host has no congestion control {self.config.congestion_control!r}",
                    remedy="see: sysctl net.ipv4.tcp_available_congestion_control",
                ) from error
        return sock


def _possible(server_duration_ns: int, elapsed_ns: int) -> bool:
    """False for a time the server cannot have taken: it saw less of the exchange than this host did."""
    return 0 < server_duration_ns <= elapsed_ns * (1 + _CLOCK_TOLERANCE_PARTS) + _CLOCK_TOLERANCE_NS
