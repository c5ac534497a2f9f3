"""What ties a socket to its line: set, asked back, and refused with a remedy where it cannot be."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nhip.clock import SystemClock
from nhip.errors import CannotMeasureError
from nhip.lab.namespace import inside
from nhip.measurement import (
    Direction,
    Method,
    Outcome,
    Sample,
    Singleton,
    Stamp,
    StampSource,
    Target,
    Transfer,
    TypeP,
)
from probes.line.binding import Binding
from probes.line.namespace import Namespace
from probes.line.netlink import LineCount
from probes.line.proof import least_octets_sent, other_octets, shortfall, with_counts
from probes.line.way import WayWatch
from probes.look_ups import LookUps
from probes.network import Address, HostNetwork, Way, notes_on_name
from probes.server.dns_responder import DnsResponder, DnsResponderConfig
from tests.lab.bare_namespace import bare_namespace
from tests.lab.fake_clock import FakeClock

LOOPBACK = Address(socket.AF_INET, ("127.0.0.1", 9))
SO_MARK = socket.SO_MARK


def datagram_socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


# Tied and asked


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("kind", ["tcp", "udp", "icmp"])
def test_every_socket_says_that_it_is_tied(kind: str, family: socket.AddressFamily) -> None:
    source = "127.0.0.1" if family is socket.AF_INET else "::1"
    network = HostNetwork(interface="lo", source=source)
    if kind == "icmp":
        try:
            made, _raw = network.icmp(family)
        except CannotMeasureError as error:
            pytest.skip(str(error))
    else:
        made = {"tcp": network.tcp, "udp": network.udp}[kind](family)
    with made as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0") == b"lo"
        assert sock.getsockname()[0] == source


class ForgetfulSocket(socket.socket):
    """Takes one option with a nod and forgets it."""

    forgets = 0

    def setsockopt(self, level: int, option: int, value: bytes | int) -> None:  # type: ignore[override]
        if option != self.forgets:
            super().setsockopt(level, option, value)

    def bind(self, address: tuple[str, int]) -> None:  # type: ignore[override]
        super().bind(("127.0.0.8", 0) if self.forgets == -1 else address)


@pytest.mark.parametrize(
    ("option", "binding", "says"),
    [
        (socket.SO_BINDTODEVICE, Binding(interface="lo"), "told to use interface lo says none"),
        (SO_MARK, Binding(mark=7), "told to use mark 0x7 says 0x0"),
        (-1, Binding(source="127.0.0.9"), r"source address 127\.0\.0\.9 says 127\.0\.0\.8"),
    ],
)
def test_a_socket_that_forgot_what_it_was_told_is_never_used(
    option: int, binding: Binding, says: str
) -> None:
    made = ForgetfulSocket(socket.AF_INET, socket.SOCK_DGRAM)
    made.forgets = option
    with pytest.raises(CannotMeasureError, match=says) as failure:
        binding.open(lambda: made)
    assert failure.value.remedy
    assert made.fileno() == -1, "it was left open"


@pytest.mark.lab
@pytest.mark.parametrize("mark", [1, 7, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_mark_of_any_size_is_on_the_socket(mark: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("marks need root")
    with HostNetwork(fwmark=mark).udp(socket.AF_INET) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, SO_MARK) % 2**32 == mark


@pytest.mark.parametrize(
    ("binding", "says"),
    [
        (Binding(mark=2**32), "does not fit 32 bits"),
        (Binding(mark=-1), "does not fit 32 bits"),
        (Binding(source="localhost"), "source 'localhost' is no address"),
        (Binding(source="192.0.2.77"), r"cannot bind to source address 192\.0\.2\.77"),
        (Binding(interface="absent0"), "cannot bind to interface absent0: No such device"),
        (Binding(namespace=Namespace("absent")), "there is no network namespace absent"),
        (Binding(namespace=Namespace("/absent/net")), "there is no network namespace /absent/net"),
        (Binding(namespace=Namespace("../../etc/passwd")), "no network namespace"),
    ],
)
def test_a_binding_that_cannot_be_is_refused_with_a_remedy(binding: Binding, says: str) -> None:
    with pytest.raises(CannotMeasureError, match=says) as failure:
        binding.open(datagram_socket)
    assert failure.value.remedy


def test_the_command_that_shows_the_way_is_told_whole() -> None:
    binding = Binding(interface="wwan0", source="192.0.2.1", mark=7, namespace=Namespace("blue"))
    assert binding.route_command("192.0.2.9") == (
        "ip -n blue route get 192.0.2.9 oif wwan0 from 192.0.2.1 mark 7"
    )
    assert str(binding) == "by interface wwan0 from 192.0.2.1 with mark 0x7 in namespace blue"
    assert binding.parameters == {"fwmark": 7, "network_namespace": "blue"}
    assert binding.bound
    assert not Binding().bound


# Without privilege


def as_nobody(program: str) -> list[str]:
    """What the program prints when it runs without any privilege."""
    if os.geteuid() != 0:
        pytest.skip("only root can give up being root")
    code = (
        "import os, socket\n"
        "from nhip.errors import CannotMeasureError\n"
        "from probes.line.binding import Binding\n"
        "from probes.line.namespace import Namespace\n"
        "make = lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "def told(binding, make=make):\n"
        "    try:\n"
        "        binding.open(make).close()\n"
        "        print('tied')\n"
        "    except CannotMeasureError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code + program], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_an_interface_needs_no_privilege() -> None:
    (said,) = as_nobody("told(Binding(interface='lo', source='127.0.0.1'))\n")
    assert said == "tied"


def test_what_needs_privilege_says_which() -> None:
    mark, rebound = as_nobody(
        "told(Binding(mark=7))\n"
        "def tied_already():\n"
        "    sock = make()\n"
        "    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo')\n"
        "    return sock\n"
        "told(Binding(interface='lo'), tied_already)\n"
    )
    assert "CAP_NET_ADMIN" in mark
    assert "CAP_NET_RAW" in rebound


def test_a_namespace_needs_privilege_and_says_so() -> None:
    (said,) = as_nobody("told(Binding(namespace=Namespace('/proc/self/ns/net')))\n")
    assert "cannot enter network namespace" in said
    assert "CAP_SYS_ADMIN" in said


def test_a_file_that_is_no_namespace_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a namespace is entered by root only")
    file = tmp_path / "net"
    file.touch()
    with pytest.raises(CannotMeasureError, match="is no network namespace"):
        Binding(namespace=Namespace(str(file))).open(datagram_socket)


# Namespaces


@pytest.mark.lab
@pytest.mark.parametrize("form", ["{}", "/run/netns/{}", "/var/run/netns/{}"])
def test_a_socket_is_made_in_its_namespace_and_the_caller_stays_where_it_is(form: str) -> None:
    here = Path("/proc/thread-self/ns/net").readlink()
    with bare_namespace() as name:
        subprocess.run(["ip", "-n", name, "address", "add", "192.0.2.44/32", "dev", "lo"], check=True)
        network = HostNetwork(source="192.0.2.44", namespace=Namespace(form.format(name)))
        for sock in (
            network.udp(socket.AF_INET),
            network.tcp(socket.AF_INET),
            network.icmp(socket.AF_INET)[0],
        ):
            with sock:
                assert sock.getsockname()[0] == "192.0.2.44"
        assert Path("/proc/thread-self/ns/net").readlink() == here
        with pytest.raises(CannotMeasureError, match="source address"):
            HostNetwork(source="192.0.2.44").udp(socket.AF_INET)
    with pytest.raises(CannotMeasureError, match="there is no network namespace"):
        network.udp(socket.AF_INET)


@pytest.mark.lab
def test_what_goes_wrong_inside_a_namespace_comes_out() -> None:
    def wrong() -> None:
        raise ZeroDivisionError("inside")

    with bare_namespace() as name, pytest.raises(ZeroDivisionError, match="inside"):
        Namespace(name).run(wrong)


@pytest.mark.lab
def test_a_name_is_resolved_by_the_files_of_its_namespace_and_by_nobody_else_s(tmp_path: Path) -> None:
    before = Path("/etc/hosts").read_bytes()
    with bare_namespace() as name:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "hosts").write_text("192.0.2.45 host.of-the-namespace.example\n", encoding="ascii")
        network = HostNetwork(namespace=Namespace(name, files=tmp_path))
        found = network.resolve("host.of-the-namespace.example", 80, timeout_seconds=5)
        assert found == Address(socket.AF_INET, ("192.0.2.45", 80))
    assert Path("/etc/hosts").read_bytes() == before


@pytest.mark.lab
def test_the_name_server_of_the_namespace_is_asked_and_in_there(tmp_path: Path) -> None:
    with bare_namespace() as name, contextlib.ExitStack() as stack, contextlib.ExitStack() as here:
        here.enter_context(inside(name))
        responder = DnsResponder(
            DnsResponderConfig(zone="lab.example", ipv4="192.0.2.46", hosts=["127.0.0.1"], port=53),
            SystemClock(),
        )
        responder.start()
        stack.callback(responder.close)
        here.close()  # from here on outside of it
        folder = tmp_path / name
        folder.mkdir()
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n", encoding="ascii")
        network = HostNetwork(ip_version=4, namespace=Namespace(name, files=tmp_path))
        for _again in range(2):
            found = network.resolve("host.lab.example", 80, timeout_seconds=5)
            assert found == Address(socket.AF_INET, ("192.0.2.46", 80))
            # The twin: outside nobody knows that name, not even right after.
            with contextlib.suppress(CannotMeasureError):
                assert HostNetwork(ip_version=4).resolve("host.lab.example", 80, timeout_seconds=0.3) is None


@pytest.mark.lab
def test_a_namespace_without_a_resolver_of_its_own_does_not_blame_the_name(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    with bare_namespace() as name:
        namespace = Namespace(name, files=tmp_path)
        subprocess.run(["ip", "-n", name, "route", "add", "default", "dev", "lo"], check=True)
        file.write_text("nameserver 192.0.2.53\n", encoding="ascii")
        named = HostNetwork(namespace=namespace, resolver_file=file)
        assert named.resolve("host.invalid", 80, timeout_seconds=0.2) is None
        if "nameserver 127." in Path("/etc/resolv.conf").read_text(encoding="utf-8"):
            with pytest.raises(CannotMeasureError, match=f"namespace {name} has no resolver"):
                HostNetwork(namespace=namespace).resolve("host.invalid", 80, timeout_seconds=0.2)


def in_own_file_system(program: str, *arguments: str) -> list[str]:
    """What the program prints in a mount namespace of its own, whose /run and /etc it may cover."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.lab
