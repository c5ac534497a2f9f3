"""The commands of the lab as functions that return what to print: up, down, status."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from nhip.errors import LabError
from nhip.lab.calibrate import DelayError, calibrate
from nhip.lab.lifecycle import Lab
from nhip.lab.relay import RelayLab, default_relay_dir
from nhip.lab.report import LinkTruth, Truth, truth_to_json
from nhip.lab.state import DEFAULT_STATE_DIR, LabStatus, Service, read_state
from nhip.lab.topology import default_topology, load_topology

Language = Literal["en", "vi"]

DEFAULT_NAME = "lab"


def up(
    name: str = DEFAULT_NAME,
    *,
    topology_path: Path | None = None,
    state_dir: Path | None = None,
    relay: bool = False,
    services: Sequence[str] = (),
    keep_awake: bool = True,
    language: Language = "en",
) -> str:
    """Bring a lab up; one line that says how to use it.

    `relay` chooses the loopback variant; `services` are then the server's ports, as ``udp:8862``.
    Raises LabError.
    """
    began = time.monotonic()
    topology = load_topology(topology_path) if topology_path is not None else default_topology()
    lab: Lab | RelayLab
    if relay:
        chosen = [_service(text) for text in services]
        if not chosen:
            raise LabError(
                "the loopback lab has nothing to relay", remedy="give --service udp:8862 or tcp:8080"
            )
        lab = RelayLab(name, topology, state_dir, services=chosen)
    elif services:
        raise LabError("services are only for the loopback lab", remedy="add --relay or leave them out")
    else:
        lab = Lab(name, topology, state_dir or DEFAULT_STATE_DIR, keep_awake=keep_awake)
    lab.up()
    seconds = time.monotonic() - began
    words = _TEXTS[language]
    return words["up"].format(name=name, links=len(lab.plan.links), seconds=seconds, folder=lab.folder)


def down(name: str = DEFAULT_NAME, *, state_dir: Path | None = None, language: Language = "en") -> str:
    """Take a lab down, whatever is left of it; one line that says so. Raises LabError."""
    lab = open_lab(name, state_dir=state_dir)
    words = _TEXTS[language]
    there = lab.status().phase != "absent"
    lab.down()
    return words["down" if there else "nothing"].format(name=name)


def status(
    name: str = DEFAULT_NAME,
    *,
    state_dir: Path | None = None,
    json: bool = False,
    calibrated: bool = False,
    language: Language = "en",
) -> str:
    """What a lab is and what it did: a table, or with `json` the truth document.

    `calibrated` first measures the lab's own error, which takes a few seconds and interrupts its random
    effects. Raises LabError when there is no lab, or when it does not answer.
    """
    lab = open_lab(name, state_dir=state_dir)
    found = lab.status()
    if found.phase == "absent":
        raise LabError(f"there is no lab called {name!r}", remedy=f"`nhip lab up {name}` makes it")
    if calibrated and not isinstance(lab, Lab):
        raise LabError("the loopback lab cannot be calibrated", remedy="its own error stands in its status")
    words = _TEXTS[language]
    try:
        errors = calibrate(lab) if calibrated and isinstance(lab, Lab) else ()
        truth = lab.truth()
    except LabError:
        if json or not found.problems:
            raise
        return "\n".join([f"{name}: {words[f'is_{found.phase}']}", *_problems(found)])
    if json:
        return truth_to_json(truth).decode()
    lines = [words["head"].format(name=name, phase=words[f"is_{found.phase}"], variant=words[truth.variant])]
    lines += _problems(found)
    lines += [f"  - {missing}" for missing in truth.missing_effects]
    lines += ["", *_links_table(truth, words)]
    if errors:
        lines += ["", *_errors_table(errors, words)]
    return "\n".join(lines)


def open_lab(name: str, *, state_dir: Path | None = None) -> Lab | RelayLab:
    """The lab called `name`, of whichever variant is there; the one of namespaces when there is none."""
    for folder in (state_dir,) if state_dir is not None else (DEFAULT_STATE_DIR, default_relay_dir()):
        state = _state_in(folder / name)
        if state == "loopback":
            return RelayLab(name, state_dir=folder)
        if state == "namespaces":
            return Lab(name, state_dir=folder)
    return Lab(name, state_dir=state_dir or DEFAULT_STATE_DIR)


def _problems(found: LabStatus) -> list[str]:
    return [f"  ! {problem}" for problem in found.problems]


def _state_in(folder: Path) -> str | None:
    try:
        state = read_state(folder)
    except PermissionError as error:
        raise LabError(f"{folder}: this lab belongs to another user", remedy="use sudo") from error
    return None if state is None else state.variant


def _service(text: str) -> Service:
    protocol, _, port = text.partition(":")
    if protocol not in ("udp", "tcp") or not port.isdigit() or not 0 < int(port) < 65536:
        raise LabError(f"{text!r} is no service", remedy="write udp:8862 or tcp:8080")
    return Service("udp" if protocol == "udp" else "tcp", int(port))


def _links_table(truth: Truth, words: dict[str, str]) -> list[str]:
    rows = [
        [words[column] for column in ("link", "delay", "rate", "loss", "seen", "round_trip", "own_error")]
    ]
    rows += [_link_row(link) for link in truth.links]
    return _aligned(rows)


def _link_row(link: LinkTruth) -> list[str]:
    ways = (link.down, link.up)
    seen = [sum(counters.arrived for counters in way.counters.values()) for way in ways]
    dropped = [sum(counters.dropped_loss for counters in way.counters.values()) for way in ways]
    medians = [
        f"{trips.kind} {trips.destination} {_milliseconds(trips.median_seconds)}"
        for trips in link.round_trips[:2]
    ]
    return [
        link.id,
        " / ".join(_milliseconds(way.effects.delay_seconds) for way in ways),
        " / ".join(_megabits(way.effects.rate_bits_per_second) for way in ways),
        " / ".join(
            f"{way.expected_loss_ratio * 100:.2f} ({lost})" for way, lost in zip(ways, dropped, strict=True)
        ),
        " / ".join(map(str, seen)),
        ", ".join(medians) or "-",
        " / ".join(_milliseconds(way.own_error.p90_seconds) for way in ways),
    ]


def _errors_table(errors: Sequence[DelayError], words: dict[str, str]) -> list[str]:
    rows = [[words["calibrated"], "", "n", "p50", "p90", "p99", "max"]]
    for error in errors:
        quantiles = (error.p50_seconds, error.p90_seconds, error.p99_seconds, error.max_seconds)
        figures = [f"{error.received}/{error.sent}", *map(_milliseconds, quantiles)]
        rows.append([error.link, error.direction, *figures])
    return _aligned(rows)


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.3f}"


def _megabits(rate_bits_per_second: float | None) -> str:
    return "-" if rate_bits_per_second is None else f"{rate_bits_per_second / 1e6:g}"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


_TEXTS: dict[Language, dict[str, str]] = {
    "en": {
        "up": "lab {name} is up: {links} emulated links, {seconds:.1f} s; state in {folder}",
        "down": "lab {name} is gone",
        "nothing": "there was no lab {name}; nothing to remove",
        "head": "lab {name}: {phase}, {variant}",
        "is_up": "up",
        "is_building": "not finished, take it down",
        "is_broken": "broken",
        "namespaces": "network namespaces",
        "loopback": "loopback relays, without:",
        "link": "link (down / up)",
        "delay": "delay ms",
        "rate": "Mbit/s",
        "loss": "loss % (lost)",
        "seen": "packets",
        "round_trip": "true median round trip ms",
        "own_error": "late ms p90",
        "calibrated": "one-way error in ms",
    },
    "vi": {
        "up": "phòng thí nghiệm {name} đã chạy: {links} đường mô phỏng, {seconds:.1f} s; xem {folder}",
        "down": "đã gỡ bỏ phòng thí nghiệm {name}",
        "nothing": "không có phòng thí nghiệm {name}; không có gì để gỡ bỏ",
        "head": "phòng thí nghiệm {name}: {phase}, {variant}",
        "is_up": "đang chạy",
        "is_building": "dựng chưa xong, hãy gỡ bỏ",
        "is_broken": "hỏng",
        "namespaces": "không gian tên mạng",
        "loopback": "chuyển tiếp trên loopback, không có:",
        "link": "đường (xuống / lên)",
        "delay": "trễ ms",
        "rate": "Mbit/s",
        "loss": "mất gói % (số gói mất)",
        "seen": "số gói",
        "round_trip": "trễ khứ hồi thực, trung vị ms",
        "own_error": "chậm ms p90",
        "calibrated": "sai số một chiều, ms",
    },
}
