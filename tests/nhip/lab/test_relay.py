"""The loopback lab delays, loses and slows down like a link, without any privilege."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from nhip.errors import LabError
from nhip.lab.effects import Effects
from nhip.lab.plan import pair_plan
from nhip.lab.relay import RelayLab
from nhip.lab.state import Service, processes_running, read_state
from nhip.lab.topology import Access, Operator, Topology

_numbers = itertools.count()
UDP_PORT, TCP_PORT = 18862, 18080

Relayed = Callable[..., RelayLab]


@pytest.fixture
def relayed(tmp_path: Path) -> Iterator[Relayed]:
    """A function that brings up a loopback lab with the one access host ``one-fixed``."""
    labs = []

    def bring_up(up: Effects | None = None, down: Effects | None = None) -> RelayLab:
        access = Access(technology="fixed", up=up or Effects(), down=down or Effects())
        lab = RelayLab(
            f"t{os.getpid():x}-{next(_numbers)}",
            Topology(operators=(Operator(id="one", access=(access,)),)),
            tmp_path,
            services=[Service("udp", UDP_PORT), Service("tcp", TCP_PORT)],
        )
        labs.append(lab)
        lab.up()
        return lab

    yield bring_up
    for lab in labs:
        lab.down()


def round_trips(lab: RelayLab, count: int, *, interval_seconds: float = 0.002) -> list[float | None]:
    """Round-trip times of UDP echoes through the relay; None for each that did not return."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with closing(server), closing(client):
        server.bind((lab.address("server"), UDP_PORT))
        client.connect((lab.server_address("one-fixed"), UDP_PORT))
        ended = threading.Event()
        server.settimeout(0.05)

        def reflect() -> None:
            while not ended.is_set():
                try:
                    data, sender = server.recvfrom(2048)
                except TimeoutError:
                    continue
                server.sendto(data, sender)

        reflector = threading.Thread(target=reflect)
        reflector.start()
        sent, found = {}, {}
        next_send, number = time.monotonic(), 0
        while number < count or time.monotonic() < next_send + 0.3:
            if number < count and time.monotonic() >= next_send:
                sent[number] = time.monotonic()
                client.send(number.to_bytes(4, "big").ljust(44, b"."))
                number, next_send = number + 1, next_send + interval_seconds
            client.settimeout(max(0.0005, min(next_send - time.monotonic(), 0.05)))
            try:
                reply = int.from_bytes(client.recv(2048)[:4], "big")
            except TimeoutError:
                continue
            found.setdefault(reply, time.monotonic() - sent[reply])
        ended.set()
        reflector.join()
    return [found.get(number) for number in range(count)]


def check_delay(lab: RelayLab) -> None:
    times = [one for one in round_trips(lab, 60, interval_seconds=0.005) if one is not None]
    assert len(times) == 60
    assert min(times) >= 0.030
    assert statistics.median(times) == pytest.approx(0.030, abs=0.003)


def test_datagrams_take_the_configured_delay(relayed: Relayed) -> None:
    check_delay(relayed(Effects(delay_seconds=0.010), Effects(delay_seconds=0.020)))


def test_the_delay_check_fails_without_delay(relayed: Relayed) -> None:
    with pytest.raises(AssertionError):
        check_delay(relayed())


def check_loss(lab: RelayLab) -> None:
    lost = round_trips(lab, 500).count(None)
    link = lab.truth().link("one-fixed")
    assert link.up.counters["udp"].arrived == 500
    assert link.up.counters["udp"].dropped_loss + link.down.counters["udp"].dropped_loss == lost
    assert 60 < lost < 140


def test_datagrams_are_lost_as_often_as_counted(relayed: Relayed) -> None:
    check_loss(relayed(Effects(loss_ratio=0.1), Effects(loss_ratio=0.1)))


def test_the_loss_check_fails_without_loss(relayed: Relayed) -> None:
    with pytest.raises(AssertionError):
        check_loss(relayed())


