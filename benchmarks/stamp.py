"""How fast our STAMP sender and reflector go together, what that does to each delay, and what it costs.

Two hosts (network namespaces) joined by a bare veth pair; the sender runs on the first processor, the
reflector on the second. The kernel writes every packet with its own stamp into a ring at either end
(PACKET_RX_RING), which nobody reads before the run is over: the truth of a packet is the round trip at the
near end less what the far host kept it. irtt does the same in the same run and is asked for the same rate;
ours runs once more without Follow-Up Telemetry, to show what that is worth.

Needs root, iproute2 and, for the peer, irtt::

    python -m benchmarks.stamp [--rate 10000] [--seconds 5]

CPU is that of the whole run of each process without its start: user and system time.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import mmap
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from benchmarks.accuracy.line import Line, line
from benchmarks.accuracy.peers import irtt_said
from benchmarks.accuracy.truth import IRTT_PORT, STAMP_PORT, Trip, read, trips
from nhip.clock import SystemClock
from nhip.errors import LabError
from nhip.lab.namespace import check_can_build, inside
from nhip.lab.pairing import quantile
from nhip.measurement import Outcome, Target
from nhip.statistics import NANOSECONDS_PER_SECOND
from probes.api import ProbeContext
from probes.network import HostNetwork
from probes.reflector import Reflector
from probes.stamp.probe import Stamp, StampConfig

_SENDER_CPU, _REFLECTOR_CPU = 0, 1
_LOSS_THRESHOLD_SECONDS = 0.5

# linux/if_packet.h
_SOL_PACKET, _PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION = 263, 5, 6, 10
_TPACKET_V2 = 1
_EVERY_PROTOCOL = 0x0003
_FRAME_OCTETS, _BLOCK_OCTETS = 256, 1 << 20
_TPACKET2 = struct.Struct("@IIIHHII")  # status, length, captured, offsets of link and network header, time


class Ring:
    """Every packet at one interface, kept by the kernel with its stamp and read when all is over."""

    def __init__(self, namespace: str, interface: str, packets: int) -> None:
        blocks = -(-packets * _FRAME_OCTETS // _BLOCK_OCTETS)
        self._frames = blocks * _BLOCK_OCTETS // _FRAME_OCTETS
        with inside(namespace):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
            request = struct.pack("@IIII", _BLOCK_OCTETS, blocks, _FRAME_OCTETS, self._frames)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
            self._memory = mmap.mmap(self._socket.fileno(), blocks * _BLOCK_OCTETS)
            self._socket.bind((interface, _EVERY_PROTOCOL))

    def seen(self) -> dict[tuple[str, str, int, int], dict[bool, int]]:
        """By probe: when its request (True) and its answer (False) passed."""
        found: dict[tuple[str, str, int, int], dict[bool, int]] = {}
        for frame in range(self._frames):
            at = frame * _FRAME_OCTETS
            status, _length, captured, _mac, network, seconds, nanoseconds = _TPACKET2.unpack_from(
                self._memory, at
            )
            if not status & 1:  # TP_STATUS_USER
                break
            packet = read(self._memory[at + network : at + network + captured])
            if packet is not None:
                stamp_ns = seconds * NANOSECONDS_PER_SECOND + nanoseconds
                found.setdefault(packet.key, {}).setdefault(packet.request, stamp_ns)
        return found

    def missed(self) -> int:
        """Packets the ring had no room for."""
        _received, dropped = struct.unpack("@II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        return int(dropped)

    def close(self) -> None:
        self._memory.close()
        self._socket.close()


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one pair of programs did."""

    name: str
    lost: int
    delays_ns: Mapping[int, float]
    sender_cpu_seconds: float
    reflector_cpu_seconds: float
    trips: list[Trip]
    missed: int
    notes: tuple[str, ...] = ()

    @property
    def sent(self) -> int:
        return len(self.trips)

    @property
    def rate(self) -> float:
        """Packets a second that really left."""
        first, last = self.trips[0].sent_ns, self.trips[-1].sent_ns
        return (self.sent - 1) * NANOSECONDS_PER_SECOND / (last - first)

    def errors_us(self) -> list[float]:
        """Delay said less delay true, of each packet both ends of the wire saw."""
        truth = {trip.sequence: trip.line_ns for trip in self.trips}
        return [
            (delay_ns - line_ns) / 1000
            for sequence, delay_ns in self.delays_ns.items()
            if (line_ns := truth.get(sequence)) is not None
        ]

    def gaps_us(self) -> list[float]:
        """Time between packets that left one after the other."""
        return [(later.sent_ns - earlier.sent_ns) / 1000 for earlier, later in pairwise(self.trips)]


