"""The configuration of ``nhip server``: file transfer always, STAMP and a test zone where they are wanted."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from nhip.errors import ConfigError
from probes.metrics import MetricsSection
from probes.reflector.settings import StampSection
from probes.server.config import ServerConfig
from probes.server.dns_responder import DnsResponderConfig

_LONGEST_LABEL = 63  # RFC 1035 section 2.3.4


class MeasurementServerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file; a table that is left out is a service that is not offered."""

    format: Literal["nhip-server/1"]
    file_transfer: ServerConfig = ServerConfig()
    stamp: StampSection | None = None
    dns: DnsResponderConfig | None = None
    metrics: MetricsSection | None = None
    """A page about the server itself; none without this table."""

    def __post_init__(self) -> None:
        for key, host in self._hosts():
            if not _is_address(host):
                raise ConfigError(
                    f"{key}: {host!r}: is no address", remedy="write an address of this host, not a name"
                )
        for key in ("certificate_file", "key_file"):
            path = getattr(self.file_transfer, key)
            if path is not None and not Path(path).is_file():
                raise ConfigError(
                    f"file_transfer.{key}: {path!r}: is no file", remedy="give the path of a PEM file"
                )
        if self.dns is not None:
            labels = self.dns.zone.removesuffix(".").split(".")
            if any(not 1 <= len(label) <= _LONGEST_LABEL for label in labels):
                raise ConfigError(
                    f"dns.zone: {self.dns.zone!r}: has an empty or too long label",
                    remedy=f"write labels of 1 to {_LONGEST_LABEL} letters with one dot between two",
                )

    def _hosts(self) -> Iterator[tuple[str, str]]:
        if self.stamp is not None:
            yield "stamp.host", self.stamp.host
        for name, hosts in (
            ("file_transfer", self.file_transfer.hosts),
            ("dns", self.dns.hosts if self.dns is not None else []),
        ):
            for position, host in enumerate(hosts):
                yield f"{name}.hosts[{position}]", host


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
