"""A host with two uplinks: the default route by ``eth-a``, and ``modem-b`` beside it.

::

    near   eth-a   192.0.2.1/24     ── 192.0.2.9      far   203.0.113.1, 2001:db8:f::1
           modem-b 198.51.100.1/24  ── 198.51.100.9
           default by eth-a (metric 100) and by modem-b (metric 500)
           mark 7 and source 198.51.100.1 have tables of their own, whose only route is by modem-b
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nhip.lab.namespace import inside, run_ip
from probes.line import netlink
from tests.lab.bare_namespace import bare_namespace

SERVER_V4, SERVER_V6 = "203.0.113.1", "2001:db8:f::1"
MODEM_V4, MODEM_V6 = "198.51.100.1", "2001:db8:b::1"
MARK = 7
# What IPv6 has to say of its groups is said at once, while the links are made, and not during a test.
SETTINGS = {
    "ipv4__ping_group_range": "0 2147483647",
    "ipv6__conf__default__mldv2_unsolicited_report_interval": "1",
}


@dataclass(frozen=True)
class Uplinks:
    """The names of both namespaces; the calling thread stands in `near`."""

    near: str
    far: str

    def ip(self, *arguments: str) -> None:
        """Run `ip` in `near`."""
        ip("-n", self.near, *arguments)

    def packets_sent(self, interface: str = "eth-a") -> int:
        """How many frames the interface of `near` has sent so far, what IPv6 tells of its groups left out.

        Those reports (RFC 3810) leave by themselves, in the first moments of an interface.
        """
        with inside(self.near):
            while True:
                reports = group_reports(interface)
                link = netlink.link(interface)
                if group_reports(interface) == reports:
                    break
        assert link is not None
        assert link.count is not None
        return link.count.packets_sent - reports

    def kill(self, how: str) -> None:
        """Make the modem unusable in one of the ways of :data:`DEATHS`."""
        for command in DEATHS[how]:
            ip(*(word.format(near=self.near, far=self.far) for word in command.split()))


DEATHS = {
    "switched off": ["-n {near} link set modem-b down"],
    "no carrier": ["-n {far} link set far-b down"],
    "no route": [
        "-n {near} -4 route del default dev modem-b",
        "-n {near} -6 route del default dev modem-b",
        "-n {near} -4 route flush table 100",
        "-n {near} -6 route flush table 100",
    ],
    "unplugged": ["-n {near} link del modem-b"],
}


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextlib.contextmanager
def two_uplinks(*, answering: bool) -> Iterator[Uplinks]:
    """Both uplinks up; behind them the server, or with `answering` false nobody: packets leave in vain."""
    with (
        bare_namespace(**SETTINGS) as near,
        bare_namespace(**SETTINGS) as far,
    ):
        pairs = (
            ("eth-a", "far-a", "192.0.2", "2001:db8:a::", 100),
            ("modem-b", "far-b", "198.51.100", "2001:db8:b::", 500),
        )
        here = [f"link add {interface} type veth peer name {end} netns {far}" for interface, end, *_ in pairs]
        there = []
        for interface, end, v4, v6, _metric in pairs:
            for lines, name, last in ((here, interface, 1), (there, end, 9)):
                lines += [
                    f"link set {name} addrgenmode none address {mac(name)} up",
                    f"address add {v4}.{last}/24 dev {name}",
                    f"address add {v6}{last}/64 dev {name} nodad",
                ]
        for interface, end, v4, v6, metric in pairs:
            for gateway, host in ((f"{v4}.9", f"{v4}.1"), (f"{v6}9", f"{v6}1")):
                here += [
                    f"neighbour replace {gateway} lladdr {mac(end)} dev {interface} nud permanent",
                    f"route add default via {gateway} dev {interface} metric {metric}",
                ]
                there += [f"neighbour replace {host} lladdr {mac(interface)} dev {end} nud permanent"]
        rules = {}
        for version, source, gateway in (("-4", MODEM_V4, "198.51.100.9"), ("-6", MODEM_V6, "2001:db8:b::9")):
            here += [f"route add default via {gateway} dev modem-b table 100"]
            rules[version] = [f"rule add fwmark {MARK} lookup 100", f"rule add from {source} lookup 100"]
        if answering:
            there += [f"address add {SERVER_V4}/32 dev lo", f"address add {SERVER_V6}/128 dev lo nodad"]
        run_ip(here, namespace=near)
        run_ip(there, namespace=far)
        for version, lines in rules.items():
            for line in lines:
                ip("-n", near, version, *line.split())
        with inside(near):
            yield Uplinks(near, far)


def group_reports(interface: str) -> int:
    """How many reports of its multicast groups the interface has sent."""
    lines = Path("/proc/thread-self/net/dev_snmp6", interface).read_text(encoding="ascii").splitlines()
    counts = dict(line.split() for line in lines)
    return int(counts["Icmp6OutMLDv2Reports"])


def mac(interface: str) -> str:
    """The link-layer address an interface is given."""
    return "02:00:00:00:00:" + {"eth-a": "a1", "far-a": "a9", "modem-b": "b1", "far-b": "b9"}[interface]
