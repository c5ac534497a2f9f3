"""How many ICMP targets one process on one core can probe, beside fping in the same run.

Two network namespaces are joined by a veth pair; the far one answers for 10.201.0.0/16 to 10.203.0.0/16 with
its kernel. By default the far end's answering runs in the softirq of the sending core, as part of its cost
(`far=same`); with `far=other` the kernel moves it to another core (`rps_cpus`), as where the far end is a
host of its own. Echoes that the far end's kernel did not answer are shown apart: they are the network's loss,
not of the program. Processor time is user and system time of the measured process from the first probe to the
last, over the probes it handed over.

Truth, in the 10,000 target run, is a capture of the packets of 200 of them at the near end of the pair:
request out to reply in, compared with the delays the engine gives for the same packets, one by one.

Needs root, iproute2, util-linux (taskset) and, for the comparison, fping::

    python benchmarks/scale.py [--core 1] [--seconds 3] [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nhip.lab.namespace import delete_namespaces, inside, run_ip, write_settings

NEAR, FAR = "nhip-scale-near", "nhip-scale-far"
TRUTH_TARGETS = 200
_EVERY_PROTOCOL = 0x0003
_SO_TIMESTAMPNS, _SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 35, 26, 33


def main() -> None:
    options = _options()
    if options.worker:
        _worker(json.loads(options.worker))
        return
    if os.geteuid() != 0:
        sys.exit("needs root for network namespaces")
    print(
        f"{time.strftime('%Y-%m-%d %H:%M')}, Linux {os.uname().release}, {os.cpu_count()} processors", end=""
    )
    print(f", load {os.getloadavg()[0]:.1f}; measured processes on core {options.core}")
    print(f"{'':34}{'rate/s':>9}{'CPU %':>7}{'µs/probe':>9}{'missed':>8}{'lost':>7}", end="")
    print(f"{'lag p50':>9}{'p99':>7}{'max ms':>8}{'RTT p50':>9}{'p99 µs':>8}{'RSS MB':>8}")
    with _two_hosts() as bench:
        _run(bench, options)


def _run(bench: Bench, options: argparse.Namespace) -> None:
    core, seconds = options.core, options.seconds
    ten = {"targets": 10_000, "interval_seconds": 1.0, "seconds": seconds}
    hundred = {"targets": 100_000, "interval_seconds": 1.0, "seconds": seconds}
    bench.far_on(None)
    row("10,000 targets, far=same", engine(core, ten))
    with captured(NEAR, "va") as truth:
        measured = engine(core, ten | {"tell": TRUTH_TARGETS})
    row("the same beside a capture", measured)
    _print_truth(truth, measured)
    other = 1 if core == 0 else 0
    for far, name in ((None, "same"), (other, "other")):
        bench.far_on(far)
        row(f"100,000 targets, far={name}", engine(core, hundred))
    bench.far_on(None)
    for share in (0.5, 0.9) if not options.quick else ():
        row(
            f"100,000 targets, window full ({share:g})",
            engine(core, hundred | {"window_seconds": share * seconds}),
        )
    for far, name in ((None, "same"), (other, "other")):
        bench.far_on(far)
        row(f"highest rate, far={name}", _highest(core, 60_000 if options.quick else 80_000))
    bench.far_on(None)
    print(f"records: {_record_cost_us():.0f} µs for each window of 60 probes, in the agent's process")
    _beside_fping(core, options)


def _highest(core: int, first: int) -> dict[str, Any]:
    """The last rate at which less than 0.1 % was lost and 95 % of the probes were sent in time."""
    best: dict[str, Any] = {}
    rate = first
    while True:
        task = {"targets": 100_000, "interval_seconds": 100_000 / rate, "seconds": 2.0, "threshold": 0.5}
        found = engine(core, task)
        own_losses = found["lost"] - found["unanswered"]
        if own_losses > 0.001 * found["handed_over"] or found["missed"] > 0.05 * found["planned"]:
            return best or found
        best, rate = found, round(rate * 1.15)


def _beside_fping(core: int, options: argparse.Namespace) -> None:
    if shutil.which("fping") is None:
        print("fping is not installed: no comparison")
        return
    for targets, rounds in ((1000, 3), (10_000, 2)):
        theirs = fping(core, targets, rounds)
        print(f"{f'fping, {targets:,} targets paced':34}{theirs['rate']:>9,.0f}", end="")
        print(f"{theirs['cpu'] * 100:>7.1f}{theirs['cost_us']:>9.2f}{'':>8}{theirs['lost']:>7}")
        ours = engine(core, {"targets": targets, "interval_seconds": 1.0, "seconds": options.seconds})
        row(f"nhip, {targets:,} targets", ours)
        print(f"{'':10}processor per probe, nhip ÷ fping: {ours['cost_us'] / theirs['cost_us']:.2f}")


# The two hosts


class Bench:
    """The pair of hosts."""

    def far_on(self, core: int | None) -> None:
        """Have the far end's packets handled on another core, or where they are sent from."""
        mask = 0 if core is None else 1 << core
        command = f"echo {mask:x} > /sys/class/net/vb/queues/rx-0/rps_cpus"
        subprocess.run(["ip", "netns", "exec", FAR, "sh", "-c", command], check=True)


