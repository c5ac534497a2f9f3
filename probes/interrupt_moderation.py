"""How long a network card may sit on a packet before it tells the kernel, as its driver says (ethtool -c).

The kernel stamps an arrival when it takes the packet from the card. A card that gathers several packets for
one interrupt makes that later than the wire by up to its moderation time, which no software stamp can see.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

_SIOCETHTOOL = 0x8946
_ETHTOOL_GCOALESCE = 0x0000000E
# struct ethtool_coalesce, linux/ethtool.h: 23 words, of which word 1 is rx_coalesce_usecs, word 10 says
# whether the driver adapts it, and word 18 is rx_coalesce_usecs_high.
_COALESCE = struct.Struct("@23I")
_RX_USECS, _ADAPTIVE_RX, _RX_USECS_HIGH = 1, 10, 18
_REQUEST = struct.Struct("@16sP")


def interrupt_moderation_ns(interface: str) -> int:
    """The longest the driver of `interface` says it waits; 0 where it says nothing, as virtual ones do."""
    table = ctypes.create_string_buffer(_COALESCE.pack(_ETHTOOL_GCOALESCE, *[0] * 22))
    request = _REQUEST.pack(interface.encode(), ctypes.addressof(table)).ljust(40, b"\0")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            fcntl.ioctl(asker, _SIOCETHTOOL, request)
    except OSError:
        return 0
    return longest_wait_ns(table.raw[: _COALESCE.size])


def longest_wait_ns(coalesce: bytes) -> int:
    """The longest wait before an arrival is told, out of a filled ``struct ethtool_coalesce``."""
    words = _COALESCE.unpack(coalesce)
    adaptive = words[_RX_USECS_HIGH] if words[_ADAPTIVE_RX] else 0
    return int(max(words[_RX_USECS], adaptive)) * 1_000
