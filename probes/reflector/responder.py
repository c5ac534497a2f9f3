"""From a request to its answer or the reason why there is none: everything but sockets and threads.

Nothing is remembered of a packet before it has passed the checks that anybody could fail on purpose: a forged
packet of the authenticated mode makes no session and uses up nobody's rate.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from nhip.clock import Clock, clock_state
from nhip.statistics import NANOSECONDS_PER_SECOND
from probes.packets import stamp, stamp_auth, stamp_tlv, stamp_tlv_answer
from probes.reflector.admission import LOWEST_PORT, Admission, Client
from probes.reflector.counters import ReflectorCounters
from probes.reflector.sessions import Session, Sessions
from probes.reflector.settings import ReflectorSettings
from probes.reflector.stamped_socket import Request

# The clock's state changes slowly; asking the kernel for every packet would only delay T3.
_CLOCK_STATE_AGE_NS = NANOSECONDS_PER_SECOND
# At least so many can fill the table only together.
_CLIENTS_WITH_KEYS = 8


@dataclass(slots=True)
class Answer:
    """An answer that lacks nothing but T3."""

    octets: bytearray
    sequence: int
    dscp: int
    session: Session | None
    wants_follow_up: bool
    key: bytes | None = None

    def finish(self, sent_wall_ns: int) -> bytearray:
        """The octets to send, with T3 and in authenticated mode the signature over it."""
        if self.key is None:
            stamp.set_sent(self.octets, sent_wall_ns)
        else:
            stamp_auth.set_sent(self.octets, sent_wall_ns, self.key)
        return self.octets


class Responder:
    """Answers for one reflector; one thread at a time."""

    def __init__(
        self,
        settings: ReflectorSettings,
        *,
        packets_per_second: float,
        clock: Clock,
        counters: ReflectorCounters,
        address: tuple[str, int],
    ) -> None:
        self._settings, self._clock, self._counters = settings, clock, counters
        self._address = address
        self._admission = Admission(packets_per_second, settings.networks)
        self._freshness_ns = round(settings.freshness_seconds * NANOSECONDS_PER_SECOND)
        self._window = settings.replay_window_packets if settings.authenticated else 0
        # A packet from the future stays fresh for twice as long. Whoever has a key may need many sessions,
        # and loses none: refusing him at few would refuse a busy probe.
        per_client, guards_replay = settings.most_sessions_per_client, bool(self._window)
        if guards_replay:
            per_client = max(per_client, settings.most_sessions // _CLIENTS_WITH_KEYS)
        self.sessions = Sessions(
            most=settings.most_sessions,
            most_per_client=per_client,
            idle_ns=round(settings.session_idle_seconds * NANOSECONDS_PER_SECOND),
            counters=counters,
            replayable_ns=2 * self._freshness_ns if guards_replay else 0,
        )
        self._error = stamp.error_estimate(None, synchronised=False)
        self._error_read_ns: int | None = None
        self._seen = stamp_tlv_answer.Seen(dscp_allowed=settings.honour_dscp)

    def answer(self, request: Request) -> Answer | str:
        """The answer, or which of :data:`~probes.reflector.counters.REFUSALS` there is none for."""
        octets = request.octets
        if len(octets) < stamp.TWAMP_OCTETS:
            return "malformed" if len(octets) < stamp.SENDER_OCTETS else "too_short"
        host, port = request.address[:2]
        if port < LOWEST_PORT:
            return "refused_port"
        client = self._admission.client(host)
        if not client.allowed:
            return "not_allowed"
        now_ns = self._clock.mono_ns()
        if self._settings.authenticated:
            return self._authenticated(request, client, port, now_ns)
        return self._unauthenticated(request, client, port, now_ns)

    def _unauthenticated(self, request: Request, client: Client, port: int, now_ns: int) -> Answer | str:
        octets = request.octets
        if stamp.is_reflected(octets):
            return "already_reflected"
        if not self._admission.within_rate(client, now_ns):
            return "rate_limited"
        sequence, sent, _error, session_id = stamp.REQUEST.unpack_from(octets)
        # A TWAMP sender has padding where STAMP has zeros, and no session identifier.
        twamp = len(octets) < stamp.PACKET_OCTETS or any(octets[16 : stamp.PACKET_OCTETS])
        session = None
        if self._settings.stateful:
            session = self.sessions.of((client.host, port, 0 if twamp else session_id), client.name, now_ns)
            if session is None:
                return "no_room"
            session.admit(sequence, sent, 0)
        number = None if session is None else session.next_sequence
        answer = stamp.reflect(
            octets,
            received_wall_ns=request.received_wall_ns,
            hop_limit=request.hop_limit,
            error=self._error_estimate(now_ns),
            sequence=number,
        )
        if twamp:
            answer[14:16] = b"\0\0"
        reply = stamp_tlv_answer.NOTHING
        if not twamp and len(octets) > stamp.PACKET_OCTETS:
            reply = self._extend(answer, request, stamp.PACKET_OCTETS, client, port, session)
        return self._numbered(answer, request, sequence, session, reply, None)

    def _authenticated(self, request: Request, client: Client, port: int, now_ns: int) -> Answer | str:
        octets = request.octets
        key = stamp_auth.signing_key(octets, self._settings.keys)
        if key is None:
            return "not_authentic"
        if stamp_auth.is_reflected(octets):
            return "already_reflected"
        # Only now: whoever forges a client's address must not use up what that client may have.
        if not self._admission.within_rate(client, now_ns):
            return "rate_limited"
        sequence, sent, error, session_id = stamp_auth.REQUEST.unpack_from(octets)
        if self._freshness_ns:
            sent_wall_ns = stamp.wall_ns(sent, ptp_format=bool(error & stamp.PTP_FORMAT))
            if abs(request.received_wall_ns - sent_wall_ns) > self._freshness_ns:
                return "stale"
        session = self.sessions.of((client.host, port, session_id), client.name, now_ns)
        if session is None:
            return "no_room"
        if not session.admit(sequence, sent, self._window):
            return "replayed"
        stateful = self._settings.stateful
        answer = stamp_auth.reflect(
            octets,
            received_wall_ns=request.received_wall_ns,
            hop_limit=request.hop_limit,
            error=self._error_estimate(now_ns),
            sequence=session.next_sequence if stateful else None,
        )
        reply = stamp_tlv_answer.NOTHING
        if len(octets) > stamp_auth.PACKET_OCTETS:
            reply = self._extend(
                answer, request, stamp_auth.PACKET_OCTETS, client, port, session if stateful else None
            )
        return self._numbered(answer, request, sequence, session if stateful else None, reply, key)

    def _numbered(
        self,
        octets: bytearray,
        request: Request,
        sequence: int,
        session: Session | None,
        reply: stamp_tlv_answer.Reply,
        key: bytes | None,
    ) -> Answer:
        if session is not None:
            sequence = session.next_sequence
            session.next_sequence = (sequence + 1) & 0xFFFF_FFFF
        # Without a word about it the way back is marked like the way there.
        dscp = (request.traffic_class or 0) >> 2 if reply.dscp is None else reply.dscp
        return Answer(octets, sequence, dscp, session, session is not None and reply.wants_follow_up, key)

    def _extend(
        self,
        answer: bytearray,
        request: Request,
        base_octets: int,
        client: Client,
        port: int,
        session: Session | None,
    ) -> stamp_tlv_answer.Reply:
        seen = self._seen
        seen.source = (client.host, port)
        seen.destination = (self._destination(request), self._address[1])
        seen.traffic_class = request.traffic_class
        if session is None:
            seen.received = self._counters.received
            seen.sent = self._counters.reflected + 1
            seen.follow_up = None
        else:
            seen.received, seen.sent = session.received, session.next_sequence + 1
            seen.follow_up = session.follow_up
        settings = self._settings
        reply = stamp_tlv_answer.answer(
            answer, request.octets, base_octets, seen, settings.keys, owed=settings.authenticated
        )
        if reply.integrity_failed:
            self._counters.integrity_failures += 1
        if reply.signed_with is not None:
            stamp_tlv_answer.sign(answer, base_octets, reply.signed_with)
        if reply.wants_follow_up and seen.follow_up is not None:
            self._counters.follow_ups += 1
        return reply

    def _destination(self, request: Request) -> str | None:
        octets = request.arrived_at
        if octets is None:
            return self._address[0]
        if len(octets) == 4:
            return socket.inet_ntoa(octets)
        return self._admission.client(socket.inet_ntop(socket.AF_INET6, octets)).host

    def _error_estimate(self, now_ns: int) -> stamp.ErrorEstimate:
        if self._error_read_ns is None or now_ns - self._error_read_ns > _CLOCK_STATE_AGE_NS:
            self._error = stamp.estimate_of(clock_state())
            synchronised = self._error.synchronised
            self._seen.sync_source = (
                stamp_tlv.SyncSource.NTP if synchronised else stamp_tlv.SyncSource.FREE_RUNNING
            )
            self._error_read_ns = now_ns
        return self._error
