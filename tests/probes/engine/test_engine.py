"""The engine on real sockets: what is sent comes back, is stamped by the kernel and is booked once."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nhip.clock import SystemClock
from nhip.errors import CannotMeasureError, ConfigError
from nhip.lab.namespace import inside, run_ip
from nhip.measurement import Target
from probes.engine import fate
from probes.engine.endpoint import Endpoint
from probes.engine.engine import Engine
from probes.engine.group import TargetList
from probes.engine.lane import Lane
from probes.network import Address, HostNetwork
from tests.lab.scripted_echo import Reply, Request, echo, scripted_echo
from tests.probes.engine.conftest import Run, group_of, run_engine


def check_books(run: Run) -> None:
    """What must hold whatever the network did."""
    readings = run.readings
    fates = sum(run.fates.values(), Counter())
    booked = sum(fates.values())
    assert readings.in_flight == 0
    assert readings.planned == readings.handed_over + readings.missed + readings.unresolved + sum(
        readings.refused_by_host.values()
    )
    assert fates[fate.RECEIVED] == readings.received <= readings.handed_over
    assert fates[fate.LOST] + fates[fate.LATE] == readings.lost
    assert booked <= readings.planned <= booked + readings.missed


def test_many_addresses_answer_and_both_ends_are_stamped_by_the_kernel(icmp: None) -> None:
    hosts = [f"127.3.{number // 200}.{number % 200 + 1}" for number in range(2000)]
    run = run_engine([group_of(hosts, interval_seconds=1.0, loss_threshold_seconds=0.5)], 1.2)
    check_books(run)
    readings = run.readings
    assert readings.handed_over > 2000
    assert (readings.received, readings.lost) == (readings.handed_over, 0)
    assert readings.sent_by_user_stamp + readings.received_by_user_stamp == 0
    assert len(run.delays_ns) == 2000
    every = sorted(delay for delays in run.delays_ns.values() for delay in delays)
    assert len(every) == readings.received
    assert 0 < every[len(every) // 2] < 200_000  # the kernel's own echo over loopback


def test_no_privilege_is_needed(unprivileged: str) -> None:
    run = run_engine(
        [group_of(["127.0.0.1", "::1"], loss_threshold_seconds=0.15)], 0.5, namespace=unprivileged
    )
    check_books(run)
    assert [lane.endpoint.raw for lane in run.lanes] == [False, False]
    assert run.fates["127.0.0.1"].keys() == run.told("::1") == {fate.RECEIVED}
    assert run.readings.sent_by_user_stamp == 0


def test_a_raw_socket_does_as_well(icmp: None) -> None:
    """Where the sysctl forbids the unprivileged one, for both versions of IP."""
    run = run_engine([group_of(["127.0.0.1", "::1"], loss_threshold_seconds=0.15)], 0.5)
    check_books(run)
    for host in ("127.0.0.1", "::1"):
        assert run.told(host) == {fate.RECEIVED}


def test_another_engine_and_a_ping_beside_it_are_not_mistaken(icmp: None) -> None:
    """Raw sockets see everybody's replies."""
    other: list[Run] = []
    beside = threading.Thread(
        target=lambda: other.append(run_engine([group_of(["127.0.0.1"], loss_threshold_seconds=0.15)], 0.4))
    )
    beside.start()
    run = run_engine([group_of(["127.0.0.1", "127.0.0.2"], loss_threshold_seconds=0.15)], 0.4)
    beside.join()
    check_books(run)
    check_books(other[0])
    for each in (run, *other):
        assert each.readings.lost == each.readings.duplicate == 0


def test_what_is_too_much_is_missed_and_neither_lost_nor_sent_late(icmp: None) -> None:
    """Asked for by hand, beyond what any host does: the books still balance."""
    hosts = [f"127.3.{number // 200}.{number % 200 + 1}" for number in range(4000)]
    group = group_of(
        hosts, interval_seconds=0.01, window_seconds=0.05, poisson=True, loss_threshold_seconds=0.2
    )
    run = run_engine([group], 0.4, most_probes_per_second=1e9)
    check_books(run)
    readings = run.readings
    assert readings.missed > readings.planned // 4
    assert readings.lost == readings.duplicate == 0
    assert readings.received == readings.handed_over > 2000


