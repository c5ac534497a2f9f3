"""What this host has run out of, and how to give it more: never a fault of a network or a name."""

from __future__ import annotations

import errno

from nhip.errors import CannotMeasureError

_REMEDIES = {
    errno.EMFILE: "raise this process's limit on open files: ulimit -n; systemd: LimitNOFILE=",
    errno.ENFILE: "raise this host's limit on open files: sysctl fs.file-max",
    errno.ENOBUFS: "this host is short of memory for sockets: see free -m and sysctl net.core.wmem_max",
    errno.ENOMEM: "this host is short of memory: see free -m",
}


def shortage(error: OSError, what: str) -> CannotMeasureError | None:
    """Why `what` could not be had, if this host ran out of something; `None` for any other error."""
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is None:
        return None
    return CannotMeasureError(f"{what}: {error.strerror}", remedy=remedy)
