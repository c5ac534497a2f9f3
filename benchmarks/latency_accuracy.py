"""How far our round-trip delays are from the truth, beside four peers in the same run.

Two hosts (network namespaces) are joined by an emulated link of a stated round-trip delay and loss, or by a
bare veth pair where both are 0. Captures stamped by the kernel at both ends tell the truth about every
single probe (benchmarks/accuracy/truth.py); the error is what a program says less that. Each program runs
alone, on an idle host and beside two loops of normal priority on each processor that never sleep ("hogs").

Needs root and iproute2. Peers that are absent are named and left out::

    apt-get install --no-install-recommends fping irtt prometheus-blackbox-exporter \\
        prometheus-smokeping-prober
    python -m benchmarks.latency_accuracy [--quick] [--delays 0,5,20,80] [--losses 0,0.01,0.1]
        [--loads idle,hogs] [--count 400] [--programs nhip,fping]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from benchmarks.accuracy import ours, peers
from benchmarks.accuracy.figures import Figures, Standing, Weight, figures, standing, weight
from benchmarks.accuracy.goals import Condition, Run, verdicts
from benchmarks.accuracy.line import Line, line
from benchmarks.accuracy.processes import hogs, reflector
from benchmarks.accuracy.said import Plan, Program
from benchmarks.accuracy.truth import watched
from nhip.errors import LabError
from nhip.lab.capture import Capture
from nhip.lab.namespace import check_can_build

LOADS = {"idle": 0, "hogs": 2}
INTERVAL_SECONDS = 0.004
EXTRA_TAPS = 7
_SETTLE_SECONDS = 0.05


class Report:
    """All runs of this command as they come, and what may falsify them."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.standings: list[tuple[Run, Standing]] = []
        self.weights: list[Weight] = []
        self.missed = 0
        self.checked = self.disagreed = 0


def main() -> None:
    """Measure and print."""
    options = _options()
    try:
        check_can_build()
    except LabError as error:
        sys.exit(str(error))
    # Ending politely must take the namespaces and the busy loops along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    programs = [
        program
        for program in (*ours.programs(), *peers.programs())
        if any(program.name.startswith(name) for name in options.programs)
    ]
    absent = [program for program in programs if not peers.present(program)]
    programs = [program for program in programs if program not in absent]
    began = time.monotonic()
    report = Report()
    plan = Plan(options.count, INTERVAL_SECONDS)
    _print_head(plan, programs, absent)
    for emulated in (False, True):
        cells = [
            (delay_ms, loss_ratio)
            for delay_ms in options.delays
            for loss_ratio in options.losses
            if (delay_ms > 0 or loss_ratio > 0) is emulated
        ]
        if cells:
            _measure_line(emulated, cells, options.loads, programs, plan, report)
    _print_end(report, time.monotonic() - began)


def _measure_line(
    emulated: bool,
    cells: Sequence[tuple[float, float]],
    loads: Sequence[str],
    programs: Sequence[Program],
    plan: Plan,
    report: Report,
) -> None:
    with line(emulated=emulated) as made, reflector(lambda argv: made.enter("far", argv)):
        for delay_ms, loss_ratio in cells:
            made.set(delay_ms / 1000, loss_ratio)
            for load in loads:
                runs = []
                with hogs(LOADS[load]):
                    for program in programs:
                        runs.append(_run(made, Condition(delay_ms, loss_ratio, load), program, plan, report))
                        _print_run(runs[-1])
                    if not emulated and any(program.name == "nhip icmp" for program in programs):
                        report.weights += [_weigh(made, load, taps, plan) for taps in (0, EXTRA_TAPS)]
                _print_ratio(runs)


def _run(made: Line, condition: Condition, program: Program, plan: Plan, report: Report) -> Run:
    time.sleep(_SETTLE_SECONDS + condition.delay_ms / 1000)
    before = made.dropped()
    try:
        with watched(made.near_end, made.far_end) as truth:
            said = program.run(made, plan)
            time.sleep(condition.delay_ms / 1000)
    except (RuntimeError, OSError, ValueError) as error:
        return _kept(report, Run(condition, program.name, None, str(error)))
    after = made.dropped()
    report.missed += truth.missed
    found = figures(said, truth, excludes_turnaround=program.excludes_turnaround)
    # Packets that are no probes may be lost too (irtt's opening), so only nhip's runs can be compared.
    if before is not None and after is not None and program.name.startswith("nhip"):
        report.checked += 1
        report.disagreed += after - before != truth.lost
    run = _kept(report, Run(condition, program.name, found))
    where = standing(said, truth, excludes_turnaround=program.excludes_turnaround)
    if where is not None and not made.emulated:
        report.standings.append((run, where))
    return run


