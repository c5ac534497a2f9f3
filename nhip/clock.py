"""Time as an argument: the wall clock for dates, the monotonic clock for durations."""

from __future__ import annotations

import ctypes
import struct
import time
from typing import Protocol

from nhip.measurement import ClockState


class Clock(Protocol):
    """What code asks for the time; tests hand in one that they move themselves."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC; may step."""

    def mono_ns(self) -> int:
        """Nanoseconds of the monotonic clock; only differences mean anything."""

    def sleep(self, seconds: float) -> None:
        """Return after `seconds` of monotonic time."""

    def suspended_ns(self) -> int:
        """How long this host has slept since it started, which the monotonic clock leaves out."""


class SystemClock:
    """The clocks of this host."""

    def wall_ns(self) -> int:
        return time.time_ns()

    def mono_ns(self) -> int:
        return time.monotonic_ns()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def suspended_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()


def clock_state() -> ClockState:
    """What the kernel says of its clock: adjtimex(2) in read mode; nothing known where that is refused.

    ``TIME_ERROR`` (return value 5) or ``STA_UNSYNC`` means that no daemon disciplines the clock. Both
    error figures are microseconds in the kernel's structure.
    """
    buffer = ctypes.create_string_buffer(208)  # struct timex is 208 octets on 64-bit Linux
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (OSError, AttributeError):
        return ClockState()
    if state < 0:
        return ClockState()
    # modes (int), offset, freq, maxerror, esterror (long each), status (int), aligned as the C compiler does
    _modes, _offset, _freq, maximum_us, estimated_us, status = struct.unpack_from("@illlli", buffer.raw)
    return ClockState(
        synchronised=state != _TIME_ERROR and not status & _STA_UNSYNC,
        estimated_error_ns=estimated_us * 1000,
        maximum_error_ns=maximum_us * 1000,
    )


_TIME_ERROR = 5
_STA_UNSYNC = 0x0040
