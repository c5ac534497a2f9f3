"""The engine's own process: so that neither the agent's tests nor its deliveries make a probe late.

It reads its job from standard input, writes messages to standard output, and ends when its input is closed,
which happens also when the agent dies. A thread writes, so that a slow agent never stops the loop; what it
does not take in time is dropped and counted, for a queue without end would only hide it.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from collections import deque

import msgspec
import numpy as np

from nhip.clock import SystemClock
from nhip.errors import CannotMeasureError, ConfigError, NhipError
from probes.engine.book import Windows
from probes.engine.capacity import promised_probes_per_second
from probes.engine.engine import Engine
from probes.engine.frames import GroupJob, Job, Message, Refused, Said, Started, Told, WindowColumns, frame
from probes.engine.group import Group, parse_targets
from probes.engine.lane import Lane
from probes.engine.slice import ask_for_short_slice
from probes.line.modem import ModemManager

MOST_WAITING_OCTETS = 32 * 1024 * 1024
_TELL_EVERY_SECONDS = 5.0


def main() -> None:
    """Run one job; the exit code is 0 also when the job was refused, for that was said."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the agent decides when to stop
    outlet = Outlet(os.dup(1))
    os.dup2(2, 1)  # whatever prints by mistake must not end up between the frames
    outlet.start()
    logging.basicConfig(level=logging.INFO, handlers=[_ToAgent(outlet)])
    job = msgspec.msgpack.decode(_read_job(), type=Job)
    try:
        _run(job, outlet)
    except NhipError as error:
        kind = "ConfigError" if isinstance(error, ConfigError) else "CannotMeasureError"
        outlet.put(Refused(error=kind, what=error.what, remedy=error.remedy))
    finally:
        outlet.close()


class Outlet:
    """Writes frames in a thread of its own. `put` never blocks."""

    def __init__(self, descriptor: int, most_octets: int = MOST_WAITING_OCTETS) -> None:
        self._descriptor = descriptor
        self._most_octets = most_octets
        self._frames: deque[bytes] = deque()
        self._octets = 0
        self._ready = threading.Condition()
        self._closing = False
        self._broken = False
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def start(self) -> None:
        self._thread = threading.Thread(target=self._write, name="outlet", daemon=True)
        self._thread.start()

    def put(self, message: Message) -> None:
        """Have `message` written; dropped and counted when too much waits already."""
        octets = frame(message)
        with self._ready:
            if self._broken or self._octets + len(octets) > self._most_octets:
                self.dropped += 1
                return
            self._frames.append(octets)
            self._octets += len(octets)
            self._ready.notify()

    def close(self) -> None:
        """Write what waits, then close."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        if self._thread is not None:
            self._thread.join()
        os.close(self._descriptor)

    def _write(self) -> None:
        while True:
            with self._ready:
                while not self._frames and not self._closing:
                    self._ready.wait()
                if not self._frames:
                    return
                octets = b"".join(self._frames)
                self._frames.clear()
                self._octets = 0
            try:
                view = memoryview(octets)
                while view:
                    view = view[os.write(self._descriptor, view) :]
            except OSError:
                # The agent is gone, and so is the reason to measure; the closed input says so too.
                self._broken = True


class _ToAgent(logging.Handler):
    """Log lines go to the agent, whose log they belong in."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self._outlet = outlet

    def emit(self, record: logging.LogRecord) -> None:
        self._outlet.put(Said(level=record.levelno, text=record.getMessage()))


def _run(job: Job, outlet: Outlet) -> None:
    clock = SystemClock()
    network = job.line.network(ModemManager())
    most = job.most_probes_per_second or promised_probes_per_second(clock)
    groups = [_group(part) for part in job.groups]
    numbers = {group.id: position for position, group in enumerate(groups)}

    def on_windows(lane: Lane, windows: Windows) -> None:
        outlet.put(_columns(numbers[lane.group.id], lane, windows))

    engine = Engine(groups, clock, network, on_windows, most_probes_per_second=most)
    try:
        engine.start()
        outlet.put(Started(targets=sum(len(group.targets) for group in groups), most_probes_per_second=most))
        threading.Thread(target=_stop_when_input_ends, args=(engine,), daemon=True).start()
        stopped = threading.Event()
        teller = threading.Thread(target=_tell, args=(engine, outlet, stopped), daemon=True)
        teller.start()
        # Nothing the loop makes refers back to itself, and a collection takes longer than a tick.
        gc.collect()
        gc.freeze()
        gc.disable()
        ask_for_short_slice()
        engine.run()
        stopped.set()
        teller.join()
    finally:
        engine.close()


def _tell(engine: Engine, outlet: Outlet, stopped: threading.Event) -> None:
    ended = False
    while not ended:
        ended = stopped.wait(_TELL_EVERY_SECONDS)
        outlet.put(Told(readings=engine.readings().as_dict() | {"windows_dropped": outlet.dropped}))


def _columns(group: int, lane: Lane, windows: Windows) -> WindowColumns:
    book, rows = lane.addresses, windows.targets
    return WindowColumns(
        group=group,
        ip_version=lane.ip_version,
        offset_ns=lane.offset_ns,
        positions=book.positions[rows].tobytes(),
        addresses=np.ascontiguousarray(book.hosts[rows]).tobytes(),
        known=book.known[rows].tobytes(),
        started_ns=windows.started_ns.tobytes(),
        ended_ns=windows.ended_ns.tobytes(),
        status=windows.status.tobytes(),
        delays_ns=windows.delays_ns.tobytes(),
        lags_us=windows.lags_us.tobytes(),
        duplicates=windows.duplicates.tobytes(),
        missed=windows.missed.tobytes(),
    )


def _group(job: GroupJob) -> Group:
    return Group(
        id=job.id,
        targets=parse_targets(job.targets.splitlines(), job.id),
        interval_seconds=job.interval_seconds,
        poisson=job.poisson,
        window_seconds=job.window_seconds,
        size_octets=job.size_octets,
        dscp=job.dscp,
        dont_fragment=job.dont_fragment,
        loss_threshold_seconds=job.loss_threshold_seconds,
    )


def _read_job() -> bytes:
    size = int.from_bytes(_read_exactly(4), "little")
    return _read_exactly(size)


def _read_exactly(count: int) -> bytes:
    octets = b""
    while len(octets) < count:
        part = os.read(0, count - len(octets))
        if not part:
            raise CannotMeasureError("the engine was given no job", remedy="it is started by nhip probe")
        octets += part
    return octets


def _stop_when_input_ends(engine: Engine) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    engine.stop()


if __name__ == "__main__":
    main()
    sys.exit(0)
