"""The loopback variant of the lab: no privilege, the same interface, fewer effects.

Each access host reaches the server at an address of its own, where a relay listens; what arrives meets
the effects of that host's link and goes on to the server::

    probe ---> 127.N.12.1:8080  relay of alpha-4g  ~~~>  127.N.0.2:8080  server
    probe ---> 127.N.31.1:8080  relay of gamma-fixed ~~> 127.N.0.2:8080  server

N is free for this lab. What cannot be done without privilege stands in ``Truth.missing_effects``.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from nhip.errors import LabError
from nhip.lab.control import ask
from nhip.lab.launch import ask_singletons, ask_truth, await_answer, launch
from nhip.lab.plan import Direction, Interface, Link, Plan, Wire, plan_of
from nhip.lab.report import Singleton, Truth
from nhip.lab.state import (
    LabState,
    LabStatus,
    Service,
    check_name,
    end_processes,
    is_alive,
    processes_running,
    read_state,
    write_state,
)
from nhip.lab.topology import Topology, default_topology

_RELAY = "nhip.lab.relay_service"
_FIRST_NETWORK, _LAST_NETWORK = 18, 250
MARK_PORT = 18018
"""The UDP port at 127.N.255.254 that a running loopback lab holds to keep network N for itself."""


def default_relay_dir() -> Path:
    """Where labs without privilege keep their state: one directory of each user."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime, "nhip-lab") if runtime else Path(f"/tmp/nhip-lab-{os.getuid()}")  # noqa: S108