def test_more_than_this_host_can_do_is_refused_with_both_numbers(icmp: None) -> None:
    with pytest.raises(ConfigError, match=r"icmp_group: 40 probes a second .* can do 30"):
        run_engine([group_of(["127.0.0.1", "127.0.0.2"])], 1, most_probes_per_second=30)


def test_more_than_the_receive_buffer_holds_is_refused(unprivileged: str) -> None:
    """The buffer an unprivileged process gets is small; silent overflow would look like loss."""

    class SmallBuffer(HostNetwork):
        def icmp(self, family: socket.AddressFamily) -> tuple[socket.socket, bool]:
            sock, raw = super().icmp(family)

            class Limited(socket.socket):
                def setsockopt(self, level: int, option: int, value: int) -> None:  # type: ignore[override]
                    if level == socket.SOL_SOCKET and option == 33:  # SO_RCVBUFFORCE
                        raise PermissionError(1, "Operation not permitted")
                    super().setsockopt(level, option, min(value, 50_000) if option == 8 else value)

            return Limited(fileno=sock.detach()), raw

    hosts = [f"127.3.{number // 200}.{number % 200 + 1}" for number in range(2000)]
    with inside(unprivileged), pytest.raises(ConfigError, match="receive buffer"):
        run_engine([group_of(hosts, interval_seconds=0.1)], 1, network=SmallBuffer())


def test_a_name_is_looked_up_and_one_without_an_address_is_not_resolved(icmp: None) -> None:
    group = group_of(["localhost", "no-such-host.invalid"], loss_threshold_seconds=0.15)
    run = run_engine([group], 0.4)
    check_books(run)
    assert run.told("localhost") == {fate.RECEIVED}
    assert run.fates["no-such-host.invalid"].keys() == {fate.NOT_RESOLVED}


def test_a_target_without_a_route_is_not_sent_and_not_lost_and_the_others_go_on(unprivileged: str) -> None:
    """Also the departure stamps of the others stay their own, though the kernel counts some refusals."""
    run = run_engine(
        [group_of(["127.0.0.1", "10.9.9.9", "127.0.0.2"], loss_threshold_seconds=0.15)],
        0.6,
        namespace=unprivileged,
    )
    check_books(run)
    assert run.fates["10.9.9.9"].keys() == {fate.NOT_SENT}
    assert run.readings.refused_by_host.keys() == {"ENETUNREACH"}
    assert run.readings.lost == 0
    for host in ("127.0.0.1", "127.0.0.2"):
        assert run.told(host) == {fate.RECEIVED}
        assert max(run.delays_ns[host]) < 5_000_000
    assert run.readings.sent_by_user_stamp == 0


class Forgetful(Endpoint):
    """Never has the kernel count anew."""

    def restart_numbers(self) -> None:
        pass


def forgetful(lane: Lane) -> None:
    own = lane.endpoint
    lane.endpoint = Forgetful(own.sock, own.raw, own.stamps, own.buffer_octets)


@pytest.fixture
def filtered(unprivileged: str) -> str:
    """A namespace whose own packet filter lets nothing out to 127.0.0.66."""
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed (Debian: nftables)")
    rules = "add table ip t; add chain ip t o { type filter hook output priority 0; }; "
    rules += "add rule ip t o ip daddr 127.0.0.66 drop"
    with inside(unprivileged):
        subprocess.run(["nft", rules], check=True, capture_output=True)
    return unprivileged


def filtered_run(namespace: str, change: Callable[[Lane], None]) -> Run:
    group = group_of(
        ["127.0.0.1", "127.0.0.66", "127.0.0.2"], interval_seconds=0.02, loss_threshold_seconds=0.15
    )
    return run_engine([group], 0.5, namespace=namespace, change=change)


def test_packets_the_own_filter_drops_are_not_sent_and_shift_no_departure(filtered: str) -> None:
    """The kernel has counted them already when the filter drops them."""
    run = filtered_run(filtered, lambda _lane: None)
    check_books(run)
    assert run.fates["127.0.0.66"].keys() == {fate.NOT_SENT}
    assert run.readings.refused_by_host.keys() == {"EPERM"}
    assert run.readings.lost == run.readings.sent_by_user_stamp == run.readings.without_delay == 0
    for host in ("127.0.0.1", "127.0.0.2"):
        assert max(run.delays_ns[host]) < 3_000_000


