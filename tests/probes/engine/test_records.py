"""Records made by the column say what the functions for single tests say of the same packets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nhip import statistics, wire
from nhip.measurement import Access, Outcome, Singleton, Stamp, StampSource, Target, Technology
from probes.engine import fate
from probes.engine.book import NO_DELAY, Windows
from probes.engine.circumstances import Circumstances
from probes.engine.group import Group, TargetList
from probes.engine.records import WindowContext, records

ACCESS = Access(operator="alpha", technology=Technology.FIXED, province="01")
START_NS = 5_000_000_000
OFFSET_NS = 1_790_000_000_000_000_000

ONE_PROBE = st.tuples(
    st.sampled_from([fate.OPEN, *fate.OUTCOMES]),
    st.integers(0, 2_000_000_000),
    st.integers(0, 65_535),
    st.booleans(),
)


def windows_of(rows: list[list[tuple[int, int, int, bool]]], *, missed: int = 0) -> Windows:
    status = np.array([[kind | (fate.REORDERED if over else 0) for kind, _, _, over in row] for row in rows])
    kinds = status & fate.FATE
    delays = np.array([[delay for _, delay, _, _ in row] for row in rows])
    count = len(rows)
    return Windows(
        targets=np.arange(count),
        started_ns=np.full(count, START_NS),
        ended_ns=np.full(count, START_NS + 60_000_000_000),
        status=status.astype(np.uint8),
        delays_ns=np.where(kinds == fate.RECEIVED, delays, NO_DELAY).astype(np.uint32),
        lags_us=np.array([[lag for _, _, lag, _ in row] for row in rows], np.uint16),
        duplicates=np.arange(count),
        missed=np.full(count, missed),
    )


def made(windows: Windows, *, ip_version: int = 4) -> list[wire.Record]:
    count = len(windows.targets)
    targets = [Target(id=f"t{number}", host=f"10.0.0.{number}") for number in range(count)]
    group = Group(id="homes", targets=TargetList(targets), window_seconds=windows.status.shape[1])
    context = WindowContext(
        group=group,
        ip_version=ip_version,
        targets=targets,
        addresses=[target.host for target in targets],
        offset_ns=OFFSET_NS,
    )
    who = Circumstances(probe_id="probe-1", access=ACCESS)
    return list(records(windows, context, who, OFFSET_NS + START_NS))


def singletons(row: list[tuple[int, int, int, bool]]) -> list[Singleton]:
    found = []
    for number, (kind, delay_ns, lag_us, _over) in enumerate(row):
        if kind == fate.OPEN:
            continue
        outcome = fate.OUTCOMES[kind]
        at = Stamp(0, number * 10**10, StampSource.KERNEL)
        handed = outcome not in (Outcome.NOT_SENT, Outcome.NOT_RESOLVED)
        found.append(
            Singleton(
                sequence=number,
                outcome=outcome,
                sent=at,
                delay_ns=delay_ns if outcome is Outcome.RECEIVED else None,
                send_lag_ns=lag_us * 1000 if handed else None,
            )
        )
    return found


@given(st.lists(st.lists(ONE_PROBE, min_size=7, max_size=7), min_size=1, max_size=4))
def test_counts_and_statistics_are_those_of_the_singletons(
    rows: list[list[tuple[int, int, int, bool]]],
) -> None:
    for number, (record, row) in enumerate(zip(made(windows_of(rows)), rows, strict=True)):
        packets = singletons(row)
        counters = statistics.count(packets)
        for name in ("sent", "received", "lost", "failed", "late", "not_sent"):
            assert getattr(record.counters, name) == getattr(counters, name), name
        assert record.counters.duplicate == number
        assert record.counters.reordered == sum(kind == fate.RECEIVED and over for kind, _, _, over in row)
        assert record.loss_ratio == statistics.loss_ratio(counters)
        assert record.loss_pattern == statistics.loss_pattern(packets)
        for key, values in (
            ("round_trip_delay_seconds", statistics.delays_seconds(packets)),
            ("ipdv_seconds", [abs(value) for value in statistics.ipdv_seconds(packets)]),
            ("pdv_seconds", statistics.pdv_seconds(packets)),
        ):
            found, wanted = getattr(record, key), statistics.summary(values, "seconds")
            assert (found is None) == (wanted is None), key
            if found is not None and wanted is not None:
                for part in ("count", "min", "mean", "p50", "p95", "p99", "p999", "max"):
                    assert getattr(found, part) == pytest.approx(getattr(wanted, part), abs=1e-15), (
                        key,
                        part,
                    )
        wanted_ladder = statistics.delay_quantiles_seconds(packets)
        assert (record.round_trip_delay_quantiles_seconds is None) == (wanted_ladder is None)
        if wanted_ladder is not None:
            assert record.round_trip_delay_quantiles_seconds == pytest.approx(wanted_ladder, abs=1e-15)
        lags = [packet.send_lag_ns / 1e9 for packet in packets if packet.send_lag_ns is not None]
        timing = record.self_timing
        assert (timing is None) == (not lags)
        if timing is not None and timing.send_lag_seconds is not None:
            assert timing.send_lag_seconds.max == pytest.approx(max(lags))


@given(st.lists(st.lists(ONE_PROBE, min_size=5, max_size=5), min_size=1, max_size=3), st.integers(0, 9))
def test_a_collector_takes_every_record(rows: list[list[tuple[int, int, int, bool]]], missed: int) -> None:
    """No window makes a record that contradicts itself."""
    windows = windows_of(rows, missed=missed)
    windows.duplicates[:] = np.minimum(windows.duplicates, 1)
    for record in made(windows):
        kept = wire.decode_record(wire.encode_record(record))
        assert kept.counters == record.counters
        assert kept.kind == "icmp"
        assert kept.method.name == "icmp_echo"


def test_a_delay_without_both_kernel_stamps_is_said_to_be_doubtful() -> None:
    rows = [[(fate.RECEIVED, 20_000_000, 0, False)] * 3] * 2
    windows = windows_of(rows)
    windows.status[1, 2] |= fate.SENT_BY_USER_STAMP
    sound, mixed = made(windows)
    assert sound.timestamp_source is StampSource.KERNEL
    assert sound.self_timing is not None
    assert not sound.self_timing.doubtful
    assert mixed.timestamp_source is StampSource.USER
    assert mixed.self_timing is not None
    assert mixed.self_timing.doubtful


def test_missed_probes_are_not_sent_and_the_record_says_why() -> None:
    (record,) = made(windows_of([[(fate.RECEIVED, 1000, 0, False), (fate.OPEN, 0, 0, False)]], missed=3))
    assert record.counters.not_sent == 3
    assert record.counters.sent == 1
    assert any("missed" in note for note in record.notes)


def test_octets_are_those_of_the_packets_that_left_and_came_back() -> None:
    row = [(kind, 1000, 0, False) for kind in (fate.RECEIVED, fate.LOST, fate.NOT_SENT, fate.NOT_RESOLVED)]
    (record,) = made(windows_of([row]))
    assert record.octets_sent == 2 * 64
    assert record.octets_received == 64


def test_an_ipv6_record_says_so() -> None:
    (record,) = made(windows_of([[(fate.LOST, 0, 0, False)]]), ip_version=6)
    assert (record.type_p.protocol, record.type_p.ip_version) == ("icmpv6", 6)
    assert record.round_trip_delay_seconds is None
    assert record.outcome is Outcome.LOST
