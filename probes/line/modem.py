"""From a SIM to the network interface its packets leave by, asked of whoever manages the modems.

A modem that is plugged in again may come back as another interface; the SIM stays what it is, and it is the
SIM that is charged. So a test names the SIM by its ICCID (ITU-T E.118), and the interface is looked up when
the test begins::

    ICCID ──▶ SIM ──▶ modem (state: connected) ──▶ bearer (connected) ──▶ network interface

Any link of that chain missing is an error with its remedy; never is another interface taken instead.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from nhip.clock import Clock
from nhip.errors import CannotMeasureError
from nhip.statistics import NANOSECONDS_PER_SECOND

ICCID_PATTERN = r"^[0-9]{18,20}$(?!\n)"
"""As printed on the card: 19 or 20 digits with the check digit, which some cards leave out."""

_CONNECTED = "connected"
_NONE = "--"  # how mmcli writes a value that is not there
_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """One data connection of a modem."""

    path: str
    connected: bool
    interface: str | None = None
    attempts: int | None = None
    """How often it was connected so far; `None` where the manager does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Modem:
    """One modem as its manager sees it now."""

    path: str
    state: str
    iccid: str | None
    """Of the SIM in use."""
    idle_iccids: tuple[str, ...] = ()
    """Of SIMs that are in its other slots."""
    bearers: tuple[Bearer, ...] = ()


class ModemTable(Protocol):
    """Whoever knows the modems of this host."""

    def modems(self) -> tuple[Modem, ...]:
        """Every modem as it is now; CannotMeasureError when nobody can be asked."""


@dataclass(frozen=True, slots=True)
class FixedModems:
    """Modems that are what they are told to be."""

    known: tuple[Modem, ...] = ()

    def modems(self) -> tuple[Modem, ...]:
        return self.known


@dataclass(frozen=True, slots=True)
class SimLine:
    """The line of one SIM as it was found: its connection, and the interface that carries it."""

    iccid: str
    interface: str
    connection: Bearer
    table: ModemTable

    def check(self) -> None:
        """Return when the SIM is still on the same connection; CannotMeasureError otherwise."""
        now = sim_line(self.iccid, self.table)
        if now.connection != self.connection:
            raise CannotMeasureError(
                f"SIM {self.iccid} was connected anew during the test, now by {now.interface}",
                remedy="test again; see the modem's log: journalctl -u ModemManager",
            )


def sim_line(iccid: str, table: ModemTable) -> SimLine:
    """The line of the SIM with that ICCID; CannotMeasureError, with what to do, when it has none."""
    modems = table.modems()
    modem = next((modem for modem in modems if modem.iccid == iccid), None)
    if modem is None:
        raise _not_in_use(iccid, modems)
    if modem.state != _CONNECTED:
        raise CannotMeasureError(
            f"SIM {iccid} is in modem {modem.path}, which is {modem.state} and not connected",
            remedy=f"connect it: mmcli -m {modem.path} --simple-connect=apn=NAME",
        )
    connected = [bearer for bearer in modem.bearers if bearer.connected]
    carrying = [bearer for bearer in connected if bearer.interface]
    if not carrying:
        why = "has no network interface" if connected else "is not there"
        raise CannotMeasureError(
            f"SIM {iccid} is in modem {modem.path}, which is connected, but its bearer {why}",
            remedy=f"connect it anew: mmcli -m {modem.path} --simple-disconnect, then --simple-connect=…",
        )
    if len({bearer.interface for bearer in carrying}) > 1:
        names = ", ".join(sorted(bearer.interface or "" for bearer in carrying))
        raise CannotMeasureError(
            f"SIM {iccid} has several connections, by {names}",
            remedy="name the one to measure with --interface instead of the ICCID",
        )
    # Whether it is still so is asked of the manager itself: what was recent then is old by then.
    source = table.source if isinstance(table, RecentModems) else table
    return SimLine(iccid, carrying[0].interface or "", carrying[0], source)


class RecentModems:
    """The modems of `source` as they were a moment ago: tasks that run together ask once.

    That nobody could be asked is remembered as well, since each try may take as long as the patience with a
    manager that hangs.
    """

    def __init__(self, source: ModemTable, clock: Clock, *, seconds: float = 3.0) -> None:
        self.source = source
        self._clock = clock
        self._keep_ns = round(seconds * NANOSECONDS_PER_SECOND)
        self._lock = threading.Lock()
        self._asked_ns: int | None = None
        self._known: tuple[Modem, ...] = ()
        self._failure: CannotMeasureError | None = None

    def modems(self) -> tuple[Modem, ...]:
        with self._lock:
            if self._asked_ns is None or self._clock.mono_ns() - self._asked_ns > self._keep_ns:
                self._ask()
            if (failure := self._failure) is not None:
                raise CannotMeasureError(failure.what, remedy=failure.remedy) from failure
            return self._known

    def _ask(self) -> None:
        try:
            self._known, self._failure = self.source.modems(), None
        except CannotMeasureError as error:
            self._failure = error
        self._asked_ns = self._clock.mono_ns()


