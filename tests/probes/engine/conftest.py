"""Engines on real sockets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import pytest

from nhip.clock import SystemClock
from nhip.errors import CannotMeasureError
from nhip.lab.namespace import inside
from nhip.measurement import Target
from probes.engine import fate
from probes.engine.book import NO_DELAY, Windows
from probes.engine.engine import Engine
from probes.engine.group import Group, TargetList
from probes.engine.lane import Lane
from probes.engine.readings import EngineReadings
from probes.network import HostNetwork
from tests.lab.bare_namespace import bare_namespace

GroupOf = Callable[..., Group]


@dataclass
class Run:
    """What an engine found in one run."""

    readings: EngineReadings
    lanes: list[Lane]
    fates: dict[str, Counter[int]] = field(default_factory=dict)
    delays_ns: dict[str, list[int]] = field(default_factory=dict)
    duplicates: Counter[str] = field(default_factory=Counter)
    reordered: Counter[str] = field(default_factory=Counter)

    def told(self, name: str) -> set[int]:
        """The fates of what was sent to a target; a busy machine misses a probe now and then."""
        return set(self.fates[id_of(name)]) - {fate.NOT_SENT}


def id_of(host: str) -> str:
    """An id for an address: colons may not stand in one."""
    return "v6" if host == "::1" else host


def group_of(hosts: list[str], **settings: object) -> Group:
    """A group of these hosts, twenty probes a second each."""
    targets = TargetList(Target(id=id_of(host), host=host) for host in hosts)
    return Group(id="g", targets=targets, **{"interval_seconds": 0.05, "poisson": False} | settings)  # type: ignore[arg-type]


def run_engine(
    groups: list[Group],
    seconds: float,
    *,
    namespace: str | None = None,
    network: HostNetwork | None = None,
    most_probes_per_second: float = 50_000,
    late_wait_seconds: float = 0.1,
    change: Callable[[Lane], None] = lambda _lane: None,
) -> Run:
    """Run an engine for so long and gather its windows by target; `change` is given each lane before."""
    fates: dict[str, Counter[int]] = {}
    delays: dict[str, list[int]] = {}
    duplicates: Counter[str] = Counter()
    reordered: Counter[str] = Counter()

    def keep(lane: Lane, windows: Windows) -> None:
        for row, position in enumerate(windows.targets.tolist()):
            name = lane.addresses.target(position).id
            kinds = windows.status[row] & fate.FATE
            fates.setdefault(name, Counter()).update(kinds[kinds != fate.OPEN].tolist())
            defined = (kinds == fate.RECEIVED) & (windows.delays_ns[row] != NO_DELAY)
            delays.setdefault(name, []).extend(windows.delays_ns[row][defined].tolist())
            duplicates[name] += int(windows.duplicates[row])
            reordered[name] += int((windows.status[row] & fate.REORDERED != 0).sum())

    engine = Engine(
        groups,
        SystemClock(),
        network or HostNetwork(),
        keep,
        most_probes_per_second=most_probes_per_second,
        late_wait_seconds=late_wait_seconds,
        rng=np.random.default_rng(5),
    )
    try:
        with inside(namespace) if namespace else nullcontext():
            engine.start()
            for lane in engine.lanes:
                change(lane)
            engine.run(seconds)
        return Run(engine.readings(), engine.lanes, fates, delays, duplicates, reordered)
    finally:
        engine.close()


@pytest.fixture
def unprivileged() -> Iterator[str]:
    """A namespace where anybody may send echo requests."""
    with bare_namespace(ipv4__ping_group_range="0 2147483647") as name:
        yield name


@pytest.fixture
def mute() -> Iterator[str]:
    """The same, and its kernel answers no echo."""
    with bare_namespace(
        ipv4__ping_group_range="0 2147483647", ipv4__icmp_echo_ignore_all="1", ipv4__icmp_ratelimit="0"
    ) as name:
        yield name


@pytest.fixture
def icmp() -> None:
    """Skip where this host allows no ICMP echo at all."""
    import socket

    try:
        HostNetwork().icmp(socket.AF_INET)[0].close()
    except CannotMeasureError as error:
        pytest.skip(str(error))
