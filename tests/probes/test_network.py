"""The socket seam: what may reach the resolver, which way packets leave, and what an errno stands for."""

from __future__ import annotations

import contextlib
import errno
import socket
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nhip.errors import CannotMeasureError
from nhip.measurement import Outcome
from probes.look_ups import LookUps
from probes.network import Address, HostNetwork, Way, errno_name, notes_on_name, outcome_of
from tests.lab.bare_namespace import bare_namespace

# Names


@pytest.mark.parametrize(("host", "version"), [("127.0.0.1", 4), ("::1", 6), ("localhost", None)])
def test_names_and_addresses_resolve(host: str, version: int | None) -> None:
    address = HostNetwork().resolve(host, 80, timeout_seconds=5)
    assert address is not None
    assert address.host in ("127.0.0.1", "::1")
    assert version in (None, address.ip_version)


HOSTILE_NAMES = [
    *("", " ", ".", "a b", "a;id", "$(id)", "`id`", "a|b", "a\n", "a\0b", "host\r\nX: y", "http://host/"),
    *("-host", "host-", "a..b", "ho_st!", "đo.vn", "a" * 64, ".".join(["a" * 60] * 5), "[::1]", "host:80"),
    # What a resolver reads as a number: 127.0.0.1, 0.0.0.0 and the like.
    *("2130706433", "0", "127.1", "0x7f.1", "0x7f000001", "0177.0.0.1", "1.2.3.4.5", "256.1.1.1", "0x"),
    *("fe80::1%eth0;id", "fe80::1%", "::1%" + "a" * 16, "::ffff:1.2.3.4.5"),
]


@pytest.mark.parametrize("host", HOSTILE_NAMES)
def test_what_is_neither_name_nor_address_is_refused_before_the_resolver(host: str) -> None:
    with pytest.raises(CannotMeasureError, match="neither a name nor an address"):
        HostNetwork().resolve(host, 80, timeout_seconds=5)


@pytest.mark.parametrize("host", ["a" * 5000 + "!", "a." * 2000, "a-" * 100 + "!", "0" * 60 + "x!"])
def test_a_hostile_name_is_refused_at_once(host: str) -> None:
    begun = time.thread_time()  # what others do on this machine meanwhile is not in it
    with pytest.raises(CannotMeasureError):
        HostNetwork().resolve(host, 80, timeout_seconds=5)
    assert time.thread_time() - begun < 0.1


@given(host=st.text(alphabet="ab09-_.%:xX\n;", max_size=40))
def test_no_text_with_a_forbidden_sign_takes_long_or_breaks(host: str) -> None:
    begun = time.thread_time()
    with pytest.raises(CannotMeasureError):
        HostNetwork().resolve(f"{host}!", 80, timeout_seconds=5)  # the sign keeps it from the resolver
    assert time.thread_time() - begun < 1


def test_a_resolver_that_is_dead_costs_no_more_than_its_deadline() -> None:
    silent, over = threading.Event(), []

    def no_answer(*_question: object) -> list[Address]:
        silent.wait(60)
        return []

    look_ups = LookUps(ask=no_answer)
    with contextlib.suppress(CannotMeasureError):  # on a host that is not connected at all
        over.append(HostNetwork(look_ups=look_ups).resolve("host.invalid", 80, timeout_seconds=0.05))
    assert not silent.is_set(), "it waited for the resolver"
    assert over in ([], [None])
    silent.set()


def test_a_source_address_decides_the_ip_version() -> None:
    with pytest.raises(
        CannotMeasureError, match="::1 is an IPv6 address, and this test sends IPv4"
    ) as raised:
        HostNetwork(source="127.0.0.1").resolve("::1", 80, timeout_seconds=5)
    assert raised.value.remedy
    found = HostNetwork(ip_version=4).resolve("localhost", 80, timeout_seconds=5)
    assert found is not None
    assert found.ip_version == 4


# Which of several addresses