@contextlib.contextmanager
def _two_hosts() -> Iterator[Bench]:
    delete_namespaces([NEAR, FAR])
    run_ip([f"netns add {NEAR}", f"netns add {FAR}"])
    try:
        run_ip([f"link add va netns {NEAR} type veth peer name vb netns {FAR}"])
        nets = ["10.201.0.0/16", "10.202.0.0/15"]
        common = ["link set lo up"]
        run_ip(
            [*common, "addr add 10.200.0.1/30 dev va", "link set va up"]
            + [f"route add {net} via 10.200.0.2" for net in nets],
            namespace=NEAR,
        )
        run_ip(
            [*common, "addr add 10.200.0.2/30 dev vb", "link set vb up"]
            + [f"route add local {net} dev lo" for net in nets],
            namespace=FAR,
        )
        write_settings(NEAR, [("net/ipv4/ping_group_range", "0 2147483647")])
        write_settings(FAR, [("net/ipv4/icmp_ratelimit", "0")])
        yield Bench()
    finally:
        delete_namespaces([NEAR, FAR])


def _hosts(count: int) -> list[str]:
    return [f"10.{201 + n // 62_500}.{n // 250 % 250}.{n % 250 + 1}" for n in range(count)]


# What is measured


def engine(core: int, task: dict[str, Any]) -> dict[str, Any]:
    """One run of the engine in a process of its own, pinned to `core`, in the near host."""
    command = ["ip", "netns", "exec", NEAR, "taskset", "-c", str(core), sys.executable, __file__]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    before = _answered()
    done = subprocess.run(
        [*command, "--worker", json.dumps(task)], capture_output=True, text=True, check=False, env=environment
    )
    answered = _answered() - before
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"unanswered": max(0, found["handed_over"] - answered)}


def _answered() -> int:
    """Echo replies the far end's kernel has made; what it did not answer the program did not lose."""
    with inside(FAR):
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Icmp:"))
    return int(values[names.index("OutEchoReps")])


