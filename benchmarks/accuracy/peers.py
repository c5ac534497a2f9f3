"""The four peers from Debian, each asked in its own way for every delay it can tell.

================== ===========================================================================
fping              ``-C``: a text of three significant digits for each probe; the rounding is
                   part of what it says
irtt               JSON with nanoseconds; takes the server's processing time out, as STAMP does
blackbox exporter  one scrape of ``/probe`` for each probe; ``phase="rtt"`` of the icmp prober
smokeping_prober   a histogram: only the mean (sum ÷ count) and two counters can be compared
================== ===========================================================================
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import re
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.accuracy.line import MANY, Line
from benchmarks.accuracy.processes import child
from benchmarks.accuracy.said import Plan, Program, Said
from benchmarks.accuracy.truth import IRTT_PORT
from nhip.lab.namespace import inside

_BLACKBOX_PORT, _SMOKEPING_PORT = 9115, 9374
# A scrape costs a few hundred microseconds; slower than the others so that the exporter, not we, is judged.
_SCRAPE_INTERVAL_SECONDS = 0.02
_SCRAPERS = 12
_SMOKEPING_INTERVAL_SECONDS = 0.01
_READY_SECONDS = 10.0


def programs() -> list[Program]:
    """The four, whether installed or not."""
    return [
        Program("fping", fping, "fping", "fping", note="-C, three significant digits"),
        Program("irtt", irtt, "irtt", "irtt", excludes_turnaround=True),
        Program(
            "blackbox",
            blackbox,
            "prometheus-blackbox-exporter",
            "prometheus-blackbox-exporter",
            note='icmp prober, phase="rtt", one scrape each',
        ),
        Program(
            "smokeping",
            smokeping,
            "prometheus-smokeping-prober",
            "prometheus-smokeping-prober",
            note="tells only a mean (sum ÷ count): no error of single probes",
        ),
    ]


def present(program: Program) -> bool:
    """Whether its command is on this machine."""
    return not program.command or shutil.which(program.command) is not None


def fping(line: Line, plan: Plan) -> Said:
    """Echoes to one address; the n-th word of its line is the n-th probe."""
    done = subprocess.run(
        line.enter(
            "near",
            [
                *("fping", "-q", "-C", str(plan.count), "-i", "1"),
                *("-p", f"{plan.interval_seconds * 1000:g}", "-t", f"{plan.loss_threshold_seconds * 1000:g}"),
                line.far_address,
            ],
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    return fping_said(done.stderr)


def fping_said(text: str) -> Said:
    """The account in ``198.18.1.1 : 0.02 - 0.03``: milliseconds, or ``-`` for a lost probe."""
    words = text.strip().splitlines()[-1].partition(" : ")[2].split()
    return Said(
        by="order",
        sent=len(words),
        lost=words.count("-"),
        delays_ns={order: float(word) * 1e6 for order, word in enumerate(words) if word != "-"},
    )


def irtt(line: Line, plan: Plan) -> Said:
    """A session with an irtt server that runs on the far host for as long."""
    server = line.enter("far", ["irtt", "server", "-b", f"{line.far_address}:{IRTT_PORT}", "-i", "0"])
    with child(server) as served:
        served.wait_for_text("starting", _READY_SECONDS)
        done = subprocess.run(
            line.enter(
                "near",
                [
                    *("irtt", "client", "-Q", "-o", "-", "-i", f"{plan.interval_seconds * 1e6:.0f}us"),
                    *("-d", f"{plan.seconds * 1e6:.0f}us"),
                    f"--wait={plan.loss_threshold_seconds * 1e3:.0f}ms",
                    "--timeouts=300ms,300ms,300ms,300ms,300ms,300ms",
                    f"{line.far_address}:{IRTT_PORT}",
                ],
            ),
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0 and not done.stdout:
        raise RuntimeError(f"irtt: {done.stderr.strip()}")
    return irtt_said(done.stdout)


def irtt_said(text: str) -> Said:
    """The account in irtt's JSON."""
    trips = json.loads(text)["round_trips"]
    delays = {trip["seqno"]: trip["delay"]["rtt"] for trip in trips if trip["lost"] == "false"}
    return Said(by="sequence", sent=len(trips), lost=len(trips) - len(delays), delays_ns=delays)