def main() -> None:
    """Measure and print, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rate", type=float, default=10_000.0, help="packets per second")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--reflect", metavar="HOST", help=argparse.SUPPRESS)
    parser.add_argument("--send", metavar="HOST", help=argparse.SUPPRESS)
    parser.add_argument("--no-follow-up", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reflect:
        _reflect(options.reflect)
        return
    if options.send:
        _send(options.send, options.rate, options.seconds, follow_up=not options.no_follow_up)
        return
    try:
        check_can_build()
    except LabError as error:
        sys.exit(str(error))
    began = time.monotonic()
    with line(emulated=False) as made:
        runs = [
            _ours(made, options.rate, options.seconds, follow_up=True),
            _ours(made, options.rate, options.seconds, follow_up=False),
        ]
        if shutil.which("irtt"):
            runs.append(_irtt(made, options.rate, options.seconds))
        else:
            print("irtt is absent: apt-get install irtt")
    _print(runs, options.rate, options.seconds)
    print(f"took {time.monotonic() - began:.0f} s")


# The runs


def _ours(made: Line, rate: float, seconds: float, *, follow_up: bool) -> Run:
    here = [sys.executable, "-m", "benchmarks.stamp", "--rate", str(rate), "--seconds", str(seconds)]
    with _captured(made, rate * seconds) as truth:
        reflector = subprocess.Popen(
            made.enter("far", [*here, "--reflect", made.far_address]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert reflector.stdout is not None
        reflector.stdout.readline()
        options = [] if follow_up else ["--no-follow-up"]
        sender = subprocess.run(
            made.enter("near", [*here, "--send", made.far_address, *options]),
            capture_output=True,
            text=True,
            check=False,
        )
        reflected = json.loads(reflector.communicate()[0])
    if sender.returncode:
        raise RuntimeError(sender.stderr)
    said: dict[str, Any] = json.loads(sender.stdout)
    return Run(
        name="nhip stamp" if follow_up else "nhip stamp, no follow-up",
        lost=said["lost"],
        delays_ns={int(sequence): delay_ns for sequence, delay_ns in said["delays_ns"].items()},
        sender_cpu_seconds=said["cpu_seconds"],
        reflector_cpu_seconds=reflected["cpu_seconds"],
        notes=tuple(said["notes"]),
        **truth,
    )


def _irtt(made: Line, rate: float, seconds: float) -> Run:
    pinned = ["taskset", "-c"]
    with _captured(made, rate * seconds) as truth:
        server = subprocess.Popen(
            made.enter(
                "far",
                [
                    *pinned,
                    str(_REFLECTOR_CPU),
                    "irtt",
                    "server",
                    "-b",
                    f"{made.far_address}:{IRTT_PORT}",
                    "-i",
                    "0",
                ],
            ),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(0.5)
        before = os.times()
        client = subprocess.run(
            made.enter(
                "near",
                [
                    *(*pinned, str(_SENDER_CPU), "irtt", "client", "-Q", "-o", "-"),
                    *(
                        "-i",
                        f"{1e6 / rate:.0f}us",
                        "-d",
                        f"{seconds:.0f}s",
                        f"--wait={_LOSS_THRESHOLD_SECONDS}s",
                    ),
                    f"{made.far_address}:{IRTT_PORT}",
                ],
            ),
            capture_output=True,
            text=True,
            check=False,
        )
        after = os.times()
        server.terminate()
        _pid, _status, server_usage = os.wait4(server.pid, 0)
    said = irtt_said(client.stdout)
    return Run(
        name="irtt",
        lost=said.lost,
        delays_ns={int(sequence): delay_ns for sequence, delay_ns in said.delays_ns.items()},
        sender_cpu_seconds=after.children_user
        + after.children_system
        - before.children_user
        - before.children_system,
        reflector_cpu_seconds=server_usage.ru_utime + server_usage.ru_stime,
        **truth,
    )


@contextlib.contextmanager
def _captured(made: Line, packets: float) -> Iterator[dict[str, Any]]:
    """Both ends of the wire inside the block; its trips and what was missed, once it is left."""
    room = round(packets * 2.2) + 1_000
    rings = [Ring(*end, room) for end in (made.near_end, made.far_end)]
    truth: dict[str, Any] = {}
    try:
        yield truth
        near, far = (ring.seen() for ring in rings)
        truth["trips"] = trips(near, far)
        truth["missed"] = sum(ring.missed() for ring in rings)
    finally:
        for ring in rings:
            ring.close()


def _reflect(host: str) -> None:
    """Be the reflector until standard input closes; print the processor time it took."""
    os.sched_setaffinity(0, {_REFLECTOR_CPU})
    reflector = Reflector(host, STAMP_PORT, clock=SystemClock(), packets_per_second=1e6)
    reflector.start()
    print("ready", flush=True)
    before = time.process_time()
    sys.stdin.read()
    print(json.dumps({"cpu_seconds": time.process_time() - before}))
    reflector.close()


def _send(host: str, rate: float, seconds: float, *, follow_up: bool) -> None:
    """Be the sender for one test; print what it found and the processor time it took."""
    os.sched_setaffinity(0, {_SENDER_CPU})
    config = StampConfig(
        count=round(rate * seconds),
        interval_seconds=1 / rate,
        loss_threshold_seconds=_LOSS_THRESHOLD_SECONDS,
        follow_up=follow_up,
    )
    context = ProbeContext(clock=SystemClock(), network=HostNetwork())
    before = time.process_time()
    gc.disable()  # as `nhip measure` does for its one test
    sample = Stamp(config).measure(Target(id="far", host=host, port=STAMP_PORT), context)
    cpu_seconds = time.process_time() - before
    found = {
        "cpu_seconds": cpu_seconds,
        "lost": sum(singleton.outcome in (Outcome.LOST, Outcome.LATE) for singleton in sample.singletons),
        "delays_ns": {
            singleton.sequence: singleton.delay_ns
            for singleton in sample.singletons
            if singleton.outcome is Outcome.RECEIVED and singleton.delay_ns is not None
        },
        "notes": sample.notes,
    }
    print(json.dumps(found))


# The report


def _print(runs: list[Run], rate: float, seconds: float) -> None:
    print(
        f"{rate:,.0f} packets/s for {seconds:g} s over veth; error against the kernel's captures, per packet"
    )
    heads = ("sent", "rate/s", "lost", "true", "bias", "|e| p50", "|e| p99", "|e| max", "gap p99")
    print(f"{'program':<26}" + "".join(f"{head:>10}" for head in (*heads, "CPU send", "CPU refl")))
    for run in runs:
        errors = run.errors_us()
        true_lost = sum(trip.returned_ns is None for trip in run.trips)
        counts = (f"{run.sent}", f"{run.rate:,.0f}", f"{run.lost}", f"{true_lost}")
        times_us = (
            sum(errors) / len(errors),
            *(_size_at(errors, level) for level in (0.5, 0.99, 1.0)),
            _size_at(run.gaps_us(), 0.99),
            run.sender_cpu_seconds / run.sent * 1e6,
            run.reflector_cpu_seconds / run.sent * 1e6,
        )
        shown = (*counts, *(f"{time_us:.1f}µs" for time_us in times_us))
        print(f"{run.name:<26}" + "".join(f"{figure:>10}" for figure in shown))
        for note in run.notes:
            print(f"    {note}")
        if run.missed:
            print(f"    the captures had no room for {run.missed} packets")
    named = {run.name: run for run in runs}
    if "irtt" in named:
        ours, theirs = named["nhip stamp"], named["irtt"]
        p50, p99 = (
            _size_at(ours.errors_us(), level) / _size_at(theirs.errors_us(), level) for level in (0.5, 0.99)
        )
        sender = (ours.sender_cpu_seconds / ours.sent) / (theirs.sender_cpu_seconds / theirs.sent)
        reflector = (ours.reflector_cpu_seconds / ours.sent) / (theirs.reflector_cpu_seconds / theirs.sent)
        print(
            f"ratio nhip / irtt: |error| p50 {p50:.4f}, p99 {p99:.4f}; rate {ours.rate / theirs.rate:.2f}; "
            f"CPU a packet: sender {sender:.2f}, reflector {reflector:.2f}"
        )


def _size_at(values: list[float], level: float) -> float:
    found = quantile(sorted(map(abs, values)), level)
    assert found is not None, "no packet came back"
    return found


if __name__ == "__main__":
    main()
