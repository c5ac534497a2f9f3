"""The recorder: listens at the near end of every emulated link and tells the lab's truth.

It captures requests and replies with kernel stamps, so that it may itself be late without harm, asks the
emulator for its counters once a second, writes ``truth.json`` and answers on ``control.sock``:

=====================  =====================================================================
``truth``              the whole :class:`nhip.lab.report.Truth`; `since_wall_ns` and
                       `until_wall_ns` bound the round trips to requests sent between them
``singletons``         the fate of each request at one `link`, with the same bounds
``set``                change `effects` of a `link` in a `direction`, for packets from now on
``health``             the emulator's answer
=====================  =====================================================================

Run as ``python -m nhip.lab.recorder STATE_DIRECTORY``.
"""

from __future__ import annotations

import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from nhip.errors import LabError
from nhip.lab.capture import Capture
from nhip.lab.control import ControlServer, Conversation
from nhip.lab.effects import Effects, expected_loss_ratio
from nhip.lab.flows import join_halves
from nhip.lab.pairing import Pairing
from nhip.lab.plan import Link
from nhip.lab.probe_packets import read_packet
from nhip.lab.report import (
    PACKET_CLASSES,
    SCHEMA_VERSION,
    Counters,
    DirectionTruth,
    EmulatorHealth,
    FlowHalf,
    LinkTruth,
    OwnError,
    RecorderHealth,
    Truth,
    truth_to_json,
)
from nhip.lab.state import LabState, read_state, write_whole

_PERIOD_SECONDS = 1.0
_MOST_FLOWS = 500
_COUNTER_NAMES = (
    "arrived",
    "dropped_loss",
    "dropped_queue",
    "duplicated",
    "held_back",
    "reordered",
    "delivered",
    "bytes_in",
    "bytes_out",
)


class DirectionMemory:
    """What the emulator last told about one direction, kept also after it died."""

    def __init__(self, effects: Effects) -> None:
        self.truth = DirectionTruth(
            effects=effects,
            expected_loss_ratio=expected_loss_ratio(effects),
            counters={name: Counters() for name in PACKET_CLASSES},
            own_error=OwnError(0, None, None, None, None),
            dropped_interface=0,
        )
        self.halves: dict[bytes, FlowHalf] = {}
        self.clients: dict[bytes, bool] = {}
        self._asked_mono_ns = 0

    def ask(self, emulator: Conversation, link: str, direction: str) -> None:
        """Bring everything up to date; LabError when the emulator does not answer."""
        answer = emulator.ask(
            {
                "do": "counters",
                "link": link,
                "direction": direction,
                "flows_since_mono_ns": self._asked_mono_ns,
            }
        )
        self._asked_mono_ns = int(answer["mono_ns"])
        effects = msgspec.convert(answer["effects"], Effects)
        self.truth = DirectionTruth(
            effects=effects,
            expected_loss_ratio=expected_loss_ratio(effects),
            counters={
                name: Counters(**{field: answer[field][place] for field in _COUNTER_NAMES})
                for place, name in enumerate(PACKET_CLASSES)
            },
            own_error=OwnError(**answer["own_error"]),
            dropped_interface=answer["dropped_interface"],
            flows_forgotten=answer["flows_forgotten"],
        )
        for key, from_client, *figures in answer["flows"]:
            name = bytes.fromhex(key)
            self.halves.pop(name, None)
            self.halves[name] = flow_half(*figures, wall_minus_mono_ns=answer["wall_minus_mono_ns"])
            self.clients[name] = from_client
        while len(self.halves) > _MOST_FLOWS:
            oldest = next(iter(self.halves))
            del self.halves[oldest], self.clients[oldest]