V6 = Address(socket.AF_INET6, ("2001:db8:77::7", 80, 0, 0))
V4 = Address(socket.AF_INET, ("203.0.113.7", 80))
OTHER_V4 = Address(socket.AF_INET, ("203.0.113.8", 80))


class SomeWays(HostNetwork):
    """Every name has the addresses of `found`; there is a way to those of `open`."""

    def __init__(self, found: list[Address], open_: list[Address], **bound: str) -> None:
        super().__init__(**bound)  # type: ignore[arg-type]
        self.found, self.open = found, open_

    def resolve_all(self, host: str, port: int, *, timeout_seconds: float) -> tuple[Address, ...]:
        return tuple(self.found)

    def way(self, address: Address) -> Way | None:
        if address not in self.open:
            raise CannotMeasureError(f"this host has no route to {address.host}", remedy="mend it")
        return None


@pytest.mark.parametrize("bound", [{}, {"interface": "wwan0"}])
@pytest.mark.parametrize(
    ("found", "open_", "taken", "over"),
    [
        ([V6, V4], [V6, V4], V6, []),
        ([V6, V4], [V4], V4, [V6]),
        ([V4, V6], [V6], V6, [V4]),
        ([V6, V4, OTHER_V4], [OTHER_V4], OTHER_V4, [V6, V4]),
    ],
)
def test_the_first_address_with_a_way_is_taken_and_those_before_it_are_noted(
    found: list[Address], open_: list[Address], taken: Address, over: list[Address], bound: dict[str, str]
) -> None:
    network = SomeWays(found, open_, **bound)
    assert network.resolve("dual.example", 80, timeout_seconds=1) == taken
    notes = [note for note in notes_on_name(network, "dual.example") if note.startswith("not measured")]
    assert notes == [
        f"not measured: {address.host} (this host has no route to {address.host})" for address in over
    ]
    assert not any("not measured" in note for note in notes_on_name(network, "other.example"))


def test_without_a_way_to_any_the_first_failure_is_told_and_how_to_choose() -> None:
    with pytest.raises(CannotMeasureError, match="no route to 2001:db8:77::7; mend it") as failure:
        SomeWays([V6, V4], []).resolve("dual.example", 80, timeout_seconds=1)
    assert "ip_version = 4" in failure.value.remedy
    assert "-4" in failure.value.remedy
    with pytest.raises(CannotMeasureError) as failure:
        SomeWays([V4, OTHER_V4], []).resolve("single.example", 80, timeout_seconds=1)
    assert failure.value.remedy == "mend it", "there is no version to choose"


# Sockets


def test_a_bound_socket_sends_from_its_source() -> None:
    with HostNetwork(source="127.0.0.9").udp(socket.AF_INET) as sock:
        assert sock.getsockname()[0] == "127.0.0.9"
    with HostNetwork(source="127.0.0.9").tcp(socket.AF_INET) as sock:
        assert sock.getsockname()[0] == "127.0.0.9"


@pytest.mark.parametrize("name", ["absent0", "eth0; id", "a" * 16, "../eth0", "", "lo\n", "lo\0"])
def test_an_interface_that_is_absent_or_no_name_is_refused_with_a_remedy(name: str) -> None:
    with pytest.raises(CannotMeasureError) as raised:
        HostNetwork(interface=name).udp(socket.AF_INET)
    assert raised.value.remedy.startswith(("see: ip link", "check that it exists"))


def test_a_wrong_source_is_named_even_beside_a_good_interface() -> None:
    with pytest.raises(CannotMeasureError, match=r"source address 192\.0\.2\.77"):
        HostNetwork(interface="lo", source="192.0.2.77").udp(socket.AF_INET)


