"""How fast one stream of file_transfer is on loopback, beside iperf3 in the same run.

::

    python benchmarks/throughput.py [--octets 2000000000] [--repeats 3]

Each round measures download and upload with both, one after the other, so that a busy moment of the machine
hits both alike; the medians and their ratio are printed. Loopback has no line: the figure is this program's
own ceiling, below which what it measures is the network.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import statistics
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nhip.clock import SystemClock
from nhip.measurement import Outcome, Target
from probes.api import ProbeContext
from probes.file_transfer import FileTransfer, FileTransferConfig
from probes.network import HostNetwork

_HOST = "127.0.0.1"
_SERVER = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from nhip.clock import SystemClock
from probes.server import MeasurementServer, ServerConfig
server = MeasurementServer(ServerConfig(hosts=["127.0.0.1"], port=0, max_octets=10**12), SystemClock())
server.start()
print(server.port, flush=True)
sys.stdin.read()
server.close()
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--octets", type=int, default=2_000_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    root = str(Path(__file__).resolve().parent.parent)
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        ours: dict[str, list[float]] = {"down": [], "up": []}
        theirs: dict[str, list[float]] = {"down": [], "up": []}
        for _ in range(arguments.repeats):
            for direction in ("down", "up"):
                ours[direction].append(file_transfer(port, direction, arguments.octets))
                if shutil.which("iperf3"):
                    theirs[direction].append(iperf3(direction, arguments.octets))
    finally:
        assert server.stdin is not None
        server.stdin.close()
        server.wait(10)
    print(f"one stream on loopback, {arguments.octets} octets, median of {arguments.repeats}, Gbit/s")
    print(f"{'direction':<10} {'file_transfer':>14} {'iperf3':>8} {'ratio':>6}")
    for direction, rates in ours.items():
        mine = statistics.median(rates)
        if theirs[direction]:
            other = statistics.median(theirs[direction])
            print(f"{direction:<10} {mine / 1e9:>14.2f} {other / 1e9:>8.2f} {mine / other:>6.2f}")
        else:
            print(f"{direction:<10} {mine / 1e9:>14.2f}  iperf3 absent (Debian package iperf3)")


def file_transfer(port: int, direction: str, octets: int) -> float:
    """Bits per second of one transfer by this program, counted by its receiver."""
    config = FileTransferConfig(direction="up" if direction == "up" else "down", size_octets=octets)
    context = ProbeContext(clock=SystemClock(), network=HostNetwork(), cancelled=threading.Event())
    sample = FileTransfer(config).measure(Target(id="loopback", host=_HOST, port=port), context)
    (singleton,) = sample.singletons
    assert singleton.outcome is Outcome.RECEIVED and singleton.transfer is not None, singleton
    return singleton.transfer.octets * 8e9 / singleton.transfer.duration_ns


def iperf3(direction: str, octets: int) -> float:
    """Bits per second of one stream of iperf3 by its receiver."""
    with socket.socket() as free:
        free.bind((_HOST, 0))
        port = str(free.getsockname()[1])
    server = subprocess.Popen(
        ["iperf3", "-s", "-1", "-B", _HOST, "-p", port, "--forceflush"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        while "listening" not in server.stdout.readline():
            pass
        answer = subprocess.run(
            [
                *("iperf3", "-c", _HOST, "-p", port, "-P", "1", "-n", str(octets), "--json"),
                *(["-R"] if direction == "down" else []),
            ],
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
        )
        rate: float = json.loads(answer.stdout)["end"]["sum_received"]["bits_per_second"]
        return rate
    finally:
        server.terminate()
        server.wait(10)
        server.stdout.close() if server.stdout else None


if __name__ == "__main__":
    main()
