"""The list of probe types; a new one is its file and one line here."""

from __future__ import annotations

from nhip.registry import Registry
from probes.api import ProbeType

PROBES: Registry[ProbeType] = Registry(
    "probe type",
    {
        "dns": "probes.dns.probe:Dns",
        "file_transfer": "probes.file_transfer:FileTransfer",
        "http": "probes.http.probe:Http",
        "icmp": "probes.icmp:Icmp",
        "stamp": "probes.stamp.probe:Stamp",
        "tcp_connect": "probes.tcp_connect:TcpConnect",
        "tls": "probes.tls.probe:Tls",
        "udp_echo": "probes.udp_echo:UdpEcho",
        "voice": "probes.voice.probe:Voice",
    },
    group="nhip.probes",
)
