"""What an answer should hold: literal text, a hash, fields; and what is said when it does not."""

from __future__ import annotations

import hashlib
import random
import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nhip.errors import ConfigError
from nhip.measurement import Outcome
from probes.http.content import ContentCheck
from tests.lab.http_probe import fate, visit
from tests.lab.peers import read_head, tcp_peer

PAGE = "<title>Cổng dịch vụ công</title>".encode()
SHA256 = hashlib.sha256(PAGE).hexdigest()


def found(body: bytes = PAGE, head: bytes = b"", **settings: object) -> tuple[Outcome, str]:
    """Outcome and detail of a visit to a server with that body and those head lines."""

    def script(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    with tcp_peer(script) as port:
        return fate(visit(port, tls=False, **settings))


@pytest.mark.parametrize(
    ("settings", "detail"),
    [
        ({"body_contains": ["dịch vụ công", "<title>"]}, "HTTP 200"),
        ({"body_contains": ["dịch vụ", "thanh toán"]}, "HTTP 200, body is without 'thanh toán'"),
        ({"body_lacks": ["thanh toán"]}, "HTTP 200"),
        ({"body_lacks": ["công"]}, "HTTP 200, body holds 'công'"),
        ({"body_sha256": SHA256}, "HTTP 200"),
        ({"body_sha256": SHA256.upper()}, "HTTP 200"),
        ({"body_sha256": "0" * 64}, f"HTTP 200, body has another hash: sha256 {SHA256[:16]}..."),
        ({"header_contains": {"Server": "ngin"}}, "HTTP 200"),
        ({"header_contains": {"server": "Apache"}}, "HTTP 200, field server is without 'Apache'"),
        ({"header_contains": {"x-absent": "1"}}, "HTTP 200, field x-absent is without '1'"),
        # No pattern: these characters mean themselves.
        ({"body_contains": [".*"]}, "HTTP 200, body is without '.*'"),
    ],
)
def test_an_answer_is_received_only_with_the_content_that_is_expected(
    settings: dict[str, object], detail: str
) -> None:
    outcome = Outcome.RECEIVED if detail == "HTTP 200" else Outcome.CORRUPT
    assert found(head=b"Server: nginx\r\n", **settings) == (outcome, detail)


def test_a_captive_portal_s_page_is_corrupt_and_without_the_check_received() -> None:
    portal = b"<h1>Please log in</h1>"
    assert found(portal, body_contains=["dịch vụ công"])[0] is Outcome.CORRUPT
    assert found(portal)[0] is Outcome.RECEIVED


def test_a_status_that_is_not_expected_is_rejected_before_any_look_at_the_content() -> None:
    assert found(expected_status=[204], body_contains=["x"]) == (Outcome.REJECTED, "HTTP 200")


def test_a_compressed_body_that_nobody_asked_for_is_told() -> None:
    answer = found(b"\x1f\x8b", b"Content-Encoding: gzip\r\n", body_contains=["x"])
    assert answer == (Outcome.CORRUPT, "HTTP 200, body is without 'x' (content-encoding gzip)")


@pytest.mark.parametrize(
    ("settings", "outcome"),
    [
        ({"body_contains": ["begin"]}, Outcome.RECEIVED),
        ({"body_contains": ["end"]}, Outcome.CORRUPT),
        ({"body_lacks": ["begin"]}, Outcome.CORRUPT),
        ({"body_lacks": ["nowhere"]}, Outcome.CORRUPT),
        ({"body_sha256": "0" * 64}, Outcome.CORRUPT),
        ({}, Outcome.RECEIVED),
    ],
)
def test_of_a_body_above_the_limit_only_what_was_read_can_be_confirmed(
    settings: dict[str, object], outcome: Outcome
) -> None:
    body = b"begin" + bytes(50_000) + b"end"
    assert found(body, max_body_octets=10_000, **settings)[0] is outcome


def test_the_limit_is_exact_for_what_is_looked_through() -> None:
    assert found(b"12345678", max_body_octets=7, body_contains=["78"])[0] is Outcome.CORRUPT
    assert found(b"12345678", max_body_octets=8, body_contains=["78"])[0] is Outcome.RECEIVED


@given(st.binary(min_size=1, max_size=60), st.lists(st.integers(1, 7), max_size=30), st.data())
def test_a_text_across_pieces_is_found_as_in_the_whole(
    body: bytes, sizes: list[int], data: st.DataObject
) -> None:
    text = data.draw(st.sampled_from(["a", "ab", "aba", "\x00\x00", "é"]))
    check = ContentCheck(contains=[text])
    at = 0
    for size in [*sizes, len(body)]:
        check.read(body[at : at + size])
        at += size
    assert (check.mismatch({}, whole=True) == "") is (text.encode() in body)


def test_no_text_makes_the_search_run_long() -> None:
    """The twin of a pattern such as (a+)+b, which takes for ever on a page of a's."""
    check = ContentCheck(contains=["a" * 500 + "b"], lacks=["(a+)+b"])
    begun = time.process_time()
    for _ in range(100):
        check.read(b"a" * 16_384)
    assert time.process_time() - begun < 1.0
    assert "is without" in check.mismatch({}, whole=True)


def test_little_of_a_long_body_is_kept() -> None:
    check = ContentCheck(contains=["needle"])
    for _ in range(50):
        check.read(random.Random(1).randbytes(100_000))
    assert len(check._tail) == 5


def test_a_stranger_s_text_is_fit_to_print() -> None:
    _outcome, detail = found(b"x", body_contains=["\x1b[31mred" + "x" * 100])
    assert detail.isprintable()
    assert len(detail) < 80


@pytest.mark.parametrize(
    "wrong",
    [
        {"body_sha256": "abc"},
        {"body_contains": [""]},
        {"body_contains": ["x"] * 21},
        {"header_contains": {"two words": "x"}},
        {"body_contains": ["x"], "method": "HEAD"},
    ],
)
def test_a_check_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        visit(1, tls=False, **wrong)
