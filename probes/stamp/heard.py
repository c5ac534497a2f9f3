"""What the answers of one STAMP test said, kept as they come in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from nhip.measurement import ClockState
from probes.packets import stamp, stamp_tlv
from probes.packets.stamp import ErrorEstimate
from probes.packets.stamp_tlv import Kind, Tlv


@dataclass(slots=True)
class Reply:
    """One answer, in the order of arrival: our number, the reflector's, T2, T3 and its clock's error."""

    sequence: int
    number: int
    received_wall_ns: int
    sent_wall_ns: int
    error: ErrorEstimate


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnEnd:
    """What this host knows of itself."""

    clock: ClockState
    """The worst that the kernel said of it during the test."""
    host: str | None
    reflector: str
    """What the settings say of the reflector: any, stateful or stateless."""


@dataclass(slots=True)
class Heard:
    """What the answers of one test said."""

    extended: bool
    """Whether extensions were sent."""
    replies: list[Reply] = field(default_factory=list)
    damaged: list[tuple[int, int]] = field(default_factory=list)
    """Our number and the reflector's of each answer that came back changed."""
    unsigned: int = 0
    without_extensions: int = 0
    follow_ups: dict[int, int] = field(default_factory=dict)
    """When the answer of a number left, in Unix nanoseconds."""
    last: dict[int, Tlv] = field(default_factory=dict)
    """The newest usable TLV of each type."""
    unrecognised: set[int] = field(default_factory=set)
    malformed: set[int] = field(default_factory=set)
    integrity_failures: int = 0
    dscp_received: set[int] = field(default_factory=set)
    own_port: int | None = None
    """The port this host sends from, known once it has sent."""

    def note(self, tlvs: Iterable[Tlv], *, believed: bool, ptp_format: bool) -> None:
        """Take in the extensions of one answer; those `believed` not are counted only."""
        kept = list(tlvs)
        if not believed or any(tlv.flags & stamp_tlv.INTEGRITY for tlv in kept):
            self.integrity_failures += 1
            return
        for tlv in kept:
            if tlv.flags & stamp_tlv.MALFORMED:
                self.malformed.add(tlv.kind)
                return
            if tlv.flags & stamp_tlv.UNRECOGNISED:
                self.unrecognised.add(tlv.kind)
                continue
            self.last[tlv.kind] = tlv
            if tlv.kind == Kind.FOLLOW_UP:
                told = stamp_tlv.follow_up(tlv.value)
                if told.sent:
                    self.follow_ups[told.sequence] = stamp.wall_ns(told.sent, ptp_format=ptp_format)
            elif tlv.kind == Kind.CLASS_OF_SERVICE:
                self.dscp_received.add(stamp_tlv.class_of_service(tlv.value).dscp_received)
