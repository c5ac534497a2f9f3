"""Starts everything, shows where to look, and at the end holds the measurements against the lab's truth.

::

    lab (namespaces)   server: nhip server       root namespace   collector on 127.0.0.1 and a socket file
                       nine access hosts: nhip probe ──socket file──▶    ▲
                       emulator + recorder ──truth──▶ this process ──────┘ truth file, forecasts

The probes deliver over a socket file because the lab's namespaces reach nothing outside themselves.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import msgspec

from nhip.demo import files, judge, links, truth
from nhip.errors import LabError, NhipError
from nhip.lab.lifecycle import Lab
from nhip.lab.relay import RelayLab
from nhip.lab.state import Service
from nhip.language import Language, text
from nhip.publish import publish_forecasts
from nhip.status import AccessRow, StatusView
from probes.registry import PROBES

AnyLab = Lab | RelayLab

MODEL = "ets"
_TRUTH_EVERY_SECONDS = 2.0
_STOP_SECONDS = 15.0


def require_everything() -> None:
    """Import what the processes of the demo need: a missing extra is told before anything is built."""
    for module in (
        "collector.service",
        "dashboards.web.status",
        "forecasting.models.ets",
        "probes.server.service",
    ):
        import_module(module)
    for kind in PROBES:
        PROBES.load(kind)


@dataclass(slots=True, kw_only=True)
class Demo:
    """One run of the demo."""

    language: Language
    seconds: float | None
    traffic: Path | None
    capacity: str | None
    port: int
    keep: Path | None
    unprivileged: bool
    _stop: threading.Event = field(default_factory=threading.Event)
    _flows: dict[str, truth.KnownFlows] = field(default_factory=dict)
    _children: list[tuple[str, subprocess.Popen[bytes]]] = field(default_factory=list)
    _accesses: list[files.AccessPlan] = field(default_factory=list)
    _forecast_failure: str = ""
    _variant: files.Variant = files.NAMESPACES

    def run(self) -> int:
        """Exit code: 0 all within tolerance or ended by hand, 1 something was not, 2 could not run."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._stop.set())
        with self._folder() as folder, self._lab(folder) as lab:
            try:
                return self._run(folder, lab)
            finally:
                self._end(list(self._children))

    def _run(self, folder: Path, lab: AnyLab) -> int:
        self._say("starting", name=lab.name)
        port = self.port or _free_port()
        self._accesses = [self._access(lab, link) for link in lab.plan.links if link.operator]
        forecast_key, truth_file = files.new_key(), folder / "truth.json"
        self._write_files(folder, lab, port, forecast_key, truth_file)
        url = f"http://127.0.0.1:{port}"
        self._start_services(folder, lab, url)
        started = time.monotonic()
        forecasting = threading.Thread(
            target=self._forecast, args=(lab, url, forecast_key), name="forecast", daemon=True
        )
        forecasting.start()
        self._say("look", url=url)
        self._watch(lab, url, truth_file, started)
        if self.seconds is None:
            return 0
        forecasting.join(timeout=max(60.0, self.seconds))
        return self._judge(lab, url, truth_file)

    # Preparing

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Path]:
        if self.keep is not None:
            self.keep.mkdir(parents=True, exist_ok=True)
            yield self.keep.resolve()
            return
        with tempfile.TemporaryDirectory(prefix="nhip-demo-") as folder:
            yield Path(folder)

    @contextlib.contextmanager
    def _lab(self, folder: Path) -> Iterator[AnyLab]:
        lab = self._new_lab(folder)
        try:
            lab.up()
            yield lab
        finally:
            lab.down()

    def _new_lab(self, folder: Path) -> AnyLab:
        name = f"demo{os.getpid()}"
        if self.unprivileged or os.geteuid() != 0:
            self._say("unprivileged")
            self._variant = files.LOOPBACK
            services = (Service("udp", self._variant.stamp_port), Service("tcp", files.FILE_PORT))
            return RelayLab(name, state_dir=folder / "lab", services=services)
        return Lab(name, state_dir=folder / "lab")

    def _access(self, lab: AnyLab, link: Any) -> files.AccessPlan:
        return files.AccessPlan(
            host=link.id,
            operator=link.operator,
            technology=link.technology,
            province=files.PROVINCES.get(link.operator, files.DEFAULT_PROVINCE),
            down_bits_per_second=link.down.rate_bits_per_second or 1e9,
            up_bits_per_second=link.up.rate_bits_per_second or 1e9,
            server_address=lab.server_address(link.id),
            international_address=lab.address("intl") if self._variant.international else None,
            variant=self._variant,
            key=files.new_key(),
        )

    def _write_files(self, folder: Path, lab: AnyLab, port: int, forecast_key: str, truth_file: Path) -> None:
        (folder / "spool").mkdir(exist_ok=True)
        configuration = files.collector_toml(
            folder, self._accesses, port=port, forecast_key=forecast_key, truth_file=truth_file
        )
        (folder / "collector.toml").write_text(configuration, encoding="utf-8")
        server = files.server_toml(lab.address("server"), self._variant)
        (folder / "server.toml").write_text(server, encoding="utf-8")
        truth.write(truth_file, [])
        for access in self._accesses:
            key_file = folder / f"{access.host}.key"
            key_file.touch(mode=0o600)
            key_file.write_text(access.key, encoding="ascii")
            (folder / f"{access.host}.toml").write_text(files.probe_toml(folder, access), encoding="utf-8")

    def _start_services(self, folder: Path, lab: AnyLab, url: str) -> None:
        nhip = [sys.executable, "-m", "nhip.cli"]
        collector = [*nhip, "collector", "--config", str(folder / "collector.toml")]
        with (folder / "collector.log").open("wb") as log:
            self._children.append(("collector", subprocess.Popen(collector, stderr=log, stdout=log)))
        self._start(
            folder, lab, "server", "server", [*nhip, "server", "--config", str(folder / "server.toml")]
        )
        self._wait_for(url, folder)
        for access in self._accesses:
            command = [*nhip, "probe", "--config", str(folder / f"{access.host}.toml")]
            self._start(folder, lab, access.host, access.host, command)

    def _start(self, folder: Path, lab: AnyLab, name: str, host: str, command: Sequence[str]) -> None:
        with (folder / f"{name}.log").open("wb") as log:
            self._children.append((name, lab.popen(host, list(command), stdout=log, stderr=log)))

    def _wait_for(self, url: str, folder: Path) -> None:
        deadline = time.monotonic() + 30
        while not self._stop.wait(0.1):
            self._check_children(folder)
            try:
                with urllib.request.urlopen(f"{url}/-/ready", timeout=2):  # noqa: S310 - our own address
                    return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise LabError(
                        "the collector did not become ready", remedy=_log_tail(folder, "collector")
                    ) from error

    # Running

    def _watch(self, lab: AnyLab, url: str, truth_file: Path, started: float) -> None:
        """Refresh the truth until told to stop or the time is up; say when every figure is there."""
        complete = False
        while not self._stop.wait(_TRUTH_EVERY_SECONDS):
            self._write_truth(lab, truth_file)
            self._check_children(truth_file.parent)
            elapsed = time.monotonic() - started
            if not complete and _is_complete(self._rows(url)):
                complete = True
                self._say("complete", seconds=f"{elapsed:.0f}")
            if self.seconds is not None and elapsed >= self.seconds:
                return

    def _write_truth(self, lab: AnyLab, truth_file: Path) -> None:
        document = lab.truth()
        since_wall_ns = document.written_wall_ns - round(files.WINDOW_SECONDS * 1e9)
        truth.write(
            truth_file,
            [
                truth.access_truth(
                    self._flows.setdefault(access.host, truth.KnownFlows()).completed(
                        document.link(access.host)
                    ),
                    lab.singletons(access.host, since_wall_ns=since_wall_ns),
                    destination=lab.address("server"),
                    kinds=self._variant.truth_kinds,
                    count=files.PACKETS,
                )
                for access in self._accesses
            ],
        )

    def _forecast(self, lab: AnyLab, url: str, key: str) -> None:
        try:
            if self.traffic is not None:
                found = links.real_forecasts(self.traffic, self.capacity, MODEL)
            else:
                now = datetime.datetime.now(datetime.UTC)
                found = links.simulated_forecasts(lab.plan.links, MODEL, now)
            publish_forecasts(url, key, found)
        except NhipError as error:
            self._forecast_failure = str(error)
            click.echo(f"nhip: {error}", err=True)

    def _judge(self, lab: AnyLab, url: str, truth_file: Path) -> int:
        """Stop the probes, let what they have arrive, and compare."""
        probes = [child for child in self._children if child[0] not in ("collector", "server")]
        self._end(probes)
        # A request without an answer is called lost by the lab after three seconds.
        deadline = time.monotonic() + 5
        while any(trip.waiting for link in lab.truth().links for trip in link.round_trips):
            if time.monotonic() > deadline or self._stop.wait(0.2):
                break
        self._write_truth(lab, truth_file)
        view = self._view(url)
        found = judge.findings(view.accesses)
        click.echo("\n" + judge.summary(found, self.language) + "\n")
        for link in view.links:
            click.echo(_crossing(link, self.language))
        if judge.succeeded(found) and view.links and not self._forecast_failure:
            self._say("within")
            return 0
        self._say("outside" if view.links else "no_forecast")
        return 1

    def _view(self, url: str) -> StatusView:
        with urllib.request.urlopen(f"{url}/api/v1/status", timeout=10) as answer:  # noqa: S310 - our own address
            return msgspec.json.decode(answer.read(), type=StatusView)

    def _rows(self, url: str) -> tuple[AccessRow, ...]:
        try:
            return self._view(url).accesses
        except (OSError, msgspec.MsgspecError):
            return ()

    # Ending

    def _check_children(self, folder: Path) -> None:
        for name, child in self._children:
            if child.poll() is not None:
                raise LabError(f"{name} ended with code {child.returncode}", remedy=_log_tail(folder, name))

    def _end(self, children: list[tuple[str, subprocess.Popen[bytes]]]) -> None:
        for _name, child in children:
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for entry in children:
            try:
                entry[1].wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                entry[1].kill()
                entry[1].wait()
            self._children.remove(entry)

    def _say(self, word: str, **values: str) -> None:
        click.echo(_WORDS[word][self.language].format(**values))