def _weigh(made: Line, load: str, extra_taps: int, plan: Plan) -> Weight:
    """What nhip and the capture say when the capture is not the only tap at the prober's interface."""
    with contextlib.ExitStack() as stack:
        for _ in range(extra_taps):
            tap = Capture(*made.near_end)
            stack.callback(tap.close)
            tap.start()
        with watched(made.near_end, made.far_end) as truth:
            said = ours.icmp(made, plan)
    return weight(load, extra_taps, said, truth)


def _kept(report: Report, run: Run) -> Run:
    report.runs.append(run)
    return run


def _print_head(plan: Plan, programs: Sequence[Program], absent: Sequence[Program]) -> None:
    print(
        f"{time.strftime('%Y-%m-%d %H:%M')}, Linux {platform.release()}, {os.cpu_count()} processors", end=""
    )
    print(f", load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}")
    print(f"{plan.count} probes {plan.interval_seconds * 1000:g} ms apart a run; ", end="")
    print(f"lost after {plan.loss_threshold_seconds:g} s; blackbox every 20 ms, smokeping every 10 ms")
    for program in programs:
        version = f" {_version(program)}" if program.package else ""
        print(f"  {program.name}{version}: {program.note or 'JSON, server time taken out'}")
    for program in absent:
        print(f"  {program.name}: absent (apt-get install --no-install-recommends {program.package})")
    print("error = said − true in µs; p50, p99 and max of |error|; lost: said / true\n", flush=True)
    print(f"{'RTT ms':>6} {'loss':>5} {'load':<5} {'program':<14}{'sent':>6}{'replies':>8}", end="")
    print(f"{'bias':>10}{'p50':>9}{'p99':>10}{'max':>11}  lost")


def _print_run(run: Run) -> None:
    condition = run.condition
    print(
        f"{condition.delay_ms:>6g} {condition.loss_ratio:>5.0%} {condition.load:<5} {run.program:<14}", end=""
    )
    found = run.figures
    if found is None:
        print(f"  no figures: {run.failure}", flush=True)
        return
    print(f"{found.sent:>6}{found.judged:>8}{_shown(found.bias_us, 10)}{_shown(found.p50_us, 9)}", end="")
    print(
        f"{_shown(found.p99_us, 10)}{_shown(found.max_us, 11)}  {found.lost_said}/{found.lost_true}", end=""
    )
    print(" (!)" if found.lost_said != found.lost_true else "", end="")
    print(f", {found.unmatched} unmatched" if found.unmatched else "", flush=True)


def _print_ratio(runs: Sequence[Run]) -> None:
    by_name = {run.program: run.figures for run in runs}
    mine, theirs = by_name.get("nhip icmp"), by_name.get("fping")
    if mine and theirs and mine.p99_us is not None and theirs.p99_us:
        condition = runs[0].condition
        print(f"{condition.delay_ms:>6g} {condition.loss_ratio:>5.0%} {condition.load:<5} ", end="")
        print(f"nhip ÷ fping  p99 {mine.p99_us / theirs.p99_us:.2f}", flush=True)


def _print_end(report: Report, seconds: float) -> None:
    _print_levels(report.runs)
    _print_claims(report.runs)
    _print_shares(report.runs)
    _print_standings(report.standings)
    _print_weights(report.weights)
    print("\nthe truth: ", end="")
    print(f"{report.missed} packets missed by the captures", end="")
    if report.checked:
        print("; the emulator dropped as many as the captures missed answers in ", end="")
        print(f"{report.checked - report.disagreed} of {report.checked} of nhip's runs", end="")
    print("\n\ngoals (the worst run decides)")
    for verdict in verdicts(report.runs):
        word = "met    " if verdict.is_met else "NOT met"
        print(f"  {word} {verdict.goal}: {verdict.met} of {verdict.of} runs; worst {verdict.worst}")
    print(f"took {seconds:.0f} s")


def _print_levels(runs: Sequence[Run]) -> None:
    print("\nstamps nhip's delays rest on (departure/arrival)")
    for name, found in _by_program(runs):
        levels = sum((one.levels for one in found), start=found[0].levels.__class__())
        print(f"  {name:<14} " + ", ".join(f"{level} {count}" for level, count in levels.most_common()))


def _print_claims(runs: Sequence[Run]) -> None:
    print("\nown error claimed by nhip, against the real one")
    for name, found in _by_program(runs):
        claims = [one for one in found if one.honest is not None]
        if not claims:
            print(f"  {name:<14} makes no claim")
            continue
        within, of = (sum(one.honest[place] for one in claims if one.honest) for place in (0, 1))
        worst = max((one.claimed_p99_us for one in claims if one.claimed_p99_us is not None), default=None)
        middle = sorted(one.claimed_p50_us for one in claims if one.claimed_p50_us is not None)
        print(f"  {name:<14} real error within the claim in {within} of {of} ({within / of:.2%}); ", end="")
        print(f"claims: p50 {_shown(middle[len(middle) // 2], 0)} µs, worst p99 {_shown(worst, 0)} µs")


