"""What is asked, octet by octet, and what answers mean; no sockets."""

from __future__ import annotations

import struct
import time

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nhip.config import convert
from nhip.errors import ConfigError
from nhip.measurement import Outcome
from probes.dns.config import DnsConfig
from probes.dns.findings import instance_text
from probes.dns.question import Question, Verdict, judge, make_question
from tests.lab.resolvers import NAME, answer_for


def config_of(**table: object) -> DnsConfig:
    return convert({"name": NAME, **table}, DnsConfig, "file.toml", environment={})


def judged(octets: bytes, question: Question, config: DnsConfig) -> Verdict:
    verdict = judge(question, octets, config)
    assert verdict is not None
    return verdict


def verdict_on(*records: str, kind: str = "A", **table: object) -> Verdict:
    config = config_of(record_type=kind, **table)
    question = make_question(config)
    return judged(answer_for(question.message, *records, kind=kind).to_wire(), question, config)


# The question


def test_a_question_is_the_octets_rfc_1035_6891_and_5001_draw() -> None:
    octets = make_question(config_of(name="a.vn")).octets
    number = octets[:2]
    assert octets == number + bytes.fromhex(
        "0100"  # a query, recursion desired
        "0001 0000 0000 0001"  # one question, one additional record
        "01 61 02 766e 00 0001 0001"  # a.vn, A, IN
        "00 0029 04d0 00 00 0000 0004"  # OPT: root, type 41, 1232 octets, no code, version 0, no flags
        "0003 0000"  # NSID, empty
    )


@pytest.mark.parametrize(
    ("table", "octets"),
    [
        ({"edns": False}, "0000 0001 0000 0000 0000 01 61 02 766e 00 0001 0001"),
        (
            {"nsid": False, "dnssec": True, "edns_payload_octets": 4096},
            "0000 0001 0000 0000 0001 01 61 02 766e 00 0001 0001 00 0029 1000 00 00 8000 0000",
        ),
    ],
)
def test_what_is_switched_off_is_not_in_the_question(table: dict[str, object], octets: str) -> None:
    found = make_question(config_of(name="a.vn", recursion_desired=False, **table)).octets
    assert found[2:] == bytes.fromhex(octets)


@pytest.mark.parametrize("transport", ["tls", "https"])
def test_padding_makes_a_question_128_octets_long(transport: str) -> None:
    assert len(make_question(config_of(transport=transport, padding=True)).octets) == 128
    assert len(make_question(config_of(transport=transport)).octets) == 49


def test_ids_are_random_except_over_https_where_caches_want_them_zero() -> None:
    assert len({make_question(config_of()).message.id for _ in range(50)}) > 40
    assert {make_question(config_of(transport="https")).message.id for _ in range(5)} == {0}


def test_the_root_can_be_asked_for() -> None:
    question = make_question(config_of(name=".", record_type="NS"))
    assert question.message.question[0].name == dns.name.root


# What an answer means


def test_an_answer_without_a_record_of_the_type_is_received_and_said() -> None:
    config = config_of()
    question = make_question(config)
    verdict = judged(dns.message.make_response(question.message).to_wire(), question, config)
    assert (verdict.outcome, verdict.detail) == (Outcome.RECEIVED, "no record of this type")


@pytest.mark.parametrize(
    ("expected", "rcode", "outcome", "detail"),
    [
        ("NOERROR", "SERVFAIL", Outcome.REJECTED, "SERVFAIL"),
        ("NXDOMAIN", "NXDOMAIN", Outcome.RECEIVED, "NXDOMAIN"),
        ("NXDOMAIN", "REFUSED", Outcome.REJECTED, "REFUSED"),
        # The name that must not exist and does is the mark of a resolver that sells mistyped names.
        ("NXDOMAIN", "NOERROR", Outcome.CORRUPT, "NOERROR instead of NXDOMAIN"),
    ],
)
def test_the_expected_code_decides(expected: str, rcode: str, outcome: Outcome, detail: str) -> None:
    config = config_of(expected_rcode=expected)
    question = make_question(config)
    answer = dns.message.make_response(question.message)
    answer.set_rcode(dns.rcode.from_text(rcode))
    verdict = judged(answer.to_wire(), question, config)
    assert (verdict.outcome, verdict.detail, verdict.rcode) == (outcome, detail, rcode)


def test_an_extended_code_is_read_from_both_its_halves() -> None:
    config = config_of()
    question = make_question(config)
    answer = dns.message.make_response(question.message)
    answer.set_rcode(dns.rcode.BADVERS)
    assert judged(answer.to_wire(), question, config).rcode == "BADVERS"