def test_without_counting_anew_departures_go_to_the_wrong_probes(filtered: str) -> None:
    """The twin: every dropped packet moves the stamps of all that follow."""
    run = filtered_run(filtered, forgetful)
    longest_ns = max(max(delays, default=0) for delays in run.delays_ns.values())
    assert run.readings.sent_by_user_stamp > 5 or longest_ns > 3_000_000


def test_the_count_of_departures_is_begun_anew_before_it_comes_round(unprivileged: str) -> None:
    def soon(lane: Lane) -> None:
        lane.numbers.renew_after = 7

    group = group_of(["127.0.0.1", "127.0.0.2"], interval_seconds=0.01, loss_threshold_seconds=0.1)
    run = run_engine([group], 0.4, namespace=unprivileged, change=soon)
    check_books(run)
    assert run.readings.sent_by_user_stamp == run.readings.lost == 0
    assert run.readings.received > 60


def test_ipv6_without_a_way_does_not_keep_ipv4_from_measuring(unprivileged: str) -> None:
    targets = TargetList([Target(id="a", host="127.0.0.1"), Target(id="b", host="2001:db8::1")])
    group = replace(group_of(["127.0.0.1"], loss_threshold_seconds=0.15), targets=targets)
    run = run_engine([group], 0.3, namespace=unprivileged)
    check_books(run)
    assert run.told("a") == {fate.RECEIVED}
    assert run.fates["b"].keys() == {fate.NOT_SENT}


def test_replies_from_the_address_a_name_had_before_are_still_its_own(mute: str) -> None:
    """The name moved while probes were under way; what answers them is no stranger."""
    with scripted_echo(mute, lambda _request: [Reply(after_seconds=0.1)]) as requests:

        def move(lane: Lane) -> None:
            book = lane.addresses
            moved = Address(socket.AF_INET, ("127.0.0.10", 0))
            threading.Timer(0.25, book.set, (0, moved)).start()

        group = group_of(["127.0.0.9"], loss_threshold_seconds=0.3)
        run = run_engine([group], 0.5, namespace=mute, change=move)
    check_books(run)
    assert {request.target for request in requests} == {"127.0.0.9", "127.0.0.10"}
    assert run.told("127.0.0.9") == {fate.RECEIVED}
    assert run.readings.address_changes == 1
    assert run.readings.foreign == 0


def test_no_way_to_any_target_is_an_error_before_anything_is_sent(unprivileged: str) -> None:
    with pytest.raises(CannotMeasureError, match="no route"):
        run_engine([group_of(["10.9.9.9"])], 0.1, namespace=unprivileged)


def test_a_missing_interface_is_an_error_and_no_measurement(unprivileged: str) -> None:
    with pytest.raises(CannotMeasureError, match="wwan7"):
        run_engine(
            [group_of(["127.0.0.1"])], 0.1, namespace=unprivileged, network=HostNetwork(interface="wwan7")
        )


def test_what_was_sent_when_the_line_went_down_is_no_loss(unprivileged: str) -> None:
    run_ip(
        [
            "link add va type veth peer name vb",
            "addr add 10.1.1.1/24 dev va",
            "link set vb up",
            "link set va up",
        ],
        namespace=unprivileged,
    )
    group = group_of(["10.1.1.7", "10.1.1.8"], loss_threshold_seconds=0.15)
    timer = threading.Timer(0.35, lambda: run_ip(["link set vb down"], namespace=unprivileged))
    timer.start()
    run = run_engine([group], 1.6, namespace=unprivileged)
    timer.join()
    check_books(run)
    assert run.readings.refused_by_host["no way"] > 0
    # Nobody is there: what was asked long before the line went is lost or unreachable, the rest unknown.
    assert run.readings.fate_unknown > run.readings.refused_by_host["no way"]


