"""sendmmsg(2) and recvmmsg(2) over arrays: hundreds of datagrams for one call, no object for any of them.

The kernel reads and writes the arrays themselves. Addresses of their memory stand in the headers, so the
arrays of a block are made once and live as long as it does.

::

    struct mmsghdr (64 octets)          struct iovec        one row of `data`, `addresses`, `control`
    ┌ msg_name     ───────────────────────────────────────▶ sockaddr
    │ msg_iov      ─────────────────▶ ┌ iov_base ─────────▶ octets of the packet
    │ msg_control  ────────────┐      └ iov_len
    │ msg_flags                └──────────────────────────▶ control messages
    └ msg_len
"""

from __future__ import annotations

import ctypes
import os
import socket

import numpy as np
from numpy.typing import NDArray

MOST_AT_ONCE = 1024
"""UIO_MAXIOV: the kernel takes no more datagrams in one call."""

Octets = NDArray[np.uint8]

_ADDRESS_OCTETS = 32  # a row for sockaddr_in (16) or sockaddr_in6 (28)
_HEADER = np.dtype(
    {
        "names": [
            "name",
            "name_octets",
            "parts",
            "part_count",
            "control",
            "control_octets",
            "flags",
            "length",
        ],
        "formats": ["u8", "u4", "u8", "u8", "u8", "u8", "i4", "u4"],
        "offsets": [0, 8, 16, 24, 32, 40, 48, 56],
        "itemsize": 64,
    }
)
_PART = np.dtype([("base", "u8"), ("octets", "u8")])

_libc = ctypes.CDLL(None, use_errno=True)
_sendmmsg, _recvmmsg = _libc.sendmmsg, _libc.recvmmsg
_sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
_recvmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]


class SendBlock:
    """Packets of one size to be sent in order; fill `data` and `addresses`, then :meth:`send`."""

    def __init__(self, capacity: int, packet_octets: int, family: socket.AddressFamily) -> None:
        self.capacity = capacity
        self.data: Octets = np.zeros((capacity, _whole_words(packet_octets)), np.uint8)
        self.addresses: Octets = np.zeros((capacity, _ADDRESS_OCTETS), np.uint8)
        self._parts = np.zeros(capacity, _PART)
        self._headers = np.zeros(capacity, _HEADER)
        self._parts["base"] = _row_places(self.data)
        self._parts["octets"] = packet_octets
        self._headers["name"] = _row_places(self.addresses)
        self._headers["name_octets"] = sockaddr_octets(family)
        self._headers["parts"] = _row_places(self._parts)
        self._headers["part_count"] = 1
        self._place = self._headers.ctypes.data

    def send(self, descriptor: int, first: int, count: int) -> int:
        """Hand over `count` packets from row `first` on; how many the kernel took, in order.

        OSError when it refused the very first one.
        """
        done = 0
        while done < count:
            asked = min(count - done, MOST_AT_ONCE)
            sent: int = _sendmmsg(
                descriptor, self._place + (first + done) * _HEADER.itemsize, asked, socket.MSG_DONTWAIT
            )
            if sent < 0:
                if done:
                    return done
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            done += sent
            if sent < asked:
                return done
        return done


class ReceiveBlock:
    """Room for datagrams; :meth:`receive` fills the first rows of every array.

    `lead` octets are left free at the start of each row, so that what matters in it can be aligned.
    """

    def __init__(self, capacity: int, data_octets: int, control_octets: int, *, lead: int = 0) -> None:
        self.capacity = min(capacity, MOST_AT_ONCE)
        self.data: Octets = np.zeros((self.capacity, _whole_words(lead + data_octets)), np.uint8)
        self.addresses: Octets = np.zeros((self.capacity, _ADDRESS_OCTETS), np.uint8)
        self.control: Octets = np.zeros((self.capacity, _whole_words(control_octets)), np.uint8)
        self._parts = np.zeros(self.capacity, _PART)
        self._headers = np.zeros(self.capacity, _HEADER)
        self._parts["base"] = _row_places(self.data) + np.uint64(lead)
        self._parts["octets"] = self.data.shape[1] - lead
        self._headers["name"] = _row_places(self.addresses)
        self._headers["parts"] = _row_places(self._parts)
        self._headers["part_count"] = 1
        self._headers["control"] = _row_places(self.control)
        self._place = self._headers.ctypes.data
        self.lengths: NDArray[np.uint32] = self._headers["length"]
        self.flags: NDArray[np.int32] = self._headers["flags"]
        self._name_octets = self._headers["name_octets"]
        self.control_lengths: NDArray[np.uint64] = self._headers["control_octets"]
        self._used = self.capacity

    def receive(self, descriptor: int, flags: int = 0) -> int:
        """Read what waits, at most `capacity`; 0 when nothing does. OSError as the socket gives it."""
        used = self._used
        self._name_octets[:used] = _ADDRESS_OCTETS
        self.control_lengths[:used] = self.control.shape[1]
        self.control[:used, :16] = 0  # a message without control data must not show the one before
        found: int = _recvmmsg(descriptor, self._place, self.capacity, flags | socket.MSG_DONTWAIT, None)
        if found < 0:
            self._used = 0
            number = ctypes.get_errno()
            if number in (11, 4):  # EAGAIN, EINTR
                return 0
            raise OSError(number, os.strerror(number))
        self._used = found
        return found


def sockaddr_octets(family: socket.AddressFamily) -> int:
    """The size of the kernel's address structure of `family`."""
    return 16 if family is socket.AF_INET else 28


def sockaddr(family: socket.AddressFamily, host: str, scope: int = 0) -> bytes:
    """The kernel's address structure for `host`, port 0, as one row of `addresses`.

    ::

        sockaddr_in    family 2 | port 2 | address 4 | zero 8
        sockaddr_in6   family 2 | port 2 | flow 4 | address 16 | scope 4
    """
    head = int(family).to_bytes(2, "little" if _LITTLE else "big") + b"\0\0"
    packed = socket.inet_pton(family, host.partition("%")[0])
    if family is socket.AF_INET:
        return (head + packed).ljust(_ADDRESS_OCTETS, b"\0")
    tail = scope.to_bytes(4, "little" if _LITTLE else "big")
    return (head + b"\0\0\0\0" + packed + tail).ljust(_ADDRESS_OCTETS, b"\0")


def host_part(family: socket.AddressFamily) -> slice:
    """Where in a row of `addresses` the host's own octets stand."""
    return slice(4, 8) if family is socket.AF_INET else slice(8, 24)


_LITTLE = np.little_endian


def _whole_words(octets: int) -> int:
    return -(-octets // 8) * 8


def _row_places(rows: NDArray[np.generic]) -> NDArray[np.uint64]:
    """The memory address of each row."""
    return np.uint64(rows.ctypes.data) + np.arange(len(rows), dtype=np.uint64) * np.uint64(rows.strides[0])