class ModemManager:
    """The modems that ModemManager has, read with its own command ``mmcli``."""

    def __init__(self, command: str = "mmcli", environment: Mapping[str, str] | None = None) -> None:
        self._command = command
        self._environment = environment

    def modems(self) -> tuple[Modem, ...]:
        paths = self._ask("--list-modems").get("modem-list", [])
        return tuple(self._modem(path) for path in sorted(paths))

    def _modem(self, path: str) -> Modem:
        generic = self._ask(f"--modem={path}").get("modem", {}).get("generic", {})
        in_use = _word(generic.get("sim"))
        slots = [slot for slot in generic.get("sim-slots", []) if slot not in (in_use, "/", _NONE)]
        idle = [self._iccid(slot) for slot in slots]
        return Modem(
            path=path,
            state=str(generic.get("state", "unknown")),
            iccid=self._iccid(in_use) if in_use else None,
            idle_iccids=tuple(iccid for iccid in idle if iccid),
            bearers=tuple(self._bearer(bearer) for bearer in generic.get("bearers", [])),
        )

    def _iccid(self, sim: str) -> str | None:
        properties = self._ask(f"--sim={sim}").get("sim", {}).get("properties", {})
        iccid = _word(properties.get("iccid"))
        # The card pads its last octet with F.
        return iccid.rstrip("Ff") if iccid else None

    def _bearer(self, path: str) -> Bearer:
        found = self._ask(f"--bearer={path}").get("bearer", {})
        status, counted = found.get("status", {}), found.get("stats", {})
        attempts = _word(counted.get("attempts"))
        return Bearer(
            path=path,
            connected=status.get("connected") == "yes",
            interface=_word(status.get("interface")),
            attempts=int(attempts) if attempts and re.fullmatch(r"[0-9]+", attempts) else None,
        )

    def _ask(self, option: str) -> dict[str, Any]:
        """What mmcli says, as the table it writes."""
        command = shutil.which(self._command)
        if command is None:
            raise CannotMeasureError(
                f"a SIM is found through ModemManager, and its command {self._command} is missing",
                remedy="install it (Debian: apt install modemmanager), or name the interface instead",
            )
        try:
            done = subprocess.run(
                [command, "--output-json", option],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_PATIENCE_SECONDS,
                check=False,
                env={**(os.environ if self._environment is None else self._environment), "LC_ALL": "C.UTF-8"},
            )
        except (subprocess.TimeoutExpired, OSError) as error:
            raise _silent(f"{self._command} {option}: {error}") from error
        if done.returncode != 0:
            said = _printable(done.stderr.strip().replace("\n", "; "))[:300]
            raise _silent(said or f"{self._command} {option} ended with {done.returncode}")
        try:
            found = json.loads(done.stdout)
        except ValueError as error:
            raise _silent(f"{self._command} {option} wrote no JSON") from error
        if not isinstance(found, dict):
            raise _silent(f"{self._command} {option} wrote no table")
        return found


def _not_in_use(iccid: str, modems: tuple[Modem, ...]) -> CannotMeasureError:
    for modem in modems:
        if iccid in modem.idle_iccids:
            return CannotMeasureError(
                f"SIM {iccid} lies in a slot of modem {modem.path} that is not in use",
                remedy=f"choose its slot: mmcli -m {modem.path} --set-primary-sim-slot=NUMBER",
            )
    present = ", ".join(modem.iccid for modem in modems if modem.iccid) or "none"
    return CannotMeasureError(
        f"no modem of this host has SIM {iccid}",
        remedy=f"check that it is plugged in (mmcli --list-modems); SIMs in use here: {present}",
    )


def _silent(why: str) -> CannotMeasureError:
    return CannotMeasureError(
        f"ModemManager cannot be asked: {why}", remedy="check that it runs: systemctl status ModemManager"
    )


def _printable(text: str) -> str:
    """`text` without what a terminal or a log would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _word(value: object) -> str | None:
    """A value of mmcli's output; `None` when it is not there."""
    return value if isinstance(value, str) and value not in ("", "/", _NONE) else None
