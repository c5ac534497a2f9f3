"""A resolver whose answers are known: one address for every name below one zone, over UDP (RFC 1035).

It exists to be measured: a dns probe pointed at it, in the lab or below a test zone, must find exactly this
address and no loss but the network's. It is no name server for anything else and helps nobody to flood a
third party: it answers nothing but whole, single, ordinary questions, an answer is the question plus one
record and, where it is asked for (RFC 5001), the short name of this instance, and answers are capped in
number for each client and in all.

=====================================  ===========================================
question                               answer
=====================================  ===========================================
A or AAAA below the zone               the configured address; empty without one
another type below the zone            empty, NOERROR
outside the zone, or class other IN    REFUSED
another opcode                         NOTIMP
no question, an answer, broken         none at all
=====================================  ===========================================
"""

from __future__ import annotations

import ipaddress
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from nhip.clock import Clock
from nhip.errors import ConfigError
from probes.metrics import Reading
from probes.server.admission import client_of
from probes.token_bucket import TokenBuckets

if TYPE_CHECKING:
    import dns.message
    import dns.name

_LONGEST_QUESTION_OCTETS = 512
_PAUSE_MS = 200
_CLOSE_SECONDS = 3.0
_MOST_CLIENTS = 10_000
# Not in the socket module of Python 3.11: linux/in.h.
_IP_PKTINFO = 8
_IN_PKTINFO = struct.Struct("@i4s4s")


class DnsResponderConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the responder listens to and says."""

    zone: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]+$", max_length=253)]
    ipv4: str = ""
    """The address in every A answer; no A answer when empty."""
    ipv6: str = ""
    hosts: list[str] = []
    """Addresses to listen on; every address of this host, IPv4 and IPv6, when empty."""
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 53
    instance: Annotated[str, msgspec.Meta(pattern=r"^[!-~]*$", max_length=64)] = ""
    """How this server names itself to who asks which of several answered (NSID); not at all when empty."""
    time_to_live_seconds: Annotated[int, msgspec.Meta(ge=0, le=86_400)] = 0
    """0 keeps resolvers in between from answering out of their memory."""
    answers_per_second: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 5_000
    answers_per_second_per_client: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 200

    def __post_init__(self) -> None:
        for key, value, version in (("ipv4", self.ipv4, 4), ("ipv6", self.ipv6, 6)):
            try:
                fits = not value or ipaddress.ip_address(value).version == version
            except ValueError:
                fits = False
            if not fits:
                raise ConfigError(f"{key}: {value!r} is no IPv{version} address", remedy="correct it")


class DnsResponder:
    """Answers questions until it is closed."""

    def __init__(self, config: DnsResponderConfig, clock: Clock) -> None:
        self.config = config
        self.answered_total = 0
        self.dropped_total = 0
        """Datagrams that deserved no answer."""
        self.limited_total = 0
        """Questions left unanswered because of a cap."""
        self._clock = clock
        self._clients = TokenBuckets(config.answers_per_second_per_client, most_clients=_MOST_CLIENTS)
        self._everybody = TokenBuckets(config.answers_per_second, most_clients=1)
        self._closing = threading.Event()
        self._sockets: list[socket.socket] = []
        self._thread: threading.Thread | None = None

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens, once started: addresses and ports."""
        return [sock.getsockname()[:2] for sock in self._sockets]

    @property
    def description(self) -> str:
        """What it is, for the log: addresses and limits."""
        where = ", ".join(f"{host} port {port}" for host, port in self.addresses)
        limit = self.config.answers_per_second_per_client
        return f"DNS responder for {self.config.zone} on {where}, {limit} answers/s to one client"

    def readings(self) -> Iterator[Reading]:
        """What the server's metrics page shows of it."""
        questions = self.answered_total + self.dropped_total + self.limited_total
        yield Reading("nhip_dns_responder_questions_total", questions)
        yield Reading("nhip_dns_responder_answers_total", self.answered_total)

    def start(self) -> None:
        """Listen; ConfigError when an address or the port cannot be used."""
        import dns.message
        import dns.name

        zone = dns.name.from_text(self.config.zone)
        for kind in ("A", "AAAA"):
            # The library loads its parts at first use: 25 ms that would be in the first answer's delay.
            answer_to(dns.message.make_query(zone, kind).to_wire(), zone, self.config)
        try:
            for host in self.config.hosts or [""]:
                self._sockets.append(_bound(host, self.config.port))
        except BaseException:
            self.close()
            raise
        self._thread = threading.Thread(target=self._serve, args=(zone,), name="nhip-dns", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering; may be called more than once."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS)
        for sock in self._sockets:
            sock.close()

    def _serve(self, zone: dns.name.Name) -> None:
        poll = select.poll()
        by_descriptor = {sock.fileno(): sock for sock in self._sockets}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLIN)
        while not self._closing.is_set():
            for descriptor, _events in poll.poll(_PAUSE_MS):
                try:
                    self._respond(by_descriptor[descriptor], zone)
                except OSError:
                    self.dropped_total += 1  # an ICMP error about an earlier answer, or a full buffer

    def _respond(self, sock: socket.socket, zone: dns.name.Name) -> None:
        octets, ancillary, flags, peer = sock.recvmsg(_LONGEST_QUESTION_OCTETS, 256)
        if flags & socket.MSG_TRUNC:
            self.dropped_total += 1
            return
        answer = answer_to(octets, zone, self.config)
        if answer is None:
            self.dropped_total += 1
        elif not self._allowed(client_of(peer[0])):
            self.limited_total += 1
        else:
            # From the address that was asked: on a host with several the kernel would pick any.
            sock.sendmsg([answer], _from_where_it_came(ancillary), 0, peer)
            self.answered_total += 1

    def _allowed(self, client: str) -> bool:
        now_ns = self._clock.mono_ns()
        return self._clients.take(client, now_ns) and self._everybody.take("", now_ns)


