"""How far our ICMP round-trip delay is from the truth, beside fping in the same run.

Two network namespaces are joined by a veth pair; the far one is the kernel's own echo. A capture on our end
of the pair (AF_PACKET, stamped by the kernel) sees every request leave and every reply arrive: that
difference is the truth for both programs. The error is what a program says minus that. Each program runs
idle and beside two processes that never sleep.

Needs root, iproute2 and fping::

    python benchmarks/latency_accuracy.py [--count 1000] [--interval-ms 2]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nhip.clock import SystemClock
from nhip.lab.namespace import inside
from nhip.measurement import Outcome, Target
from probes.api import ProbeContext
from probes.icmp import Icmp, IcmpConfig
from probes.network import HostNetwork

NEAR, FAR = "10.255.77.1", "10.255.77.2"
_EVERY_PROTOCOL = 0x0003
_SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33


@dataclass
class Capture:
    """The kernel's own stamps of echo requests and replies on one interface, by sequence number."""

    sent_ns: dict[int, int] = field(default_factory=dict)
    replied_ns: dict[int, int] = field(default_factory=dict)

    def round_trip_ns(self) -> dict[int, int]:
        return {number: at - self.sent_ns[number] for number, at in self.replied_ns.items()}

    @contextlib.contextmanager
    def on(self, interface: str) -> Iterator[Capture]:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_EVERY_PROTOCOL))
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.bind((interface, _EVERY_PROTOCOL))
        sock.setblocking(False)
        with contextlib.closing(sock):
            yield self
            while True:
                try:
                    self._note(*sock.recvmsg(64, 128))
                except BlockingIOError:
                    return

    def _note(
        self, packet: bytes, ancillary: list[tuple[int, int, bytes]], _flags: int, address: Any
    ) -> None:
        if address[1] != 0x0800 or packet[9] != socket.IPPROTO_ICMP:
            return
        kind, _code, _sum, _identifier, sequence = struct.unpack_from("!BBHHH", packet, (packet[0] & 15) * 4)
        seconds, nanoseconds = struct.unpack("@ll", ancillary[0][2])
        stamp_ns = seconds * 1_000_000_000 + nanoseconds
        outgoing = address[2] == socket.PACKET_OUTGOING
        if kind == 8 and outgoing:
            self.sent_ns.setdefault(sequence, stamp_ns)
        elif kind == 0 and not outgoing:
            self.replied_ns.setdefault(sequence, stamp_ns)


@contextlib.contextmanager
def two_hosts() -> Iterator[str]:
    """Two namespaces joined by a veth pair; gives the near one."""
    near, far = f"nhip-acc-{os.getpid()}-n", f"nhip-acc-{os.getpid()}-f"

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True)

    ip("netns", "add", near)
    ip("netns", "add", far)
    try:
        ip("-n", near, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", far)
        for name, address in ((near, NEAR), (far, FAR)):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        yield near
    finally:
        ip("netns", "del", near)
        ip("netns", "del", far)


@contextlib.contextmanager
def busy(loops: int) -> Iterator[None]:
    """Processes that never sleep."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def errors_of_nhip(count: int, interval_seconds: float) -> list[float]:
    """|error| of each reply in microseconds, ours."""
    config = IcmpConfig(count=count, interval_seconds=interval_seconds, loss_threshold_seconds=2)
    with Capture().on("eth0") as capture:
        sample = Icmp(config).measure(
            Target(id="far", host=FAR), ProbeContext(clock=SystemClock(), network=HostNetwork())
        )
    truth = capture.round_trip_ns()
    return [
        abs((singleton.delay_ns or 0) - truth[singleton.sequence]) / 1000
        for singleton in sample.singletons
        if singleton.outcome is Outcome.RECEIVED and singleton.sequence in truth
    ]


def errors_of_fping(count: int, interval_seconds: float) -> list[float]:
    """|error| of each reply in microseconds, fping's; it prints three significant digits."""
    period_ms = max(1, round(interval_seconds * 1000))
    with Capture().on("eth0") as capture:
        done = subprocess.run(
            ["fping", "-c", str(count), "-p", str(period_ms), "-i", "1", "-t", "2000", FAR],
            capture_output=True,
            text=True,
            check=False,
        )
    truth = capture.round_trip_ns()
    said = {
        int(found["sequence"]): float(found["milliseconds"])
        for found in re.finditer(r"\[(?P<sequence>\d+)\].*?, (?P<milliseconds>[\d.]+) ms", done.stdout)
    }
    return [abs(value * 1000 - truth[number] / 1000) for number, value in said.items() if number in truth]


def quantile(values: list[float], hundredth: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[hundredth - 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--interval-ms", type=float, default=2.0)
    options = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("fping") is None:
        sys.exit("needs root and fping: apt-get install fping")
    interval_seconds = options.interval_ms / 1000
    print(f"{options.count} echo requests, {options.interval_ms:g} ms apart; |error| against the capture")
    print(f"{'load':<14}{'program':<10}{'replies':>8}{'p50':>12}{'p99':>12}{'max':>12}")
    with two_hosts() as near:
        for load, loops in (("idle", 0), ("2 busy loops", 2)):
            found: dict[str, list[float]] = {}
            with busy(loops):
                for name, errors_of in (("nhip", errors_of_nhip), ("fping", errors_of_fping)):
                    with inside(near):
                        found[name] = errors_of(options.count, interval_seconds)
            for name, errors in found.items():
                figures = (quantile(errors, 50), quantile(errors, 99), max(errors))
                shown = "".join(f"{figure:>9.1f} µs" for figure in figures)
                print(f"{load:<14}{name:<10}{len(errors):>8}{shown}")
            ratio = [quantile(found["nhip"], at) / quantile(found["fping"], at) for at in (50, 99)]
            print(f"{load:<14}{'ratio':<10}{'':>8}{ratio[0]:>12.2f}{ratio[1]:>12.2f}   (nhip / fping)")


if __name__ == "__main__":
    main()
