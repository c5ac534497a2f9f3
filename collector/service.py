"""The collector put together: store, state, ingest, forecasts, verdicts and the HTTP side over them.

Started in the order in which they need each other and closed in the opposite one, so that a batch accepted
just before the end is still written and acknowledged.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn

from collector import discovery
from collector.collector_config import CollectorConfig, declared_bits_per_second, profile_path
from collector.connection import Gate, protocol_behind
from collector.directory import sole_user_of
from collector.export.prometheus import Exporter
from collector.forecasts import Forecasts
from collector.http import Application
from collector.ingest import Delivery, Ingest
from collector.kpi.profile import RegulationProfile
from collector.kpi.tally import Tally
from collector.lab_truth import read_truth
from collector.logs import log_to
from collector.state import LONGEST_INTERVAL_SECONDS, State
from collector.status_view import status_view
from collector.store.api import Store
from collector.store.registry import STORES
from nhip import config as toml
from nhip.clock import Clock, SystemClock
from nhip.errors import ConfigError, NhipError, StoreError
from nhip.measurement import Direction, Technology
from nhip.status import Render, StatusView

log = logging.getLogger("nhip.collector")

_DAY_NS = 86_400 * 1_000_000_000
SEEN_KEPT_SECONDS = 60
"""How often it is put on disk when probes were last heard."""
SIGNAL_SECONDS = 0.5
"""How long a signal to end may go unnoticed."""
CLOSING_SECONDS = 10
"""How long requests that are being answered may take when the collector closes."""


class Collector:
    """One collector; `start` returns when it answers, `close` when all it accepted is on disk."""

    def __init__(self, config: CollectorConfig, clock: Clock, render: Render) -> None:
        self.config = config
        self.port: int | None = None
        """The TCP port listened on, once started; the one the system chose when 0 was asked for."""
        self._clock = clock
        self._render = render
        self._directory = Path(config.data_dir)
        self._closing = contextlib.ExitStack()
        self._stopped = threading.Event()
        self._ready = False
        self._seen_kept_mono_ns = clock.mono_ns()
        self.store: Store = STORES.load(config.store.name)(self._directory, config.store)
        self.state = State(config.probes, config.limits, config.status, clock)
        self.forecasts = Forecasts(self._directory, clock, ahead_seconds=config.limits.record_ahead_seconds)
        self.ingest = Ingest(config.limits, self.store, self._directory, clock, self._observe)
        self.tally: Tally | None = None

    def start(self) -> None:
        """Begin to answer; ConfigError, StoreError, and nothing is left running after either."""
        with contextlib.ExitStack() as undo:
            self._start(undo)
            self._closing = undo.pop_all()
        self._ready = True
        log.info("collector started", extra={"port": self.port, "store": self.config.store.name})

    def close(self) -> None:
        """Stop taking batches, write what was taken, let go of everything; harmless when not started."""
        self._ready = False
        self._stopped.set()
        self._closing.close()

    def view(self) -> StatusView:
        """What the status page shows now."""
        truth = read_truth(Path(self.config.truth_file)) if self.config.truth_file else {}
        return status_view(
            self.config,
            self._clock,
            self.state.snapshot(observations=True),
            self.tally,
            self.forecasts.current(),
            truth,
            self.store.counts(),
        )

    def _start(self, undo: contextlib.ExitStack) -> None:
        self._stopped.clear()
        self.tally = self._make_tally()
        undo.enter_context(sole_user_of(self._directory))
        undo.callback(self.store.close)
        self.store.start()
        undo.callback(self.forecasts.close)
        self.forecasts.start()
        self._restore(undo)
        undo.callback(self._keep_seen)
        undo.callback(self.ingest.close)
        self.ingest.start()
        self._serve(undo)

    def _restore(self, undo: contextlib.ExitStack) -> None:
        """The window before the first request; behind it what reaches further back and takes longer."""
        now_wall_ns = self._clock.wall_ns()
        end_wall_ns = now_wall_ns + round(self.config.limits.record_ahead_seconds * 1e9) + 1
        start_wall_ns = now_wall_ns - round(self.config.status.window_seconds * 1e9)
        self.state.restore(self.store.records(start_wall_ns, end_wall_ns), window=True)
        self.state.restore_seen(self.store.last_seen())
        reader = threading.Thread(
            target=self._restore_older, args=(now_wall_ns,), name="nhip-restore", daemon=True
        )
        undo.callback(reader.join)
        undo.callback(self._stopped.set)
        reader.start()

    def _restore_older(self, before_wall_ns: int) -> None:
        """Results that are still valid, then the period of the verdicts day by day.

        What came after the start is left out: it has been observed as it came.
        """
        oldest_valid_ns = round(self.config.status.expire_intervals * LONGEST_INTERVAL_SECONDS * 1e9)
        try:
            self.state.restore(self.store.latest(max(0, before_wall_ns - oldest_valid_ns)), window=False)
            if self.tally is not None:
                self._restore_tally(self.tally, before_wall_ns)
        except Exception:
            log.exception("pages rest on less than is stored")

    def _restore_tally(self, tally: Tally, before_wall_ns: int) -> None:
        kinds = sorted({kind for indicator in tally.profile.indicators for kind in indicator.kinds})
        first_wall_ns = max(0, tally.since_wall_ns())
        for day_wall_ns in range(first_wall_ns, before_wall_ns + _DAY_NS, _DAY_NS):
            for kind in kinds:
                for entry in self.store.records(day_wall_ns, day_wall_ns + _DAY_NS, kind=kind):
                    if self._stopped.is_set():
                        return
                    if entry.received_wall_ns < before_wall_ns:
                        tally.observe([entry.record])

    def _make_tally(self) -> Tally | None:
        path = profile_path(self.config)
        if path is None:
            return None
        tally = Tally(
            toml.load(path, RegulationProfile),
            self.config.status.verdict_days,
            self._declared,
            self._clock,
        )
        tally.expect(
            (probe.operator, technology, probe.province)
            for probe in self.config.probes
            for technology in probe.technologies
        )
        return tally

    def _declared(self, operator: str, technology: Technology, direction: Direction) -> float | None:
        """The declared speed a verdict rests on; None when its probes stand on lines declared differently."""
        speeds = {
            declared_bits_per_second(self.config, probe, technology, direction)
            for probe in self.config.probes
            if probe.operator == operator and technology in probe.technologies
        }
        return speeds.pop() if len(speeds) == 1 else None

    def _observe(self, delivery: Delivery) -> None:
        self.state.observe(delivery)
        if self.tally is not None:
            self.tally.observe(entry.record for entry in delivery.stored)
        if delivery.received_mono_ns - self._seen_kept_mono_ns >= SEEN_KEPT_SECONDS * 1_000_000_000:
            self._keep_seen()

    def _keep_seen(self) -> None:
        """Put on disk when each probe was last heard, also one that has sent no record for months."""
        self._seen_kept_mono_ns = self._clock.mono_ns()
        try:
            self.store.remember_seen(self.state.last_seen())
        except StoreError as error:  # No record hangs on it, and the next round may succeed.
            log.warning("when probes were last heard could not be kept: %s", error)

    def _serve(self, undo: contextlib.ExitStack) -> None:
        listeners = _listeners(self.config, undo)
        self.port = listeners[0].getsockname()[1]
        counters = self.ingest.counters
        application = Application(
            self.config,
            self.ingest,
            self.forecasts,
            Exporter(
                self.config,
                self.state.snapshot,
                lambda: counters,
                self.store.counts,
                self.forecasts.current,
                self._clock,
            ),
            self.view,
            partial(discovery.groups, self.config, self.port),
            lambda: self._ready,
            self._render,
        )
        limits = self.config.limits
        gate = Gate(limits, lambda reason: counters.refused.update((reason,)))
        server = uvicorn.Server(
            uvicorn.Config(
                application,
                http=protocol_behind(gate),
                loop="uvloop",
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=round(limits.idle_seconds),
                timeout_graceful_shutdown=CLOSING_SECONDS,
                backlog=min(limits.connections, 1024),
            )
        )
        thread = threading.Thread(target=server.run, args=(listeners,), name="nhip-http", daemon=True)
        undo.callback(thread.join)
        undo.callback(setattr, server, "should_exit", True)
        thread.start()
        while not server.started:
            thread.join(0.01)
            if not thread.is_alive():
                raise NhipError("the HTTP server ended at its start", remedy="see the log")


def run(config: CollectorConfig, render: Render) -> None:
    """Collect until SIGTERM or SIGINT; on return everything acknowledged and accepted is on disk."""
    log_to()
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    mask_before = os.umask(0o077)  # also for the archive's files, which are not made here
    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    collector = Collector(config, SystemClock(), render)
    try:
        collector.start()
        # Not for ever at once: a signal that comes just before the wait begins would go unnoticed by it.
        while not ended.wait(SIGNAL_SECONDS):
            pass
        log.info("collector closing")
    finally:
        collector.close()
        for number, handler in before.items():
            signal.signal(number, handler)
        os.umask(mask_before)
    log.info("collector closed")


def _listeners(config: CollectorConfig, undo: contextlib.ExitStack) -> list[socket.socket]:
    listen = config.listen
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        tcp = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind((listen.host, listen.port))
        tcp.listen(1024)
    except OSError as error:
        raise ConfigError(
            f"listen: {listen.host}:{listen.port}: {error.strerror or error}",
            remedy="choose a free port on an address of this host",
        ) from error
    if listen.unix_socket is None:
        return [tcp]
    path = Path(listen.unix_socket)
    try:
        # What is left there belonged to a collector that was killed: the data directory is ours alone.
        if path.is_socket():
            path.unlink()
        local = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        local.bind(str(path))
        local.listen(1024)
        undo.callback(path.unlink, missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"listen.unix_socket: {listen.unix_socket!r}: {error.strerror or error}",
            remedy="name a path this user may write, shorter than 108 octets",
        ) from error
    return [tcp, local]