def _print_shares(runs: Sequence[Run]) -> None:
    """Which end of STAMP makes its error: a reflector in user space writes T3 before its packet leaves."""
    for name, found in _by_program(runs):
        pairs = [
            (one.p99_us, one.sender_p99_us)
            for one in found
            if one.sender_p99_us is not None and one.p99_us is not None
        ]
        if pairs:
            whole, sender = max(pair[0] for pair in pairs), max(pair[1] for pair in pairs)
            print(f"\n{name}: worst p99 {whole:.1f} µs; of the sender's own two stamps {sender:.1f} µs")


def _print_standings(standings: Sequence[tuple[Run, Standing]]) -> None:
    if standings:
        print("\nwhere nhip's stamps stand on the bare veth pair, µs, p50 / p99; ", end="")
        print("between: departures")
        print(
            "  between near tap and far arrival; bounded: delays, ± own error, between what both taps allow"
        )
        print(f"  {'program, load':<22}{'tap→departure':>18}{'departure→far tap':>20}", end="")
        print(f"{'tap→far tap':>18}{'near tap→arrival':>19}{'between':>11}{'bounded':>11}")
    for run, where in standings:
        columns = (
            (where.tap_to_departure_us, 18),
            (where.departure_to_far_us, 20),
            (where.tap_to_far_us, 18),
            (where.tap_to_arrival_us, 19),
        )
        shown = "".join(f"{_shown(p50, 0)} / {_shown(p99, 0)}".rjust(width) for (p50, p99), width in columns)
        bounded = "–" if where.within_claim is None else "{}/{}".format(*where.within_claim)
        between = f"{where.between}/{where.count}"
        print(f"  {run.program + ', ' + run.condition.load:<22}{shown}{between:>11}{bounded:>11}")


def _print_weights(weights: Sequence[Weight]) -> None:
    """A tap stamps a packet before it copies it, and the driver comes after every tap."""
    if weights:
        print("\nhow much of the error is the capture's own: further taps at the prober's interface, µs")
        print(f"  {'load':<6}{'further taps':>12}{'error p50':>11}{'RTT p50: capture':>18}{'nhip':>8}")
    for found in weights:
        print(f"  {found.load:<6}{found.extra_taps:>12}{_shown(found.error_p50_us, 11)}", end="")
        print(f"{_shown(found.captured_p50_us, 18)}{_shown(found.said_p50_us, 8)}")


def _by_program(runs: Sequence[Run]) -> Iterator[tuple[str, list[Figures]]]:
    for name in dict.fromkeys(run.program for run in runs if run.program.startswith("nhip")):
        found = [run.figures for run in runs if run.program == name and run.figures is not None]
        if found:
            yield name, found


def _shown(value: float | None, width: int) -> str:
    return ("–" if value is None else f"{value:.1f}").rjust(width)


def _version(program: Program) -> str:
    with contextlib.suppress(OSError):
        asked = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version}", program.package],
            capture_output=True,
            text=True,
            check=False,
        )
        return asked.stdout.strip()
    return ""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="0 and 20 ms, 0 and 10 %% loss, 200 probes")
    parser.add_argument("--delays", help="round trips in ms, with commas (default 0,5,20,80)")
    parser.add_argument("--losses", help="ratios of round trips lost, with commas (default 0,0.01,0.1)")
    parser.add_argument("--loads", default="idle,hogs", help="of idle and hogs")
    parser.add_argument("--count", type=int, help="probes a run (default 400)")
    parser.add_argument("--programs", default="nhip,fping,irtt,blackbox,smokeping", help="first letters")
    options = parser.parse_args()
    options.delays = _numbers(options.delays or ("0,20" if options.quick else "0,5,20,80"))
    options.losses = _numbers(options.losses or ("0,0.1" if options.quick else "0,0.01,0.1"))
    options.loads, options.programs = options.loads.split(","), options.programs.split(",")
    options.count = options.count or (200 if options.quick else 400)
    if not set(options.loads) <= set(LOADS) or not 1 <= options.count <= 4000:
        parser.error("--loads takes idle and hogs; --count 1 to 4000 (what the captures surely hold)")
    if any(not 0 <= delay <= 1000 for delay in options.delays) or any(
        not 0 <= loss < 1 for loss in options.losses
    ):
        parser.error("--delays lie between 0 and 1000 ms, --losses between 0 and 1")
    return options


def _numbers(text: str) -> list[float]:
    return [float(word) for word in text.split(",")]


if __name__ == "__main__":
    main()
