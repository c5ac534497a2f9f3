"""From a SIM to its interface: the chain that must hold, and ModemManager's own words for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from nhip.errors import CannotMeasureError
from probes.line.modem import Bearer, FixedModems, Modem, ModemManager, RecentModems, sim_line
from tests.lab.fake_clock import FakeClock
from tests.lab.modem_manager import (
    CONNECTED,
    FAILED,
    REGISTERED,
    modems_on,
    needs_modem_manager,
    private_bus,
)

ICCID, OTHER = "8984012345678901234", "8984099999999999990"
BEARER = Bearer(path="/B/0", connected=True, interface="wwan0", attempts=1)
MODEM = Modem(path="/M/0", state="connected", iccid=ICCID, bearers=(BEARER,))


def test_a_sim_has_the_interface_of_its_connected_bearer() -> None:
    idle = Bearer(path="/B/9", connected=False, interface="wwan9")
    other = replace(MODEM, path="/M/1", iccid=OTHER)
    line = sim_line(ICCID, FixedModems((other, replace(MODEM, bearers=(idle, BEARER)))))
    assert line.interface == "wwan0"
    line.check()


@pytest.mark.parametrize(
    ("modems", "says", "remedy"),
    [
        ((), f"no modem of this host has SIM {ICCID}", "SIMs in use here: none"),
        ((replace(MODEM, iccid=OTHER),), "no modem of this host", f"in use here: {OTHER}"),
        ((replace(MODEM, iccid=None, bearers=()),), "no modem of this host", "plugged in"),
        ((replace(MODEM, iccid=OTHER, idle_iccids=(ICCID,)),), "not in use", "--set-primary-sim-slot"),
        ((replace(MODEM, state="registered"),), "which is registered", "--simple-connect"),
        ((replace(MODEM, state="failed", bearers=()),), "which is failed", "mmcli -m /M/0"),
        ((replace(MODEM, bearers=()),), "its bearer is not there", "--simple-disconnect"),
        ((replace(MODEM, bearers=(replace(BEARER, connected=False),)),), "is not there", "connect it anew"),
        ((replace(MODEM, bearers=(replace(BEARER, interface=None),)),), "no network interface", "anew"),
        (
            (replace(MODEM, bearers=(BEARER, replace(BEARER, path="/B/1", interface="wwan1"))),),
            "several connections, by wwan0, wwan1",
            "--interface",
        ),
    ],
)
def test_a_chain_with_a_link_missing_is_an_error_and_no_other_interface(
    modems: tuple[Modem, ...], says: str, remedy: str
) -> None:
    with pytest.raises(CannotMeasureError) as failure:
        sim_line(ICCID, FixedModems(modems))
    assert says in failure.value.what
    assert remedy in failure.value.remedy


@dataclass
class Replugged:
    """The modems before, and those ever after."""

    before: tuple[Modem, ...]
    after: tuple[Modem, ...]
    asked: int = 0

    def modems(self) -> tuple[Modem, ...]:
        self.asked += 1
        return self.before if self.asked == 1 else self.after


@pytest.mark.parametrize(
    ("after", "says"),
    [
        ((), "no modem of this host"),
        ((replace(MODEM, state="connecting"),), "which is connecting"),
        (
            (replace(MODEM, bearers=(replace(BEARER, interface="wwan1"),)),),
            "anew during the test, now by wwan1",
        ),
        ((replace(MODEM, bearers=(replace(BEARER, attempts=2),)),), "anew during the test, now by wwan0"),
    ],
)
def test_a_sim_that_was_connected_anew_is_not_the_line_it_was(after: tuple[Modem, ...], says: str) -> None:
    line = sim_line(ICCID, Replugged((MODEM,), after))
    with pytest.raises(CannotMeasureError, match=says):
        line.check()


# Asked a moment ago


@dataclass
class Asked:
    """A table that counts, and fails when told to."""

    asked: int = 0
    failing: bool = False

    def modems(self) -> tuple[Modem, ...]:
        self.asked += 1
        if self.failing:
            raise CannotMeasureError("nobody there", remedy="start it")
        return (replace(MODEM, bearers=(replace(BEARER, attempts=self.asked),)),)


def test_tasks_that_run_together_ask_the_manager_once() -> None:
    source, clock = Asked(), FakeClock()
    recent = RecentModems(source, clock, seconds=3)
    for _ in range(5):
        assert sim_line(ICCID, recent).connection.attempts == 1
        clock.advance(0.5)
    clock.advance(1)
    assert sim_line(ICCID, recent).connection.attempts == 2
    assert source.asked == 2


def test_that_nobody_could_be_asked_is_remembered_as_well() -> None:
    source, clock = Asked(failing=True), FakeClock()
    recent = RecentModems(source, clock, seconds=3)
    for _ in range(3):
        with pytest.raises(CannotMeasureError, match="nobody there; start it"):
            recent.modems()
    assert source.asked == 1
    source.failing = False
    clock.advance(3.1)
    assert recent.modems()


def test_whether_a_line_is_still_the_same_is_never_answered_from_memory() -> None:
    line = sim_line(ICCID, RecentModems(Asked(), FakeClock()))
    with pytest.raises(CannotMeasureError, match="connected anew during the test"):
        line.check()


# ModemManager itself


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    needs_modem_manager()
    with private_bus(tmp_path_factory.mktemp("bus")) as found:
        yield found


def told(**changes: Any) -> dict[str, Any]:
    bearer = {"interface": "wwan0", "connected": True, "attempts": 3}
    return {"state": CONNECTED, "sim": ICCID, "bearers": [bearer]} | changes


@pytest.mark.servers
def test_mmcli_tells_modems_sims_and_bearers(bus: dict[str, str]) -> None:
    modems = [
        told(sim=f"{ICCID}F", idle_sims=[OTHER]),
        told(state=REGISTERED, sim="8984000000000000001", bearers=[]),
        told(state=FAILED, sim=None, bearers=[]),
    ]
    with modems_on(bus, modems):
        first, second, third = ModemManager(environment=bus).modems()
        line = sim_line(ICCID, ModemManager(environment=bus))
        line.check()
    root = "/org/freedesktop/ModemManager1"
    connection = Bearer(path=f"{root}/Bearer/0", connected=True, interface="wwan0", attempts=3)
    assert first == Modem(
        path=f"{root}/Modem/0",
        state="connected",
        iccid=ICCID,
        idle_iccids=(OTHER,),
        bearers=(connection,),
    )
    assert (second.state, second.iccid, second.bearers) == ("registered", "8984000000000000001", ())
    assert (third.state, third.iccid, third.bearers) == ("failed", None, ())
    assert (line.interface, line.connection) == ("wwan0", connection)


@pytest.mark.servers
@pytest.mark.parametrize(
    ("modem", "says"),
    [
        (told(state=REGISTERED), "which is registered and not connected"),
        (told(sim=OTHER), "no modem of this host has SIM"),
        (told(sim=OTHER, idle_sims=[ICCID]), "not in use"),
        (told(bearers=[{"interface": "", "connected": True}]), "has no network interface"),
        (told(bearers=[{"interface": "wwan0", "connected": False}]), "is not there"),
    ],
)
def test_a_modem_without_a_line_is_an_error(bus: dict[str, str], modem: dict[str, Any], says: str) -> None:
    with modems_on(bus, [modem]), pytest.raises(CannotMeasureError, match=says) as failure:
        sim_line(ICCID, ModemManager(environment=bus))
    assert failure.value.remedy


@pytest.mark.servers
def test_a_modem_that_was_connected_anew_is_noticed(bus: dict[str, str]) -> None:
    with modems_on(bus, [told()]):
        line = sim_line(ICCID, ModemManager(environment=bus))
    with (
        modems_on(bus, [told(bearers=[{"interface": "wwan1", "connected": True, "attempts": 1}])]),
        pytest.raises(CannotMeasureError, match="now by wwan1"),
    ):
        line.check()


@pytest.mark.servers
def test_no_modem_manager_on_the_bus_is_said(bus: dict[str, str]) -> None:
    with pytest.raises(CannotMeasureError, match="ModemManager cannot be asked: error") as failure:
        ModemManager(environment=bus).modems()
    assert "systemctl status ModemManager" in failure.value.remedy


def test_a_host_without_modem_manager_is_told_what_to_install() -> None:
    with pytest.raises(CannotMeasureError, match="is missing") as failure:
        ModemManager("mmcli-that-is-not-there").modems()
    assert "apt install modemmanager" in failure.value.remedy


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo not json", "wrote no JSON"),
        ("echo '[]'", "wrote no table"),
        ("exit 3", "ended with 3"),
        ("echo 'error: no' >&2; exit 1", "error: no"),
        (r"printf 'a\033]0;x\007\033[2Jb\tc\n\377' >&2; exit 1", r"asked: a\?\]0;x\?\?\[2Jb\?c; \ufffd;"),
        (r"printf '\377'", "wrote no JSON"),
    ],
)
def test_an_answer_that_is_none_is_no_modem(script: str, says: str, tmp_path: Path) -> None:
    command = tmp_path / "mmcli"
    command.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
    command.chmod(0o755)
    with pytest.raises(CannotMeasureError, match=says):
        ModemManager(str(command)).modems()
