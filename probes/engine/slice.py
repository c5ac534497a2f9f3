"""A short time slice for this process: it is woken in time beside processes that never sleep.

Linux from 6.12 on takes a wish for the slice of an ordinary process (sched_setattr(2), `sched_runtime`). A
short one gives no more of the processor, but gives it sooner, beside a busy process by a third or so. No
privilege is needed; where the kernel does not know it, nothing happens.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

SHORTEST_NS = 100_000

_NUMBERS = {"x86_64": 314, "aarch64": 274, "riscv64": 274}  # of sched_setattr
_ATTRIBUTES = struct.Struct("@IIQiIQQQ")  # struct sched_attr, its first version of 48 octets


def ask_for_short_slice(slice_ns: int = SHORTEST_NS) -> bool:
    """Whether the kernel took the wish, for the calling thread."""
    number = _NUMBERS.get(platform.machine())
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, slice_ns, 0, 0)
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    return bool(syscall(number, 0, attributes, 0) == 0)
