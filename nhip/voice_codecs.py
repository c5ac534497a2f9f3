"""The codecs a call can be rated with: their constants, as versioned data with a source."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal

import msgspec

from nhip import config
from nhip.emodel import Impairment
from nhip.errors import ConfigError, UnknownNameError


class Codec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One narrowband codec. `codec_delay_seconds` is look-ahead and concealment, beyond the packet itself."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]+$")]
    title: str
    bits_per_second: Annotated[int, msgspec.Meta(ge=1)]
    frame_seconds: Annotated[float, msgspec.Meta(gt=0, le=0.1)]
    codec_delay_seconds: Annotated[float, msgspec.Meta(ge=0, le=1)]
    ie: Annotated[float, msgspec.Meta(ge=0, le=95)]
    bpl: Annotated[float, msgspec.Meta(gt=0, le=1000)]
    source: Annotated[str, msgspec.Meta(min_length=1)]
    mark: Literal["V", "V-sec", "U"]
    verified: bool = False

    @property
    def impairment(self) -> Impairment:
        """Its part in the E-model."""
        return Impairment(ie=self.ie, bpl=self.bpl)

    def payload_octets(self, packet_seconds: float) -> int | None:
        """Octets of speech in a packet of that length; `None` when it is no whole number of frames."""
        frames = packet_seconds / self.frame_seconds
        if round(frames) < 1 or abs(frames - round(frames)) > 1e-6 * frames:
            return None
        return round(self.bits_per_second * packet_seconds / 8)


class CodecTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of them, as in configs/voice/codecs.toml."""

    format: Literal["nhip-voice-codecs/1"]
    version: str
    codec: Annotated[list[Codec], msgspec.Meta(min_length=1)]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for codec in self.codec:
            if codec.id in seen:
                raise ConfigError(f"codec.{codec.id}: is there twice", remedy="give each codec its own id")
            seen.add(codec.id)
            if codec.verified and codec.mark != "V":
                raise ConfigError(
                    f"codec.{codec.id}.verified: is true of a number marked {codec.mark}",
                    remedy="read it in the Recommendation and mark it V, or say verified = false",
                )

    def named(self, codec_id: str) -> Codec:
        """The codec of that id; UnknownNameError lists the known ones."""
        for codec in self.codec:
            if codec.id == codec_id:
                return codec
        known = ", ".join(codec.id for codec in self.codec)
        raise UnknownNameError(f"{codec_id!r} is no known codec", remedy=f"known: {known}")


@lru_cache(maxsize=1)
def voice_codecs() -> CodecTable:
    """The table Nhịp ships."""
    return config.load(config.shipped("voice/codecs.toml"), CodecTable, environment={})
