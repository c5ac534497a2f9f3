"""Waking on time: realtime priority for the emulator and company for sleepy processors.

A virtual processor that fell idle needs 0.1 to 0.25 ms to wake, which would be the lab's largest error.
One process at idle priority on each processor keeps it awake; it yields to any other work at once.
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29
_PRIORITY = 50

_libc = ctypes.CDLL(None, use_errno=True)


def become_realtime() -> bool:
    """Take the fixed-priority class SCHED_FIFO; False when this process may not."""
    # A wait may otherwise be stretched by 50 us to save energy; realtime tasks have no slack anyhow.
    _libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    except PermissionError:
        return False
    return True


def keep_processors_awake() -> list[int]:
    """Start one spinning process of idle priority on each processor; the process ids.

    They end when the thread that called this ends, however it ends. Call it before any other thread or
    descriptor exists.
    """
    parent, children = os.getpid(), []
    for processor in sorted(os.sched_getaffinity(0)):
        child = os.fork()
        if child == 0:
            _spin(parent, processor)
        children.append(child)
    return children


def leave_idle_class(pid: int) -> None:
    """Give a process of idle priority the normal one, so that it can end on a busy machine.

    Ending takes processor time too, and at idle priority that may not come for many seconds.
    """
    try:
        if os.sched_getscheduler(pid) == os.SCHED_IDLE:
            os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))
    except (ProcessLookupError, PermissionError):
        pass  # Already gone, or not ours to change: it then ends when it gets its turn.


def _spin(parent: int, processor: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # The parent ended before the signal was arranged.
        os._exit(0)
    try:
        os.sched_setaffinity(0, {processor})
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError:
        os._exit(1)  # Spinning at normal priority would take time from the measurement itself.
    while True:
        pass
