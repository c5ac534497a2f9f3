"""What each packet of a STAMP test is made of, and whether that fits into the size asked for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nhip.errors import ConfigError
from probes.packets import stamp, stamp_auth
from probes.packets.stamp_tlv import (
    HEADER_OCTETS,
    Kind,
    Tlv,
    class_of_service_wanted,
    direct_measurement_wanted,
    follow_up_wanted,
    location_wanted,
    timestamp_information_wanted,
)


class Mode(StrEnum):
    """Which packets a test sends."""

    UNAUTHENTICATED = "unauthenticated"
    AUTHENTICATED = "authenticated"
    TWAMP_LIGHT = "twamp_light"


_BASE_OCTETS = {
    Mode.UNAUTHENTICATED: stamp.PACKET_OCTETS,
    Mode.AUTHENTICATED: stamp_auth.PACKET_OCTETS,
    Mode.TWAMP_LIGHT: stamp.PACKET_OCTETS,
}
_SIGNATURE_OCTETS = HEADER_OCTETS + stamp_auth.HMAC_OCTETS


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The make-up of a test's packets."""

    mode: Mode
    size_octets: int
    wanted: tuple[Tlv, ...] = ()
    """Extensions in the order they are sent, without HMAC and padding; the first is the one that counts."""
    padding_octets: int | None = None
    """Octets of Extra Padding, its header not counted; `None` for no such TLV."""

    @property
    def base_octets(self) -> int:
        return _BASE_OCTETS[self.mode]

    def asks(self, kind: Kind) -> bool:
        """Whether packets have this extension."""
        return any(tlv.kind == kind for tlv in self.wanted)


def planned(
    mode: Mode,
    *,
    size_octets: int | None,
    follow_up: bool | None,
    location: bool,
    class_of_service: int | None,
    timestamp_information: bool,
    direct_measurement: bool,
) -> Plan:
    """The plan; `follow_up` of `None` takes it where it fits. ConfigError when something does not fit."""
    chosen: list[Tlv] = []
    if direct_measurement:
        chosen.append(direct_measurement_wanted(0))
    if location:
        chosen.append(location_wanted())
    if timestamp_information:
        chosen.append(timestamp_information_wanted())
    if class_of_service is not None:
        chosen.append(class_of_service_wanted(class_of_service))
    if mode is Mode.TWAMP_LIGHT:
        if chosen or follow_up:
            raise ConfigError(
                "mode: 'twamp_light': has no extensions",
                remedy="leave follow_up, location, class_of_service and the like out",
            )
        return Plan(mode=mode, size_octets=size_octets or stamp.PACKET_OCTETS)
    if follow_up or (follow_up is None and _fits(mode, [*chosen, follow_up_wanted()], size_octets)):
        chosen.append(follow_up_wanted())
    if not _fits(mode, chosen, size_octets):
        least = _needed(mode, chosen)
        raise ConfigError(
            f"size_octets: {size_octets}: is no size that these packets can have",
            remedy=f"write {least}, or {least + HEADER_OCTETS} or more, or leave it out",
        )
    needed = _needed(mode, chosen)
    size = needed if size_octets is None else size_octets
    spare = size - needed
    return Plan(
        mode=mode,
        size_octets=size,
        wanted=tuple(chosen),
        padding_octets=spare - HEADER_OCTETS if spare else None,
    )


def _fits(mode: Mode, chosen: list[Tlv], size_octets: int | None) -> bool:
    if size_octets is None:
        return True
    spare = size_octets - _needed(mode, chosen)
    return spare == 0 or spare >= HEADER_OCTETS


def _needed(mode: Mode, chosen: list[Tlv]) -> int:
    extensions = sum(HEADER_OCTETS + len(tlv.value) for tlv in chosen)
    signed = mode is Mode.AUTHENTICATED and chosen
    return _BASE_OCTETS[mode] + extensions + (_SIGNATURE_OCTETS if signed else 0)
