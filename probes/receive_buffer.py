"""Room for what arrives while this process does not run, and how many packets found none.

A packet that the kernel drops because nobody read the socket looks exactly like one that the network lost. So
a measuring socket gets a large buffer, and is asked at the end how much it dropped.
"""

from __future__ import annotations

import contextlib
import socket
import struct

_SO_RCVBUFFORCE = 33  # asm-generic/socket.h; for CAP_NET_ADMIN, beyond net.core.rmem_max
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("@9I")
_DROPS = 8  # SK_MEMINFO_DROPS, linux/sock_diag.h
_WANTED_OCTETS = 4 << 20


def make_room(sock: socket.socket) -> None:
    """As large a receive buffer as this process may have, up to 4 MiB."""
    for option in (socket.SO_RCVBUF, _SO_RCVBUFFORCE):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, _WANTED_OCTETS)


def dropped(sock: socket.socket) -> int:
    """How many packets the kernel dropped because the buffer of `sock` was full; 0 where it does not tell."""
    try:
        return int(_MEMINFO.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[_DROPS])
    except (OSError, struct.error):
        return 0
