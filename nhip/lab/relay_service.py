"""The process behind the loopback lab: relays UDP datagrams and TCP streams with a link's effects.

A datagram meets every effect. A stream meets delay, jitter and rate; where the queue is full it is read
no further, so that its sender is slowed down by TCP itself. Both share the rate of their link.

Run as ``python -m nhip.lab.relay_service STATE_DIRECTORY``.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from nhip.errors import LabError
from nhip.lab.control import ControlServer
from nhip.lab.relay import MARK_PORT
from nhip.lab.relay_link import LinkRelay
from nhip.lab.report import SCHEMA_VERSION, EmulatorHealth, RecorderHealth, Truth, truth_to_json
from nhip.lab.state import LabState, read_state, write_whole

MISSING_EFFECTS = (
    "ICMP and IPv6 are not relayed: measure with UDP (STAMP) and TCP",
    "TCP: a connection is accepted at once, so that connecting shows no delay",
    "TCP: no loss, duplication or reordering; delay, jitter and rate act on the stream",
    "the site abroad and its link are absent: only the server is reached",
    "stamps are taken by the relay itself and are late by up to a millisecond on a busy machine",
)


class RelayService:
    """All links of a loopback lab, with its control socket and its truth file."""

    def __init__(self, folder: Path, state: LabState) -> None:
        self._folder = folder
        self._state = state
        server = next(end for end in state.plan.interfaces() if end.host == state.plan.server)
        self._relays = {
            link.id: LinkRelay(link, server, state.plan.seed)
            for link in state.plan.links
            if link.operator is not None or link.far.host == state.plan.server
        }
        self._control = ControlServer(folder / "control.sock", self._answer)
        self._mark: socket.socket | None = None

    async def run(self) -> None:
        """Relay until SIGTERM or until the state directory is gone."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, done.set)
        first = next(iter(self._relays.values())).link.far.ipv4
        self._mark = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._mark.bind((".".join([*first.split(".")[:2], "255.254"]), MARK_PORT))
        try:
            for relay in self._relays.values():
                for service in self._state.services:
                    await relay.listen(service.protocol, service.port)
            self._watch(self._control.start())
            while not done.is_set() and (self._folder / "lab.json").exists():
                write_whole(self._folder / "truth.json", truth_to_json(self._truth({})))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(done.wait(), 1.0)
        finally:
            self.close()

    def close(self) -> None:
        """Give back every socket."""
        for relay in self._relays.values():
            relay.close()
        self._control.close()
        if self._mark is not None:
            self._mark.close()

    def _watch(self, descriptor: int) -> None:
        asyncio.get_running_loop().add_reader(descriptor, self._serve, descriptor)

    def _serve(self, descriptor: int) -> None:
        fresh = self._control.serve(descriptor)
        if fresh is not None:
            self._watch(fresh)
        elif not self._control.watches(descriptor):
            asyncio.get_running_loop().remove_reader(descriptor)

    def _answer(self, request: dict[str, Any]) -> Any:
        match request.get("do"):
            case "truth":
                return truth_to_json(self._truth(request))
            case "singletons":
                relay = self._relay(request)
                relay.pairing.expire(time.time_ns())
                since, until = int(request.get("since_wall_ns", 0)), request.get("until_wall_ns")
                return msgspec.json.encode(
                    relay.pairing.singletons(relay.link.id, since_ns=since, until_ns=until)
                )
            case "set":
                relay = self._relay(request)
                pipe = {"up": relay.up, "down": relay.down}.get(str(request.get("direction")))
                if pipe is None:
                    raise LabError("a direction is up or down")
                return msgspec.to_builtins(pipe.channel.change_some(request.get("effects")))
            case "health":
                return {"relays": len(self._relays)}
            case other:
                raise LabError(f"the lab knows no {other!r}", remedy="ask truth, singletons, set or health")

    def _relay(self, request: dict[str, Any]) -> LinkRelay:
        link = str(request.get("link"))
        if link not in self._relays:
            raise LabError(f"there is no relayed link {link!r}", remedy=f"links: {', '.join(self._relays)}")
        return self._relays[link]

    def _truth(self, request: dict[str, Any]) -> Truth:
        used = resource.getrusage(resource.RUSAGE_SELF)
        since, until = int(request.get("since_wall_ns", 0)), request.get("until_wall_ns")
        links = tuple(relay.truth(since, until) for relay in self._relays.values())
        ways = [way for link in links for way in (link.up, link.down)]
        packets = sum(counters.arrived for way in ways for counters in way.counters.values())
        return Truth(
            schema_version=SCHEMA_VERSION,
            lab=self._state.name,
            variant="loopback",
            written_wall_ns=time.time_ns(),
            missing_effects=MISSING_EFFECTS,
            emulator=EmulatorHealth(True, False, 0, used.ru_utime + used.ru_stime, packets),
            recorder=RecorderHealth(captured=packets, missed=0, stamps="user"),
            links=links,
        )


def main(folder: Path) -> int:
    """Run the relays of the lab in `folder` until they are asked to end or the lab is gone."""
    state = read_state(folder)
    if state is None:
        sys.stderr.write(f"{folder}: no lab is kept here\n")
        return 1
    # select waits to the microsecond; epoll, asyncio's usual choice, rounds up to milliseconds.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(RelayService(folder, state).run())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