def answer_to(octets: bytes, zone: dns.name.Name, config: DnsResponderConfig) -> bytes | None:
    """The answer to one datagram; ``None`` when it deserves none."""
    import dns.edns
    import dns.exception
    import dns.flags
    import dns.message
    import dns.opcode
    import dns.rcode
    import dns.rdataclass
    import dns.rdatatype
    import dns.rrset

    try:
        question = dns.message.from_wire(octets)
    except (dns.exception.DNSException, ValueError):
        return None
    # Answering an answer would let two responders talk to each other for ever.
    if question.flags & dns.flags.QR or len(question.question) != 1:
        return None
    asked = question.question[0]
    answer = dns.message.make_response(question, our_payload=_LONGEST_QUESTION_OCTETS)
    answer.flags |= dns.flags.AA
    if question.opcode() != dns.opcode.QUERY:
        answer.set_rcode(dns.rcode.NOTIMP)
    elif asked.rdclass != dns.rdataclass.IN or not asked.name.is_subdomain(zone):
        answer.flags &= ~dns.flags.AA
        answer.set_rcode(dns.rcode.REFUSED)
    else:
        address = {dns.rdatatype.A: config.ipv4, dns.rdatatype.AAAA: config.ipv6}.get(asked.rdtype, "")
        if address:
            answer.answer.append(
                dns.rrset.from_text(
                    asked.name,
                    config.time_to_live_seconds,
                    "IN",
                    dns.rdatatype.to_text(asked.rdtype),
                    address,
                )
            )
    if config.instance and any(option.otype == dns.edns.OptionType.NSID for option in question.options):
        name = dns.edns.GenericOption(dns.edns.OptionType.NSID, config.instance.encode())
        answer.use_edns(0, question.ednsflags & dns.flags.DO, _LONGEST_QUESTION_OCTETS, options=[name])
    return answer.to_wire()


def _bound(host: str, port: int) -> socket.socket:
    """A datagram socket that tells to which of this host's addresses each question came."""
    both = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if family is socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot listen on {host or 'any address'} port {port}/udp: {os.strerror(error.errno or 0)}",
            remedy="choose a free port and an address of this host",
        ) from error
    return sock


def _from_where_it_came(ancillary: list[tuple[int, int, bytes]]) -> list[Any]:
    for level, kind, value in ancillary:
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            return [(level, kind, value)]
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            # The way back is the routing table's to choose, so no interface; spec_dst becomes the source.
            _interface, local, _destination = _IN_PKTINFO.unpack_from(value)
            return [(level, kind, _IN_PKTINFO.pack(0, local, bytes(4)))]
    return []