def test_a_file_of_the_namespace_without_a_counterpart_is_passed_over(tmp_path: Path) -> None:
    with bare_namespace() as name:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "hosts").write_text("192.0.2.47 host.of-the-namespace.example\n", encoding="ascii")
        (folder / "file-that-the-host-has-not").touch()
        (folder / "folder-that-the-host-has-not").mkdir()
        network = HostNetwork(namespace=Namespace(name, files=tmp_path))
        found = network.resolve("host.of-the-namespace.example", 80, timeout_seconds=5)
        assert found == Address(socket.AF_INET, ("192.0.2.47", 80))


@pytest.mark.lab
def test_a_resolver_of_the_namespace_that_cannot_be_shown_is_not_replaced_by_another(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys\n"
        "from pathlib import Path\n"
        "from nhip.errors import CannotMeasureError\n"
        "from probes.line.namespace import Namespace\n"
        "from probes.network import HostNetwork\n"
        "subprocess.run(['mount', '-t', 'tmpfs', 'none', '/etc'], check=True)\n"
        "network = HostNetwork(namespace=Namespace(sys.argv[1], files=Path(sys.argv[2])))\n"
        "try:\n    network.resolve('host.invalid', 80, timeout_seconds=5)\n"
        "except CannotMeasureError as error:\n    print(error)\n"
    )
    with bare_namespace() as name:
        (tmp_path / name).mkdir()
        (tmp_path / name / "resolv.conf").write_text("nameserver 127.0.0.1\n", encoding="ascii")
        (said,) = in_own_file_system(program, name, str(tmp_path))
    assert "this host has no /etc/resolv.conf to stand in for" in said
    assert "touch /etc/resolv.conf" in said