def test_the_truth_knows_the_round_trips_and_says_what_is_missing(relayed: Relayed) -> None:
    lab = relayed(Effects(delay_seconds=0.010))
    times = round_trips(lab, 40)
    truth = lab.truth()
    (trips,) = truth.link("one-fixed").round_trips
    assert (trips.kind, trips.destination, trips.received) == ("udp", lab.address("server"), 40)
    assert trips.median_seconds is not None
    measured = statistics.median(one for one in times if one is not None)
    assert trips.median_seconds == pytest.approx(measured, abs=0.002)
    assert len(lab.singletons("one-fixed")) == 40
    assert (truth.variant, truth.recorder.stamps) == ("loopback", "user")
    assert any("ICMP" in missing for missing in truth.missing_effects)


def download(lab: RelayLab, size: int) -> float:
    """Speed in bit/s of the second half of a download through the relay."""
    listener = socket.create_server((lab.address("server"), TCP_PORT))
    client = socket.create_connection((lab.server_address("one-fixed"), TCP_PORT))
    with closing(listener), closing(client):
        served, _ = listener.accept()
        with closing(served):
            pump = threading.Thread(
                target=lambda: (served.sendall(bytes(size)), served.shutdown(socket.SHUT_WR))
            )
            pump.start()
            arrivals = [(0.0, 0)]
            while part := client.recv(1 << 16):
                arrivals.append((time.monotonic(), arrivals[-1][1] + len(part)))
            pump.join()
    assert arrivals[-1][1] == size
    first, last = arrivals[len(arrivals) // 2], arrivals[-1]
    return (last[1] - first[1]) * 8 / (last[0] - first[0])


def check_rate(lab: RelayLab) -> None:
    assert download(lab, 3_000_000) == pytest.approx(20e6 * 1448 / 1500, rel=0.03)


def test_a_stream_runs_at_the_configured_rate(relayed: Relayed) -> None:
    lab = relayed(down=Effects(delay_seconds=0.010, rate_bits_per_second=20e6))
    check_rate(lab)
    (flow,) = lab.truth().link("one-fixed").tcp_flows
    assert flow.down is not None
    assert flow.down.payload_bytes == 3_000_000


def test_the_rate_check_fails_when_the_link_is_faster(relayed: Relayed) -> None:
    with pytest.raises(AssertionError):
        check_rate(relayed(down=Effects(delay_seconds=0.010, rate_bits_per_second=22e6)))


def test_a_server_that_refuses_is_refused_by_the_relay(relayed: Relayed) -> None:
    lab = relayed()
    with closing(socket.create_connection((lab.server_address("one-fixed"), TCP_PORT))) as client:
        client.settimeout(5)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_two_loopback_labs_relay_the_same_ports_side_by_side(relayed: Relayed) -> None:
    one, two = relayed(Effects(loss_ratio=1.0)), relayed()
    assert one.address("server") != two.address("server")
    assert round_trips(one, 10).count(None) == 10
    assert round_trips(two, 10).count(None) == 0


def test_effects_change_at_run_time(relayed: Relayed) -> None:
    lab = relayed()
    lab.set_effects("one-fixed", "up", loss_ratio=1.0)
    assert round_trips(lab, 10).count(None) == 10
    with pytest.raises(LabError, match="no relayed link"):
        lab.set_effects("two", "up", loss_ratio=1.0)


def test_down_leaves_nothing_also_after_the_relay_was_killed(relayed: Relayed) -> None:
    lab = relayed()
    state = read_state(lab.folder)
    assert state is not None and lab.status().phase == "up"
    (relay,) = processes_running("nhip.lab.relay_service", lab.folder, role="relay")
    os.kill(relay.pid, signal.SIGKILL)
    lab.down()
    assert not lab.folder.exists()
    assert processes_running("nhip.lab.relay_service", lab.folder, role="relay") == []
    assert lab.status().phase == "absent"
    lab.down()


def test_a_port_in_use_fails_by_name_and_leaves_nothing(tmp_path: Path) -> None:
    lab = RelayLab(f"t{os.getpid():x}-p", pair_plan(), tmp_path, services=[Service("udp", 18018)] * 2)
    with pytest.raises(LabError, match="the relay did not start"):
        lab.up()
    assert not lab.folder.exists()