@pytest.mark.lab
def test_a_bound_socket_never_takes_another_way() -> None:
    """The line's own address answers over loopback only; the socket bound to the line hears nothing."""
    with bare_namespace() as name:
        program = (
            "import socket, subprocess\n"
            "from nhip.clock import SystemClock\n"
            "from nhip.measurement import Target\n"
            "from probes.api import ProbeContext\n"
            "from probes.network import HostNetwork\n"
            "from probes.tcp_connect import TcpConnect, TcpConnectConfig\n"
            "server = socket.create_server(('127.0.0.1', 8001))\n"
            "for interface in ('line0', None):\n"
            "    context = ProbeContext(clock=SystemClock(), network=HostNetwork(interface=interface))\n"
            "    config = TcpConnectConfig(count=1, loss_threshold_seconds=0.2)\n"
            "    sample = TcpConnect(config).measure(Target(id='t', host='127.0.0.1', port=8001), context)\n"
            "    print(sample.singletons[0].outcome)\n"
        )
        for command in (
            "link add line0 type veth peer name line1",
            "address add 192.0.2.1/24 dev line0",
            "link set line0 up",
            "link set line1 up",
            "route add default dev line0",
        ):
            subprocess.run(["ip", "-n", name, *command.split()], check=True)
        done = subprocess.run(
            ["ip", "netns", "exec", name, sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
        )
    bound, free = done.stdout.split()
    assert free == "received"
    assert bound in ("lost", "unreachable")


def test_no_descriptor_left_is_this_host_s_fault_and_said_so() -> None:
    code = (
        "import resource, socket\n"
        "from nhip.errors import CannotMeasureError\n"
        "from probes.line.namespace import Namespace\n"
        "from probes.network import Address, HostNetwork\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "network = HostNetwork()\n"
        "there = Namespace('/proc/self/ns/net')\n"
        "way = lambda family: network.way(Address(family, ('127.0.0.1', 9)))\n"
        "for make in (network.udp, network.tcp, network.icmp, way, HostNetwork(namespace=there).udp):\n"
        "    try:\n        make(socket.AF_INET)\n"
        "    except CannotMeasureError as error:\n        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert len(said) == 5
    for line in said:
        assert "Too many open files" in line
        assert "LimitNOFILE" in line
        assert "ping_group_range" not in line


# Who resolves


def test_a_bound_test_says_that_its_name_was_resolved_elsewhere() -> None:
    assert notes_on_name(HostNetwork(interface="wwan0"), "host.example") == (
        "name resolved by this host's resolver, not over wwan0",
    )
    assert notes_on_name(HostNetwork(source="192.0.2.1"), "host.example") == (
        "name resolved by this host's resolver, not from 192.0.2.1",
    )
    assert notes_on_name(HostNetwork(interface="wwan0"), "192.0.2.7") == ()
    assert notes_on_name(HostNetwork(ip_version=4), "host.example") == ()


# Errors


@pytest.mark.parametrize(
    ("number", "outcome"),
    [
        (errno.ECONNREFUSED, Outcome.REFUSED),
        (errno.EHOSTUNREACH, Outcome.UNREACHABLE),
        (errno.ENETUNREACH, Outcome.UNREACHABLE),
        (errno.ECONNRESET, Outcome.RESET),
        (errno.ETIMEDOUT, Outcome.LOST),
        (errno.ENOBUFS, Outcome.NOT_SENT),
        (errno.EAGAIN, Outcome.NOT_SENT),
        (errno.EPERM, Outcome.NOT_SENT),
    ],
)
def test_an_errno_is_the_fate_it_stands_for(number: int, outcome: Outcome) -> None:
    assert outcome_of(OSError(number, "")) is outcome
    assert errno_name(OSError(number, "")) == errno.errorcode[number]


@pytest.mark.parametrize("number", [errno.ENODEV, errno.ENETDOWN, errno.EMFILE, errno.ENFILE])
def test_a_fault_of_this_host_is_no_fate_of_a_packet(number: int) -> None:
    with pytest.raises(CannotMeasureError) as raised:
        outcome_of(OSError(number, "gone"))
    assert raised.value.remedy
