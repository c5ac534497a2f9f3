"""The agent: runs each task when it is due, spools its record, ships what is spooled.

::

    timetable ──due──▶ gate ──▶ probe.measure ──Sample──▶ record ──▶ spool (disk) ──▶ collector
                                     │                                  ▲    │
                                     └─ could not measure: counted,     └────┘ kept until acknowledged
                                        said in the log, no record

A failing network is a record. Being unable to measure (no privilege, interface gone) is not: it is
logged with its remedy (once, and each hour while it lasts) and counted, and the collector sees the count with
the next delivery.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from nhip import __version__, wire
from nhip.clock import Clock
from nhip.errors import NhipError, ShipError, StoreError
from nhip.measurement import Access, Target
from nhip.statistics import NANOSECONDS_PER_SECOND
from probes.agent_config import AgentConfig, TaskSection, settings
from probes.agent_metrics import agent_readings, probe_labels
from probes.api import Probe, ProbeContext
from probes.delivery import Delivery
from probes.engine.circumstances import Circumstances
from probes.engine.metrics import engine_readings
from probes.engine.process import EngineProcess
from probes.gate import Gate
from probes.line.config import LineSection
from probes.line.modem import ModemManager, ModemTable, RecentModems
from probes.metrics import MetricsPage, Reading
from probes.network import HostNetwork
from probes.registry import PROBES
from probes.schedule import Timetable
from probes.ship import (
    FIRST_RETRY_OF_A_STRANGER_SECONDS,
    FIRST_RETRY_SECONDS,
    Shipper,
    StrangerError,
    read_key,
    retry_seconds,
)
from probes.spool import Spool
from probes.trouble import Trouble

log = logging.getLogger("nhip.probe")

MOST_TESTS_AT_ONCE = 16
# Of the engine's, written to the disk together: a test that ends meanwhile waits no longer than that takes.
_RECORDS_AT_ONCE = 500


@dataclass(slots=True)
class _Task:
    """A task of the file, ready to run."""

    section: TaskSection
    target: Target
    probe: Probe
    exclusive: bool
    timetable: Timetable
    trouble: Trouble
    running: bool = False


@dataclass(slots=True)
class _Counts:
    """What the agent says of itself; one lock guards them."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    tests: int = 0
    failed_to_run: int = 0
    ship_failures: int = 0
    lag_seconds_max: float | None = None