def _worker(task: dict[str, Any]) -> None:
    import gc

    import numpy as np

    from nhip.clock import SystemClock
    from nhip.measurement import Target
    from probes.engine.book import NO_DELAY, Windows
    from probes.engine.engine import Engine
    from probes.engine.group import Group, TargetList
    from probes.engine.lane import Lane
    from probes.engine.slice import ask_for_short_slice
    from probes.network import HostNetwork

    targets = TargetList(Target(id=f"t{n}", host=host) for n, host in enumerate(_hosts(task["targets"])))
    group = Group(
        id="scale",
        targets=targets,
        interval_seconds=task["interval_seconds"],
        window_seconds=task.get("window_seconds", 60.0),
        loss_threshold_seconds=task.get("threshold", 1.0),
    )
    tell = task.get("tell", 0)
    histogram = np.zeros(100_000, np.int64)
    told: dict[str, list[int]] = {}

    def keep(lane: Lane, windows: Windows) -> None:
        known = (windows.delays_ns != NO_DELAY) & (windows.status != 0)
        tenths = np.minimum(windows.delays_ns[known] // 100, len(histogram) - 1)
        np.add.at(histogram, tenths, 1)
        for row in np.flatnonzero(windows.targets < tell).tolist():
            host = lane.addresses.text(int(windows.targets[row]))
            told.setdefault(str(host), []).extend(windows.delays_ns[row][windows.status[row] != 0].tolist())

    clock = SystemClock()
    spent: list[float] = []
    run = Engine([group], clock, HostNetwork(), keep, most_probes_per_second=1e7, late_wait_seconds=0.5)
    run.start()
    gc.collect()
    gc.freeze()
    gc.disable()
    ask_for_short_slice()
    before = time.process_time()
    timer = threading.Timer(task["seconds"], lambda: spent.append(time.process_time() - before))
    timer.start()
    run.run(task["seconds"] + 0.01)
    timer.join()
    found = run.readings()
    run.close()

    def quantile_us(probability: float) -> float:
        return float(np.searchsorted(np.cumsum(histogram), probability * histogram.sum()) / 10)

    document = found.as_dict() | {
        "cpu": spent[0] / task["seconds"],
        "cost_us": spent[0] / found.handed_over * 1e6,
        "rate": found.handed_over / task["seconds"],
        "rtt_p50_us": quantile_us(0.5),
        "rtt_p99_us": quantile_us(0.99),
        "told": told,
    }
    print(json.dumps(document))


def fping(core: int, targets: int, rounds: int) -> dict[str, float]:
    """fping towards the same targets, each once a second, as far as it can."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as names:
        names.write("\n".join(_hosts(targets)))
        names.flush()
        gap = "1" if targets <= 1000 else "0.1"
        command = ["ip", "netns", "exec", NEAR, "taskset", "-c", str(core)]
        command += ["fping", "-q", "-C", str(rounds), "-i", gap, "-p", "1000", "-f", names.name]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        took, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    sent = targets * rounds
    lost = sum(line.split(":", 1)[1].split().count("-") for line in done.stderr.splitlines() if ":" in line)
    return {"rate": sent / took, "cpu": cpu / took, "cost_us": cpu / sent * 1e6, "lost": lost}


def _record_cost_us() -> float:
    import numpy as np

    from nhip.measurement import Access, Target, Technology
    from nhip.wire import encode_record
    from probes.engine import fate
    from probes.engine.book import Windows
    from probes.engine.circumstances import Circumstances
    from probes.engine.group import Group, TargetList
    from probes.engine.records import WindowContext, records

    rows, rounds = 64, 60
    rng = np.random.default_rng(1)
    targets = [Target(id=f"t{n}", host=f"10.0.0.{n}") for n in range(rows)]
    windows = Windows(
        targets=np.arange(rows),
        started_ns=np.zeros(rows, np.int64),
        ended_ns=np.full(rows, 60 * 10**9),
        status=np.full((rows, rounds), fate.RECEIVED, np.uint8),
        delays_ns=rng.integers(1, 10**7, (rows, rounds)).astype(np.uint32),
        lags_us=rng.integers(0, 500, (rows, rounds)).astype(np.uint16),
        duplicates=np.zeros(rows, np.int64),
        missed=np.zeros(rows, np.int64),
    )
    group = Group(id="g", targets=TargetList(targets))
    context = WindowContext(
        group=group, ip_version=4, targets=targets, addresses=[t.host for t in targets], offset_ns=0
    )
    access = Access(operator="a", technology=Technology.FIXED, province="01")
    who = Circumstances(probe_id="p", access=access)
    began, made = time.process_time(), 0
    while time.process_time() - began < 0.5:
        for record in records(windows, context, who, time.time_ns()):
            encode_record(record)
            made += 1
    return (time.process_time() - began) / made * 1e6


# Truth


class Truth:
    """Stamps of echo requests and replies of the first targets, in order, by address."""

    def __init__(self) -> None:
        self.sent_ns: dict[tuple[str, int], int] = {}
        self.delays_ns: dict[str, list[int]] = {}
        self.order: dict[str, list[int]] = {}

    def note(self, packet: bytes, stamp_ns: int, outgoing: bool) -> None:
        kind, _code, _sum, _identifier, sequence = struct.unpack_from("!BBHHH", packet, 20)
        if kind == 8 and outgoing:
            host = socket.inet_ntoa(packet[16:20])
            self.sent_ns[host, sequence] = stamp_ns
            self.order.setdefault(host, []).append(sequence)
        elif kind == 0 and not outgoing:
            host = socket.inet_ntoa(packet[12:16])
            sent_ns = self.sent_ns.get((host, sequence))
            if sent_ns is not None:
                self.delays_ns.setdefault(host, []).append(stamp_ns - sent_ns)


@contextlib.contextmanager
def captured(namespace: str, interface: str) -> Iterator[Truth]:
    """Capture what the first 200 targets get and give, until the block ends."""
    with inside(namespace):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    _keep_only(sock, socket.inet_aton("10.201.0.0"))
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 32 << 20)
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    with inside(namespace):
        sock.bind((interface, _EVERY_PROTOCOL))
    sock.setblocking(False)
    # Only what the socket keeps by itself is read, after the run: reading meanwhile would disturb it.
    truth = Truth()
    with contextlib.closing(sock):
        yield truth
        while True:
            try:
                packet, ancillary, _flags, address = sock.recvmsg(64, 128)
            except BlockingIOError:
                return
            seconds, nanoseconds = struct.unpack("@ll", ancillary[0][2])
            outgoing = address[2] == socket.PACKET_OUTGOING
            truth.note(packet, seconds * 1_000_000_000 + nanoseconds, outgoing)


def _keep_only(sock: socket.socket, network: bytes) -> None:
    """A filter (BPF) for the /24 `network` as source or destination."""
    import ctypes

    (net,) = struct.unpack("!I", network)
    load, mask, equal, give = 0x20, 0x54, 0x15, 0x06
    steps = [
        *((load, 0, 0, 12), (mask, 0, 0, 0xFFFFFF00), (equal, 3, 0, net)),
        *((load, 0, 0, 16), (mask, 0, 0, 0xFFFFFF00), (equal, 0, 1, net)),
        *((give, 0, 0, 0x40000), (give, 0, 0, 0)),
    ]
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HL", len(steps), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _print_truth(truth: Truth, measured: dict[str, Any]) -> None:
    errors, compared, unequal = [], 0, 0
    for host, said in measured["told"].items():
        true = truth.delays_ns.get(host, [])
        if len(true) != len(said):
            unequal += 1
            continue
        compared += len(said)
        errors += [mine - real for mine, real in zip(said, true, strict=True)]
    errors.sort()
    absolute = sorted(map(abs, errors))
    if not errors:
        print(f"{'':10}truth: nothing to compare")
    else:
        print(f"{'':10}truth: {compared} delays of {len(measured['told'])} targets compared, ", end="")
        print(
            f"{unequal} targets with another count; error p50 {errors[len(errors) // 2] / 1e3:.1f} µs, ",
            end="",
        )
        print(f"|error| p99 {absolute[int(0.99 * len(absolute))] / 1e3:.1f}, max {absolute[-1] / 1e3:.1f} µs")


def row(name: str, found: dict[str, Any]) -> None:
    print(f"{name:34}{found['rate']:>9,.0f}{found['cpu'] * 100:>7.1f}{found['cost_us']:>9.2f}", end="")
    print(f"{found['missed']:>8}{found['lost']:>7}{_ms(found['lag_p50_seconds']):>9}", end="")
    print(f"{_ms(found['lag_p99_seconds']):>7}{_ms(found['lag_max_seconds']):>8}", end="")
    print(
        f"{found['rtt_p50_us']:>9.1f}{found['rtt_p99_us']:>8.1f}{found['memory_octets'] / 1e6:>8.0f}", end=""
    )
    by_user = found["sent_by_user_stamp"] + found["received_by_user_stamp"]
    print(f"  {by_user} user stamps" if by_user else "", end="")
    print(f"  {found['buffer_drops']} dropped by our buffer" if found["buffer_drops"] else "", end="")
    unanswered = found["unanswered"]
    print(f"  {unanswered} not answered by the far end" if unanswered else "", flush=True)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.2f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--core", type=int, default=(os.cpu_count() or 1) - 1)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--quick", action="store_true", help="leave some steps out")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
