"""By which interface a bound packet would leave, and why that is not the line it is bound to.

Of the things a socket can be bound to only the interface is an order. A source address and a mark are
wishes: they choose a routing table by the rules of this host, and when that table has no route (its modem is
down), the kernel goes on to the next rule and at the end to the default route. So the kernel is asked which
way it would take, and what it says is held against what the binding means::

    interface   the way is that interface, or a member of it (VRF)
    source      the way is the interface that has this address
    mark        the table that gave the way is one that a rule for this mark selects
"""

from __future__ import annotations

from nhip.errors import CannotMeasureError
from probes.line import netlink
from probes.line.binding import CHECK_INTERFACE, Binding, checked_interface


def leaving_link(host: str, binding: Binding, *, scope_index: int = 0) -> netlink.Link:
    """The interface by which packets to the address `host` leave from the calling thread's namespace.

    CannotMeasureError when there is none, when it is down or without its line, or when it is another than
    the binding means. NoAnswerError when the kernel cannot be asked.
    """
    own = usable_link(binding.interface) if binding.interface is not None else None
    route = _route(host, binding, own, scope_index)
    if route is None:
        raise CannotMeasureError(
            f"this host has no route to {host} {binding}".rstrip(),
            remedy=f"check the route: {binding.route_command(host)}",
        )
    link = _usable(netlink.link(route.interface_index), str(route.interface_index))
    if why := _strays(route, link, own, binding, ip_version=6 if ":" in host else 4):
        raise CannotMeasureError(
            f"packets to {host} would leave by {link.name}: {why}",
            remedy=f"name the interface too, or mend the routes: ip rule; {binding.route_command(host)}",
        )
    return link


def usable_link(name: str) -> netlink.Link:
    """The interface called `name`; CannotMeasureError unless packets can leave by it."""
    return _usable(netlink.link(checked_interface(name)), name)


def _route(host: str, binding: Binding, own: netlink.Link | None, scope_index: int) -> netlink.Route | None:
    index = own.index if own else scope_index or None
    route = netlink.route(host, interface_index=index, source=binding.source, mark=binding.mark)
    if own is not None and binding.source is not None and not _by(own, route):
        # For IPv6 the kernel answers a question that names a source as if the interface were a wish; to a
        # socket it is an order, as it is in a question without a source.
        strict = netlink.route(host, interface_index=index, mark=binding.mark)
        route = strict if _by(own, strict) else route
    if own is not None and route is not None and route.table is None and not own.one_far_end:
        return None  # without a route a neighbour would be looked for that is none
    return route


def _strays(
    route: netlink.Route, link: netlink.Link, own: netlink.Link | None, binding: Binding, *, ip_version: int
) -> str:
    """Why packets that take `route` are not on the line they are bound to; empty if they are."""
    members = (link.index, link.master_index)
    if own is not None:
        stray = own.index not in members
        return f"an address of this host is never reached over {own.name}" if stray else ""
    if route.local:
        return ""
    if binding.source is not None:
        owner = netlink.owner(binding.source)
        holder = netlink.link(owner) if owner is not None else None
        # An address of the loopback interface is one of the whole host, as routers have it.
        if holder is not None and not holder.loopback and holder.index not in members:
            return f"{binding.source} is an address of {holder.name}"
    if binding.mark is not None:
        tables = netlink.tables_of_mark(binding.mark, ip_version)
        if not tables:
            return f"no rule of this host routes mark {binding.mark:#x}"
        if route.table not in tables:
            return f"the table for mark {binding.mark:#x} has no route to it"
    return ""


def _by(own: netlink.Link, route: netlink.Route | None) -> bool:
    """Whether `route` leaves by the interface `own`."""
    return route is not None and route.interface_index == own.index


def _usable(link: netlink.Link | None, name: str) -> netlink.Link:
    """The interface, if packets can leave by it."""
    if link is None:
        raise CannotMeasureError(f"interface {name} does not exist", remedy=CHECK_INTERFACE)
    if not link.up:
        raise CannotMeasureError(
            f"interface {link.name} is down", remedy=f"switch it on: ip link set {link.name} up"
        )
    if not link.carrier:
        raise CannotMeasureError(
            f"interface {link.name} has no carrier",
            remedy=f"check the modem or the cable: ip link show {link.name}",
        )
    return link
