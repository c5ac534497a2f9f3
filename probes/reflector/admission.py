"""Whom a reflector answers, and how often.

A client is an IPv4 address or an IPv6 /64: whoever has one address of a /64 has all of them. An IPv4 client
of an IPv6 socket is its IPv4 address, or all of IPv4 would be one client.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Sequence
from typing import NamedTuple

from probes.reflector.settings import IpNetwork
from probes.token_bucket import TokenBuckets

LOWEST_PORT = 1024
_CLIENTS_REMEMBERED = 4_096
_CLIENT_PREFIX_BITS = 64


class Client(NamedTuple):
    """What follows from a client's address."""

    host: str
    """The address as its own version writes it."""
    name: str
    """What it is limited by."""
    allowed: bool


class Admission:
    """Decides for one reflector; one thread at a time."""

    def __init__(self, packets_per_second: float, networks: Sequence[IpNetwork]) -> None:
        self._networks = tuple(networks)
        self._buckets = TokenBuckets(packets_per_second, most_clients=_CLIENTS_REMEMBERED)
        self._known = functools.lru_cache(maxsize=_CLIENTS_REMEMBERED)(self._look)

    def client(self, host: str) -> Client:
        """What is known of the client at `host`, as the socket names it."""
        return self._known(host)

    def within_rate(self, client: Client, now_ns: int) -> bool:
        """Whether the client may have one more answer at `now_ns`, monotonic."""
        return self._buckets.take(client.name, now_ns)

    def _look(self, host: str) -> Client:
        address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        name = str(address)
        if isinstance(address, ipaddress.IPv6Address):
            name = str(ipaddress.ip_network((int(address), _CLIENT_PREFIX_BITS), strict=False))
        allowed = not self._networks or any(
            address.version == network.version and address in network for network in self._networks
        )
        return Client(str(address), name, allowed)