@pytest.mark.lab
@pytest.mark.parametrize("own_files", [True, False])
def test_a_daemon_of_the_host_never_answers_for_a_namespace(own_files: bool, tmp_path: Path) -> None:
    """Whatever the C library knows of such daemons: where it would ask one, nobody listens any more."""
    path = tmp_path / "daemon"

    def ask_the_daemon(*_question: object) -> list[object]:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(path))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.99", 80))]

    def asked_from(namespace: Namespace | None) -> Address | None:
        network = HostNetwork(namespace=namespace, look_ups=LookUps(ask=ask_the_daemon))
        return network.resolve("host.example", 80, timeout_seconds=5)

    with bare_namespace() as name, socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(path))
        daemon.listen(8)
        (tmp_path / name).mkdir()
        if own_files:
            (tmp_path / name / "resolv.conf").write_text("nameserver 127.0.0.1\n", encoding="ascii")
        namespace = Namespace(name, files=tmp_path, daemons=(path, tmp_path / "absent"))
        with contextlib.suppress(CannotMeasureError):  # it may have no resolver but the daemon's
            assert asked_from(namespace) is None
        # The twins: the host has its daemon as before, and a namespace that hides nothing would ask it.
        assert asked_from(None) == Address(socket.AF_INET, ("192.0.2.99", 80))
        assert asked_from(replace(namespace, daemons=())) == Address(socket.AF_INET, ("192.0.2.99", 80))
        assert str(path) not in Path("/proc/self/mounts").read_text(encoding="utf-8")