_WORDS = {
    "starting": text("Đang dựng phòng thí nghiệm {name} …", "Building the lab {name} …"),
    "look": text(
        "Trang trạng thái: {url}/vi   (số đo: {url}/metrics; Ctrl-C để kết thúc)",
        "Status page: {url}/en   (metrics: {url}/metrics; Ctrl-C ends)",
    ),
    "complete": text(
        "Mọi truy nhập đã có số đo sau {seconds} giây.",
        "Every access has its figures after {seconds} seconds.",
    ),
    "within": text(
        "Mọi số đo nằm trong dung sai so với sự thật của phòng thí nghiệm.",
        "Every figure is within its tolerance of the lab's truth.",
    ),
    "outside": text(
        "Có số đo nằm ngoài dung sai hoặc còn thiếu.",
        "Some figure is outside its tolerance or missing.",
    ),
    "no_forecast": text("Thiếu dự báo của các kênh.", "The forecasts of the links are missing."),
    "unprivileged": text(
        "Không có quyền root: dùng phòng thí nghiệm qua loopback, ít hiệu ứng hơn "
        "(không có ICMP, không mất gói TCP).",
        "No root: using the loopback lab, which has fewer effects (no ICMP, no loss for TCP).",
    ),
}


def _crossing(link: Any, language: Language) -> str:
    """One line on a link: when it reaches each limit."""
    words = {
        "already_over": text("đã vượt", "already over"),
        "never": text("không chạm trong kỳ dự báo", "not within the horizon"),
        "no_capacity": text("chưa biết dung lượng", "capacity unknown"),
    }
    parts = []
    for limit in link.limits:
        when = limit.median_date if limit.verdict == "crosses" else words[limit.verdict][language]
        parts.append(f"{limit.rule_id} {when}")
    simulated = text("mô phỏng", "simulated")[language] if link.provenance == "simulated" else link.provenance
    return f"{link.link_id:<14} [{simulated}] {'; '.join(parts)}"


def _is_complete(rows: Sequence[AccessRow]) -> bool:
    return bool(rows) and all(
        None not in (row.delay_seconds, row.loss_ratio, row.down_bits_per_second, row.up_bits_per_second)
        and row.truth is not None
        and None
        not in (row.truth.delay_seconds, row.truth.down_bits_per_second, row.truth.up_bits_per_second)
        for row in rows
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _log_tail(folder: Path, name: str) -> str:
    try:
        lines = (folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "its last words: " + " | ".join(lines[-3:])
