"""Networks in which something is wrong, for any probe: nothing arrives, or no name has an address."""

from __future__ import annotations

import ctypes
import socket
import struct

from probes.network import Address, HostNetwork

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h


class DeafNetwork(HostNetwork):
    """Every socket sends but hears nothing: the kernel drops whatever arrives at it.

    A classic BPF program of one instruction, "keep 0 octets", hangs on each socket; on a TCP socket it drops
    the SYN/ACK too. This is a black hole without routes, addresses or privilege.
    """

    def tcp(self, family: socket.AddressFamily) -> socket.socket:
        return _deafened(super().tcp(family))

    def udp(self, family: socket.AddressFamily) -> socket.socket:
        return _deafened(super().udp(family))

    def icmp(self, family: socket.AddressFamily) -> tuple[socket.socket, bool]:
        sock, raw = super().icmp(family)
        return _deafened(sock), raw


class NamelessNetwork(HostNetwork):
    """No name has an address."""

    def resolve(self, host: str, port: int, *, timeout_seconds: float) -> Address | None:
        return None


def _deafened(sock: socket.socket) -> socket.socket:
    drop_all = ctypes.create_string_buffer(struct.pack("@HBBI", 0x06, 0, 0, 0), 8)  # BPF_RET | BPF_K, 0
    program = struct.pack("@H6xP", 1, ctypes.addressof(drop_all))  # struct sock_fprog
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    return sock
