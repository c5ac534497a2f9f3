"""UDP echo: round-trip delay, its variation and loss towards any service that sends datagrams back.

Every datagram carries a token only this test knows, its number and random padding; a service that returns
what it gets (RFC 862) returns it whole. Another program's datagrams are never taken for an answer, and an
answer that came back changed or of another length is ``corrupt``. The delay holds the time the service took,
because an echo service does not tell it. A port where nobody listens is ``refused`` (ICMP port unreachable);
a service that is silent cannot be told from loss. A reply after ``loss_threshold_seconds`` is late and counts
as lost.

Use it where the far end is not yours and has nothing better. A far end of your own should run a STAMP
reflector (``nhip server``), which tells its holding time and limits what each client gets. Nhịp has no echo
service on purpose. One that answers every datagram can be made to flood whoever a forged source address
names, and two of them, or one and a chargen port, talk to each other for ever (CERT CA-1996-01); that is why
port 7 is closed almost everywhere. This probe answers nothing, sends no more than ``count`` datagrams and,
being no service, cannot be one end of such a loop.

Settings: ``count``, ``interval_seconds``, ``spacing`` (``periodic`` or ``poisson``), ``size_octets`` of the
UDP payload, ``dscp``, ``loss_threshold_seconds``. The target's port is 7 unless given.

The payload::

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +---------------------------------------------------------------+
    |                    token of the test (8 octets)               |
    |                                                               |
    +---------------------------------------------------------------+
    |                            number                             |
    +---------------------------------------------------------------+
    |              keyed digest of the number (4 octets)            |
    +---------------------------------------------------------------+
    |                          padding ...                          |
"""

from __future__ import annotations

import hashlib
import secrets
import socket
import struct
from typing import Annotated, ClassVar

import msgspec

from nhip.measurement import Method, Sample, Stamp, Target, TypeP
from probes.api import ProbeContext
from probes.echo import EchoProtocol
from probes.echo_stream import EchoConfig, measure_echo
from probes.ledger import Answer
from probes.network import Address
from probes.timestamping import Datagram

DEFAULT_PORT = 7

_HEADER = struct.Struct("!8sI4s")


class UdpEchoConfig(EchoConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Knobs of a udp_echo test."""

    size_octets: Annotated[int, msgspec.Meta(ge=_HEADER.size, le=65_000)] = 64


class UdpEcho:
    """Measures round-trip delay and loss against a UDP echo service."""

    kind: ClassVar = "udp_echo"
    method: ClassVar = Method("udp_echo", "1")
    Config: ClassVar = UdpEchoConfig
    exclusive: ClassVar = False
    has_port: ClassVar = True

    def __init__(self, config: UdpEchoConfig) -> None:
        self.config = config

    def measure(self, target: Target, context: ProbeContext) -> Sample:
        port = target.port or DEFAULT_PORT

        def open_session(address: Address) -> tuple[socket.socket, EchoProtocol]:
            return context.network.udp(address.family), _Session(self.config.size_octets)

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


class _Session(EchoProtocol):
    """The packets of one test: answers are ours by token, and whole when every octet came back."""

    def __init__(self, size_octets: int) -> None:
        self._token = secrets.token_bytes(8)
        self._key = secrets.token_bytes(16)
        self._padding = secrets.token_bytes(size_octets - _HEADER.size)
        self._sequence_of: dict[bytes, int] = {}

    def request(self, sequence: int, _sent: Stamp) -> bytes:
        digest = self._digest(sequence)
        self._sequence_of[digest] = sequence
        return _HEADER.pack(self._token, sequence, digest) + self._padding

    def answer(self, datagram: Datagram) -> Answer | None:
        read = self._read(datagram.data)
        if read is None:
            return None
        sequence, whole = read
        return Answer(sequence, intact=whole and datagram.data[_HEADER.size :] == self._padding)

    def quoted(self, octets: bytes) -> int | None:
        read = self._read(octets)
        return read[0] if read else None

    def _read(self, octets: bytes) -> tuple[int, bool] | None:
        """The number in a datagram of this test, and whether the header is as it was sent."""
        if len(octets) < _HEADER.size:
            return None
        token, sequence, digest = _HEADER.unpack_from(octets)
        if token != self._token:
            return None
        if digest == self._digest(sequence):
            return sequence, True
        # One of the two was changed on the way; a digest that was sent tells the number.
        return self._sequence_of.get(digest, sequence), False

    def _digest(self, sequence: int) -> bytes:
        return hashlib.blake2s(sequence.to_bytes(4, "big"), key=self._key, digest_size=4).digest()
