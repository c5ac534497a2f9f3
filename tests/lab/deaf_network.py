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
    the SYN/ACK too. This is a black hole without routes, addresses or privilege. A UDP socket would count
    what its filter drops as if its buffer had been full, which is this host's own fault and no silence; so
    there one octet is kept, none of which is payload: what is heard is an empty datagram from nobody's test.
    """

    def tcp(self, family: socket.AddressFamily) -> socket.socket:
        return _deafened(super().tcp(family))

    def udp(self, family: socket.AddressFamily) -> socket.socket:
        return _deafened(super().udp(family), keep_octets=1)

    def icmp(self, family: socket.AddressFamily) -> tuple[socket.socket, bool]:
        sock, raw = super().icmp(family)
        return _deafened(sock), raw


class NamelessNetwork(HostNetwork):
    """No name has an address."""

    def resolve_all(self, host: str, port: int, *, timeout_seconds: float) -> tuple[Address, ...]:
        return ()


def _deafened(sock: socket.socket, *, keep_octets: int = 0) -> socket.socket:
    # BPF_RET | BPF_K
    drop_all = ctypes.create_string_buffer(struct.pack("@HBBI", 0x06, 0, 0, keep_octets), 8)
    program = struct.pack("@H6xP", 1, ctypes.addressof(drop_all))  # struct sock_fprog
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    return sock