@pytest.mark.parametrize(
    ("kind", "records", "expected"),
    [
        ("A", ["192.0.2.1"], ["192.0.2.1"]),
        ("A", ["192.0.2.1"], ["192.0.2.1", "192.0.2.2"]),
        ("AAAA", ["2001:db8::1"], ["2001:0DB8:0::1"]),
        ("MX", ["10 mail.lab.example."], ["10 MAIL.lab.example."]),
        ("TXT", ['"one two" "three"'], ["one twothree"]),
        ("HTTPS", ["1 . alpn=h2"], ["1 . alpn=h2"]),
        ("SRV", ["1 2 5060 a.lab.example."], ["1 2 5060 a.lab.example"]),
        ("CAA", ['0 issue "ca.example"'], ['0 issue "ca.example"']),
        ("PTR", ["a.lab.example."], ["a.lab.example."]),
        ("NS", ["a.lab.example.", "b.lab.example."], ["b.lab.example.", "a.lab.example."]),
        ("SOA", ["a.lab.example. b.lab.example. 1 2 3 4 5"], ["a.lab.example. b.lab.example. 1 2 3 4 5"]),
        ("CNAME", ["a.lab.example."], ["a.lab.example."]),
    ],
)
def test_expected_records_of_every_type_are_received(
    kind: str, records: list[str], expected: list[str]
) -> None:
    verdict = verdict_on(*records, kind=kind, expected_answers=expected)
    assert (verdict.outcome, verdict.detail) == (Outcome.RECEIVED, "")


@pytest.mark.parametrize(
    ("kind", "records", "expected", "detail"),
    [
        ("A", ["198.51.100.9"], ["192.0.2.1"], "unexpected answer 198.51.100.9"),
        ("A", ["192.0.2.1", "198.51.100.9"], ["192.0.2.1"], "unexpected answer 198.51.100.9"),
        ("MX", ["20 mail.lab.example."], ["10 mail.lab.example."], "unexpected answer 20 mail.lab.example."),
        ("TXT", ['"other"'], ["one"], 'unexpected answer "other"'),
    ],
)
def test_another_answer_than_expected_is_corrupt_and_received_where_nothing_is_expected(
    kind: str, records: list[str], expected: list[str], detail: str
) -> None:
    verdict = verdict_on(*records, kind=kind, expected_answers=expected)
    assert (verdict.outcome, verdict.detail) == (Outcome.CORRUPT, detail)
    assert verdict_on(*records, kind=kind).outcome is Outcome.RECEIVED


def test_the_end_of_a_chain_of_aliases_is_what_is_compared() -> None:
    config = config_of(expected_answers=["192.0.2.1"])
    question = make_question(config)
    answer = dns.message.make_response(question.message)
    answer.answer = [
        dns.rrset.from_text(NAME + ".", 0, "IN", "CNAME", "pool.lab.example."),
        dns.rrset.from_text("pool.lab.example.", 0, "IN", "A", "192.0.2.1"),
        # An address of another name is nobody's answer.
        dns.rrset.from_text("stray.lab.example.", 0, "IN", "A", "198.51.100.1"),
    ]
    assert judged(answer.to_wire(), question, config).outcome is Outcome.RECEIVED
    del answer.answer[0]
    verdict = judged(answer.to_wire(), question, config)
    assert (verdict.outcome, verdict.detail) == (Outcome.CORRUPT, "no record of this type")


def test_aliases_that_go_round_are_corrupt() -> None:
    config = config_of()
    question = make_question(config)
    answer = dns.message.make_response(question.message)
    answer.answer = [
        dns.rrset.from_text(NAME + ".", 0, "IN", "CNAME", "b.lab.example."),
        dns.rrset.from_text("b.lab.example.", 0, "IN", "CNAME", NAME + "."),
    ]
    verdict = judged(answer.to_wire(), question, config)
    assert (verdict.outcome, verdict.detail) == (Outcome.CORRUPT, "chain of aliases without end")


def test_the_flags_tc_and_ad_and_the_instance_are_read() -> None:
    config = config_of(dnssec=True)
    question = make_question(config)
    answer = answer_for(question.message, instance=b"hn-1")
    plain = judged(answer.to_wire(), question, config)
    assert (plain.truncated, plain.authenticated, plain.nsid) == (False, False, b"hn-1")
    answer.flags |= dns.flags.TC | dns.flags.AD
    marked = judged(answer.to_wire(), question, config)
    assert (marked.truncated, marked.authenticated, marked.detail) == (True, True, "truncated")


@pytest.mark.parametrize(
    ("nsid", "text"),
    [
        (b"hn-resolver-1", "hn-resolver-1"),
        (b"\x00\xff", "0x00ff"),
        (b"a b", "0x612062"),
        (b"a,b", "0x612c62"),
        (b"x" * 100, "x" * 64 + "..."),
    ],
)
def test_an_instance_is_shown_as_text_where_it_is_text(nsid: bytes, text: str) -> None:
    assert instance_text(nsid) == text


# Octets that mean harm


def after_header(question: Question, body: bytes, answers: int = 1) -> bytes:
    header = struct.pack("!HHHHHH", question.message.id, 0x8180, 1, answers, 0, 0)
    asked = question.octets[12 : 12 + len(question.message.question[0].name.to_wire()) + 4]
    return header + asked + body


