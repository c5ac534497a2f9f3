"""ModemManager without a modem: a D-Bus of its own, and on it a service that says what it is told to."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SYSTEM_PYTHON = "/usr/bin/python3"
PACKAGES = "modemmanager python3-dbusmock dbus-daemon"
CONNECTED, REGISTERED, FAILED = 11, 8, -1

_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>custom</type><listen>unix:path={socket}</listen>
<policy context="default">
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
</policy></busconfig>
"""


def needs_modem_manager() -> None:
    """Skip the calling test where ModemManager's command or the stand-in for its service is missing."""
    have_tools = shutil.which("mmcli") and shutil.which("dbus-daemon") and Path(SYSTEM_PYTHON).exists()
    asks = [SYSTEM_PYTHON, "-c", "import dbus, dbusmock, gi"]
    if not have_tools or subprocess.run(asks, capture_output=True, check=False).returncode != 0:
        pytest.skip(f"no ModemManager to ask (Debian: apt-get install {PACKAGES})")


@contextlib.contextmanager
def private_bus(folder: Path) -> Iterator[dict[str, str]]:
    """A message bus nobody else is on; gives the environment in which it is the system's bus."""
    configuration = folder / "bus.conf"
    configuration.write_text(_BUS.format(socket=folder / "bus"), encoding="utf-8")
    command = ["dbus-daemon", f"--config-file={configuration}", "--nofork", "--print-address"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as bus:
        assert bus.stdout is not None
        address = bus.stdout.readline().strip()
        try:
            yield {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": address}
        finally:
            bus.terminate()


@contextlib.contextmanager
def modems_on(bus: dict[str, str], modems: list[dict[str, Any]]) -> Iterator[None]:
    """While the block runs, ModemManager on that bus has these modems."""
    program = Path(__file__).with_name("modem_manager_service.py")
    with subprocess.Popen(
        [SYSTEM_PYTHON, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=bus
    ) as service:
        assert service.stdin is not None
        assert service.stdout is not None
        service.stdin.write(json.dumps({"modems": modems}))
        service.stdin.close()
        assert service.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            service.terminate()