@pytest.mark.lab
def test_a_note_says_which_resolver_of_which_namespace_was_asked(tmp_path: Path) -> None:
    namespace = Namespace("blue", files=tmp_path)
    (note,) = notes_on_name(HostNetwork(interface="wwan0", namespace=namespace), "host.example")
    assert note == "name resolved by the resolver of namespace blue (this host's file), not over wwan0"
    (tmp_path / "blue").mkdir()
    (tmp_path / "blue" / "resolv.conf").touch()
    (note,) = notes_on_name(HostNetwork(namespace=namespace), "host.example")
    assert note == f"name resolved by the resolver of namespace blue ({tmp_path}/blue/resolv.conf)"
    (note,) = notes_on_name(HostNetwork(fwmark=7), "host.example")
    assert note == "name resolved by this host's resolver, not with mark 0x7"


# The books of an interface against those of a test

SENT = Stamp(0, 0, StampSource.USER)


def sample(
    outcomes: list[Outcome], *, octets: int = 0, came: int = 0, size: int | None = 100, protocol: str = "udp"
) -> Sample:
    return Sample(
        kind="t",
        method=Method("t", "1"),
        target=Target(id="t", host="127.0.0.1"),
        type_p=TypeP(protocol=protocol, size_octets=size),
        started=SENT,
        ended=SENT,
        loss_threshold_seconds=1.0,
        singletons=tuple(
            Singleton(sequence=number, outcome=outcome, sent=SENT) for number, outcome in enumerate(outcomes)
        ),
        timestamp_source=StampSource.USER,
        octets_sent=octets,
        octets_received=came,
    )


RECEIVED, LOST, NOT_SENT = Outcome.RECEIVED, Outcome.LOST, Outcome.NOT_SENT


@pytest.mark.parametrize(
    ("outcomes", "octets", "size", "least"),
    [
        ([RECEIVED] * 3, 300, 100, 300),
        ([RECEIVED, Outcome.DUPLICATE, RECEIVED], 200, 100, 200),
        ([RECEIVED, LOST, Outcome.LATE], 300, 100, 200),
        ([LOST] * 3, 300, 100, 0),
        ([NOT_SENT], 0, 100, 0),
        ([RECEIVED, RECEIVED], 5000, None, 5000),
        # What a broken connection still had in the socket never left.
        ([RECEIVED, Outcome.RESET], 5000, None, 0),
    ],
)
def test_only_what_was_answered_has_certainly_left(
    outcomes: list[Outcome], octets: int, size: int | None, least: int
) -> None:
    assert least_octets_sent(sample(outcomes, octets=octets, size=size)) == least


def test_an_upload_that_its_receiver_counted_has_left() -> None:
    upload = Transfer(direction=Direction.UP, octets=700, duration_ns=1)
    broken = sample([Outcome.TRUNCATED], octets=5000, size=None)
    broken = replace(broken, singletons=(replace(broken.singletons[0], transfer=upload),))
    assert least_octets_sent(broken) == 700


@pytest.mark.parametrize(
    ("outcomes", "carried", "tied", "says"),
    [
        ([RECEIVED] * 2, LineCount(2, 2, 284, 284), True, ""),
        ([RECEIVED] * 2, LineCount(2, 2, 200, 200), True, ""),
        (
            [RECEIVED] * 2,
            LineCount(2, 2, 199, 284),
            True,
            "sent 200 octets of payload, and 199 octets left by",
        ),
        (
            [RECEIVED] * 2,
            LineCount(2, 1, 284, 199),
            True,
            "received 200 octets of payload, and 199 octets came",
        ),
        # Answers may come by another interface to a socket that no interface was named for.
        ([RECEIVED] * 2, LineCount(2, 1, 284, 0), False, ""),
        ([LOST] * 2, LineCount(0, 0, 0, 0), True, "sent packets, and none left by"),
        ([LOST] * 2, LineCount(1, 0, 42, 0), False, ""),
        ([NOT_SENT] * 2, LineCount(0, 0, 0, 0), False, ""),
        ([Outcome.UNREACHABLE] * 2, LineCount(0, 0, 0, 0), False, ""),
    ],
)
def test_a_line_that_carried_less_than_the_test_did_not_carry_it(
    outcomes: list[Outcome], carried: LineCount, tied: bool, says: str
) -> None:
    answered = outcomes.count(RECEIVED)
    found = shortfall(sample(outcomes, octets=100 * len(outcomes), came=100 * answered), carried, tied=tied)
    assert says in found
    assert bool(says) == bool(found)


