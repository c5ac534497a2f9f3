"""Names of hosts: what may reach the resolver, and which name servers a host asks.

A resolver reads ``2130706433`` and ``0x7f.1`` as 127.0.0.1, so what is neither a name nor an address is
refused before it gets there.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from probes.line.binding import is_interface_name

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


def is_host(text: str) -> bool:
    """Whether `text` can be a target: an address, or a name that no resolver takes for a number."""
    return literal(text) is not None or _is_name(text)


def literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that `host` is; `None` when it is a name or nothing at all."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    scope = getattr(address, "scope_id", None)
    return None if scope is not None and not is_interface_name(scope) else address


def name_servers(path: Path) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The name servers that the file names (resolv.conf(5))."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    named = [literal(found[1]) for found in words if found[:1] == ["nameserver"] and len(found) > 1]
    return [server for server in named if server is not None]


def _is_name(host: str) -> bool:
    """Whether `host` can be a host name: labels of RFC 1123, the last of them no number."""
    labels = host.removesuffix(".").split(".")
    whole = len(host) <= 254 and all(_LABEL.fullmatch(label) for label in labels)
    return whole and not _NUMBER.fullmatch(labels[-1])