class Agent:
    """A probe that runs until closed. The constructor does nothing; `start` opens the spool and begins."""

    def __init__(
        self,
        config: AgentConfig,
        clock: Clock,
        *,
        rng: random.Random | None = None,
        modems: ModemTable | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._modems = RecentModems(modems or ModemManager(), clock)
        self._rng = rng or random.Random()
        self._stop = threading.Event()
        self._tests_over = threading.Event()
        self._spool = Spool(config.spool.path, config.spool.maximum_octets, clock)
        self._spool_lock = threading.Lock()
        self._gate = Gate(config.network.exclusive_lock, self._stop)
        self._counts = _Counts()
        self._threads: list[threading.Thread] = []
        self._pool: ThreadPoolExecutor | None = None
        self._tasks: list[_Task] = []
        self._wake: int | None = None
        self._metrics = MetricsPage(config.metrics, self.readings) if config.metrics else None
        self._engine: EngineProcess | None = None

    def start(self) -> None:
        """Open the spool and start measuring; NhipError when the configuration cannot be carried out."""
        if lacks := self._config.lacks():
            raise lacks[0]
        key = read_key(self._config.collector.key, self._config.collector.key_file)
        self._spool.start()
        if self._spool.quarantined:
            log.warning("damaged spool put aside as %s; a new one was begun", self._spool.quarantined)
        self._tasks = [self._task(section) for section in self._config.task]
        if self._metrics is not None:
            self._metrics.start()
        if self._config.icmp_group:
            self._engine = self._engine_process()
            self._engine.start()
        self._say_start()
        self._pool = ThreadPoolExecutor(MOST_TESTS_AT_ONCE, thread_name_prefix="test")
        woken, self._wake = os.pipe()
        for name, loop in (
            ("stop", lambda: self._run_stop(woken)),
            ("schedule", self._run_schedule),
            ("ship", lambda: self._run_shipping(key)),
        ):
            thread = threading.Thread(target=loop, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def wait(self, timeout_seconds: float | None = None) -> None:
        """Return when the agent was told to stop."""
        self._stop.wait(timeout_seconds)

    def stop(self) -> None:
        """Tell every test and loop to end; returns at once and takes no lock, so safe in a signal handler.

        `threading.Event.set` takes a lock, which the main thread may hold at the moment a signal interrupts
        it; a thread that waits at a pipe sets the event instead.
        """
        if self._wake is None:
            self._stop.set()  # nothing runs yet or any more
            return
        with contextlib.suppress(OSError):
            os.write(self._wake, b"x")

    def close(self) -> None:
        """Stop, wait for what runs, try once more to deliver; what was not taken stays on disk."""
        ran = bool(self._threads)
        self.stop()
        for thread in self._threads:
            if thread.name == "schedule":  # it must not hand a test to a pool that is shut
                thread.join()
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        if self._engine is not None:
            self._engine.close()
        self._tests_over.set()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._pool = None
        if self._wake is not None:
            wake, self._wake = self._wake, None
            os.close(wake)
        if self._metrics is not None:
            self._metrics.close()
        if ran:
            self._say_end()
        self._spool.close()

    def status(self) -> wire.AgentStatus:
        """What goes with each batch; the largest lag is since the last delivery."""
        with self._spool_lock:
            spool = self._spool.state()
        with self._counts.lock:
            return wire.AgentStatus(
                software_version=__version__,
                wall_ns=self._clock.wall_ns(),
                mono_ns=self._clock.mono_ns(),
                spool_records=spool.records,
                spool_octets=spool.octets,
                spool_oldest_age_seconds=spool.oldest_age_seconds,
                spool_dropped_total=spool.dropped_total,
                tests_total=self._counts.tests,
                tests_failed_to_run_total=self._counts.failed_to_run,
                tests_missed_total=sum(task.timetable.missed for task in self._tasks),
                ship_failures_total=self._counts.ship_failures,
                schedule_lag_seconds_max=self._counts.lag_seconds_max,
            )

    def readings(self) -> Iterator[Reading]:
        """What the agent's own metrics page shows."""
        yield from agent_readings(self._config.probe_id, self._config.access, self.status())
        if self._engine is not None:
            labels = probe_labels(self._config.probe_id, self._config.access)
            yield from engine_readings(labels, self._engine.readings, restarts=self._engine.restarts)

    def _say_start(self) -> None:
        with self._spool_lock:
            spool = self._spool.state()
        log.info(
            "agent started: probe %s, %d tasks (%s), targets %s, collector %s, spool %s with %d records, "
            "%d dropped and %d put aside so far%s",
            self._config.probe_id,
            len(self._tasks),
            ", ".join(sorted({task.section.kind for task in self._tasks})),
            ", ".join(f"{target.id} ({target.host})" for target in self._config.target),
            self._config.collector.url,
            self._config.spool.path,
            spool.records,
            spool.dropped_total,
            spool.refused_total,
            f", metrics on port {self._metrics.port}" if self._metrics else "",
        )

    def _say_end(self) -> None:
        try:
            left = f"{self.status().spool_records} records left in the spool"
        except StoreError as error:
            left = f"what is left in the spool is unknown: {error}"
        log.info(
            "agent stopped: probe %s, %d tests, %d failed to run, %s",
            self._config.probe_id,
            self._counts.tests,
            self._counts.failed_to_run,
            left,
        )

    def _run_stop(self, woken: int) -> None:
        os.read(woken, 1)
        os.close(woken)
        self._stop.set()

    # Measuring

    def _run_schedule(self) -> None:
        now_ns = self._clock.mono_ns()
        if not self._tasks:
            self._stop.wait()
            return
        queue = [
            (task.timetable.first_due_ns(now_ns, at_once=task.section.start_at_once), position)
            for position, task in enumerate(self._tasks)
        ]
        heapq.heapify(queue)
        while not self._stop.is_set():
            due_ns, position = queue[0]
            now_ns = self._clock.mono_ns()
            if due_ns > now_ns:
                self._stop.wait((due_ns - now_ns) / NANOSECONDS_PER_SECOND)
                continue
            task = self._tasks[position]
            if task.running:
                task.timetable.missed += 1
            elif self._pool is not None:
                task.running = True
                self._pool.submit(self._run_test, task, due_ns)
            heapq.heapreplace(queue, (task.timetable.next_due_ns(due_ns, now_ns), position))

    def _run_test(self, task: _Task, due_ns: int) -> None:
        try:
            # A modem manager that hangs must not hold up the other tests, which the gate would.
            self._line(task)
            with self._gate.enter(exclusive=task.exclusive):
                if self._stop.is_set():
                    return
                lag_seconds = (self._clock.mono_ns() - due_ns) / NANOSECONDS_PER_SECOND
                record = self._measure(task)
            with self._spool_lock:
                self._spool.append(record)
            with self._counts.lock:
                self._counts.tests += 1
                if not task.exclusive:  # a heavy test waits for its turn on purpose
                    self._counts.lag_seconds_max = max(lag_seconds, self._counts.lag_seconds_max or 0.0)
            task.trouble.ended()
        except NhipError as error:
            self._failed(task, str(error))
        except Exception as error:
            # A fault of ours must not silence the other tasks; it is counted and its trace is kept.
            self._failed(task, f"internal fault: {error!r}", trace=True)
        finally:
            task.running = False

    def _measure(self, task: _Task) -> wire.Record:
        # Found once more: while the test waited for its turn, the SIM may have come back elsewhere.
        context = ProbeContext(clock=self._clock, network=self._line(task), cancelled=self._stop)
        sample = task.probe.measure(task.target, context)
        record = wire.record(
            sample,
            probe_id=self._config.probe_id,
            access=_access(self._config),
            wall_ns=self._clock.wall_ns(),
            keep_singletons=task.section.keep_singletons,
            own_error_share=self._config.own_error_share,
        )
        # The collector needs to know when to miss this series.
        record.parameters["schedule_interval_seconds"] = task.section.interval_seconds
        return record

    def _line(self, task: _Task) -> HostNetwork:
        """The line of the task as it is now; CannotMeasureError without it."""
        return (task.section.network or self._config.network).network(self._modems)

    # Many targets

    def _engine_process(self) -> EngineProcess:
        config, line = self._config, self._config.network
        return EngineProcess(
            config.groups(),
            LineSection(**{key: getattr(line, key) for key in LineSection.__struct_fields__}),
            self._clock,
            self._keep,
            circumstances=Circumstances(
                probe_id=config.probe_id,
                access=_access(config),
                interface=line.interface,
                source_address=line.source,
                own_error_share=config.own_error_share,
            ),
            most_probes_per_second=config.icmp_engine.maximum_probes_per_second,
            on_failure=self._engine_failed,
        )

    def _keep(self, records: list[wire.Record]) -> None:
        """Spool what the engine measured; one that cannot be kept is a test that did not run."""
        for begin in range(0, len(records), _RECORDS_AT_ONCE):
            some = records[begin : begin + _RECORDS_AT_ONCE]
            try:
                with self._spool_lock:
                    self._spool.append_all(some)
                with self._counts.lock:
                    self._counts.tests += len(some)
            except StoreError as error:
                log.error("%d records of groups were not kept: %s", len(some), error)
                with self._counts.lock:
                    self._counts.failed_to_run += len(some)

    def _engine_failed(self, _why: str) -> None:
        with self._counts.lock:
            self._counts.failed_to_run += 1

    def _failed(self, task: _Task, why: str, *, trace: bool = False) -> None:
        task.trouble.happened(why, trace=trace)
        with self._counts.lock:
            self._counts.failed_to_run += 1

    def _task(self, section: TaskSection) -> _Task:
        kind = PROBES.load(section.kind)
        target = next(target for target in self._config.target if target.id == section.target)
        return _Task(
            section=section,
            target=Target(id=target.id, host=target.host, port=target.port, target_class=target.target_class),
            probe=kind(settings(section, section.kind)),
            exclusive=kind.exclusive,
            timetable=Timetable(section.interval_seconds, section.arrival, self._rng),
            trouble=Trouble(f"test {section.kind} towards {target.id}", self._clock, log),
        )

    # Shipping

    def _run_shipping(self, key: str) -> None:
        collector = self._config.collector
        shipper = Shipper(
            collector.url, key, timeout_seconds=collector.timeout_seconds, ca_file=collector.ca_file
        )
        delivery = Delivery(
            probe_id=self._config.probe_id,
            spool=self._spool,
            lock=self._spool_lock,
            shipper=shipper,
            status=self.status,
            most_records=collector.batch_records,
            most_octets=collector.batch_octets,
        )
        failures = 0
        try:
            while True:
                last = self._tests_over.is_set()
                try:
                    drained = self._ship_one(delivery)
                    failures = 0
                    pause = collector.interval_seconds if drained else 0.0
                    last = last and drained
                except ShipError as error:
                    failures += 1
                    with self._counts.lock:
                        self._counts.ship_failures += 1
                    stranger = isinstance(error, StrangerError)
                    pause = retry_seconds(
                        failures,
                        self._rng,
                        error.retry_after_seconds,
                        first_seconds=FIRST_RETRY_OF_A_STRANGER_SECONDS if stranger else FIRST_RETRY_SECONDS,
                    )
                    log.warning("delivery failed, next try in %.1f s: %s", pause, error)
                except StoreError as error:
                    failures += 1
                    pause = retry_seconds(failures, self._rng)
                    log.error("the spool failed: %s", error)
                except Exception:
                    # A fault of ours must not end delivery for good; it is counted and its trace is kept.
                    failures += 1
                    with self._counts.lock:
                        self._counts.ship_failures += 1
                    pause = retry_seconds(failures, self._rng)
                    log.exception("delivery broke")
                if last:
                    return
                self._tests_over.wait(pause)
        finally:
            shipper.close()

    def _ship_one(self, delivery: Delivery) -> bool:
        """Deliver one batch; True when nothing more waits. The lag it told is forgotten."""
        drained, status = delivery.deliver_one()
        with self._counts.lock:
            if status is not None and self._counts.lag_seconds_max == status.schedule_lag_seconds_max:
                self._counts.lag_seconds_max = None
        return drained


def _access(config: AgentConfig) -> Access:
    access = config.access
    return Access(
        operator=access.operator,
        technology=access.technology,
        province=access.province,
        environment=access.environment,
    )
