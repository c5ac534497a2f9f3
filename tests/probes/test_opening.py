"""Which stamps a handshake's time is taken from when they do not fit each other."""

from __future__ import annotations

import pytest

from nhip.measurement import Stamp, StampSource
from probes.opening import handshake_times

BEGUN_NS, ENDED_NS = 1_000, 9_000
ENDED = Stamp(0, ENDED_NS, StampSource.USER)


def kernel(mono_ns: int | None) -> Stamp | None:
    return None if mono_ns is None else Stamp(0, mono_ns, StampSource.KERNEL)


@pytest.mark.parametrize(
    ("left_ns", "arrived_ns", "from_ns", "until_ns"),
    [
        (1_100, 8_000, 1_100, 8_000),
        (None, 8_000, BEGUN_NS, 8_000),
        (1_100, None, 1_100, ENDED_NS),
        (None, None, BEGUN_NS, ENDED_NS),
        # Left after the answer had come: of other octets, or the wall clock was set in between.
        (8_500, 8_000, BEGUN_NS, 8_000),
        # Arrived before anything was sent, or after it had been read.
        (1_100, 500, 1_100, ENDED_NS),
        (1_100, 50_000, 1_100, ENDED_NS),
        (70_000, 50_000, BEGUN_NS, ENDED_NS),
    ],
)
def test_stamps_that_contradict_each_other_count_for_nothing(
    left_ns: int | None, arrived_ns: int | None, from_ns: int, until_ns: int
) -> None:
    found_ns, ended = handshake_times(BEGUN_NS, kernel(left_ns), kernel(arrived_ns), ENDED)
    assert (found_ns, ended.mono_ns) == (from_ns, until_ns)
    assert ended.source is (StampSource.USER if until_ns == ENDED_NS else StampSource.KERNEL)
    assert ended.mono_ns >= found_ns
