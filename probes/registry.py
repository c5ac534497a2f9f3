"""The list of probe types; a new one is its file and one line here."""

from __future__ import annotations

from nhip.registry import Registry
from probes.api import ProbeType

PROBES: Registry[ProbeType] = Registry(
    "probe type",
    {
        "dns": "probes.dns:Dns",
        "file_transfer": "probes.file_transfer:FileTransfer",
        "http": "probes.http:Http",
        "icmp": "probes.icmp:Icmp",
        "stamp": "probes.stamp:Stamp",
        "tcp_connect": "probes.tcp_connect:TcpConnect",
    },
    group="nhip.probes",
)