class RelayLab:
    """A lab of loopback relays; :class:`nhip.lab.lifecycle.Lab` is the complete one.

    `services` are the ports of the server to relay: ``Service("udp", 8862)``, ``Service("tcp", 8080)``.
    The server itself must listen on ``lab.address("server")`` with exactly those ports.
    """

    variant: Literal["loopback"] = "loopback"

    def __init__(
        self,
        name: str,
        topology: Topology | Plan | None = None,
        state_dir: Path | None = None,
        *,
        services: Sequence[Service] = (),
    ) -> None:
        check_name(name)
        self.name = name
        self.folder = (state_dir or default_relay_dir()) / name
        self._topology = topology
        self._services = tuple(services)
        self._plan: Plan | None = None

    @property
    def plan(self) -> Plan:
        """Hosts, links and addresses of the running lab; LabError when it is not up."""
        if self._plan is None:
            self._plan = self._state().plan
        return self._plan

    def up(self) -> None:
        """Start the relays and return when they listen; LabError, and nothing left, when they cannot."""
        if self.folder.exists():
            raise LabError(
                f"a lab called {self.name!r} is already there ({self.status().phase})",
                remedy=f"`nhip lab down {self.name}` removes it; or choose another name",
            )
        topology = self._topology
        plan = topology if isinstance(topology, Plan) else plan_of(topology or default_topology())
        self.folder.mkdir(parents=True, mode=0o700)
        try:
            state = LabState(
                name=self.name,
                variant="loopback",
                phase="building",
                made_wall_ns=time.time_ns(),
                plan=_on_loopback(plan, _free_network()),
                services=self._services,
            )
            write_state(self.folder, state)
            relay = launch(_RELAY, self.folder, "relay")
            state = msgspec.structs.replace(state, processes=(relay,))
            write_state(self.folder, state)
            await_answer(self._control, relay)
            write_state(self.folder, msgspec.structs.replace(state, phase="up"))
        except BaseException:
            self.down()
            raise
        self._plan = state.plan

    def down(self) -> None:
        """End the relays and remove the state directory; without a lab, nothing."""
        state = read_state(self.folder)
        if state is not None:
            end_processes([*state.processes, *processes_running(_RELAY, self.folder, role="relay")])
        shutil.rmtree(self.folder, ignore_errors=True)
        self._plan = None

    def status(self) -> LabStatus:
        """What is there of the lab and what is wrong with it."""
        state = read_state(self.folder)
        if state is None:
            return LabStatus(self.name, "absent")
        problems = tuple(
            f"the {process.role} has ended" for process in state.processes if not is_alive(process)
        )
        phase = state.phase if state.phase == "building" else "broken" if problems else "up"
        return LabStatus(self.name, phase, state.plan.hosts, problems)

    def truth(self, *, since_wall_ns: int = 0, until_wall_ns: int | None = None) -> Truth:
        """The truth now; the bounds choose the requests whose round trips are summed up, by sending time."""
        return ask_truth(self._control, since_wall_ns, until_wall_ns)

    def singletons(
        self, link: str, *, since_wall_ns: int = 0, until_wall_ns: int | None = None
    ) -> list[Singleton]:
        """The true fate of each UDP request relayed over `link`, by sending time."""
        return ask_singletons(self._control, link, since_wall_ns, until_wall_ns)

    def set_effects(self, link: str, direction: Direction, **effects: Any) -> None:
        """Change some effects of one direction for what arrives from now on."""
        ask(self._control, {"do": "set", "link": link, "direction": direction, "effects": effects})

    def address(self, host: str, *, family: Literal[4, 6] = 4) -> str:
        """The address of `host`: the one the server has to listen on, for ``server``."""
        if family == 6:
            raise LabError(
                "the loopback lab has no IPv6", remedy="use the lab of namespaces, which needs root"
            )
        if host not in self.plan.hosts:
            raise LabError(f"the lab has no host {host!r}", remedy=f"hosts: {', '.join(self.plan.hosts)}")
        return self.plan.address(host)

    def server_address(self, host: str, *, family: Literal[4, 6] = 4) -> str:
        """The address at which probes of `host` reach the server: the relay of its access link."""
        self.address(host, family=family)
        for link in self.plan.links:
            if (link.near.host == host and link.operator is not None) or link.far.host == self.plan.server:
                return link.far.ipv4
        raise LabError(f"{host!r} is no access host", remedy="only access hosts have a relay to the server")

    def enter_argv(self, host: str, argv: Sequence[str]) -> list[str]:
        """`argv` as it is: every host of this variant is the machine itself."""
        self.address(host)
        return list(argv)

    def popen(self, host: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start `argv` for `host` with `options` of subprocess.Popen; the caller ends it."""
        return subprocess.Popen(self.enter_argv(host, argv), **options)

    @property
    def _control(self) -> Path:
        return self.folder / "control.sock"

    def _state(self) -> LabState:
        state = read_state(self.folder)
        if state is None:
            raise LabError(f"there is no lab called {self.name!r}", remedy="bring it up first")
        return state


def _free_network() -> int:
    """The second octet of a 127.N.0.0/16 in which no other lab relays.

    The relay takes the mark a moment after this look, so two labs that start together begin their search at
    different places.
    """
    networks = list(range(_FIRST_NETWORK, _LAST_NETWORK))
    random.shuffle(networks)
    for network in networks:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mark:
            try:
                mark.bind((f"127.{network}.255.254", MARK_PORT))
            except OSError:
                continue
            return network
    raise LabError("127.18.0.0/16 to 127.249.0.0/16 are all taken by labs", remedy="take some of them down")


def _on_loopback(plan: Plan, network: int) -> Plan:
    """The same plan with its IPv4 addresses moved into 127.`network`.0.0/16."""

    def moved(interface: Interface) -> Interface:
        address = interface.ipv4.replace("198.18.", f"127.{network}.")
        return msgspec.structs.replace(interface, ipv4=address)

    def both(joint: Wire | Link) -> Any:
        return msgspec.structs.replace(joint, near=moved(joint.near), far=moved(joint.far))

    return msgspec.structs.replace(
        plan,
        wires=tuple(both(wire) for wire in plan.wires),
        links=tuple(both(link) for link in plan.links),
        routes=(),
    )