def test_the_code_point_and_the_dont_fragment_bit_are_on_the_packets(mute: str) -> None:
    seen: list[tuple[int, int]] = []
    with inside(mute):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    tap.settimeout(1)
    group = group_of(["127.0.0.1"], dscp=46, dont_fragment=True, loss_threshold_seconds=0.1)
    run_engine([group], 0.2, namespace=mute)
    packet = tap.recv(256)
    tap.close()
    seen.append((packet[1] >> 2, struct.unpack_from("!H", packet, 6)[0] & 0x4000))
    assert seen == [(46, 0x4000)]


def test_a_packet_larger_than_the_mtu_is_refused_here_when_it_may_not_be_fragmented(
    unprivileged: str,
) -> None:
    with inside(unprivileged):
        run_ip(["link set lo mtu 1500"], namespace=unprivileged)
    groups = [
        group_of(["127.0.0.1"], size_octets=2000, dont_fragment=True, loss_threshold_seconds=0.15),
        group_of(["127.0.0.2"], size_octets=2000, dont_fragment=False, loss_threshold_seconds=0.15),
    ]
    run = run_engine(groups, 0.4, namespace=unprivileged)
    check_books(run)
    assert run.fates["127.0.0.1"].keys() == {fate.NOT_SENT}
    assert run.readings.refused_by_host.keys() == {"EMSGSIZE"}
    assert run.told("127.0.0.2") == {fate.RECEIVED}


# A far end that misbehaves


def test_duplicates_are_counted_apart_and_never_as_received(mute: str) -> None:
    with scripted_echo(mute, lambda _request: [Reply(), Reply(), Reply(after_seconds=0.02)]) as requests:
        run = run_engine([group_of(["127.0.0.9"], loss_threshold_seconds=0.15)], 0.4, namespace=mute)
    check_books(run)
    assert run.readings.received == run.readings.handed_over == len(requests)
    assert run.duplicates["127.0.0.9"] == run.readings.duplicate == 2 * len(requests)


def test_a_late_reply_is_late_and_lost_and_one_later_still_is_stale(mute: str) -> None:
    def script(request: Request) -> list[Reply]:
        return [Reply(after_seconds=(0.0, 0.22, 1.2)[request.number % 3])]

    with scripted_echo(mute, script) as requests:
        run = run_engine(
            [group_of(["127.0.0.9"], interval_seconds=0.1, loss_threshold_seconds=0.15)],
            0.9,
            namespace=mute,
            late_wait_seconds=0.5,
        )
    check_books(run)
    fates = run.fates["127.0.0.9"]
    numbers = Counter(request.number % 3 for request in requests)
    assert (fates[fate.RECEIVED], fates[fate.LATE], fates[fate.LOST]) == (numbers[0], numbers[1], numbers[2])
    assert run.readings.lost == numbers[1] + numbers[2]
    assert max(run.delays_ns["127.0.0.9"]) < 150_000_000


def test_overtaken_replies_are_reordered(mute: str) -> None:
    def script(request: Request) -> list[Reply]:
        return [Reply(after_seconds=0.08 if request.number % 4 == 0 else 0.0)]

    with scripted_echo(mute, script) as requests:
        run = run_engine([group_of(["127.0.0.9"], loss_threshold_seconds=0.15)], 0.6, namespace=mute)
    check_books(run)
    slow = sum(request.number % 4 == 0 for request in requests)
    assert run.readings.lost == 0
    assert slow - 1 <= run.reordered["127.0.0.9"] <= slow  # nothing overtakes the last one


def test_replies_from_another_address_are_foreign_and_the_probe_is_lost(mute: str) -> None:
    with scripted_echo(mute, lambda _request: [Reply(source="127.0.0.77")]) as requests:
        run = run_engine([group_of(["127.0.0.9"], loss_threshold_seconds=0.15)], 0.4, namespace=mute)
    check_books(run)
    assert run.readings.foreign == len(requests)
    assert run.told("127.0.0.9") == {fate.LOST}


@pytest.mark.parametrize(
    ("first", "last"), [(40, 41), (63, 64), (20, 24)], ids=["pattern", "last octet", "nonce"]
)
def test_a_changed_octet_is_noticed(mute: str, first: int, last: int) -> None:
    def script(request: Request) -> list[Reply]:
        changed = bytearray(request.message)
        for place in range(first, last):
            changed[place] ^= 0xFF
        return [Reply(message=bytes(changed))]

    with scripted_echo(mute, script) as requests:
        run = run_engine([group_of(["127.0.0.9"], loss_threshold_seconds=0.15)], 0.3, namespace=mute)
    check_books(run)
    if first >= 40:
        assert run.told("127.0.0.9") == {fate.CORRUPT}
        assert run.readings.corrupt == len(requests)
    else:  # a serial or nonce we never sent: no reply at all, and said to be forged
        assert run.told("127.0.0.9") == {fate.LOST}
        assert run.readings.forged == len(requests)


