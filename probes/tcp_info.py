"""What this host's kernel knows of one TCP connection.

::

    octet  0        8 ...            68        72 ...             100
           | 8 × u8 | u32 rto, ... | u32 rtt | u32 rttvar, ... | u32 total_retrans |     struct tcp_info,
                                                                                         linux/tcp.h
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

_TCP_INFO_OCTETS = 104
_ROUND_TRIP_OFFSET, _RETRANSMITTED_OFFSET = 68, 100


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """The smoothed round trip, segments sent again (SYN included), and who paced what this host sent."""

    round_trip_us: int
    retransmitted_segments: int
    congestion_control: str


def tcp_info(sock: socket.socket) -> TcpInfo:
    """The state of a connected socket now; OSError when it is gone."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_OCTETS)
    (round_trip_us,) = struct.unpack_from("@I", info, _ROUND_TRIP_OFFSET)
    (retransmitted,) = struct.unpack_from("@I", info, _RETRANSMITTED_OFFSET)
    name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    return TcpInfo(round_trip_us, retransmitted, name.split(b"\0", 1)[0].decode("ascii", "replace"))
