"""Network namespaces: entering them, and speaking to the `ip` command.

``os.setns`` came with Python 3.12; until then libc is called directly.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nhip.errors import LabError

NAMESPACES = Path("/run/netns")
"""Where `ip netns` keeps its names."""

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """The calling thread stands in `namespace` while the block runs; sockets made there stay there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            there = os.open(NAMESPACES / namespace, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise LabError(
                f"there is no network namespace {namespace}",
                remedy="the lab is gone; `nhip lab up` makes it anew",
            ) from error
        try:
            _set_namespace(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _set_namespace(home)
    finally:
        os.close(home)


def namespaces() -> set[str]:
    """The names of all network namespaces of this machine."""
    try:
        return {path.name for path in NAMESPACES.iterdir()}
    except FileNotFoundError:
        return set()


def open_tun(namespace: str, interface: str) -> int:
    """A file descriptor, not blocking, that reads what leaves by TUN `interface` and writes what arrives.

    Without IFF_VNET_HDR the kernel offers no segmentation or checksum offload on the device, so every
    read gives one finished packet no longer than the MTU.
    """
    with inside(namespace):
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        request = struct.pack("16sH22x", interface.encode(), _IFF_TUN | _IFF_NO_PI)
        try:
            fcntl.ioctl(tun, _TUNSETIFF, request)
        except OSError:
            os.close(tun)
            raise
    return tun


def write_settings(namespace: str, settings: Sequence[tuple[str, str]]) -> None:
    """Set kernel settings (``net/ipv4/ip_forward``, value) of `namespace`."""
    with inside(namespace):
        for name, value in settings:
            Path("/proc/sys", name).write_text(value, encoding="ascii")


def run_ip(lines: Sequence[str], *, namespace: str | None = None) -> None:
    """Run one batch of `ip` commands, in `namespace` if given; LabError quotes what `ip` said."""
    command = ["ip", *(["-netns", namespace] if namespace else []), "-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines), text=True, capture_output=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().replace("\n", "; ")
        raise LabError(f"`{' '.join(command)}` failed: {said}", remedy="run `nhip lab down` and try again")


def delete_namespaces(names: Sequence[str]) -> None:
    """Delete those of `names` that exist; one that vanishes meanwhile is fine."""
    present = namespaces()
    lines = [f"netns del {name}" for name in names if name in present]
    if not lines:
        return
    command = ["ip", "-force", "-batch", "-"]
    subprocess.run(command, input="\n".join(lines), text=True, capture_output=True, check=False)
    left = sorted(set(names) & namespaces())
    if left:
        raise LabError(
            f"the namespaces {', '.join(left)} cannot be deleted", remedy="`ip netns del NAME` says why"
        )


def check_can_build() -> None:
    """Raise LabError, with what to do, unless this process may make namespaces, links and TUN devices."""
    if os.geteuid() != 0:
        raise LabError(
            "a lab of network namespaces needs root",
            remedy="use sudo, or the loopback variant, which needs no privilege: nhip lab up --relay",
        )
    if shutil.which("ip") is None:
        raise LabError(
            "the command `ip` is missing", remedy="install iproute2 (Debian: apt install iproute2)"
        )
    if not Path("/dev/net/tun").exists():
        raise LabError(
            "/dev/net/tun is missing",
            remedy="load the module with `modprobe tun`; in a container, add the device /dev/net/tun",
        )


def _set_namespace(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise LabError(
            f"cannot enter a network namespace ({os.strerror(number)})", remedy="run as root (CAP_SYS_ADMIN)"
        )
