"""Hosts, wires, links, addresses and routes of a lab: a topology laid out, nothing built yet.

::

    alpha-fixed ~~~ alpha ---+                        ~~~ emulated link (two TUN devices)
    alpha-4g    ~~~   |      |                        --- wire (a veth pair, no delay)
    alpha-3g    ~~~---+      +--- exchange --- server
    beta-fixed  ~~~ beta  ---+        ~
    ...                      |        ~
    gamma-...   ~~~ gamma ---+       intl

IPv4 addresses come from 198.18.0.0/15, kept for measuring equipment (RFC 2544), and IPv6 addresses
from 2001:db8::/32, kept for documentation (RFC 3849): neither can be mistaken for a place outside.
Each link is subnet number n: ``198.18.n.0/30`` and ``2001:db8:18:n::/64``, where the side nearer to
the core is 1 and the other is 2.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from nhip.lab.effects import Effects
from nhip.lab.topology import Topology, check_topology

Direction = Literal["up", "down"]

SERVER = "server"
EXCHANGE = "exchange"
INTERNATIONAL = "intl"
INTERNATIONAL_LINK = "international"


class Interface(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One end of a wire or link: which host, what it is called there, its addresses without prefix length."""

    host: str
    name: str
    ipv4: str
    ipv6: str


class Wire(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A veth pair: joins two hosts and changes nothing."""

    near: Interface
    far: Interface


class Link(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An emulated link; `up` leads from near to far, `down` from far to near.

    The near end is the access host; of the international link it is the exchange.
    """

    id: str
    near: Interface
    far: Interface
    up: Effects
    down: Effects
    operator: str | None = None
    technology: str | None = None


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """On `host`, packets to the prefixes `ipv4` and `ipv6` go to the gateway `via`."""

    host: str
    ipv4: str
    ipv6: str
    via: Interface


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a lab is made of. `server` is the host that measurements are made against."""

    hosts: tuple[str, ...]
    wires: tuple[Wire, ...]
    links: tuple[Link, ...]
    routes: tuple[Route, ...]
    server: str
    seed: int

    def interfaces(self) -> tuple[Interface, ...]:
        """Every interface of the lab."""
        joints: tuple[Wire | Link, ...] = (*self.wires, *self.links)
        return tuple(end for joint in joints for end in (joint.near, joint.far))

    def address(self, host: str, *, family: Literal[4, 6] = 4) -> str:
        """The first address of `host`; KeyError when there is no such host."""
        for interface in self.interfaces():
            if interface.host == host:
                return interface.ipv4 if family == 4 else interface.ipv6
        raise KeyError(host)

    def link(self, link_id: str) -> Link:
        """The emulated link called `link_id`; KeyError when there is none."""
        for link in self.links:
            if link.id == link_id:
                return link
        raise KeyError(link_id)


def plan_of(topology: Topology) -> Plan:
    """The layout of `topology`; LabError when it cannot be built."""
    check_topology(topology)
    hosts = [SERVER, EXCHANGE, INTERNATIONAL]
    server = Wire(near=_far_end(0, SERVER, "exchange0"), far=_core_end(0, EXCHANGE, "to-server"))
    wires = [server]
    international = Link(
        id=INTERNATIONAL_LINK,
        near=_core_end(1, EXCHANGE, "to-intl"),
        far=_far_end(1, INTERNATIONAL, "exchange0"),
        up=topology.international.up,
        down=topology.international.down,
    )
    links = []
    routes = [_default(SERVER, via=server.far), _default(INTERNATIONAL, via=international.near)]
    for number, operator in enumerate(topology.operators, start=1):
        hosts.append(operator.id)
        backbone = Wire(
            near=_far_end(10 * number, operator.id, "exchange0"),
            far=_core_end(10 * number, EXCHANGE, f"to-{number}"),
        )
        wires.append(backbone)
        routes.append(_default(operator.id, via=backbone.far))
        for position, access in enumerate(operator.access, start=1):
            host, subnet = f"{operator.id}-{access.technology}", 10 * number + position
            hosts.append(host)
            link = Link(
                id=host,
                near=_far_end(subnet, host, "access0"),
                far=_core_end(subnet, operator.id, f"to-{access.technology}"),
                up=access.up,
                down=access.down,
                operator=operator.id,
                technology=access.technology,
            )
            links.append(link)
            routes.append(_default(host, via=link.far))
            routes.append(
                Route(
                    host=EXCHANGE,
                    ipv4=f"198.18.{subnet}.0/30",
                    ipv6=f"2001:db8:18:{subnet}::/64",
                    via=backbone.near,
                )
            )
    return Plan(
        hosts=tuple(hosts),
        wires=tuple(wires),
        links=(*links, international),
        routes=tuple(routes),
        server=SERVER,
        seed=topology.seed,
    )


def pair_plan(*, up: Effects | None = None, down: Effects | None = None, seed: int = 1) -> Plan:
    """The smallest lab: the hosts ``near`` and ``far`` and one emulated link called ``pair`` between them."""
    link = Link(
        id="pair",
        near=_far_end(1, "near", "access0"),
        far=_core_end(1, "far", "to-near"),
        up=up or Effects(),
        down=down or Effects(),
    )
    return Plan(hosts=("near", "far"), wires=(), links=(link,), routes=(), server="far", seed=seed)


def _core_end(subnet: int, host: str, name: str) -> Interface:
    return Interface(host=host, name=name, ipv4=f"198.18.{subnet}.1", ipv6=f"2001:db8:18:{subnet}::1")


def _far_end(subnet: int, host: str, name: str) -> Interface:
    return Interface(host=host, name=name, ipv4=f"198.18.{subnet}.2", ipv6=f"2001:db8:18:{subnet}::2")


def _default(host: str, *, via: Interface) -> Route:
    return Route(host=host, ipv4="0.0.0.0/0", ipv6="::/0", via=via)
