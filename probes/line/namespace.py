"""Another network namespace, as seen from a process that stays where it is.

A namespace belongs to a thread. Whatever must happen in another one is done by a thread that enters it, does
that one thing and ends: nothing has to be put back, so nothing can be left behind. A socket stays for good in
the namespace it was made in, whoever uses it.

``os.setns`` and ``os.unshare`` came with Python 3.12; until then libc is called directly.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nhip.errors import CannotMeasureError
from probes.line.shortage import shortage

NAMES = Path("/run/netns")
"""Where ``ip netns`` keeps its names."""
FILES = Path("/etc/netns")
"""Below it, a folder for each name with the files of /etc that differ there (ip-netns(8))."""

DAEMONS = (
    Path("/run/nscd/socket"),
    Path("/run/systemd/resolve/io.systemd.Resolve"),
    Path("/run/avahi-daemon/socket"),
)
"""Where the C library asks nscd, systemd-resolved (nss-resolve) and Avahi (nss-mdns) of the host."""

_ETC = Path("/etc")
# Put over a socket in the file system it refuses every connection, as if nobody listened.
_NO_SOCKET = Path("/dev/null")
_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000
_MS_BIND, _MS_REC, _MS_SLAVE = 0x1000, 0x4000, 0x80000

_libc = ctypes.CDLL(None, use_errno=True)
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace by its name of ``ip netns``, or by a path such as ``/proc/PID/ns/net``."""

    which: str
    files: Path = FILES
    daemons: tuple[Path, ...] = DAEMONS

    @property
    def path(self) -> Path:
        return Path(self.which) if "/" in self.which else NAMES / self.which

    @property
    def name(self) -> str | None:
        """Its name, where it has one: only then it can have files of its own."""
        return self.path.name if self.path.parent in (NAMES, Path("/var/run/netns")) else None

    @property
    def resolver_file(self) -> Path | None:
        """The namespace's own resolv.conf; `None` when it uses that of the host."""
        file = self.files / (self.name or "") / "resolv.conf"
        return file if self.name and file.is_file() else None

    def run(self, call: Callable[[], Found]) -> Found:
        """What `call` gives inside the namespace, with whatever it raises; CannotMeasureError without it."""
        found: list[Found] = []
        raised: list[BaseException] = []

        def there() -> None:
            try:
                self.enter()
                found.append(call())
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=there, name="namespace", daemon=True)
        thread.start()
        thread.join()
        if raised:
            raise raised[0]
        return found[0]

    def enter(self) -> None:
        """Put the calling thread into the namespace until it ends."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if short := shortage(error, f"network namespace {self.which} cannot be opened"):
                raise short from error
            raise CannotMeasureError(
                f"there is no network namespace {self.which} ({error.strerror})",
                remedy="see: ip netns list; give a name of that list or the path of a namespace",
            ) from error
        try:
            if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
                raise self._refused(ctypes.get_errno())
        finally:
            os.close(descriptor)

    def enter_with_files(self) -> None:
        """Enter, and see the namespace's own files of /etc in their place, as ``ip netns exec`` shows them.

        The C library then asks the name servers of the namespace itself: the sockets of daemons that would
        answer for it from the host are hidden. Only the calling thread sees all this.
        """
        self.enter()
        own = self._own_files()
        daemons = [path for path in self.daemons if path.is_socket()]
        if not own and not daemons:
            return
        if _libc.unshare(_CLONE_NEWNS) != 0:
            raise self._refused(ctypes.get_errno())
        # As a slave of the host's, our view of the file system changes nothing in anybody else's.
        _mount(None, Path("/"), _MS_REC | _MS_SLAVE)
        for file in own:
            _mount(file, _ETC / file.name, _MS_BIND)
        for path in daemons:
            # Not its folder: the host's resolv.conf is often a link into it.
            _mount(_NO_SOCKET, path, _MS_BIND)

    def _own_files(self) -> list[Path]:
        """The namespace's own files of /etc that have a counterpart there to stand in for.

        ``ip netns exec`` warns of the others and goes on. Without a resolv.conf to put it over, though, the
        name server of the namespace would not be asked, and another one would: CannotMeasureError.
        """
        folder = self.files / (self.name or "")
        own = sorted(folder.iterdir()) if self.name and folder.is_dir() else []
        shown = [file for file in own if (_ETC / file.name).exists()]
        if (missing := folder / "resolv.conf") in own and missing not in shown:
            raise CannotMeasureError(
                f"{missing} cannot be shown: this host has no {_ETC / missing.name} to stand in for",
                remedy=f"make one, or mend the link: touch {_ETC / missing.name}",
            )
        return shown

    def _refused(self, number: int) -> CannotMeasureError:
        if number == errno.EINVAL:
            return CannotMeasureError(
                f"{self.path} is no network namespace", remedy="see: ip netns list; lsns --type net"
            )
        return CannotMeasureError(
            f"cannot enter network namespace {self.which}: {os.strerror(number)}",
            remedy="run as root (CAP_SYS_ADMIN), or start nhip inside it: ip netns exec NAME nhip …",
        )


def _mount(source: Path | None, target: Path, flags: int) -> None:
    octets = os.fsencode(source) if source else None
    if _libc.mount(octets, os.fsencode(target), None, ctypes.c_ulong(flags), None) != 0:
        why = os.strerror(ctypes.get_errno())
        raise CannotMeasureError(
            f"cannot show {source or 'the file system'} as {target}: {why}",
            remedy=f"make sure that {target} exists and that this is root",
        )
