"""A socket for whose sake the kernel stamps what arrives while a test's own sockets come and go."""

from __future__ import annotations

import socket

from probes.api import ProbeContext
from probes.network import Address
from probes.timestamping import PacketClock


def stamping_keeper(context: ProbeContext, address: Address) -> socket.socket:
    """An open socket that asked for stamps, once they are switched on; the caller's to close.

    The kernel begins a moment after the first socket of the host asks and stops with the last: too late for
    one that is opened, asked and closed.
    """
    sock = context.network.udp(address.family)
    try:
        PacketClock(context.clock).enable(sock)
    except BaseException:
        sock.close()
        raise
    return sock
