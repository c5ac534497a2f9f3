"""A lab of network namespaces: up, its truth, commands inside its hosts, down.

``up`` writes down what it is about to make before it makes it, so that ``down`` finds everything
after any accident: an ``up`` that was killed, an emulator that died, a caller that vanished.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from nhip.errors import LabError
from nhip.lab.control import ask
from nhip.lab.launch import ask_singletons, ask_truth, await_answer, launch
from nhip.lab.namespace import (
    NAMESPACES,
    check_can_build,
    delete_namespaces,
    namespaces,
    run_ip,
    write_settings,
)
from nhip.lab.plan import Direction, Interface, Plan, plan_of
from nhip.lab.report import Singleton, Truth
from nhip.lab.state import (
    DEFAULT_STATE_DIR,
    GUEST,
    LabState,
    LabStatus,
    Process,
    all_pids,
    check_name,
    end_processes,
    is_alive,
    process_of,
    processes_running,
    read_state,
    write_state,
)
from nhip.lab.topology import Topology, default_topology

_EMULATOR, _RECORDER = "nhip.lab.emulator", "nhip.lab.recorder"

_SETTINGS = (
    # Without this even root may not open an ICMP datagram socket in a new namespace.
    ("net/ipv4/ping_group_range", "0 2147483647"),
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    # Each transfer starts like the first one, not with what an earlier one learned of the path.
    ("net/ipv4/tcp_no_metrics_save", "1"),
    # Nobody advertises routers here; solicitations would only stand in the counters.
    ("net/ipv6/conf/default/router_solicitations", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
)


class Lab:
    """A lab called `name`; several of different names stand side by side.

    `topology` may be a :class:`Topology` or a finished :class:`Plan`; without one it is the default
    lab, or the one that is already up. `state_dir` holds one directory for each lab. `keep_awake` keeps
    the processors from falling idle, which makes delays exact to tens of microseconds.
    """

    variant: Literal["namespaces"] = "namespaces"

    def __init__(
        self,
        name: str,
        topology: Topology | Plan | None = None,
        state_dir: Path = DEFAULT_STATE_DIR,
        *,
        keep_awake: bool = True,
    ) -> None:
        check_name(name)
        self.name = name
        self.folder = state_dir / name
        self._topology = topology
        self._keep_awake = keep_awake
        self._plan: Plan | None = None

    @property
    def plan(self) -> Plan:
        """Hosts, links and addresses: those of the running lab, else those `up` would make."""
        if self._plan is None:
            state = read_state(self.folder)
            self._plan = state.plan if state is not None else self._planned()
        return self._plan

    def up(self) -> None:
        """Build the lab and return when it carries packets; LabError, and nothing left, when it cannot."""
        check_can_build()
        plan = self._planned()
        state = self._claim(plan)
        try:
            self._build(state)
            self._start(state)
        except BaseException:
            self.down()
            raise
        self._plan = plan

    def down(self) -> None:
        """Remove everything the lab is made of, whatever state it is in; without a lab, nothing."""
        state = read_state(self.folder)
        if state is not None:
            check_can_build()
            try:
                end_processes(self._processes(state))
            finally:
                # A process that will not end must not keep the rest; the state file stays for another try.
                delete_namespaces([state.namespace(host) for host in state.plan.hosts])
        shutil.rmtree(self.folder, ignore_errors=True)
        self._plan = None

    def status(self) -> LabStatus:
        """What is there of the lab and what is wrong with it."""
        state = read_state(self.folder)
        if state is None:
            return LabStatus(self.name, "absent")
        present = namespaces()
        problems = [
            f"namespace {state.namespace(host)} is missing"
            for host in state.plan.hosts
            if state.namespace(host) not in present
        ]
        problems += [f"the {process.role} has ended" for process in state.processes if not is_alive(process)]
        if state.phase == "building":
            return LabStatus(self.name, "building", state.plan.hosts, tuple(problems))
        return LabStatus(self.name, "broken" if problems else "up", state.plan.hosts, tuple(problems))

    def truth(self, *, since_wall_ns: int = 0, until_wall_ns: int | None = None) -> Truth:
        """The truth now; the bounds choose the requests whose round trips are summed up, by sending time."""
        return ask_truth(self._control, since_wall_ns, until_wall_ns)

    def singletons(
        self, link: str, *, since_wall_ns: int = 0, until_wall_ns: int | None = None
    ) -> list[Singleton]:
        """The true fate of each request that left the near end of `link`, by sending time."""
        return ask_singletons(self._control, link, since_wall_ns, until_wall_ns)

    def set_effects(self, link: str, direction: Direction, **effects: Any) -> None:
        """Change some effects of one direction for packets that arrive from now on.

        The names are the fields of :class:`nhip.lab.effects.Effects`.
        """
        ask(self._control, {"do": "set", "link": link, "direction": direction, "effects": effects})

    def address(self, host: str, *, family: Literal[4, 6] = 4) -> str:
        """The address of `host`; LabError lists the hosts when there is none such."""
        self._check_host(host)
        return self.plan.address(host, family=family)

    def server_address(self, host: str, *, family: Literal[4, 6] = 4) -> str:
        """The address at which `host` reaches the measurement server (here the same for every host)."""
        self._check_host(host)
        return self.plan.address(self.plan.server, family=family)

    def enter_argv(self, host: str, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` inside `host`."""
        self._check_host(host)
        return ["ip", "netns", "exec", f"{self.name}-{host}", *argv]

    def popen(self, host: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start `argv` inside `host` with `options` of subprocess.Popen; `down` ends it at the latest."""
        return subprocess.Popen(self.enter_argv(host, argv), **options)

    @property
    def _control(self) -> Path:
        return self.folder / "control.sock"

    def _planned(self) -> Plan:
        if isinstance(self._topology, Plan):
            return self._topology
        return plan_of(self._topology or default_topology())

    def _check_host(self, host: str) -> None:
        if host not in self.plan.hosts:
            raise LabError(f"the lab has no host {host!r}", remedy=f"hosts: {', '.join(self.plan.hosts)}")

    def _claim(self, plan: Plan) -> LabState:
        """Take the name, or say who has it; from here on `down` knows what to remove."""
        if self.folder.exists():
            phase = self.status().phase
            raise LabError(
                f"a lab called {self.name!r} is already there ({phase})",
                remedy=f"`nhip lab down {self.name}` removes it; or choose another name",
            )
        state = LabState(
            name=self.name,
            variant="namespaces",
            phase="building",
            made_wall_ns=time.time_ns(),
            plan=plan,
            keep_awake=self._keep_awake,
        )
        taken = sorted({state.namespace(host) for host in plan.hosts} & namespaces())
        if taken:
            raise LabError(
                f"the namespaces {', '.join(taken)} belong to somebody else",
                remedy="choose another name for the lab, or delete them with `ip netns del`",
            )
        self.folder.mkdir(parents=True, mode=0o700)
        write_state(self.folder, state)
        return state

    def _build(self, state: LabState) -> None:
        plan, namespace = state.plan, state.namespace
        run_ip([f"netns add {namespace(host)}" for host in plan.hosts])
        for host in plan.hosts:
            write_settings(namespace(host), _SETTINGS)
        run_ip(
            [
                f"link add {wire.near.name} netns {namespace(wire.near.host)} type veth "
                f"peer name {wire.far.name} netns {namespace(wire.far.host)}"
                for wire in plan.wires
            ]
        )
        emulated = {(end.host, end.name) for link in plan.links for end in (link.near, link.far)}
        for host in plan.hosts:
            lines = ["link set lo up"]
            for interface in plan.interfaces():
                if interface.host == host:
                    lines += _set_up(interface, tun=(interface.host, interface.name) in emulated)
            run_ip(lines, namespace=namespace(host))

    def _start(self, state: LabState) -> None:
        emulator = launch(_EMULATOR, self.folder, "emulator")
        state = msgspec.structs.replace(state, processes=(emulator,))
        write_state(self.folder, state)
        await_answer(self.folder / "emulator.sock", emulator)
        # Routes through a TUN device come last: the kernel takes none while nobody holds the device.
        for host in state.plan.hosts:
            lines = [
                f"route add {prefix} via {gateway}"
                for route in state.plan.routes
                if route.host == host
                for prefix, gateway in ((route.ipv4, route.via.ipv4), (route.ipv6, route.via.ipv6))
            ]
            if lines:
                run_ip(lines, namespace=state.namespace(host))
        recorder = launch(_RECORDER, self.folder, "recorder")
        state = msgspec.structs.replace(state, processes=(emulator, recorder))
        write_state(self.folder, state)
        await_answer(self._control, recorder)
        write_state(self.folder, msgspec.structs.replace(state, phase="up"))

    def _processes(self, state: LabState) -> list[Process]:
        """Everything that runs for or inside the lab: its own two processes and those in its namespaces."""
        found = list(state.processes)
        for module, role in ((_EMULATOR, "emulator"), (_RECORDER, "recorder")):
            found += processes_running(module, self.folder, role=role)
        inodes = set()
        for host in state.plan.hosts:
            try:
                inodes.add((NAMESPACES / state.namespace(host)).stat().st_ino)
            except FileNotFoundError:
                continue
        for pid in all_pids():
            try:
                inside = Path("/proc", str(pid), "ns", "net").stat().st_ino in inodes
            except OSError:
                continue
            process = process_of(GUEST, pid) if inside else None
            if process is not None:
                found.append(process)
        return list({process.pid: process for process in found}.values())


def _set_up(interface: Interface, *, tun: bool) -> list[str]:
    name = interface.name
    lines = []
    if tun:
        # No neighbours are sought on a TUN device, so it needs no link-local address; veth ends do.
        lines = [
            f"tuntap add dev {name} mode tun",
            f"link set {name} txqueuelen 5000",
            f"link set {name} addrgenmode none",
        ]
    return [
        *lines,
        f"link set {name} up",
        f"address add {interface.ipv4}/30 dev {name}",
        f"address add {interface.ipv6}/64 dev {name} nodad",
    ]
