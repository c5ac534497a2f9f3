"""What a hostile or broken sender can put into a batch, and what becomes of it."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.admission import Admission, Reason, admit, open_batch
from collector.collector_config import Limits, ProbeEntry
from nhip.errors import WireError
from nhip.measurement import Environment, Method, Target, Technology
from nhip.wire import Record, encode_record
from tests.lab.collectors import PROBE
from tests.lab.fake_clock import START_WALL_NS
from tests.lab.records import SECOND_NS, batch, record

ENTRY = msgspec.convert(PROBE, ProbeEntry)
LIMITS = Limits()


def judged(*records: Record | bytes, now_wall_ns: int = START_WALL_NS) -> Admission:
    return admit(open_batch(batch(records), 1000), ENTRY, LIMITS, now_wall_ns)


def made(**changes: object) -> Record:
    return record(**{"started_wall_ns": START_WALL_NS, **changes})  # type: ignore[arg-type]


def reasons(admission: Admission) -> list[str]:
    return [aside.reason for aside in admission.aside]


def with_text(old: str, new: str) -> bytes:
    """A record's bytes with one piece exchanged for another."""
    raw = encode_record(made()).decode()
    assert old in raw
    return raw.replace(old, new, 1).encode("utf-8", "surrogatepass")


def test_a_good_record_is_taken_as_it_came() -> None:
    one = made(notes=["giờ cao điểm"])
    [entry] = judged(one).entries
    assert (entry.record, entry.body) == (one, encode_record(one))


@pytest.mark.parametrize(
    "changes",
    [
        {"probe_id": "p2"},
        {"operator": "beta"},
        {"province": "79"},
        {"technology": Technology.MOBILE_4G},
        {"environment": Environment.INDOOR},
    ],
)
def test_a_record_that_says_it_is_from_elsewhere_is_put_aside(changes: dict[str, object]) -> None:
    assert reasons(judged(made(**changes))) == [Reason.IDENTITY]


@pytest.mark.parametrize(
    ("offset_seconds", "taken"),
    [
        (0, True),
        (299, True),
        (301, False),
        (-7 * 86_400 + 1, True),
        (-7 * 86_400 - 1, False),
        (3600, False),
        (10 * 365 * 86_400, False),
        (-10 * 365 * 86_400, False),
    ],
)
def test_a_date_nobody_believes_puts_a_record_aside(offset_seconds: int, taken: bool) -> None:
    admission = judged(made(started_wall_ns=START_WALL_NS + offset_seconds * SECOND_NS))
    assert len(admission.entries) == taken
    assert reasons(admission) == [] if taken else [Reason.TIME]


@pytest.mark.parametrize(
    "text",
    ["", "a b", "<b>", "a\nb", "a\x00b", "ａ", "=1+1", '"', "a" * 101, "-x", "fe80::1%eth0;id", "$(id)"],
)
@pytest.mark.parametrize("field", ["target", "method", "software_version"])
def test_a_name_with_odd_characters_puts_a_record_aside(field: str, text: str) -> None:
    change: dict[str, object] = {
        "target": Target(id=text, host="x"),
        "method": Method("icmp", text),
        "software_version": text,
    }
    admission = judged(made(**{field: change[field]}))
    assert reasons(admission) == [Reason.CHARACTERS]
    assert admission.rejected[0].reason.isascii() and admission.rejected[0].reason.isprintable()


