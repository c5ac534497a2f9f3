"""A test held against its interface's own counters: what it sent must be in them.

The counters of an interface know nothing of tests. They count every frame with its headers, and everybody's
frames, so they can only be too high: what a test is known to have sent is a lower bound, and an interface
that carried less did not carry the test. What it carried far beyond the test is traffic of others.

Known to have left is a packet that was answered. A packet without an answer may have been dropped by this
host's own queue, and octets of a broken connection may still lie in the socket.
"""

from __future__ import annotations

from dataclasses import replace

from nhip.measurement import Direction, Outcome, Sample, Statistic
from probes.line.netlink import LineCount

# Fates of packets that must have left this host, whatever the network did to them.
_LEFT = frozenset(Outcome) - {Outcome.NOT_SENT, Outcome.NOT_RESOLVED, Outcome.UNREACHABLE}
_ANSWERED = frozenset({Outcome.RECEIVED, Outcome.LATE})

# What a test may add to its payload before anything is called traffic of others: neighbour discovery and the
# like for each test, headers and an ICMP error for each datagram, a handshake with certificates for each
# connection. Payload itself may come twice, as lost segments do.
_OCTETS_OF_A_TEST = 4096
_OCTETS_OF_A_DATAGRAM = 400
_OCTETS_OF_A_CONNECTION = 16_384
_MOST_REPETITIONS = 2

_DEFINITION = (
    "octets that {what} the interface during the test by its own counters, headers and other traffic too"
)


def shortfall(sample: Sample, carried: LineCount, *, tied: bool) -> str:
    """How far `carried` falls short of `sample`, to be read before an interface's name; empty if it does not.

    `tied`: the sockets take only what arrives by the interface, so that answers must be in it too.
    """
    left = any(found.sent is not None and found.outcome in _LEFT for found in sample.singletons)
    if left and carried.packets_sent == 0:
        return "the test sent packets, and none left by"
    least = least_octets_sent(sample)
    if carried.octets_sent < least:
        return f"the test sent {least} octets of payload, and {carried.octets_sent} octets left by"
    if tied and carried.octets_received < sample.octets_received:
        return (
            f"the test received {sample.octets_received} octets of payload, and {carried.octets_received} "
            "octets came by"
        )
    return ""


def least_octets_sent(sample: Sample) -> int:
    """The payload octets of `sample` that have certainly left this host."""
    fates = [found for found in sample.singletons if found.outcome is not Outcome.DUPLICATE]
    if all(found.outcome is Outcome.RECEIVED for found in fates):
        return sample.octets_sent
    if sample.type_p.size_octets is not None:
        answered = sum(found.outcome in _ANSWERED for found in fates)
        return min(sample.octets_sent, answered * sample.type_p.size_octets)
    return sum(
        found.transfer.octets
        for found in fates
        if found.transfer is not None and found.transfer.direction is Direction.UP
    )


def other_octets(sample: Sample, carried: LineCount) -> int | None:
    """About how much the interface carried for others; `None` when that may be the test's own headers."""
    total = carried.octets_sent + carried.octets_received
    own = sample.octets_sent + sample.octets_received
    each = _OCTETS_OF_A_CONNECTION if sample.type_p.size_octets is None else _OCTETS_OF_A_DATAGRAM
    if sample.type_p.protocol == "tcp":
        each = _OCTETS_OF_A_CONNECTION
    most = _MOST_REPETITIONS * own + each * len(sample.singletons) + _OCTETS_OF_A_TEST
    return total - own if total > most else None


def with_counts(sample: Sample, carried: LineCount, *, interface: str, others: int | None) -> Sample:
    """`sample` with what `interface` carried during it, and a note when others used it."""
    note = f"other traffic on {interface} during the test: about {others} octets"
    counted = tuple(
        Statistic(
            name=f"interface_octets_{what}",
            value=float(octets),
            unit="octets",
            count=len(sample.singletons),
            definition=_DEFINITION.format(what=words),
        )
        for what, words, octets in (
            ("sent", "left by", carried.octets_sent),
            ("received", "came by", carried.octets_received),
        )
    )
    return replace(
        sample,
        statistics=(*sample.statistics, *counted),
        facts={**sample.facts, "way_interface": interface},
        notes=(*sample.notes, *((note,) if others is not None else ())),
    )
