"""The line of a test as a person writes it, in a file or behind ``nhip measure``."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from nhip.errors import ConfigError
from probes.line.binding import LARGEST_MARK
from probes.line.modem import ICCID_PATTERN, ModemTable, sim_line
from probes.line.namespace import Namespace
from probes.names import literal
from probes.network import HostNetwork


class LineSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which way packets leave. A missing line is an error, never a measurement by another route.

    What is given holds together; what is not given is left to this host's routes.
    """

    interface: str | None = None
    """Of this host, such as ``wwan0``; of a VRF, its master."""
    source: str | None = None
    """An address of this host. A rule must route it by its own interface, unless that is named too."""
    fwmark: Annotated[int, Meta(ge=1, le=LARGEST_MARK)] | None = None
    """The mark that ``ip rule`` selects a routing table by; needs CAP_NET_ADMIN."""
    netns: Annotated[str, Meta(min_length=1)] | None = None
    """A network namespace by its name of ``ip netns`` or by a path; needs root."""
    iccid: Annotated[str, Meta(pattern=ICCID_PATTERN)] | None = None
    """Of a SIM: its modem's interface, as ModemManager tells it when the test begins."""
    ip_version: Literal[4, 6] | None = None

    def check(self, where: str) -> None:
        """Return when the keys agree with each other; ConfigError otherwise, about a key of `where`."""
        source = literal(self.source) if self.source is not None else None
        if self.source is not None and source is None:
            raise ConfigError(
                f"{where}source: {self.source!r}: is no address", remedy="write an address of this host"
            )
        if source is not None and self.ip_version not in (None, source.version):
            raise ConfigError(
                f"{where}ip_version: {self.ip_version}: and source is an IPv{source.version} address",
                remedy="leave one of the two out",
            )
        if self.iccid is not None and self.interface is not None:
            raise ConfigError(
                f"{where}interface: {self.interface!r}: stands beside iccid, which has its own",
                remedy="keep one of the two",
            )

    def network(self, modems: ModemTable) -> HostNetwork:
        """The network to measure with now; CannotMeasureError when the SIM has no line."""
        return HostNetwork(
            interface=self.interface,
            source=self.source,
            ip_version=self.ip_version,
            fwmark=self.fwmark,
            namespace=Namespace(self.netns) if self.netns is not None else None,
            sim=sim_line(self.iccid, modems) if self.iccid is not None else None,
        )
