"""The measurement server's knobs."""

from __future__ import annotations

from typing import Annotated

import msgspec

from nhip.errors import ConfigError
from probes.transfer_protocol import DEFAULT_PORT


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the server listens to and how much it gives; every limit has a default."""

    hosts: list[str] = []
    """Addresses to listen on; every address of this host, IPv4 and IPv6, when empty."""
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = DEFAULT_PORT
    """0 takes a free one."""
    certificate_file: str | None = None
    """PEM chain; with it and `key_file` the port speaks TLS only."""
    key_file: str | None = None
    congestion_control: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_-]{0,15}$")] = ""
    """Of the server's sockets, so of downloads; this host's default when empty."""
    max_transfers: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 8
    """Transfers at the same time; one more is told "busy", because it would slow the others down."""
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 128
    max_connections_per_client: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 8
    """A client is one IPv4 address or one IPv6 /64."""
    max_octets: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000_000)] = 10_000_000_000
    """Of one transfer."""
    head_seconds: Annotated[float, msgspec.Meta(gt=0, le=60)] = 10.0
    """From connecting until TLS and the whole request head are done."""
    stall_seconds: Annotated[float, msgspec.Meta(gt=0, le=60)] = 10.0
    """A transfer in which nothing moved for so long is ended."""
    transfer_seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 120.0
    """A transfer is ended after this time, however it goes."""
    retry_after_seconds: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 15

    def __post_init__(self) -> None:
        if (self.certificate_file is None) != (self.key_file is None):
            missing = "key_file" if self.key_file is None else "certificate_file"
            raise ConfigError(f"{missing}: is missing", remedy="TLS needs certificate_file and key_file")