@pytest.mark.parametrize(
    "name",
    [
        b"\xc0\x22",  # a pointer to itself
        b"\x01a\xc0\x22",  # a label, then back to its beginning
        b"\xc0\xff",  # beyond the end
        b"\xff\xff",
        b"\x80\x01a",  # a label of a type nobody defined
        b"\x3f" + b"a" * 10,  # a label longer than the message
    ],
)
def test_names_that_lead_nowhere_or_round_are_corrupt(name: bytes) -> None:
    config = config_of()
    question = make_question(config)
    octets = after_header(question, name + struct.pack("!HHIH", 1, 1, 0, 4) + bytes(4))
    assert judged(octets, question, config).outcome is Outcome.CORRUPT
    # The twin: a pointer to the question's name in the same place is an answer.
    sound = after_header(question, b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 0, 4) + bytes(4))
    assert judged(sound, question, config).outcome is Outcome.RECEIVED


def test_counts_that_promise_more_than_there_is_are_corrupt() -> None:
    config = config_of()
    question = make_question(config)
    assert judged(after_header(question, b"", answers=65_535), question, config).outcome is Outcome.CORRUPT


def addresses(question: Question, records: int) -> bytes:
    record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 0, 4)
    return after_header(
        question, b"".join(record + struct.pack("!I", i) for i in range(records)), answers=records
    )


def test_more_records_than_anybody_answers_are_not_read_and_256_are() -> None:
    config = config_of()
    question = make_question(config)
    most = judged(addresses(question, 256), question, config)
    assert (most.outcome, most.detail) == (Outcome.RECEIVED, "")
    more = judged(addresses(question, 257), question, config)
    assert (more.outcome, more.detail) == (Outcome.CORRUPT, "more than 256 records")
    # An answer to somebody else stays one.
    stranger = make_question(config_of(name="other.lab.example"))
    octets = question.octets[:2] + addresses(stranger, 4000)[2:]
    assert judge(question, octets, config) is None


def test_the_longest_message_takes_no_longer_to_judge_than_256_records() -> None:
    config = config_of()
    question = make_question(config)

    def seconds(octets: bytes) -> float:
        begun = time.thread_time()
        judge(question, octets, config)
        return time.thread_time() - begun

    longest, most = addresses(question, 4_000), addresses(question, 256)
    assert len(longest) > 64_000
    assert min(seconds(longest) for _ in range(5)) < min(seconds(most) for _ in range(5))


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=120), st.booleans())
def test_no_octets_make_judging_fail(octets: bytes, with_question: bool) -> None:
    config = config_of(expected_answers=["192.0.2.1"], dnssec=True)
    question = make_question(config)
    whole = after_header(question, octets) if with_question else question.octets[:2] + octets
    verdict = judge(question, whole, config)
    assert verdict is None or verdict.outcome in (Outcome.RECEIVED, Outcome.REJECTED, Outcome.CORRUPT)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 200), st.integers(0, 255))
def test_one_changed_octet_never_makes_judging_fail(place: int, value: int) -> None:
    config = config_of()
    question = make_question(config)
    octets = bytearray(answer_for(question.message, instance=b"hn-1").to_wire())
    octets[place % len(octets)] = value
    judge(question, bytes(octets), config)


# Settings


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({"record_type": "ANY"}, "record_type"),
        ({"name": "no name"}, "name"),
        ({"name": ""}, "name"),
        ({"name": ".."}, "name"),
        ({"interval_seconds": 0.01, "count": 10_000, "loss_threshold_seconds": 60.0}, "interval_seconds"),
        ({"transport": "quic"}, "transport"),
        ({"dnssec": True, "edns": False}, "dnssec"),
        ({"padding": True}, "padding"),
        ({"padding": True, "transport": "tcp"}, "padding"),
        ({"padding": True, "transport": "tls", "edns": False}, "padding"),
        ({"retry_truncated": True, "transport": "tcp"}, "retry_truncated"),
        ({"reuse_connection": True}, "reuse_connection"),
        ({"server_name": "a.example", "transport": "tcp"}, "server_name"),
        ({"ca_file": "/x"}, "ca_file"),
        ({"verify_certificate": False}, "verify_certificate"),
        ({"http_method": "GET", "transport": "tls"}, "http_method"),
        ({"path": "dns-query", "transport": "https"}, "path"),
        ({"expected_rcode": "NXDOMAIN", "expected_answers": ["192.0.2.1"]}, "expected_answers"),
        ({"expected_answers": ["192.0.2.300"]}, "expected_answers"),
        ({"expected_answers": ["mail.example."], "record_type": "MX"}, "expected_answers"),
        ({"edns_payload_octets": 100}, "edns_payload_octets"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_key(table: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=f"file.toml:{key}"):
        config_of(**table)


def test_many_questions_a_second_are_no_matter_on_connections() -> None:
    assert config_of(transport="tcp", interval_seconds=0.01, count=10_000, loss_threshold_seconds=60.0)


def test_an_nsid_option_is_read_as_another_implementation_writes_it() -> None:
    """dnspython's own option object, not the generic one the probe sends."""
    config = config_of()
    question = make_question(config)
    answer = dns.message.make_response(question.message)
    answer.use_edns(0, options=[dns.edns.NSIDOption(b"\x01")])
    assert judged(answer.to_wire(), question, config).nsid == b"\x01"
