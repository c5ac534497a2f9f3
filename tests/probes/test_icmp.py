"""icmp: the kernel as far end on both socket kinds and IP versions, then a far end that misbehaves."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from nhip import statistics
from nhip.clock import Clock, SystemClock
from nhip.errors import CannotMeasureError
from nhip.lab.namespace import inside
from nhip.measurement import Outcome, Sample, StampSource, Target
from probes.api import ProbeContext
from probes.icmp import Icmp, IcmpConfig
from probes.network import HostNetwork
from probes.packets.icmp import Echo, checksum, pack_request
from tests.lab.bare_namespace import bare_namespace
from tests.lab.stepped_clock import SteppedClock

MS = 1_000_000
OPEN, CLOSED = "0 2147483647", "1 0"
pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def namespaces() -> Iterator[dict[str, str]]:
    """Two hosts: one allows datagram ICMP sockets to everybody, the other to nobody, so raw ones are used."""
    with (
        bare_namespace(ipv4__ping_group_range=OPEN) as datagram,
        bare_namespace(ipv4__ping_group_range=CLOSED) as raw,
    ):
        yield {"datagram": datagram, "raw": raw}


@pytest.fixture(params=["datagram", "raw"])
def host(request: pytest.FixtureRequest, namespaces: dict[str, str]) -> Iterator[str]:
    """The test runs inside one of the two; gives which."""
    with inside(namespaces[request.param]):
        yield request.param


def measure(
    target: str = "127.0.0.1",
    *,
    clock: Clock | None = None,
    count: int = 3,
    interval_seconds: float = 0.01,
    loss_threshold_seconds: float = 0.3,
    size_octets: int = 56,
) -> Sample:
    config = IcmpConfig(
        count=count,
        interval_seconds=interval_seconds,
        loss_threshold_seconds=loss_threshold_seconds,
        size_octets=size_octets,
    )
    context = ProbeContext(clock=clock or SystemClock(), network=HostNetwork())
    return Icmp(config).measure(Target(id="target", host=target), context)


def outcomes(sample: Sample) -> list[Outcome]:
    return [singleton.outcome for singleton in sample.singletons]


# The kernel as far end


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_host_that_answers_is_received_on_either_kind_of_socket(host: str, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock, raw = HostNetwork().icmp(family)
    sock.close()
    assert raw == (host == "raw")
    sample = measure(address, count=10)
    assert outcomes(sample) == [Outcome.RECEIVED] * 10
    assert {singleton.delay_source for singleton in sample.singletons} == {StampSource.KERNEL}
    assert all(0 < (singleton.delay_ns or 0) < 50 * MS for singleton in sample.singletons)
    assert sample.type_p.protocol == ("icmpv6" if ":" in address else "icmp")
    assert sample.type_p.size_octets == 64
    assert sample.octets_sent == 640


@pytest.mark.parametrize("size_octets", [12, 13, 1000, 1472, 1473, 20_000])
def test_every_size_comes_back_whole(host: str, size_octets: int) -> None:
    sample = measure(size_octets=size_octets)
    assert outcomes(sample) == [Outcome.RECEIVED] * 3
    assert sample.octets_sent == 3 * (8 + size_octets)


def test_two_tests_at_once_do_not_take_each_other_s_replies(host: str, namespaces: dict[str, str]) -> None:
    samples: list[Sample] = []

    def one() -> None:
        with inside(namespaces[host]):
            samples.append(measure(count=50, interval_seconds=0.002))

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for sample in samples:
        counters = statistics.count(sample.singletons)
        assert (counters.received, counters.duplicate, counters.failed) == (50, 0, 0)


def test_no_route_is_this_host_s_fault_and_no_measurement(host: str) -> None:
    with pytest.raises(CannotMeasureError, match=r"no route to 192\.0\.2\.1") as raised:
        measure("192.0.2.1")
    assert "ip route get 192.0.2.1" in raised.value.remedy


@pytest.mark.parametrize("step_seconds", [3600.0, -7200.0])
def test_a_step_of_the_wall_clock_changes_no_delay(host: str, step_seconds: float) -> None:
    clock = SteppedClock(step_seconds=step_seconds, after_readings=30)
    sample = measure(clock=clock, count=12)
    assert outcomes(sample) == [Outcome.RECEIVED] * 12
    assert all(0 < (singleton.delay_ns or 0) < 50 * MS for singleton in sample.singletons)
    # The twin: the dates of the very same packets lie an hour and more apart.
    walls = [
        singleton.received.wall_ns - before.sent.wall_ns
        for before, singleton in zip(sample.singletons, sample.singletons[1:], strict=False)
        if singleton.received and before.sent
    ]
    assert max(walls, key=abs) == pytest.approx(step_seconds * 1e9, abs=2e9)


# A far end that misbehaves: the kernel is silenced and a script answers in its place

Script = Callable[["Responder", bytes, str], None]


class Responder:
    """Answers echo requests of its namespace as told, from a raw socket."""

    def __init__(self, namespace: str, script: Script) -> None:
        self._namespace, self._script = namespace, script
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Responder:
        self._thread.start()
        assert self._ready.wait(5)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join(5)

    def reply(self, request: bytes, to: str, *, source: str = "127.0.0.1", data: bytes | None = None) -> None:
        _kind, _code, _sum, identifier, sequence = struct.unpack_from("!BBHHH", request)
        body = request[8:] if data is None else data
        bare = struct.pack("!BBHHH", 0, 0, 0, identifier, sequence) + body
        packet = struct.pack("!BBHHH", 0, 0, checksum(bare), identifier, sequence) + body
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sender:
            sender.bind((source, 0))
            sender.sendto(packet, (to, 0))

    def _run(self) -> None:
        with (
            inside(self._namespace),
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as ears,
        ):
            ears.settimeout(0.05)
            self._ready.set()
            while not self._stop.is_set():
                with contextlib.suppress(TimeoutError):
                    packet, address = ears.recvfrom(65_535)
                    message = packet[(packet[0] & 0x0F) * 4 :]
                    if message[0] == 8:
                        self._script(self, message, address[0])


@pytest.fixture(scope="module")
def silent_namespaces() -> Iterator[dict[str, str]]:
    with (
        bare_namespace(ipv4__ping_group_range=OPEN, ipv4__icmp_echo_ignore_all="1") as datagram,
        bare_namespace(ipv4__ping_group_range=CLOSED, ipv4__icmp_echo_ignore_all="1") as raw,
    ):
        yield {"datagram": datagram, "raw": raw}


@pytest.fixture(params=["datagram", "raw"])
def silent(request: pytest.FixtureRequest, silent_namespaces: dict[str, str]) -> Iterator[str]:
    """The test runs inside a namespace whose kernel answers no echo; gives its name."""
    with inside(silent_namespaces[request.param]):
        yield silent_namespaces[request.param]


def test_a_host_that_does_not_answer_is_lost(silent: str) -> None:
    assert outcomes(measure(loss_threshold_seconds=0.1)) == [Outcome.LOST] * 3


def test_second_replies_are_duplicates(silent: str) -> None:
    def twice(responder: Responder, request: bytes, to: str) -> None:
        responder.reply(request, to)
        responder.reply(request, to)

    with Responder(silent, twice):
        counters = statistics.count(measure(count=5, interval_seconds=0.03).singletons)
    assert (counters.sent, counters.received) == (5, 5)
    assert counters.duplicate == 5


def test_a_reply_with_changed_data_is_corrupt(silent: str) -> None:
    with Responder(
        silent, lambda responder, request, to: responder.reply(request, to, data=request[8:-1] + b"?")
    ):
        assert outcomes(measure()) == [Outcome.CORRUPT] * 3


def test_a_reply_cut_short_is_corrupt(silent: str) -> None:
    with Responder(silent, lambda responder, request, to: responder.reply(request, to, data=request[8:20])):
        assert outcomes(measure()) == [Outcome.CORRUPT] * 3


def test_a_reply_without_our_token_is_another_program_s(silent: str) -> None:
    with Responder(silent, lambda responder, request, to: responder.reply(request, to, data=b"?" * 56)):
        assert outcomes(measure(loss_threshold_seconds=0.1)) == [Outcome.LOST] * 3


def test_a_reply_from_another_address_is_ignored_and_told(silent: str) -> None:
    with Responder(silent, lambda responder, request, to: responder.reply(request, to, source="127.0.0.7")):
        sample = measure(loss_threshold_seconds=0.1)
    assert outcomes(sample) == [Outcome.LOST] * 3
    assert sample.notes == ("3 foreign answers ignored",)


def test_a_reply_after_the_threshold_is_late(silent: str) -> None:
    def late(responder: Responder, request: bytes, to: str) -> None:
        threading.Event().wait(0.15)
        responder.reply(request, to)

    with Responder(silent, late):
        sample = measure(count=2, interval_seconds=0.2, loss_threshold_seconds=0.1)
    assert sample.singletons[0].outcome is Outcome.LATE
    assert statistics.count(sample.singletons).lost == 2


def test_an_unreachable_that_quotes_our_request_settles_it(silent: str) -> None:
    def unreachable(_responder: Responder, request: bytes, to: str) -> None:
        # What a router quotes: the IPv4 header of our packet and eight octets of what follows.
        header = struct.pack(
            "!BBHHHBBH4s4s",
            *(0x45, 0, 20 + len(request), 0, 0, 64, socket.IPPROTO_ICMP, 0),
            *(socket.inet_aton(to), socket.inet_aton("127.0.0.1")),
        )
        quote = header + request[:8]
        bare = struct.pack("!BBHI", 3, 1, 0, 0) + quote
        packet = struct.pack("!BBHI", 3, 1, checksum(bare), 0) + quote
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sender:
            sender.sendto(packet, (to, 0))

    with Responder(silent, unreachable):
        sample = measure()
    assert outcomes(sample) == [Outcome.UNREACHABLE] * 3
    assert {singleton.detail for singleton in sample.singletons} == {"ICMP type 3 code 1"}


# This host's own faults


def test_an_interface_that_vanishes_in_the_middle_is_no_loss() -> None:
    with bare_namespace(ipv4__ping_group_range=OPEN) as name, inside(name):
        import subprocess

        def ip(*arguments: str) -> None:
            subprocess.run(["ip", *arguments], check=True, capture_output=True)

        ip("link", "add", "line0", "type", "veth", "peer", "name", "line1")
        ip("address", "add", "192.0.2.1/24", "dev", "line0")
        ip("link", "set", "line0", "up")
        ip("link", "set", "line1", "up")
        network = HostNetwork(interface="line0")
        config = IcmpConfig(count=50, interval_seconds=0.02, loss_threshold_seconds=5)
        context = ProbeContext(clock=SystemClock(), network=network)

        def unplug() -> None:
            with inside(name):
                ip("link", "del", "line0")

        timer = threading.Timer(0.3, unplug)
        timer.start()
        with pytest.raises(CannotMeasureError, match="interface") as raised:
            Icmp(config).measure(Target(id="t", host="192.0.2.9"), context)
        timer.join()
        assert "ip -brief" in raised.value.remedy
        # A socket made anew works once the interface is back.
        ip("link", "add", "line0", "type", "veth", "peer", "name", "line1")
        ip("address", "add", "192.0.2.1/24", "dev", "line0")
        ip("link", "set", "line0", "up")
        ip("link", "set", "line1", "up")
        once = IcmpConfig(count=1, loss_threshold_seconds=0.2)
        again = Icmp(once).measure(Target(id="t", host="192.0.2.9"), context)
        assert len(again.singletons) == 1


def test_a_request_packs_with_a_checksum_the_kernel_takes(host: str) -> None:
    octets = pack_request(Echo(1, 2, b"abcdefgh"), 4)
    assert checksum(octets) == 0
