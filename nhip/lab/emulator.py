"""The emulator: one process that carries the packets of all emulated links of a lab.

Each link is a pair of TUN devices. What the kernel sends out by one is read here, meets the effects of
its direction, waits in one heap of deadlines and is written into the other::

    near host |  TUN  | --read-->  Channel (up)   --heap--> --write--> |  TUN  | far host
              |       | <--write-- <--heap-- Channel (down) <--read--  |       |

One thread, because two would only wait for each other's interpreter lock. The loop sleeps until shortly
before the next deadline and spins over the rest, reading whatever arrives meanwhile. Beyond 8000 packets
a second it rests 40 us at a time instead and then serves all that came and all that is due: a realtime
process that never sleeps would be put aside by the kernel for 50 ms in every second. Questions on the
control socket wait while a packet is about to leave.

Run as ``python -m nhip.lab.emulator STATE_DIRECTORY``.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import sys
import time
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import msgspec

from nhip.errors import LabError
from nhip.lab.channel import HELD, LOST, QUEUE_FULL, TWICE, Channel
from nhip.lab.control import ControlServer
from nhip.lab.flows import TcpFlows
from nhip.lab.histogram import Histogram
from nhip.lab.namespace import NAMESPACES, inside, open_tun
from nhip.lab.plan import Interface
from nhip.lab.realtime import become_realtime, keep_processors_awake, leave_idle_class
from nhip.lab.state import LabState, read_state

SPIN_NS = 30_000
"""How long before a deadline the loop stops sleeping: a little more than a wake-up takes."""

SLEEPY_SPIN_NS = 100_000
"""The same where processors may fall idle or this process has no priority."""

REST_NS = 40_000
"""How long the loop rests at a time in dense traffic, when waking for every single packet costs too much."""

_DENSE_PACKETS = 16
_DENSE_WINDOW_NS = 2_000_000
_READ_BATCH = 16
_SEND_BATCH = 64
_MOST_PACKET_BYTES = 2048
_CONTROL_MARGIN_NS = 300_000
_CONTROL_PATIENCE_NS = 50_000_000
_LIFE_CHECK_NS = 1_000_000_000

# Packet classes by number, in the order of report.PACKET_CLASSES.
_ICMP, _UDP, _TCP, _OTHER = range(4)
_CLASS_OF_PROTOCOL = bytes({1: _ICMP, 17: _UDP, 6: _TCP}.get(number, _OTHER) for number in range(256))
_ICMPV6_ECHO_AND_ERRORS = frozenset(bytes((number,)) for number in (1, 2, 3, 4, 128, 129))


class Pipe:
    """One direction of one link at work: where packets come from, where they go, what was counted."""

    def __init__(self, channel: Channel, source: int, sink: int, drops: InterfaceDrops) -> None:
        self.channel = channel
        self.source = source
        self.sink = sink
        self.drops = drops
        self.error = Histogram()
        self.flows = TcpFlows()
        self.arrived = [0, 0, 0, 0]
        self.dropped_loss = [0, 0, 0, 0]
        self.dropped_queue = [0, 0, 0, 0]
        self.duplicated = [0, 0, 0, 0]
        self.held_back = [0, 0, 0, 0]
        self.reordered = [0, 0, 0, 0]
        self.delivered = [0, 0, 0, 0]
        self.bytes_in = [0, 0, 0, 0]
        self.bytes_out = [0, 0, 0, 0]
        self.newest = [0, 0, 0, 0]
        self.refused = 0


class InterfaceDrops:
    """What the kernel dropped on the way out by one interface, re-read whenever asked.

    ``/proc/.../net/dev`` belongs to the namespace it was opened in, so the descriptor is kept.
    """

    def __init__(self, namespace: str, interface: Interface) -> None:
        with inside(namespace):
            self._descriptor = os.open("/proc/thread-self/net/dev", os.O_RDONLY | os.O_CLOEXEC)
        self._prefix = f"{interface.name}:".encode()
        self._before = 0
        self._before = self.count()

    def count(self) -> int:
        """Packets dropped since this object was made."""
        for line in os.pread(self._descriptor, 65_536, 0).splitlines():
            if line.lstrip().startswith(self._prefix):
                # After the name: eight columns received, then bytes, packets, errs, drop sent.
                return int(line.partition(b":")[2].split()[11]) - self._before
        return 0


class Emulator:
    """Carries packets from :meth:`start` until :meth:`run` ends; answers on ``emulator.sock``."""

    def __init__(self, folder: Path, state: LabState) -> None:
        self._folder = folder
        self._state = state
        self._spin_ns = SLEEPY_SPIN_NS
        self._pipes: dict[tuple[str, str], Pipe] = {}
        self._sources: dict[int, Pipe] = {}
        self._heap: list[tuple[int, int, int, Pipe, bytes, int]] = []
        self._sequence = 0
        self._epoll: select.epoll | None = None
        self._control = ControlServer(folder / "emulator.sock", self._answer)
        self._watched: list[tuple[Path, int]] = []
        self._awake: list[int] = []
        self._realtime = False
        self._stopping = False
        self._nudge, self._nudged = -1, -1

    def start(self) -> None:
        """Take realtime priority, attach to the TUN devices and listen for questions."""
        if self._state.keep_awake:
            self._awake = keep_processors_awake()
        self._realtime = become_realtime()
        if self._realtime and self._awake:
            self._spin_ns = SPIN_NS
        self._epoll = select.epoll()
        for link in self._state.plan.links:
            near = self._attach(link.near)
            far = self._attach(link.far)
            for direction, effects, source, sink, sender in (
                ("up", link.up, near, far, link.near),
                ("down", link.down, far, near, link.far),
            ):
                channel = Channel(effects, seed=f"{self._state.plan.seed} {link.id} {direction}")
                drops = InterfaceDrops(self._state.namespace(sender.host), sender)
                pipe = Pipe(channel, source, sink, drops)
                self._pipes[link.id, direction] = self._sources[source] = pipe
        for descriptor in self._sources:
            self._epoll.register(descriptor, select.EPOLLIN)
        watched = [self._folder / "lab.json"]
        watched += [NAMESPACES / self._state.namespace(host) for host in self._state.plan.hosts]
        self._watched = [(path, path.stat().st_ino if index else 0) for index, path in enumerate(watched)]
        self._epoll.register(self._control.start(), select.EPOLLIN)
        # A signal handler alone does not end a wait (PEP 475); a byte in this pipe does.
        self._nudged, self._nudge = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._epoll.register(self._nudged, select.EPOLLIN)

    def run(self) -> None:
        """Carry packets until :meth:`stop`, or until the lab's namespaces or state directory are gone."""
        # Nothing here forms reference cycles; a collection would only delay packets.
        gc.collect()
        gc.freeze()
        gc.disable()
        assert self._epoll is not None  # noqa: S101 - start comes first
        epoll, heap, sources, spin_ns = self._epoll, self._heap, self._sources, self._spin_ns
        mono_ns, poll, wait, rest = time.monotonic_ns, self._epoll.poll, select.select, time.sleep
        waiting_for = [epoll.fileno()]
        control_since_ns = 0
        next_life_check_ns = mono_ns()
        dense, behind, window_end_ns, window_sequence = False, False, 0, 0
        while not self._stopping:
            now_ns = mono_ns()
            if now_ns >= next_life_check_ns:
                next_life_check_ns = now_ns + _LIFE_CHECK_NS
                if not self._lab_exists():
                    return
            if now_ns >= window_end_ns:
                dense = self._sequence - window_sequence >= _DENSE_PACKETS
                window_end_ns, window_sequence = now_ns + _DENSE_WINDOW_NS, self._sequence
            sends = 0
            while heap and heap[0][0] <= now_ns:
                self._send(now_ns)
                now_ns = mono_ns()
                sends += 1
                if sends >= _SEND_BATCH:
                    break
            pause_ns = (heap[0][0] - now_ns if heap else _LIFE_CHECK_NS) - spin_ns
            if dense:
                pause_ns = 0
                if sends < _SEND_BATCH and not behind:
                    rest(REST_NS / 1e9)
            # select on the epoll descriptor waits to the microsecond; epoll.poll rounds up to milliseconds.
            if pause_ns > 0 and not wait(waiting_for, [], [], pause_ns / 1e9)[0]:
                continue
            behind = False
            for descriptor, _ in poll(0):
                pipe = sources.get(descriptor)
                if pipe is not None:
                    behind |= self._receive(pipe)
                    continue
                now_ns = mono_ns()
                control_since_ns = control_since_ns or now_ns
                calm = not heap or heap[0][0] - now_ns > _CONTROL_MARGIN_NS
                if calm or now_ns - control_since_ns > _CONTROL_PATIENCE_NS:
                    control_since_ns = 0
                    fresh = self._control.serve(descriptor)
                    if fresh is not None:
                        epoll.register(fresh, select.EPOLLIN)

    def stop(self) -> None:
        """Let :meth:`run` return at its next turn."""
        self._stopping = True
        if self._nudge >= 0:
            os.write(self._nudge, b"!")

    def close(self) -> None:
        """Give back every descriptor and end the processes that kept the processors awake."""
        self._control.close()
        for descriptor in (*self._sources, self._nudge, self._nudged):
            if descriptor >= 0:
                os.close(descriptor)
        self._sources, self._nudge, self._nudged = {}, -1, -1
        if self._epoll is not None:
            self._epoll.close()
        for child in self._awake:
            leave_idle_class(child)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        self._awake = []

    def _attach(self, interface: Interface) -> int:
        return open_tun(self._state.namespace(interface.host), interface.name)

    def _receive(self, pipe: Pipe) -> bool:
        """Read what waits in one device and decide each packet's fate; True when a full batch was read."""
        source, read, mono_ns = pipe.source, os.read, time.monotonic_ns
        admit, heap = pipe.channel.admit, self._heap
        for _ in range(_READ_BATCH):
            try:
                packet = read(source, _MOST_PACKET_BYTES)
            except BlockingIOError:
                return False
            now_ns = mono_ns()
            if packet[0] >> 4 == 4:
                kind = _CLASS_OF_PROTOCOL[packet[9]]
            elif packet[6] != 58:
                kind = _CLASS_OF_PROTOCOL[packet[6]]
            else:
                kind = _ICMP if packet[40:41] in _ICMPV6_ECHO_AND_ERRORS else _OTHER
            size = len(packet)
            pipe.arrived[kind] += 1
            pipe.bytes_in[kind] += size
            fate, deadline_ns = admit(now_ns, size)
            if fate == LOST:
                pipe.dropped_loss[kind] += 1
                if kind == _TCP:
                    pipe.flows.lost(packet, now_ns)
                continue
            if fate == QUEUE_FULL:
                pipe.dropped_queue[kind] += 1
                continue
            self._sequence += 1
            heappush(heap, (deadline_ns, self._sequence, kind, pipe, packet, now_ns))
            if fate == TWICE:
                pipe.duplicated[kind] += 1
                self._sequence += 1
                heappush(heap, (deadline_ns, self._sequence, kind, pipe, packet, now_ns))
            elif fate == HELD:
                pipe.held_back[kind] += 1
        return True

    def _send(self, now_ns: int) -> None:
        """Deliver the packet whose time has come."""
        deadline_ns, sequence, kind, pipe, packet, arrived_ns = heappop(self._heap)
        try:
            os.write(pipe.sink, packet)
        except OSError:
            # The receiving interface is down or short of memory; the packet is gone, and counted.
            pipe.refused += 1
            return
        pipe.error.add(now_ns - deadline_ns)
        pipe.delivered[kind] += 1
        pipe.bytes_out[kind] += len(packet)
        if sequence > pipe.newest[kind]:
            pipe.newest[kind] = sequence
        else:
            pipe.reordered[kind] += 1
        if kind == _TCP:
            pipe.flows.delivered(packet, now_ns, arrived_ns)

    def _lab_exists(self) -> bool:
        for path, inode in self._watched:
            try:
                found = path.stat().st_ino
            except FileNotFoundError:
                return False
            # The state file is replaced now and then; a namespace of another inode is another lab's.
            if inode and found != inode:
                return False
        return True

    def _answer(self, request: dict[str, Any]) -> Any:
        match request.get("do"):
            case "health":
                used = resource.getrusage(resource.RUSAGE_SELF)
                return {
                    "realtime": self._realtime,
                    "awake_processors": len(self._awake),
                    "cpu_seconds": used.ru_utime + used.ru_stime,
                    "packets": sum(sum(pipe.arrived) for pipe in self._pipes.values()),
                }
            case "counters":
                return self._counters(self._pipe(request), int(request.get("flows_since_mono_ns", 0)))
            case "set":
                return msgspec.to_builtins(self._pipe(request).channel.change_some(request.get("effects")))
            case other:
                raise LabError(f"the emulator knows no {other!r}", remedy="ask health, counters or set")

    def _pipe(self, request: dict[str, Any]) -> Pipe:
        key = (str(request.get("link")), str(request.get("direction")))
        if key not in self._pipes:
            known = ", ".join(sorted({link for link, _ in self._pipes}))
            raise LabError(
                f"there is no link {key[0]!r} with direction {key[1]!r}", remedy=f"links: {known}; up, down"
            )
        return self._pipes[key]

    def _counters(self, pipe: Pipe, flows_since_ns: int) -> dict[str, Any]:
        return {
            "effects": msgspec.to_builtins(pipe.channel.effects),
            "arrived": pipe.arrived,
            "dropped_loss": pipe.dropped_loss,
            "dropped_queue": pipe.dropped_queue,
            "duplicated": pipe.duplicated,
            "held_back": pipe.held_back,
            "reordered": pipe.reordered,
            "delivered": pipe.delivered,
            "bytes_in": pipe.bytes_in,
            "bytes_out": pipe.bytes_out,
            "own_error": pipe.error.summary(),
            "dropped_interface": pipe.drops.count() + pipe.refused,
            "flows_forgotten": pipe.flows.forgotten,
            "mono_ns": time.monotonic_ns(),
            "wall_minus_mono_ns": time.time_ns() - time.monotonic_ns(),
            "flows": [
                [
                    key.hex(),
                    half.from_client,
                    half.opened_ns,
                    half.payload_bytes,
                    half.repeated_bytes,
                    half.first_payload_ns,
                    half.first_payload_bytes,
                    half.first_arrival_ns,
                    half.last_payload_ns,
                ]
                for key, half in pipe.flows.since(flows_since_ns)
            ],
        }


def main(folder: Path) -> int:
    """Run the emulator of the lab in `folder` until it is asked to end or the lab is gone."""
    state = read_state(folder)
    if state is None:
        sys.stderr.write(f"{folder}: no lab is kept here\n")
        return 1
    emulator = Emulator(folder, state)
    signal.signal(signal.SIGTERM, lambda *_: emulator.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        emulator.start()
        emulator.run()
    finally:
        emulator.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
