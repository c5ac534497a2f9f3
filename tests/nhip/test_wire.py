"""Records on the wire: what goes in comes out, and what no honest probe writes is refused by name."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nhip import wire
from nhip.errors import WireError
from nhip.measurement import (
    Access,
    Direction,
    Environment,
    Method,
    Outcome,
    Phase,
    Sample,
    Statistic,
    Technology,
    Transfer,
)
from tests.lab import records
from tests.lab.samples import MS, START, other, received, sample, stream

GOLDEN = Path(__file__).parent / "data" / "record-schema-1.json"
ACCESS = Access(
    operator="alpha", technology=Technology.MOBILE_4G, province="79", environment=Environment.INDOOR
)


def golden_sample() -> Sample:
    return sample(
        [received(0, 10 * MS), other(1, Outcome.LOST), received(2, 30 * MS), other(2, Outcome.DUPLICATE)]
    )


def record_of(found: Sample, **options: Any) -> wire.Record:
    return wire.record(found, probe_id="probe-1", access=ACCESS, wall_ns=START.wall_ns, **options)


def document(**changes: Any) -> dict[str, Any]:
    """A valid record as plain JSON values, with some keys changed; dots lead into tables."""
    found: dict[str, Any] = json.loads(wire.encode_record(record_of(golden_sample(), keep_singletons=True)))
    for path, value in changes.items():
        *tables, key = path.split("__")
        place = found
        for table in tables:
            place = place[int(table)] if table.isdigit() else place[table]
        place[key] = value
    return found


def encoded(found: dict[str, Any]) -> bytes:
    return json.dumps(found).encode()


# What a record says


def test_a_record_carries_counters_and_statistics_of_its_sample() -> None:
    record = record_of(golden_sample())
    assert record.outcome is Outcome.RECEIVED
    assert (record.counters.sent, record.counters.received, record.counters.lost) == (3, 2, 1)
    assert record.counters.duplicate == 1
    assert record.loss_ratio == 1 / 3
    assert record.round_trip_delay_seconds is not None
    assert record.round_trip_delay_seconds.p50 == pytest.approx(0.020)
    assert record.ipdv_seconds is None  # its only pair has a lost packet between
    assert record.pdv_seconds is not None
    assert record.pdv_seconds.max == pytest.approx(0.020)
    assert record.duration_ns == 10_000 * MS
    assert record.singletons is msgspec.UNSET


def test_a_record_of_which_all_is_lost_has_no_delay_and_says_lost() -> None:
    record = record_of(sample(stream([None, None])))
    assert record.outcome is Outcome.LOST
    assert record.loss_ratio == 1.0
    assert record.round_trip_delay_seconds is None
    assert json.loads(wire.encode_record(record))["round_trip_delay_seconds"] is None


def test_a_record_of_which_nothing_was_sent_has_no_loss() -> None:
    record = record_of(sample([other(0, Outcome.NOT_SENT)]))
    assert (record.outcome, record.loss_ratio, record.loss_interval) == (Outcome.NOT_SENT, None, None)


def test_the_overall_outcome_is_the_most_frequent_failure() -> None:
    fates = [Outcome.REFUSED, Outcome.LOST, Outcome.LOST, Outcome.DUPLICATE, Outcome.DUPLICATE]
    assert wire.overall_outcome(sample([other(i, fate) for i, fate in enumerate(fates)])) is Outcome.LOST
    assert wire.overall_outcome(sample([])) is Outcome.NOT_SENT


def test_phases_are_medians_and_speeds_are_means_of_whole_transfers() -> None:
    def attempt(sequence: int, seconds: int) -> Any:
        return dataclasses.replace(
            received(sequence, MS),
            phases=(Phase("tcp", seconds * 1000 * MS),),
            transfer=Transfer(direction=Direction.UP, octets=1_000_000, duration_ns=seconds * 1000 * MS),
        )

    record = record_of(sample([attempt(0, 1), attempt(1, 2), attempt(2, 8)]))
    assert record.phases_seconds == {"tcp": 2.0}
    (speed,) = record.speeds
    assert (speed.direction, speed.transfers, speed.octets) == (Direction.UP, 3, 3_000_000)
    assert speed.mean_bits_per_second == pytest.approx((8e6 + 4e6 + 1e6) / 3)


def test_two_records_of_one_sample_have_different_identifiers() -> None:
    assert record_of(golden_sample()).record_id != record_of(golden_sample()).record_id


# Round trip and versions


@pytest.mark.parametrize("keep_singletons", [False, True])
def test_a_record_survives_its_round_trip(keep_singletons: bool) -> None:
    record = record_of(golden_sample(), keep_singletons=keep_singletons)
    assert wire.decode_record(wire.encode_record(record)) == record


@given(delays=st.lists(st.none() | st.floats(0, 120_000), max_size=20))
def test_any_stream_survives_its_round_trip(delays: list[float | None]) -> None:
    record = record_of(sample(stream(delays)), keep_singletons=True)
    assert wire.decode_record(wire.encode_record(record)) == record


def test_a_record_of_schema_version_1_is_read_as_it_was_meant() -> None:
    record = wire.decode_record(GOLDEN.read_bytes())
    assert record.schema_version == 1
    assert str(record.record_id) == "01a0c4ab-7000-7000-8000-00000000002a"
    assert (record.kind, record.probe_id, record.access) == ("icmp", "probe-1", ACCESS)
    expected = record_of(golden_sample(), keep_singletons=True)
    without_p999 = {
        key: dataclasses.replace(getattr(expected, key), p999=None)
        for key in ("round_trip_delay_seconds", "pdv_seconds")
    }
    same = msgspec.structs.replace(
        expected,
        schema_version=1,
        record_id=record.record_id,
        software_version=record.software_version,
        # What version 1 did not know is absent, not zero.
        round_trip_delay_quantiles_seconds=None,
        loss_pattern=None,
        **without_p999,
    )
    assert record == same


def test_a_record_of_schema_version_2_is_read_as_it_was_meant() -> None:
    record = wire.decode_record(GOLDEN.with_name("record-schema-2.json").read_bytes())
    expected = record_of(golden_sample(), keep_singletons=True)
    same = {"record_id": record.record_id, "software_version": record.software_version}
    assert record == msgspec.structs.replace(expected, **same, schema_version=2)


def test_the_golden_file_is_of_this_version_or_an_older_one() -> None:
    assert wire.OLDEST_SCHEMA_VERSION == 1, "the golden file of schema version 1 must still be readable"


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_a_newer_record_with_fields_unknown_here_is_read(version: int) -> None:
    later = document(schema_version=version, radio={"rsrp_dbm": [-97, 1e3]}, target__asn=64496)
    record = wire.decode_record(encoded(later))
    assert record.schema_version == version
    assert record.counters.sent == 3


@pytest.mark.parametrize("version", [-1, 0, 5, 100])
def test_a_record_too_old_or_too_new_is_refused_by_version(version: int) -> None:
    with pytest.raises(WireError, match=f"schema_version {version} is not understood") as refusal:
        wire.decode_record(encoded(document(schema_version=version)))
    assert "1 to 4" in refusal.value.remedy


# Hostile octets

HOSTILE_DOCUMENTS: dict[str, Callable[[bytes], bytes]] = {
    "NaN": lambda good: good.replace(b'"loss_ratio":0.333', b'"loss_ratio":NaN,"x":0.333', 1),
    "minus infinity": lambda good: good.replace(b'"octets_sent":256', b'"octets_sent":-Infinity'),
    "a float beyond every double": lambda good: good.replace(b'"octets_sent":256', b'"octets_sent":1e999'),
    "an integer of 5,000 digits": lambda good: good.replace(b":256", b":" + b"1" * 5000, 1),
    "an integer of 5,000 digits in a parameter": lambda good: good.replace(
        b'"count":4', b'"count":' + b"9" * 5000
    ),
    "two to the seventieth": lambda good: good.replace(
        b'"octets_sent":256', b'"octets_sent":1180591620717411303424'
    ),
    "true as a number": lambda good: good.replace(b'"octets_sent":256', b'"octets_sent":true'),
    "a number as text": lambda good: good.replace(b'"octets_sent":256', b'"octets_sent":"256"'),
    "a float where octets are counted": lambda good: good.replace(b'"octets_sent":256', b'"octets_sent":2.5'),
    "Arabic digits": lambda good: good.replace(b":256", ":٢٥٦".encode(), 1),
    "a number with an underscore": lambda good: good.replace(b":256", b":2_56", 1),
    "a key given twice": lambda good: b'{"probe_id":"another",' + good[1:],
    "a key inside a table given twice": lambda good: good.replace(b'"sent":3', b'"sent":2,"sent":3'),
    "an unknown key given twice": lambda good: b'{"x":1,"x":2,' + good[1:],
    "a key given twice, once escaped": lambda good: b'{"\\u006bind":"stamp",' + good[1:],
    "100,000 open brackets": lambda good: b'{"x":' + b"[" * 100_000,
    "100,000 nested arrays": lambda good: b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"," + good[1:],
    "a lone surrogate": lambda good: good.replace(b"192.0.2.1", b"\\ud800", 1),
    "a lone surrogate in an unknown key": lambda good: b'{"x":"\\udfff",' + good[1:],
    "octets that are no UTF-8": lambda good: good.replace(b"192.0.2.1", b"\xff\xfe", 1),
    "a NUL between": lambda good: good + b"\0",
    "two documents": lambda good: good + good,
    "half a document": lambda good: good[: len(good) // 2],
    "nothing": lambda good: b"",
    "null": lambda good: b"null",
    "an array": lambda good: b"[" + good + b"]",
    "HTML": lambda good: b"<!DOCTYPE html><html>",
}


@pytest.mark.parametrize("name", HOSTILE_DOCUMENTS)
def test_hostile_octets_are_refused_without_another_error(name: str) -> None:
    good = wire.encode_record(record_of(golden_sample(), keep_singletons=True))
    bad = HOSTILE_DOCUMENTS[name](good)
    assert bad != good
    with pytest.raises(WireError, match="no record"):
        wire.decode_record(bad)


@given(octets=st.binary(max_size=400))
def test_octets_at_random_are_refused_without_another_error(octets: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode_record(octets)
    with pytest.raises(WireError):
        wire.decode_batch(octets)


@given(place=st.integers(0, 2000), value=st.integers(0, 255))
def test_a_changed_octet_gives_a_record_or_a_refusal(place: int, value: int) -> None:
    octets = bytearray(GOLDEN.read_bytes())
    octets[place % len(octets)] = value
    with contextlib.suppress(WireError):
        wire.encode_record(wire.decode_record(bytes(octets)))


SECONDS_OF_TWO = {
    "unit": "seconds", "count": 2, "min": 0.001, "mean": 0.002, "p50": 0.002, "p95": 0.003, "p99": 0.003,
    "p999": 0.003, "max": 0.003,
}  # fmt: skip
ONE_WAY = {"direction": "up", "delay_seconds": SECONDS_OF_TWO, "error_seconds": 0.001}
TIMING = {
    "send_lag_seconds": SECONDS_OF_TWO,
    "send_queueing_seconds": None,
    "receive_queueing_seconds": None,
    "own_error_seconds": None,
    "error_share_limit": 0.1,
    "doubtful": False,
}
STATISTIC = {
    "name": "mos",
    "value": 4.2,
    "unit": "MOS",
    "count": 2,
    "definition": "ITU-T G.107",
    "of": "g711",
}
POSSIBLE = {
    "directional_loss": {"sent": 3, "lost_up": 1, "lost_down": 0, "undetermined": 0},
    "one_way_delays": [ONE_WAY | {"delay_seconds": SECONDS_OF_TWO | {"min": -0.0005}}],
    "self_timing": TIMING,
    "statistics": [STATISTIC, STATISTIC | {"of": "g729a"}],
    "facts": {"tls_version": "TLSv1.3"},
}


@pytest.mark.parametrize("key", POSSIBLE)
def test_what_a_record_may_say_beside_its_counters_is_read(key: str) -> None:
    found = document(**{key: POSSIBLE[key]})
    again = json.loads(wire.encode_record(wire.decode_record(encoded(found))))
    assert again == found


IMPOSSIBLE: dict[str, list[Any]] = {
    "counters__sent": [-1, 2, 4, 2**60],
    "counters__received": [-2, 3],
    "counters__lost": [-1, 0],
    "counters__late": [2, -1],
    "counters__duplicate": [-1],
    "counters__reordered": [3, -1],
    "loss_ratio": [-0.1, 1.1, 0.0],
    "loss_interval": [[0.5, 0.9], [-1, 1]],
    "round_trip_delay_seconds__min": [-0.001, 0.5],
    "round_trip_delay_seconds__p50": [0.5],
    "round_trip_delay_seconds__max": [0.001, 1e300],
    "round_trip_delay_seconds__mean": [0.001, 5.0],
    "round_trip_delay_seconds__count": [0, 3, -1],
    "round_trip_delay_quantiles_seconds": [
        [0.01],
        [0.03] * 10,
        [0.01] * 9 + [9.0],
        [0.01, 0.012, 0.015, 0.02, 0.025, 0.028, 0.029, 0.0298, 0.03 + 5e-12, 0.03],
    ],
    "loss_pattern__periods": [0, 2, -1],
    "loss_pattern__longest_period_packets": [2, -1],
    "loss_pattern__mean_period_packets": [None, 2.0],
    "loss_pattern__shortest_distance_packets": [1],
    "directional_loss": [
        {"sent": 3, "lost_up": 1, "lost_down": 1, "undetermined": 0},
        {"sent": 9, "lost_up": 1, "lost_down": 0, "undetermined": 0},
        {"sent": 3, "lost_up": -1, "lost_down": 2, "undetermined": 0},
    ],
    "one_way_delays": [
        [ONE_WAY | {"error_seconds": 0.0}],
        [ONE_WAY | {"error_seconds": -1.0}],
        [ONE_WAY, ONE_WAY],
        [ONE_WAY | {"delay_seconds": SECONDS_OF_TWO | {"min": -0.5}}],
    ],
    "self_timing": [
        TIMING | {"error_share_limit": 0.0},
        TIMING | {"send_lag_seconds": SECONDS_OF_TWO | {"min": -0.001}},
        TIMING | {"own_error_seconds": SECONDS_OF_TWO | {"count": 9}},
    ],
    "statistics": [
        [STATISTIC | {"name": "Mean opinion"}],
        [STATISTIC | {"definition": ""}],
        [STATISTIC, STATISTIC],
        [STATISTIC | {"count": -1}],
        [STATISTIC | {"of": str(position)} for position in range(300)],
        [STATISTIC | {"value": 99.0}],
        [STATISTIC | {"value": 0.99}],
        [STATISTIC | {"name": "share", "unit": "ratio", "value": 1.5}],
        [STATISTIC | {"name": "many", "unit": "packets", "value": 2e300}],
    ],
    "facts": [{"TLS Version": "1.3"}, {"tls_version": "x" * 1300}, {f"fact-{at}": "" for at in range(300)}],
    "notes": [["x"] * 300, ["x" * 1300]],
    "parameters": [{"count": 10**30}, {f"key-{at}": 1 for at in range(300)}],
    "phases_seconds": [{f"phase-{at}": 1.0 for at in range(300)}],
    "octets_sent": [-1],
    "duration_ns": [-1],
    "started_wall_ns": [-1, 2**63],
    "loss_threshold_seconds": [-1.0, 1e300],
    "type_p__dscp": [64, -1],
    "type_p__destination_port": [65_536, -1],
    "target__port": [-1, 70_000],
    "singletons__0__delay_ns": [-1, 2**70],
    "singletons__0__received__mono_ns": [-1],
    "probe_id": ["", "UPPER", "a b", "a\n", "-a", "a/b", "a" * 65, "ạ", "=cmd"],
    "kind": ["icmp\n", "../icmp"],
    "epoch": ["a\u0000b"],
    "sequence": [-1],
    "outcome": ["RECEIVED", "fine"],
    "record_id": ["1234", 7],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in IMPOSSIBLE.items() for value in values]
)
def test_what_no_honest_record_says_is_refused_with_its_key(key: str, value: object) -> None:
    wire.decode_record(encoded(document()))
    with pytest.raises(WireError) as refusal:
        wire.decode_record(encoded(document(**{key: value})))
    assert re.search(key.split("__")[0], str(refusal.value))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_json_has_no_word_for_is_never_written(value: float) -> None:
    record = record_of(golden_sample())
    assert record.round_trip_delay_seconds is not None
    spoilt = dataclasses.replace(record.round_trip_delay_seconds, p99=value)
    for changes in (
        {"loss_ratio": value},
        {"round_trip_delay_seconds": spoilt},
        {"parameters": {"rate": value}},
        {"phases_seconds": {"tcp": value}},
        {"loss_interval": (0.0, value)},
        {"round_trip_delay_quantiles_seconds": [value]},
        {"statistics": [Statistic(name="mos", value=value, unit="MOS", count=1, definition="G.107")]},
    ):
        with pytest.raises(WireError, match="is not finite"):
            wire.encode_record(msgspec.structs.replace(record, **changes))


# Batches


def test_a_batch_keeps_its_records_octet_for_octet() -> None:
    bodies = [wire.encode_record(records.record(sequence=number)) for number in (1, 2)]
    batch = wire.decode_batch(wire.encode_batch("probe-1", bodies, records.agent()))
    assert [bytes(raw) for raw in batch.records] == bodies
    assert batch.probe_id == "probe-1"


def test_one_bad_record_spoils_no_other() -> None:
    good = wire.encode_record(records.record())
    batch = wire.decode_batch(wire.encode_batch("probe-1", [good, b'{"kind": 7}', good], None))
    assert wire.decode_record(batch.records[0]) == wire.decode_record(batch.records[2])
    with pytest.raises(WireError):
        wire.decode_record(batch.records[1])


def test_the_hash_of_a_batch_is_sha256_of_its_body() -> None:
    assert wire.batch_sha256(b"abc") == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("days", [1, 105, 3650])
def test_a_probe_that_runs_for_years_can_still_deliver(days: int) -> None:
    # 2^53 nanoseconds are only 104 days.
    status = records.agent(mono_ns=days * 86_400 * 10**9)
    assert wire.decode_batch(wire.encode_batch("probe-1", [], status)).agent == status


def test_a_probe_whose_clock_said_1970_at_boot_can_still_deliver() -> None:
    status = records.agent(spool_oldest_age_seconds=57 * 365.25 * 86_400)
    assert wire.decode_batch(wire.encode_batch("probe-1", [], status)).agent == status


def test_the_method_version_stays_with_the_figures() -> None:
    record = record_of(dataclasses.replace(golden_sample(), method=Method("icmp_echo", "2")))
    assert wire.decode_record(wire.encode_record(record)).method == Method("icmp_echo", "2")


def test_what_a_far_end_says_at_length_is_cut_and_loses_no_measurement() -> None:
    found = dataclasses.replace(
        golden_sample(), facts={"certificate_names": "a" * 50_000}, notes=("n" * 50_000,)
    )
    record = wire.decode_record(wire.encode_record(record_of(found)))
    assert len(record.facts["certificate_names"]) == len(record.notes[0]) == wire.LONGEST_TEXT


def test_the_outcome_of_two_hundred_thousand_packets_is_known_at_once() -> None:
    silent = sample([other(at, Outcome.LOST) for at in range(200_000)])
    assert wire.overall_outcome(silent) is Outcome.LOST