@pytest.mark.parametrize(
    ("protocol", "size", "others", "noted"),
    [
        ("udp", 100, 0, False),
        ("udp", 100, 4_000, False),
        ("udp", 100, 50_000, True),
        ("tcp", None, 20_000, False),
        ("tcp", None, 100_000, True),
    ],
)
def test_what_a_line_carried_far_beyond_the_test_is_others(
    protocol: str, size: int | None, others: int, noted: bool
) -> None:
    tested = sample([RECEIVED] * 2, octets=200, came=200, size=size, protocol=protocol)
    carried = LineCount(2, 2, 284 + others, 284)
    assert other_octets(tested, carried) == (168 + others if noted else None)
    shown = with_counts(tested, carried, interface="wwan0", others=other_octets(tested, carried))
    assert [(found.name, found.value, found.count) for found in shown.statistics] == [
        ("interface_octets_sent", 284 + others, 2),
        ("interface_octets_received", 284, 2),
    ]
    assert shown.facts == {"way_interface": "wwan0"}
    assert bool(shown.notes) is noted


# The watch


class CountedNetwork(HostNetwork):
    """A network whose interface carries what a test says, look by look."""

    def __init__(self, counts: list[LineCount | None], **bound: str) -> None:
        super().__init__(**bound)  # type: ignore[arg-type]
        self.counts = counts
        self.line_checks = 0

    def way(self, address: Address) -> Way | None:
        return Way("wwan0", 7, 0, count=LineCount(100, 100, 10_000, 10_000))

    def count(self, way: Way) -> LineCount | None:
        return self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]

    def check_line(self) -> None:
        self.line_checks += 1


def watched(network: HostNetwork, clock: FakeClock | None = None) -> WayWatch:
    watch = WayWatch(network, clock or FakeClock())
    watch.check(LOOPBACK)
    return watch


ENOUGH, TOO_LITTLE = LineCount(102, 102, 10_284, 10_284), LineCount(100, 100, 10_000, 10_000)
ANSWERED = sample([RECEIVED] * 2, octets=200, came=200)


def test_a_card_that_tells_its_counters_late_is_waited_for() -> None:
    clock = FakeClock()
    network = CountedNetwork([TOO_LITTLE, TOO_LITTLE, ENOUGH], interface="wwan0")
    found = watched(network, clock).confirmed(ANSWERED)
    assert [statistic.value for statistic in found.statistics] == [284, 284]
    assert clock.mono_ns() < 1e9 + FakeClock().mono_ns()


@pytest.mark.parametrize("bound", [{"interface": "wwan0"}, {"source": "127.0.0.1"}])
@pytest.mark.parametrize("counts", [TOO_LITTLE, None])
def test_a_bound_test_that_no_counter_proves_is_no_measurement(
    bound: dict[str, str], counts: LineCount | None
) -> None:
    with pytest.raises(CannotMeasureError, match="by interface wwan0: this host") as failure:
        watched(CountedNetwork([counts], **bound)).confirmed(ANSWERED)
    assert "ip -statistics link" in failure.value.remedy


@pytest.mark.parametrize("counts", [TOO_LITTLE, None])
def test_an_unbound_test_may_share_several_lines_and_says_so(counts: LineCount | None) -> None:
    found = watched(CountedNetwork([counts])).confirmed(ANSWERED)
    assert found.statistics == ()
    (note,) = found.notes
    assert note.endswith("by interface wwan0")


def test_a_host_that_lets_nobody_read_counters_is_said_of_bound_tests() -> None:
    class Uncounted(CountedNetwork):
        def way(self, address: Address) -> Way | None:
            return Way("wwan0", 7, 0)

    (note,) = watched(Uncounted([None], interface="wwan0")).confirmed(ANSWERED).notes
    assert "not proven" in note
    assert watched(Uncounted([None])).confirmed(ANSWERED).notes == ()


@pytest.mark.parametrize(("outcome", "checks"), [(RECEIVED, 0), (LOST, 1)])
def test_the_modem_is_asked_again_only_when_something_was_lost(outcome: Outcome, checks: int) -> None:
    network = CountedNetwork([ENOUGH], interface="wwan0")
    watched(network).confirmed(sample([outcome, RECEIVED], octets=200))
    assert network.line_checks == checks


def test_a_test_that_looked_at_no_way_is_not_counted() -> None:
    found = WayWatch(CountedNetwork([None], interface="wwan0"), FakeClock()).confirmed(sample([NOT_SENT]))
    assert found.statistics == ()
    assert found.notes == ()