@pytest.mark.parametrize("change", [-8, 8])
def test_a_reply_of_another_length_is_corrupt(mute: str, change: int) -> None:
    def script(request: Request) -> list[Reply]:
        message = request.message
        return [Reply(message=message[:change] if change < 0 else message + bytes(change))]

    with scripted_echo(mute, script):
        run = run_engine([group_of(["127.0.0.9"], loss_threshold_seconds=0.15)], 0.3, namespace=mute)
    assert run.told("127.0.0.9") == {fate.CORRUPT}


def test_a_reply_made_up_before_the_probe_is_answered_is_forged(mute: str) -> None:
    """Whoever knows the token and counts serials up still cannot make a reply that is taken."""

    def script(request: Request) -> list[Reply]:
        ahead = bytearray(request.message)
        serial = struct.unpack_from("!Q", ahead, 16)[0]
        struct.pack_into("!Q", ahead, 16, serial + 1)
        return [Reply(), Reply(message=bytes(ahead), after_seconds=0.06)]

    with scripted_echo(mute, script) as requests:
        run = run_engine([group_of(["127.0.0.9"], loss_threshold_seconds=0.15)], 0.5, namespace=mute)
    check_books(run)
    assert run.readings.received == len(requests)
    assert run.readings.duplicate == 0
    assert run.readings.forged >= len(requests) - 1


@pytest.mark.parametrize("quoted_octets", [28, 100], ids=["header alone", "whole packet"])
def test_an_icmp_error_makes_its_own_probe_unreachable(mute: str, quoted_octets: int) -> None:
    def script(request: Request) -> list[Reply]:
        if request.target == "127.0.0.1":
            return echo(request)
        head = struct.pack(
            "!BBHHHBBH4s4s",
            *(0x45, 0, 20 + len(request.message), 0, 0, 64, 1, 0),
            *(socket.inet_aton(request.source), socket.inet_aton(request.target)),
        )
        error = b"\0\0\0\0" + bytes(4) + (head + request.message)[:quoted_octets]
        return [Reply(message=error, kind=3, code=1, source="127.0.0.200")]

    with scripted_echo(mute, script) as requests:
        group = group_of(["127.0.0.1", "127.0.0.9"], loss_threshold_seconds=0.15)
        run = run_engine([group], 0.5, namespace=mute)
    check_books(run)
    assert run.told("127.0.0.1") == {fate.RECEIVED}
    assert run.told("127.0.0.9") == {fate.UNREACHABLE}
    assert run.readings.unreachable == sum(request.target == "127.0.0.9" for request in requests)


def test_silence_is_loss_and_nothing_in_flight_is(mute: str) -> None:
    """At every moment, received and lost together are no more than what had time to be answered."""
    engine = Engine(
        [group_of(["127.0.0.9"], loss_threshold_seconds=0.15)],
        SystemClock(),
        HostNetwork(),
        lambda _lane, _windows: None,
        most_probes_per_second=1000,
        late_wait_seconds=0.1,
    )
    with inside(mute):
        engine.start()
    looked: list[tuple[int, int, int]] = []

    def look() -> None:
        readings = engine.readings()
        looked.append((readings.handed_over, readings.lost, readings.in_flight))

    timers = [threading.Timer(after, look) for after in (0.2, 0.4)]
    for timer in timers:
        timer.start()
    engine.run(0.5)
    for timer in timers:
        timer.join()
    end = engine.readings()
    engine.close()
    assert [lost for _, lost, _ in looked] == [0, 0]
    assert all(in_flight > 0 for _, _, in_flight in looked)
    assert end.lost == end.handed_over > 5


def test_nothing_is_left_open(icmp: None) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    run_engine([group_of(["127.0.0.1", "::1"], loss_threshold_seconds=0.1)], 0.1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
