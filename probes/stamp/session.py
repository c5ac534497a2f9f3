"""The packets of one STAMP test: requests out, answers in, and what the answers said.

An answer is ours when it comes from the target, gives back T1 to the 2^-32 s and, unless its reflector knows
none, our session identifier. That keeps strays out, and whoever must guess: T1 is read in nanoseconds, and
those below a microsecond are as good as random. Whoever sees our packets can answer them; only a signature
(authenticated mode) stops him. T1 is that proof and nothing more: delays run from the kernel's stamps.

An answer is whole when it has the length of its request and its padding unchanged. A reflector without
extensions returns the base packet alone, or zeros in place of them (RFC 8972 section 4); that is an answer
too.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from nhip.errors import WireError
from nhip.measurement import ClockState, Singleton
from nhip.measurement import Stamp as TimeStamp
from probes.echo import EchoProtocol, Findings
from probes.ledger import Answer
from probes.packets import stamp, stamp_auth, stamp_tlv
from probes.packets.stamp_tlv import Kind, Tlv
from probes.stamp.findings import concluded
from probes.stamp.heard import Heard, OwnEnd, Reply
from probes.stamp.own_clock import OwnClock
from probes.stamp.plan import Mode, Plan
from probes.timestamping import Datagram

# Some TWAMP reflectors end before the sender's TTL.
_SHORTEST_TWAMP_ANSWER = 38
# Answers that are kept beyond one for each request.
_MOST_COPIES = 10_000


@dataclass(slots=True)
class _Sent:
    """What was written into the requests, by sequence number."""

    wall_ns: dict[int, int] = field(default_factory=dict)

    def is_ours(self, sequence: int, sent_wall_ns: int) -> bool:
        # A reflector of RFC 8762 alone leaves the SSID zero; T1 comes back to the 2^-32 second.
        sent = self.wall_ns.get(sequence)
        return sent is not None and abs(sent_wall_ns - sent) <= 1


class StampSession(EchoProtocol):
    """One test."""

    def __init__(
        self,
        plan: Plan,
        *,
        key: bytes | None,
        read_clock: Callable[[], ClockState],
        reflector: str,
        own_host: str | None,
        own_port: Callable[[], int],
        far_host: str,
    ) -> None:
        self._plan, self._key = plan, key
        self._base_octets = plan.base_octets
        self._far_host = far_host
        self._clock = OwnClock(read_clock)
        self._error = stamp.estimate_of(self._clock.newest)
        self._own_host, self._reflector = own_host, reflector
        self._own_port = own_port
        twamp = plan.mode is Mode.TWAMP_LIGHT
        self._session_id = 0 if twamp else 1 + secrets.randbelow(0xFFFF)
        self._padding = secrets.token_bytes(plan.padding_octets or 0)
        self._tlvs = plan.wanted
        if plan.padding_octets is not None:
            self._tlvs = (*plan.wanted, stamp_tlv.padding(self._padding))
        signed = key is not None and stamp_tlv.owes_signature(self._tlvs)
        self._tlv_key = key if signed else None
        self._kinds = [tlv.kind for tlv in self._tlvs]
        if signed:
            self._kinds.insert(len(plan.wanted), Kind.HMAC)
        # Octets that are the same in every packet are made once.
        self._counts = plan.asks(Kind.DIRECT_MEASUREMENT)
        self._tail = None if signed or self._counts else stamp_tlv.pack(self._tlvs)
        self._sent = _Sent()
        self.heard = Heard(extended=bool(self._tlvs))

    def request(self, sequence: int, sent: TimeStamp) -> bytes:
        if self._clock.look(sent.mono_ns):
            self._error = stamp.estimate_of(self._clock.newest)
        packet = stamp.SenderPacket(
            sequence=sequence, sent_wall_ns=sent.wall_ns, error=self._error, session_id=self._session_id
        )
        self._sent.wall_ns[sequence] = sent.wall_ns
        if self._key is not None:
            base = stamp_auth.pack_sender(packet, self._key)
        else:
            base = stamp.pack_sender(packet)
        if self._plan.mode is Mode.TWAMP_LIGHT:
            return base[: stamp.SENDER_OCTETS].ljust(self._plan.size_octets, b"\0")
        return base + (self._extensions(sequence) if self._tail is None else self._tail)

    def answer(self, datagram: Datagram) -> Answer | None:
        octets = datagram.data
        # What comes from elsewhere is no answer, whatever it says, and must leave nothing behind here.
        foreign = datagram.address[0] != self._far_host
        if self._key is not None and stamp_auth.signing_key(octets, (self._key,)) is None:
            self.heard.unsigned += len(octets) >= stamp_auth.PACKET_OCTETS and not foreign
            return None
        try:
            reply = self._unpacked(octets)
        except WireError:
            return self._damaged(octets, foreign=foreign)
        if not self._sent.is_ours(reply.sender_sequence, reply.sender_sent_wall_ns):
            return None
        if reply.session_id not in (0, self._session_id) and self._plan.mode is not Mode.TWAMP_LIGHT:
            return None
        if foreign:
            return Answer(reply.sender_sequence)
        if self.heard.own_port is None:
            self.heard.own_port = self._own_port()
        intact = self._whole(octets, ptp_format=reply.error.ptp_format)
        if len(self.heard.replies) + len(self.heard.damaged) > len(self._sent.wall_ns) + _MOST_COPIES:
            pass  # a flood of copies must not fill the memory
        elif intact:
            self.heard.replies.append(
                Reply(
                    reply.sender_sequence,
                    reply.sequence,
                    reply.received_wall_ns,
                    reply.sent_wall_ns,
                    reply.error,
                )
            )
        else:
            self.heard.damaged.append((reply.sender_sequence, reply.sequence))
        return Answer(
            reply.sender_sequence,
            turnaround_ns=max(reply.sent_wall_ns - reply.received_wall_ns, 0),
            intact=intact,
        )

    def quoted(self, octets: bytes) -> int | None:
        unpack = stamp.unpack_sender if self._key is None else stamp_auth.unpack_sender
        try:
            request = unpack(octets)
        except WireError:
            return None
        return request.sequence if request.session_id == self._session_id else None

    def concluded(self, singletons: tuple[Singleton, ...]) -> Findings:
        self._clock.ask()
        own = OwnEnd(clock=self._clock.worst, host=self._own_host, reflector=self._reflector)
        return concluded(singletons, self.heard, own)

    def _extensions(self, sequence: int) -> bytes:
        tlvs: list[Tlv] = list(self._tlvs)
        if self._counts:
            tlvs[0] = stamp_tlv.direct_measurement_wanted(len(self._sent.wall_ns))
        return stamp_tlv.pack(tlvs, sequence=sequence, key=self._tlv_key)

    def _unpacked(self, octets: bytes) -> stamp.ReflectorPacket:
        if self._key is not None:
            return stamp_auth.unpack_reflector(octets)
        if self._plan.mode is Mode.TWAMP_LIGHT:
            return stamp.unpack_reflector(octets, shortest=_SHORTEST_TWAMP_ANSWER)
        return stamp.unpack_reflector(octets)

    def _whole(self, octets: bytes, *, ptp_format: bool) -> bool:
        """Whether nothing of ours was changed on the way; notes what the extensions said."""
        if self._plan.mode is Mode.TWAMP_LIGHT:
            return True  # RFC 5357 lets a reflector pad as it likes
        if len(octets) != self._plan.size_octets:
            self.heard.without_extensions += len(octets) == self._base_octets
            return len(octets) == self._base_octets
        if not self._tlvs:
            return True
        extensions = octets[self._base_octets :]
        if not any(extensions):
            self.heard.without_extensions += 1
            return True
        tlvs = stamp_tlv.unpack(extensions)
        if [tlv.kind for tlv in tlvs] != self._kinds:
            return False
        if self._padding and not octets.endswith(self._padding):
            return False
        believed = self._tlv_key is None or (
            stamp_tlv.authentic(octets, self._base_octets, (self._tlv_key,)) is not None
        )
        self.heard.note(tlvs, believed=believed, ptp_format=ptp_format)
        return True

    def _damaged(self, octets: bytes, *, foreign: bool) -> Answer | None:
        """An answer that is ours but not valid: the packet came back, so it must not be called lost."""
        request = stamp.echoed_request(octets) if self._key is None else None
        if request is None or not self._sent.is_ours(*request):
            return None
        if not foreign:
            self.heard.damaged.append((request[0], int.from_bytes(octets[:4], "big")))
        return Answer(request[0], intact=False)
