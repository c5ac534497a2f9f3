"""How exact a lab is: one-way delays between kernel stamps at both ends, against what is configured.

For the time of the calibration the jitter, loss, duplication and reordering of every link are switched
off, because only then is the right delay of each packet known; they come back at the end, whatever
happens. Delay and constant rate stay. Links should be idle: other packets would stand in the queue.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol, get_args

import msgspec

from nhip.lab.capture import Capture
from nhip.lab.effects import Effects, without_chance
from nhip.lab.namespace import inside
from nhip.lab.pairing import quantile
from nhip.lab.plan import Direction, Link, Plan
from nhip.lab.report import Truth

_IPV4_AND_ICMP_BYTES = 28
_PAYLOAD = b"nhip calibration".ljust(56, b".")
_ECHO_REQUEST, _ECHO_REPLY = 8, 0


class CalibratedLab(Protocol):
    """What calibrating asks of a lab."""

    name: str

    @property
    def plan(self) -> Plan: ...

    def truth(self) -> Truth: ...

    def set_effects(self, link: str, direction: Direction, **effects: object) -> None: ...


@dataclass(frozen=True)
class DelayError:
    """Measured less intended one-way delay of one direction; the figures are None when nothing came through.

    `intended_seconds` is the configured delay and the time the packet takes at the configured rate.
    """

    link: str
    direction: Direction
    intended_seconds: float
    sent: int
    received: int
    p50_seconds: float | None
    p90_seconds: float | None
    p99_seconds: float | None
    max_seconds: float | None


def calibrate(
    lab: CalibratedLab, *, probes: int = 200, interval_seconds: float = 0.01
) -> tuple[DelayError, ...]:
    """The one-way error of every link of a running lab of namespaces, up and down.

    Sends `probes` ICMP echoes of 84 bytes over each link, `interval_seconds` apart, all links in turn.
    """
    truth = lab.truth()
    configured = {
        (link.id, direction): (link.up if direction == "up" else link.down).effects
        for link in truth.links
        for direction in get_args(Direction)
    }
    with ExitStack() as stack:
        trials = [stack.enter_context(_trial(lab.name, link)) for link in lab.plan.links]
        stack.enter_context(_chance_switched_off(lab, configured))
        for number in range(probes):
            for trial in trials:
                trial.send(number)
                time.sleep(interval_seconds / len(trials))
                trial.collect()
        slowest = max(effects.delay_seconds for effects in configured.values())
        until = time.monotonic() + 2 * slowest + 0.3
        while time.monotonic() < until:
            time.sleep(0.02)
            for trial in trials:
                trial.collect()
    return tuple(
        _error(trial, direction, configured[trial.link.id, direction], probes)
        for trial in trials
        for direction in get_args(Direction)
    )


class _Trial:
    """One link being calibrated: a prober at its near end and a capture at each end."""

    def __init__(self, link: Link, prober: socket.socket, near: Capture, far: Capture) -> None:
        self.link = link
        self._prober = prober
        self._captures = {"near": near, "far": far}
        self._identifier = prober.getsockname()[1]
        # (end, ICMP type, sequence number) -> stamp
        self.stamps: dict[tuple[str, int, int], int] = {}

    def send(self, number: int) -> None:
        self._prober.send(struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, 0, number) + _PAYLOAD)

    def collect(self) -> None:
        for end, capture in self._captures.items():
            for packet in capture.packets():
                header = (packet.data[0] & 15) * 4
                if packet.data[0] >> 4 != 4 or packet.data[9] != 1:
                    continue
                kind, identifier, number = struct.unpack_from("!B3xHH", packet.data, header)
                if identifier == self._identifier:
                    self.stamps.setdefault((end, kind, number), packet.stamp_ns)

    def delays(self, direction: Direction, probes: int) -> list[float]:
        """One-way delays in seconds of the packets stamped at both ends."""
        kind, first, last = (
            (_ECHO_REQUEST, "near", "far") if direction == "up" else (_ECHO_REPLY, "far", "near")
        )
        found = []
        for number in range(probes):
            left, came = self.stamps.get((first, kind, number)), self.stamps.get((last, kind, number))
            if left is not None and came is not None:
                found.append((came - left) / 1e9)
        return found


@contextmanager
def _trial(lab: str, link: Link) -> Iterator[_Trial]:
    near = Capture(f"{lab}-{link.near.host}", link.near.name)
    far = Capture(f"{lab}-{link.far.host}", link.far.name)
    with ExitStack() as stack:
        for capture in (near, far):
            stack.callback(capture.close)
            capture.start()
        with inside(f"{lab}-{link.near.host}"):
            prober = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
        stack.enter_context(prober)
        prober.bind((link.near.ipv4, 0))
        prober.connect((link.far.ipv4, 0))
        yield _Trial(link, prober, near, far)


@contextmanager
def _chance_switched_off(
    lab: CalibratedLab, configured: Mapping[tuple[str, Direction], Effects]
) -> Iterator[None]:
    try:
        for (link, direction), effects in configured.items():
            lab.set_effects(link, direction, **msgspec.to_builtins(without_chance(effects)))
        yield
    finally:
        for (link, direction), effects in configured.items():
            lab.set_effects(link, direction, **msgspec.to_builtins(effects))


def _error(trial: _Trial, direction: Direction, effects: Effects, probes: int) -> DelayError:
    rate = effects.rate_bits_per_second
    size = len(_PAYLOAD) + _IPV4_AND_ICMP_BYTES
    intended_seconds = effects.delay_seconds + (size * 8 / rate if rate is not None else 0.0)
    errors = sorted(delay - intended_seconds for delay in trial.delays(direction, probes))
    return DelayError(
        link=trial.link.id,
        direction=direction,
        intended_seconds=intended_seconds,
        sent=probes,
        received=len(errors),
        p50_seconds=quantile(errors, 0.5),
        p90_seconds=quantile(errors, 0.9),
        p99_seconds=quantile(errors, 0.99),
        max_seconds=errors[-1] if errors else None,
    )