HOSTILE = [
    pytest.param(with_text('"loss_ratio":0.0', '"loss_ratio":NaN'), id="NaN"),
    pytest.param(with_text('"loss_ratio":0.0', '"loss_ratio":-Infinity'), id="-Infinity"),
    pytest.param(with_text('"loss_ratio":0.0', '"loss_ratio":1e999'), id="1e999"),
    pytest.param(with_text('"loss_ratio":0.0', '"loss_ratio":true'), id="true as a number"),
    pytest.param(with_text('"loss_ratio":0.0', '"loss_ratio":"0"'), id="a string as a number"),
    pytest.param(with_text('"loss_ratio":0.0', '"loss_ratio":1.0000001'), id="a ratio above 1"),
    pytest.param(with_text('"octets_sent":560', '"octets_sent":' + "9" * 4000), id="4,000 digits"),
    pytest.param(with_text('"octets_sent":560', '"octets_sent":1180591620717411303424'), id="2^70"),
    pytest.param(with_text('"octets_sent":560', '"octets_sent":-1'), id="a negative count"),
    pytest.param(with_text('"octets_sent":560', '"octets_sent":٥'), id="Arabic digits"),
    pytest.param(with_text('"octets_sent":560', '"octets_sent": 1_000'), id="underscore"),
    pytest.param(with_text('"notes":[]', '"notes":["\\ud800"]'), id="escaped lone surrogate"),
    pytest.param(with_text('"notes":[]', '"notes":[' + "[" * 500 + "]" * 500 + "]"), id="500 deep"),
    pytest.param(with_text('"kind":"icmp"', '"kind":"icmp\\u0000"'), id="NUL"),
    pytest.param(with_text('"kind":"icmp"', '"kind":"ICMP"'), id="capitals in an identifier"),
    pytest.param(with_text('"schema_version":1', '"schema_version":99'), id="a version from the future"),
    pytest.param(with_text('"schema_version":1', '"schema_version":0'), id="a version that never was"),
    pytest.param(b"null", id="null"),
    pytest.param(b"[]", id="a list"),
    pytest.param(b'"text"', id="a text"),
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_record_is_put_aside_alone(hostile: bytes) -> None:
    body = b'{"schema_version":1,"probe_id":"p1","records":[%s,%s,%s]}' % (
        encode_record(made()),
        hostile,
        encode_record(made()),
    )
    try:
        admission = admit(open_batch(body, 1000), ENTRY, LIMITS, START_WALL_NS)
    except WireError:
        # What is no JSON for any parser has no records that could be told apart.
        with pytest.raises((ValueError, RecursionError)):
            json.loads(body)
        return
    assert len(admission.entries) == 2
    assert [item.position for item in admission.rejected] == [1]
    assert reasons(admission) == [Reason.MALFORMED]
    assert admission.rejected[0].reason.isascii()


def test_raw_surrogate_bytes_put_their_record_aside() -> None:
    body = batch([made()]).replace(b'"icmp"', b'"\xed\xa0\x80"', 1)
    assert reasons(admit(open_batch(body, 10), ENTRY, LIMITS, START_WALL_NS)) == [Reason.MALFORMED]


def test_a_key_given_twice_puts_a_record_aside() -> None:
    """One reader would believe the first, another the second."""
    doubled = with_text('"loss_ratio":0.0', '"loss_ratio":0.5,"loss_ratio":0.0')
    assert reasons(judged(doubled)) == [Reason.MALFORMED]


def test_a_field_of_a_newer_version_is_kept_unread() -> None:
    newer = with_text('"schema_version":1', '"schema_version":2,"colour":"blue"')
    [entry] = judged(newer).entries
    assert entry.body == newer


@pytest.mark.parametrize(
    "body",
    [
        b'{"schema_version":9,"probe_id":"p1","records":[]}',
        b'{"schema_version":1,"probe_id":"P 1","records":[]}',
        b'{"schema_version":1,"probe_id":"p1","records":{}}',
        b'{"schema_version":1,"probe_id":"p1","records":NaN}',
        b'{"schema_version":1,"probe_id":"p1"}',
        b'{"schema_version":1,"probe_id":"p1","records":' + b"[" * 100_000,
        b'{"schema_version":1,"probe_id":"p1","records":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
    ],
)
def test_a_wrong_outside_is_no_batch(body: bytes) -> None:
    with pytest.raises(WireError):
        open_batch(body, 1000)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_wire_error(raw: bytes) -> None:
    body = b'{"schema_version":1,"probe_id":"p1","records":[' + raw + b"]}"
    for candidate in (raw, body):
        try:
            admission = admit(open_batch(candidate, 1000), ENTRY, LIMITS, START_WALL_NS)
        except WireError:
            continue
        assert not admission.entries


@given(st.integers(0, 1500), st.integers(0, 255))
def test_a_flipped_octet_is_never_taken_for_another_probe(place: int, octet: int) -> None:
    raw = bytearray(encode_record(made()))
    raw[place % len(raw)] ^= octet
    body = b'{"schema_version":1,"probe_id":"p1","records":[' + bytes(raw) + b"]}"
    try:
        admission = admit(open_batch(body, 1000), ENTRY, LIMITS, START_WALL_NS)
    except WireError:
        return
    assert all(entry.record.probe_id == "p1" for entry in admission.entries)