def blackbox(line: Line, plan: Plan) -> Said:
    """Scrapes at a fixed pace, each towards another address of the far host, which names its packet."""
    scrapes = min(250, max(20, round(plan.seconds / _SCRAPE_INTERVAL_SECONDS)))
    module = (
        f"modules: {{icmp: {{prober: icmp, timeout: {plan.loss_threshold_seconds}s, "
        "icmp: {preferred_ip_protocol: ip4}}}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "blackbox.yml")
        config.write_text(module, encoding="ascii")
        exporter = [
            "prometheus-blackbox-exporter",
            f"--config.file={config}",
            f"--web.listen-address=127.0.0.1:{_BLACKBOX_PORT}",
            "--log.level=error",
        ]
        with inside(line.near), child(line.enter("near", exporter)) as running:
            running.wait_for_port(_BLACKBOX_PORT, _READY_SECONDS)
            answers = _scrape_all(scrapes)
    delays = {far: ns for far, ns in answers.items() if ns is not None}
    return Said(by="far", sent=scrapes, lost=scrapes - len(delays), delays_ns=delays)


def _scrape_all(scrapes: int) -> dict[int | str, float | None]:
    """The delay each scrape told, by the address probed. The calling thread stands on the near host."""
    answers: dict[int | str, float | None] = {}
    numbers = itertools.count()
    begin = time.monotonic()

    def scrape() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", _BLACKBOX_PORT, timeout=5)
        with contextlib.closing(connection):
            while (number := next(numbers)) < scrapes:
                time.sleep(max(0.0, begin + number * _SCRAPE_INTERVAL_SECONDS - time.monotonic()))
                far = f"{MANY}.{number + 1}"
                connection.request("GET", f"/probe?module=icmp&target={far}")
                answers[far] = blackbox_said(connection.getresponse().read().decode())

    threads = [threading.Thread(target=scrape) for _ in range(_SCRAPERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def blackbox_said(page: str) -> float | None:
    """Nanoseconds of the rtt phase; `None` where the probe failed."""
    success = re.search(r"^probe_success (\S+)$", page, re.MULTILINE)
    rtt = re.search(r'^probe_icmp_duration_seconds\{phase="rtt"\} (\S+)$', page, re.MULTILINE)
    if success is None or rtt is None or float(success[1]) != 1:
        return None
    return float(rtt[1]) * 1e9


def smokeping(line: Line, plan: Plan) -> Said:
    """One scrape at the end of a run; what is in flight then counts as it counts it."""
    prober = [
        "prometheus-smokeping-prober",
        f"--ping.interval={_SMOKEPING_INTERVAL_SECONDS * 1000:g}ms",
        f"--web.listen-address=127.0.0.1:{_SMOKEPING_PORT}",
        "--config.file=",
        "--log.level=error",
        line.far_address,
    ]
    with inside(line.near), child(line.enter("near", prober)) as running:
        running.wait_for_port(_SMOKEPING_PORT, _READY_SECONDS)
        time.sleep(plan.seconds)
        connection = http.client.HTTPConnection("127.0.0.1", _SMOKEPING_PORT, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            page = connection.getresponse().read().decode()
    return smokeping_said(page)


def smokeping_said(page: str) -> Said:
    """The account in its metrics: requests, responses and the sum of their delays."""

    def value(name: str) -> float:
        found = re.search(rf"^smokeping_{name}\{{[^}}]*\}} (\S+)$", page, re.MULTILINE)
        return float(found[1]) if found else 0.0

    requests, responses = int(value("requests_total")), int(value("response_duration_seconds_count"))
    mean = (responses, value("response_duration_seconds_sum") / responses * 1e9) if responses else None
    return Said(by="order", sent=requests, lost=requests - responses, mean=mean)
