"""The configuration of ``nhip server``: file transfer always, STAMP and a test zone where they are wanted."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from probes.packets.stamp import PORT as STAMP_PORT
from probes.server.config import ServerConfig
from probes.server.dns_responder import DnsResponderConfig


class StampSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The STAMP reflector."""

    host: str = "::"
    """One address; ``::`` answers IPv4 too."""
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = STAMP_PORT
    packets_per_second: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 2_000.0
    """To one client address."""


class MeasurementServerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file; a table that is left out is a service that is not offered."""

    format: Literal["nhip-server/1"]
    file_transfer: ServerConfig = ServerConfig()
    stamp: StampSection | None = None
    dns: DnsResponderConfig | None = None
