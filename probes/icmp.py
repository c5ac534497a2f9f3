"""ICMP echo: round-trip delay, its variation and loss towards a host.

Sends ``count`` echo requests and matches each reply by a token and a number in its data, so that neither
another program's replies nor a changed packet is taken for an answer. The header's own sequence number has 16
bits and begins again after 65,536 packets; it is the lower half of the number in the data. Works without
privilege where the sysctl ``net.ipv4.ping_group_range`` allows it (IPv6 included), else with CAP_NET_RAW.
A reply that comes after ``loss_threshold_seconds`` is late and counts as lost.

Settings: ``count``, ``interval_seconds``, ``spacing`` (``periodic`` or ``poisson``), ``size_octets`` of data
behind the ICMP header, ``dscp``, ``dont_fragment`` (a packet too large for a link on the way is then
``unreachable`` or lost, instead of being cut up), ``loss_threshold_seconds``.
"""

from __future__ import annotations

import secrets
import socket
import struct
from typing import Annotated, ClassVar

import msgspec

from nhip.errors import WireError
from nhip.measurement import Method, Sample, Stamp, Target, TypeP
from probes.api import ProbeContext
from probes.echo import EchoProtocol
from probes.echo_stream import EchoConfig, forbid_fragments, measure_echo
from probes.ledger import Answer
from probes.network import Address
from probes.packets import icmp
from probes.timestamping import Datagram

TOKEN_OCTETS = 8
_NUMBER = struct.Struct("!I")
_OWN_OCTETS = TOKEN_OCTETS + _NUMBER.size


class IcmpConfig(EchoConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Knobs of an icmp test."""

    size_octets: Annotated[int, msgspec.Meta(ge=_OWN_OCTETS, le=65_000)] = 56
    dont_fragment: bool = False


class Icmp:
    """Measures round-trip delay and loss with ICMP echo."""

    kind: ClassVar = "icmp"
    method: ClassVar = Method("icmp_echo", "2")
    Config: ClassVar = IcmpConfig
    exclusive: ClassVar = False
    has_port: ClassVar = False

    def __init__(self, config: IcmpConfig) -> None:
        self.config = config

    def measure(self, target: Target, context: ProbeContext) -> Sample:
        def open_session(address: Address) -> tuple[socket.socket, EchoProtocol]:
            sock, raw = context.network.icmp(address.family)
            if self.config.dont_fragment:
                forbid_fragments(sock)
            return sock, _Session(address, raw, self.config.size_octets)

        return measure_echo(
            kind=self.kind,
            method=self.method,
            config=self.config,
            target=target,
            port=0,
            context=context,
            open_session=open_session,
            type_p=self._type_p,
        )

    def _type_p(self, address: Address | None) -> TypeP:
        return TypeP(
            protocol="icmpv6" if address and address.ip_version == 6 else "icmp",
            ip_version=address.ip_version if address else None,
            size_octets=icmp.HEADER_OCTETS + self.config.size_octets,
            dscp=self.config.dscp,
        )


class _Session(EchoProtocol):
    """The packets of one test: replies are ours by identifier (raw sockets), token and length."""

    def __init__(self, address: Address, raw: bool, size_octets: int) -> None:
        self._ip_version = address.ip_version
        self._raw = raw
        self._identifier = secrets.randbelow(0x10000)
        self._token = secrets.token_bytes(TOKEN_OCTETS)
        self._padding = secrets.token_bytes(size_octets - _OWN_OCTETS)
        self._highest = -1

    def request(self, sequence: int, _sent: Stamp) -> bytes:
        self._highest = max(self._highest, sequence)
        data = self._token + _NUMBER.pack(sequence) + self._padding
        return icmp.pack_request(icmp.Echo(self._identifier, sequence, data), self._ip_version)

    def answer(self, datagram: Datagram) -> Answer | None:
        octets = datagram.data
        try:
            if self._raw and self._ip_version == 4:
                octets = icmp.strip_ip_header(octets)
            reply = icmp.unpack_reply(octets, self._ip_version)
        except WireError:
            return None
        if reply is None or not self._ours(reply):
            return None
        # Raw IPv4 sockets alone get messages whose checksum nobody has looked at.
        whole = not self._raw or self._ip_version == 6 or icmp.is_whole(octets)
        sequence = self._number(reply)
        if sequence is None:
            return None
        agrees = sequence & icmp.HIGHEST_SEQUENCE == reply.sequence
        if not agrees and not whole:
            return None  # one of the two numbers is damaged, and nobody knows which
        return Answer(sequence, intact=whole and agrees and reply.data[_OWN_OCTETS:] == self._padding)

    def quoted(self, octets: bytes) -> int | None:
        try:
            request = icmp.unpack_request(octets, self._ip_version)
        except WireError:
            return None
        if request is None or (self._raw and request.identifier != self._identifier):
            return None
        # Routers may quote as little as the eight octets of the header.
        if not self._token.startswith(request.data[:TOKEN_OCTETS]):
            return None
        sequence = self._number(request)
        if sequence is None or sequence > self._highest:
            return None
        return sequence if sequence & icmp.HIGHEST_SEQUENCE == request.sequence else None

    def _number(self, echo: icmp.Echo) -> int | None:
        """Our number of a request or its reply; of one cut short only where the header's can be no other."""
        if len(echo.data) >= _OWN_OCTETS:
            number: int = _NUMBER.unpack_from(echo.data, TOKEN_OCTETS)[0]
            return number
        return echo.sequence if echo.sequence + icmp.HIGHEST_SEQUENCE + 1 > self._highest else None

    def _ours(self, reply: icmp.Echo) -> bool:
        # A datagram socket's identifier is the kernel's, which has already sorted out other programs.
        known = not self._raw or reply.identifier == self._identifier
        return known and reply.data[:TOKEN_OCTETS] == self._token
