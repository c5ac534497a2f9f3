"""What matters of a captured request or reply: its kind, its other end, and the key that pairs the two.

What makes a request and a reply a pair:

- ICMP echo, IPv4 and IPv6: addresses, identifier, sequence number.
- STAMP (RFC 8762): addresses, ports and the session-sender sequence number, octets 0-3 of a request
  and 24-27 of a reply.
- DNS: addresses, ports and the message id.
- other UDP: addresses, ports and the first four octets, which an echoing server returns.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Literal

STAMP_PORT = 862
_DNS_PORT = 53

Kind = Literal["icmp", "stamp", "dns", "udp"]


@dataclass(frozen=True, slots=True)
class ProbePacket:
    """A request or reply as seen from one end. `key` is the same for a request and its reply."""

    kind: Kind
    remote: str
    key: bytes
    flow: str
    is_request: bool | None
    """None where only the direction of the first packet of a flow tells (UDP).

    The last four octets of the key then number the packet within its flow; what precedes them is the flow.
    """


def read_packet(data: bytes, *, outgoing: bool) -> ProbePacket | None:
    """The request or reply in an IP packet that leaves or comes in; None when it is neither."""
    if len(data) < 28:
        return None
    if data[0] >> 4 == 4:
        header, protocol = (data[0] & 15) * 4, data[9]
        source, destination = data[12:16], data[16:20]
        echo_request, echo_reply, is_icmp = 8, 0, protocol == 1
    else:
        header, protocol = 40, data[6]
        source, destination = data[8:24], data[24:40]
        echo_request, echo_reply, is_icmp = 128, 129, protocol == 58
    if len(data) < header + 8:
        return None
    near, far = (source, destination) if outgoing else (destination, source)
    if is_icmp:
        if data[header] not in (echo_request, echo_reply):
            return None
        numbers = data[header + 4 : header + 8]
        flow = f"{int.from_bytes(numbers[:2], 'big')}/{int.from_bytes(numbers[2:], 'big')}"
        key = b"i" + near + far + numbers
        return ProbePacket("icmp", _text(far), key, flow, data[header] == echo_request)
    if protocol != 17:
        return None
    from_port, to_port = struct.unpack_from("!HH", data, header)
    near_port, far_port = (from_port, to_port) if outgoing else (to_port, from_port)
    return udp_packet(data[header + 8 :], (near, near_port), (far, far_port), outgoing=outgoing)


def udp_packet(
    payload: bytes, near: tuple[bytes, int], far: tuple[bytes, int], *, outgoing: bool
) -> ProbePacket:
    """The request or reply in a UDP payload between packed addresses and ports."""
    kind: Kind = "udp"
    number = payload[:4]
    if far[1] == _DNS_PORT:
        kind, number = "dns", payload[:2]
    elif far[1] == STAMP_PORT:
        kind, number = "stamp", payload[:4] if outgoing else payload[24:28]
    key = b"u" + near[0] + far[0] + struct.pack("!HH", near[1], far[1]) + number.ljust(4, b"\0")
    return ProbePacket(kind, _text(far[0]), key, f"{near[1]}/{int.from_bytes(number, 'big')}", None)


def _text(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)
