"""Labs for tests: one emulated link, or the whole default lab; both are taken down whatever the test does.

Use them from a ``conftest.py``::

    from tests.lab.network import full_lab, lab_link, lab_of, needs_namespaces
"""

from __future__ import annotations

import itertools
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nhip.errors import LabError
from nhip.lab.effects import Effects
from nhip.lab.lifecycle import Lab
from nhip.lab.namespace import check_can_build, inside
from nhip.lab.plan import Plan, pair_plan
from nhip.lab.topology import Topology, default_topology

_numbers = itertools.count()

LabLink = Callable[..., Lab]
"""``lab_link(up=Effects(...), down=Effects(...), seed=1)`` gives a running lab with the one link ``pair``."""

LabOf = Callable[[Topology | Plan], Lab]


def needs_namespaces() -> None:
    """Skip the calling test where no network namespaces can be made, and say why."""
    try:
        check_can_build()
    except LabError as error:
        pytest.skip(str(error))


def fresh_name() -> str:
    """A lab name no other test has."""
    return f"t{os.getpid():x}-{next(_numbers)}"


@contextmanager
def running_lab(topology: Topology | Plan, folder: Path) -> Iterator[Lab]:
    """A lab that is up inside the block and gone after it."""
    needs_namespaces()
    lab = Lab(fresh_name(), topology, folder)
    try:
        lab.up()
        yield lab
    finally:
        lab.down()


@pytest.fixture
def lab_of(tmp_path: Path) -> Iterator[LabOf]:
    """A function that brings up a lab of the given topology or plan."""
    with ExitStack() as stack:
        yield lambda topology: stack.enter_context(running_lab(topology, tmp_path))


@pytest.fixture
def lab_link(lab_of: LabOf) -> LabLink:
    """A function that brings up the hosts ``near`` and ``far`` with one emulated link ``pair``."""

    def bring_up(*, up: Effects | None = None, down: Effects | None = None, seed: int = 1) -> Lab:
        return lab_of(pair_plan(up=up, down=down, seed=seed))

    return bring_up


@pytest.fixture(scope="module")
def full_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The default lab of three operators, shared by the tests of one module."""
    with running_lab(default_topology(), tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@dataclass
class Echoes:
    """What came of a series of ICMP echo requests: the sequence numbers of the replies as they arrived."""

    sent: int
    replies: list[int] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return self.sent - len(set(self.replies))

    @property
    def duplicates(self) -> int:
        return len(self.replies) - len(set(self.replies))

    @property
    def reordered(self) -> int:
        """Replies that arrived after one with a higher number (RFC 4737)."""
        highest, late = -1, 0
        for number in self.replies:
            late += number < highest
            highest = max(highest, number)
        return late


def send_echoes(
    lab: Lab,
    count: int,
    *,
    interval_seconds: float = 0.001,
    wait_seconds: float = 0.3,
    near: str = "near",
    far: str = "far",
) -> Echoes:
    """Ping from `near` to `far` and collect every reply until `wait_seconds` after the last request."""
    with inside(f"{lab.name}-{near}"):
        prober = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    echoes = Echoes(count)
    with closing(prober):
        prober.setblocking(False)
        prober.connect((lab.address(far), 0))
        start = time.monotonic()
        for number in range(count):
            prober.send(struct.pack("!BBHHH", 8, 0, 0, 0, number) + b"x" * 48)
            _collect(prober, echoes, until=start + (number + 1) * interval_seconds)
        _collect(prober, echoes, until=time.monotonic() + wait_seconds)
    return echoes


def _collect(prober: socket.socket, echoes: Echoes, *, until: float) -> None:
    while (left := until - time.monotonic()) > 0:
        if select.select([prober], [], [], left)[0]:
            echoes.replies.append(struct.unpack_from("!H", prober.recv(2048), 6)[0])


@dataclass(frozen=True)
class Transfer:
    """A TCP transfer as its receiver saw it: the speed after the first bytes, and that of the second half."""

    received_bytes: int
    mean_bits_per_second: float
    steady_bits_per_second: float
    sender_port: int


def transfer(lab: Lab, size: int, *, sender: str = "near", receiver: str = "far") -> Transfer:
    """Send `size` bytes over one TCP connection and measure at the receiver.

    The congestion control is cubic, which fills a queue and keeps it filled; the default one drains it
    now and then to look at the path.
    """
    with inside(f"{lab.name}-{receiver}"):
        listener = socket.create_server((lab.address(receiver), 0))
    with inside(f"{lab.name}-{sender}"):
        client = socket.socket()
    with closing(listener), closing(client):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        client.connect(listener.getsockname())
        served, _ = listener.accept()
        with closing(served):
            pump = threading.Thread(
                target=lambda: (client.sendall(bytes(size)), client.shutdown(socket.SHUT_WR))
            )
            pump.start()
            arrivals = [(0.0, 0)]
            while part := served.recv(1 << 16):
                arrivals.append((time.monotonic(), arrivals[-1][1] + len(part)))
            pump.join()
        return Transfer(
            received_bytes=arrivals[-1][1],
            mean_bits_per_second=_speed(arrivals[1], arrivals[-1]),
            steady_bits_per_second=_speed(arrivals[len(arrivals) // 2], arrivals[-1]),
            sender_port=client.getsockname()[1],
        )


def _speed(first: tuple[float, int], last: tuple[float, int]) -> float:
    return (last[1] - first[1]) * 8 / (last[0] - first[0])