class Recorder:
    """Captures and answers from :meth:`start` until :meth:`run` ends."""

    def __init__(self, folder: Path, state: LabState) -> None:
        self._folder = folder
        self._state = state
        self._emulator = Conversation(folder / "emulator.sock", timeout_seconds=1.0)
        self._emulator_alive = False
        self._health: dict[str, Any] = {
            "realtime": False,
            "awake_processors": 0,
            "cpu_seconds": 0.0,
            "packets": 0,
        }
        self._control = ControlServer(folder / "control.sock", self._answer)
        self._captures: dict[int, tuple[Capture, Pairing]] = {}
        self._pairings: dict[str, Pairing] = {}
        self._memories = {
            (link.id, direction): DirectionMemory(effects)
            for link in state.plan.links
            for direction, effects in (("up", link.up), ("down", link.down))
        }
        self._captured = 0
        self._epoll: select.epoll | None = None
        self._stopping = False

    def start(self) -> None:
        """Begin to capture and to answer."""
        self._epoll = select.epoll()
        for link in self._state.plan.links:
            capture = Capture(self._state.namespace(link.near.host), link.near.name)
            pairing = Pairing()
            descriptor = capture.start()
            self._epoll.register(descriptor, select.EPOLLIN)
            self._captures[descriptor] = (capture, pairing)
            self._pairings[link.id] = pairing
        self._epoll.register(self._control.start(), select.EPOLLIN)

    def run(self) -> None:
        """Record until :meth:`stop` or until the state directory is gone."""
        assert self._epoll is not None  # noqa: S101 - start comes first
        next_round = time.monotonic()
        while not self._stopping:
            pause_seconds = max(0.0, min(next_round - time.monotonic(), 0.25))
            for descriptor, _ in self._epoll.poll(pause_seconds):
                if descriptor in self._captures:
                    self._drain(*self._captures[descriptor])
                else:
                    fresh = self._control.serve(descriptor)
                    if fresh is not None:
                        self._epoll.register(fresh, select.EPOLLIN)
            if time.monotonic() >= next_round:
                next_round = time.monotonic() + _PERIOD_SECONDS
                if not (self._folder / "lab.json").exists():
                    return
                write_whole(self._folder / "truth.json", truth_to_json(self._truth({})))

    def stop(self) -> None:
        """Let :meth:`run` return at its next turn."""
        self._stopping = True

    def close(self) -> None:
        """Give back every descriptor."""
        self._control.close()
        self._emulator.close()
        for capture, _ in self._captures.values():
            capture.close()
        self._captures = {}
        if self._epoll is not None:
            self._epoll.close()

    def _drain(self, capture: Capture, pairing: Pairing) -> None:
        for captured in capture.packets():
            self._captured += 1
            packet = read_packet(captured.data, outgoing=captured.outgoing)
            if packet is None:
                continue
            if captured.outgoing:
                pairing.outgoing(packet, captured.stamp_ns)
            else:
                pairing.incoming(packet, captured.stamp_ns)

    def _drain_all(self) -> None:
        for capture, pairing in self._captures.values():
            self._drain(capture, pairing)
            pairing.expire(time.time_ns())

    def _answer(self, request: dict[str, Any]) -> Any:
        match request.get("do"):
            case "truth":
                return truth_to_json(self._truth(request))
            case "singletons":
                self._drain_all()
                link = str(request.get("link"))
                if link not in self._pairings:
                    raise LabError(f"there is no link {link!r}", remedy=f"links: {', '.join(self._pairings)}")
                return msgspec.json.encode(self._pairings[link].singletons(link, **_bounds(request)))
            case "set" | "health":
                return self._emulator.ask(request)
            case other:
                raise LabError(f"the lab knows no {other!r}", remedy="ask truth, singletons, set or health")

    def _truth(self, request: dict[str, Any]) -> Truth:
        self._drain_all()
        self._ask_emulator()
        return Truth(
            schema_version=SCHEMA_VERSION,
            lab=self._state.name,
            variant="namespaces",
            written_wall_ns=time.time_ns(),
            missing_effects=(),
            emulator=EmulatorHealth(alive=self._emulator_alive, **self._health),
            recorder=RecorderHealth(
                captured=self._captured,
                missed=sum(capture.count_missed() for capture, _ in self._captures.values()),
                stamps="kernel",
            ),
            links=tuple(self._link(link, _bounds(request)) for link in self._state.plan.links),
        )

    def _link(self, link: Link, bounds: dict[str, Any]) -> LinkTruth:
        up, down = self._memories[link.id, "up"], self._memories[link.id, "down"]
        return LinkTruth(
            id=link.id,
            near=link.near.host,
            far=link.far.host,
            operator=link.operator,
            technology=link.technology,
            up=up.truth,
            down=down.truth,
            round_trips=self._pairings[link.id].round_trips(**bounds),
            tcp_flows=join_halves(up.halves, down.halves, up.clients),
        )

    def _ask_emulator(self) -> None:
        # One small question for each direction: the emulator answers between two packets.
        try:
            for (link, direction), memory in self._memories.items():
                memory.ask(self._emulator, link, direction)
            self._health = self._emulator.ask({"do": "health"})
            self._emulator_alive = True
        except LabError:
            self._emulator_alive = False


def flow_half(
    opened_ns: int,
    payload_bytes: int,
    repeated_bytes: int,
    first_ns: int,
    first_bytes: int,
    arrival_ns: int,
    last_ns: int,
    *,
    wall_minus_mono_ns: int,
) -> FlowHalf:
    """The half of a flow from the emulator's figures (monotonic); its speed leaves the first segment out."""
    some = payload_bytes > 0
    lasted_ns = last_ns - first_ns
    return FlowHalf(
        opened_wall_ns=opened_ns + wall_minus_mono_ns,
        payload_bytes=payload_bytes,
        repeated_bytes=repeated_bytes,
        first_payload_wall_ns=first_ns + wall_minus_mono_ns if some else None,
        last_payload_wall_ns=last_ns + wall_minus_mono_ns if some else None,
        first_arrival_wall_ns=arrival_ns + wall_minus_mono_ns if arrival_ns else None,
        speed_bits_per_second=(payload_bytes - first_bytes) * 8e9 / lasted_ns
        if some and lasted_ns > 0
        else None,
    )


def _bounds(request: dict[str, Any]) -> dict[str, Any]:
    until = request.get("until_wall_ns")
    return {
        "since_ns": int(request.get("since_wall_ns", 0)),
        "until_ns": None if until is None else int(until),
    }


def main(folder: Path) -> int:
    """Run the recorder of the lab in `folder` until it is asked to end or the lab is gone."""
    state = read_state(folder)
    if state is None:
        sys.stderr.write(f"{folder}: no lab is kept here\n")
        return 1
    recorder = Recorder(folder, state)
    signal.signal(signal.SIGTERM, lambda *_: recorder.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        recorder.start()
        recorder.run()
    finally:
        recorder.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
