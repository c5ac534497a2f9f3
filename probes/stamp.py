"""STAMP: round-trip delay and loss towards a STAMP reflector (RFC 8762, unauthenticated mode).

The reflector's own holding time is taken out: delay = (T4 − T1) − (T3 − T2). One-way delays are not
published here, because they would need both clocks within a stated error. Packets are 44 octets or as many
as ``size_octets`` says; a reflected packet of another size or padding is corrupt.

Settings: ``count``, ``interval_seconds``, ``spacing`` (``periodic`` or ``poisson``), ``size_octets`` of the
UDP payload, ``dscp``, ``loss_threshold_seconds``. The target's port is 862 unless given.
"""

from __future__ import annotations

import secrets
import socket
from typing import Annotated, ClassVar

import msgspec

from nhip.clock import clock_state
from nhip.errors import WireError
from nhip.measurement import ClockState, Method, Sample, Target, TypeP
from nhip.measurement import Stamp as TimeStamp
from nhip.statistics import NANOSECONDS_PER_SECOND
from probes.api import ProbeContext
from probes.echo import Answer, EchoProtocol
from probes.echo_stream import EchoConfig, measure_echo
from probes.network import Address
from probes.packets import stamp
from probes.timestamping import Datagram


class StampConfig(EchoConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Knobs of a stamp test."""

    size_octets: Annotated[int, msgspec.Meta(ge=stamp.PACKET_OCTETS, le=65_000)] = stamp.PACKET_OCTETS


class Stamp:
    """Measures round-trip delay and loss against a STAMP reflector."""

    kind: ClassVar = "stamp"
    method: ClassVar = Method("stamp_unauthenticated", "1")
    Config: ClassVar = StampConfig
    exclusive: ClassVar = False
    has_port: ClassVar = True

    def __init__(self, config: StampConfig) -> None:
        self.config = config

    def measure(self, target: Target, context: ProbeContext) -> Sample:
        port = target.port or stamp.PORT

        def open_session(address: Address) -> tuple[socket.socket, EchoProtocol]:
            return context.network.udp(address.family), _Session(self.config.size_octets, clock_state())

        def type_p(address: Address | None) -> TypeP:
            return TypeP(
                protocol="udp",
                ip_version=address.ip_version if address else None,
                size_octets=self.config.size_octets,
                dscp=self.config.dscp,
                destination_port=port,
            )

        return measure_echo(
            kind=self.kind,
            method=self.method,
            config=self.config,
            target=target,
            port=port,
            context=context,
            open_session=open_session,
            type_p=type_p,
        )


class _Session:
    """The packets of one test; answers are ours by T1, which only the sender knew."""

    def __init__(self, size_octets: int, clock: ClockState) -> None:
        error_ns = clock.maximum_error_ns if clock.synchronised else None
        self._error = stamp.error_estimate(
            None if error_ns is None else error_ns / NANOSECONDS_PER_SECOND,
            synchronised=bool(clock.synchronised),
        )
        self._session_id = 1 + secrets.randbelow(0xFFFF)
        self._padding = secrets.token_bytes(size_octets - stamp.PACKET_OCTETS)
        self._sent_wall_ns: dict[int, int] = {}

    def request(self, sequence: int, sent: TimeStamp) -> bytes:
        packet = stamp.SenderPacket(
            sequence=sequence, sent_wall_ns=sent.wall_ns, error=self._error, session_id=self._session_id
        )
        self._sent_wall_ns[sequence] = sent.wall_ns
        return stamp.pack_sender(packet) + self._padding

    def answer(self, datagram: Datagram) -> Answer | None:
        try:
            reply = stamp.unpack_reflector(datagram.data)
        except WireError:
            return self._damaged(datagram.data)
        if not self._ours(reply.sender_sequence, reply.sender_sent_wall_ns):
            return None
        intact = datagram.data[stamp.PACKET_OCTETS :] == self._padding
        return Answer(
            reply.sender_sequence,
            turnaround_ns=max(reply.sent_wall_ns - reply.received_wall_ns, 0),
            intact=intact,
        )

    def quoted(self, octets: bytes) -> int | None:
        try:
            request = stamp.unpack_sender(octets)
        except WireError:
            return None
        return request.sequence if request.session_id == self._session_id else None

    def _damaged(self, octets: bytes) -> Answer | None:
        """An answer that is ours but not valid: the packet came back, so it must not be called lost."""
        request = stamp.echoed_request(octets)
        return Answer(request[0], intact=False) if request and self._ours(*request) else None

    def _ours(self, sequence: int, sent_wall_ns: int) -> bool:
        # A reflector of RFC 8762 alone leaves the SSID zero; T1 comes back to the 2^-32 second.
        sent = self._sent_wall_ns.get(sequence)
        return sent is not None and abs(sent_wall_ns - sent) <= 1
