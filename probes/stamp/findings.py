"""From the answers of a STAMP test to what they tell: numbers, facts and notes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nhip.measurement import Singleton, Statistic
from nhip.statistics import NANOSECONDS_PER_SECOND, quantile
from probes.echo import Findings
from probes.packets import stamp_tlv
from probes.packets.stamp_tlv import Kind
from probes.stamp.corrections import Corrections, corrected
from probes.stamp.directions import directional_loss, numbering, reordered
from probes.stamp.heard import Heard, OwnEnd

_SOURCES: dict[int, str] = {
    stamp_tlv.SyncSource.NTP: "ntp",
    stamp_tlv.SyncSource.PTP: "ptp",
    stamp_tlv.SyncSource.SSU_BITS: "ssu_bits",
    stamp_tlv.SyncSource.SATELLITE_OR_RADIO: "satellite_or_radio",
    stamp_tlv.SyncSource.FREE_RUNNING: "free_running",
}
_METHODS: dict[int, str] = {
    stamp_tlv.Method.HARDWARE: "hardware",
    stamp_tlv.Method.SOFTWARE: "software",
    stamp_tlv.Method.CONTROL_PLANE: "control_plane",
}


def concluded(singletons: tuple[Singleton, ...], heard: Heard, own: OwnEnd) -> Findings:
    """Everything a test tells: corrected delays, one-way delays, directions, numbers and facts."""
    kept, corrections = corrected(singletons, heard, own)
    numbered, doubt = numbering(heard, own.reflector)
    loss, loss_doubt = (None, "")
    if numbered == "stateful":
        loss, loss_doubt = directional_loss(singletons, heard.replies, heard.damaged)
    facts = _facts(heard, own) | {"stamp_reflector": numbered} if heard.replies else {}
    return Findings(
        singletons=kept,
        statistics=tuple(_statistics(kept, heard, corrections, numbered)),
        facts=facts,
        directional_loss=loss,
        notes=tuple(note for note in (*_notes(heard, corrections), doubt, loss_doubt) if note),
    )


def _statistics(
    singletons: Sequence[Singleton], heard: Heard, corrections: Corrections, numbered: str
) -> Iterator[Statistic]:
    replies = heard.replies
    if not replies:
        return
    yield _median(
        "reflector_holding_seconds",
        corrections.holdings_ns,
        "median time the reflector says it held a packet: T3 (or its follow-up) minus T2",
    )
    yield _median(
        "reflector_clock_offset_seconds",
        corrections.offsets_ns,
        "median of ((T2-T1)+(T3-T4))/2, the reflector's clock minus this host's if both directions take"
        " equally long",
    )
    received = sum(singleton.delay_ns is not None for singleton in singletons)
    if heard.follow_ups:
        lags_ns = corrections.lags_ns
        yield _median(
            "reflector_send_lag_seconds",
            lags_ns,
            "median time from T3 as written to the answer's true departure (RFC 8972 section 4.7)",
        )
        yield Statistic(
            name="follow_up_corrected_ratio",
            value=len(lags_ns) / received if received else None,
            unit="ratio",
            count=received,
            definition="delays whose T3 was replaced by the true departure, of all delays",
        )
    if numbered == "stateful":
        yield from reordered(replies)
    direct = heard.last.get(Kind.DIRECT_MEASUREMENT)
    if direct is not None:
        told = stamp_tlv.direct_measurement(direct.value)
        for name, value in (
            ("reflector_received_packets", told.reflector_received),
            ("reflector_sent_packets", told.reflector_sent),
        ):
            yield Statistic(
                name=name,
                value=value,
                unit="packets",
                count=len(replies),
                definition="the reflector's own count of this session in the newest answer"
                " (RFC 8972 section 4.5)",
            )


def _median(name: str, values_ns: Sequence[int], definition: str) -> Statistic:
    value = quantile(sorted(values_ns), 0.5)
    return Statistic(
        name=name,
        value=None if value is None else value / NANOSECONDS_PER_SECOND,
        unit="seconds",
        count=len(values_ns),
        definition=definition,
    )


def _facts(heard: Heard, own: OwnEnd) -> dict[str, str]:
    error = heard.replies[-1].error
    facts = {
        "stamp_clock": "synchronised" if error.synchronised else "not_synchronised",
        "stamp_time_format": "ptp" if error.ptp_format else "ntp",
    }
    if heard.extended:
        returned = len(heard.replies) > heard.without_extensions
        facts["stamp_extensions"] = "returned" if returned else "not_returned"
    for name, kinds in (("unrecognised", heard.unrecognised), ("malformed", heard.malformed)):
        if kinds:
            facts[f"stamp_{name}"] = ",".join(_name(kind) for kind in sorted(kinds))
    if heard.integrity_failures:
        facts["stamp_integrity"] = "failed"
    information = heard.last.get(Kind.TIMESTAMP_INFORMATION)
    if information is not None:
        told = stamp_tlv.timestamp_information(information.value)
        facts["stamp_sync_source"] = _SOURCES.get(told.source_in, str(told.source_in))
        facts["stamp_method_in"] = _METHODS.get(told.method_in, str(told.method_in))
        facts["stamp_method_out"] = _METHODS.get(told.method_out, str(told.method_out))
    service = heard.last.get(Kind.CLASS_OF_SERVICE)
    if service is not None:
        facts["stamp_dscp_received"] = ",".join(map(str, sorted(heard.dscp_received)))
        refused = stamp_tlv.class_of_service(service.value).refused
        facts["stamp_dscp_returned"] = "refused" if refused else "as_asked"
    located = heard.last.get(Kind.LOCATION)
    if located is not None:
        facts |= _location_facts(stamp_tlv.location(located.value), heard, own)
    return facts


def _location_facts(seen: stamp_tlv.Location, heard: Heard, own: OwnEnd) -> dict[str, str]:
    facts = {"stamp_seen_port": str(seen.source_port)}
    changed = seen.source_port != heard.own_port
    if seen.source is not None:
        facts["stamp_seen_address"] = seen.source
        changed = changed or (own.host is not None and own.host.partition("%")[0] != seen.source)
    facts["stamp_nat"] = "yes" if changed else "no"
    return facts


def _notes(heard: Heard, corrections: Corrections) -> Iterator[str]:
    replies = heard.replies
    if heard.unsigned:
        yield f"{heard.unsigned} answers not signed with our key ignored"
    if corrections.backwards:
        yield f"{corrections.backwards} answers left before they came by the reflector's clock: no delay"
    if corrections.disbelieved:
        yield f"{corrections.disbelieved} follow-ups contradict the packet's own times and were ignored"
    if corrections.impossible_one_way:
        yield (
            f"{corrections.impossible_one_way} one-way delays left out: negative by more than both clocks'"
            " stated error"
        )
    if corrections.own_clock_stepped:
        yield "this host's clock was set during the test: no one-way delays"
    if replies and all(reply.sent_wall_ns == reply.received_wall_ns for reply in replies):
        yield "the reflector tells no holding time (T2 = T3): it is part of the delay"


def _name(kind: int) -> str:
    return Kind(kind).name.lower() if kind in Kind.__members__.values() else str(kind)
