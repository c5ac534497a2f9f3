"""One question as octets, and what the octets that come back say of it: pure, whatever carried them."""

from __future__ import annotations

import secrets
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nhip.errors import ConfigError
from nhip.measurement import Outcome
from probes.dns.config import DnsConfig, Transport

if TYPE_CHECKING:
    import dns.message
    import dns.rdata

HEADER_OCTETS = 12
LONGEST_MESSAGE_OCTETS = 65_535
# RFC 8467 section 4.1: a padded question is a multiple of this long.
_PADDED_TO_OCTETS = 128
# What is asked here has some dozens at most. Reading thousands would keep the next question waiting.
_MOST_RECORDS = 256

TRUNCATED = "truncated"
NO_RECORD = "no record of this type"


@dataclass(frozen=True, slots=True)
class Question:
    """A question ready to be sent."""

    message: dns.message.Message
    octets: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one answer says, and how it is called in a singleton."""

    outcome: Outcome
    detail: str = ""
    rcode: str | None = None
    """``NOERROR``, ``NXDOMAIN``, ...; `None` when the octets are no message."""
    truncated: bool = False
    authenticated: bool = False
    """The AD flag: the resolver says that it validated the answer by DNSSEC (RFC 4035 section 3.2.3)."""
    nsid: bytes | None = None
    """Which instance of the server answered (RFC 5001); `None` when it does not say."""


def make_question(config: DnsConfig) -> Question:
    """A question with a random id, with ``mixed_case`` in random capitals.

    Over HTTPS the id is 0, so that caches see equal questions as equal (RFC 8484 section 4.1).
    """
    import dns.edns  # 70 ms that a host without a dns task need not spend
    import dns.flags
    import dns.message

    name = config.name
    if config.mixed_case:
        name = "".join(letter.upper() if secrets.randbits(1) else letter.lower() for letter in name)
    options: list[dns.edns.Option] = []
    if config.edns and config.nsid:
        options.append(dns.edns.GenericOption(dns.edns.OptionType.NSID, b""))
    message = dns.message.make_query(
        name,
        config.record_type,
        id=0 if config.transport is Transport.HTTPS else secrets.randbits(16),
        flags=dns.flags.RD if config.recursion_desired else 0,
        use_edns=0 if config.edns else False,
        want_dnssec=config.dnssec,
        payload=config.edns_payload_octets if config.edns else None,
        options=options or None,
        pad=_PADDED_TO_OCTETS if config.padding else 0,
    )
    return Question(message, message.to_wire())


def judge(question: Question, octets: bytes, config: DnsConfig) -> Verdict | None:
    """What an answer says; `None` when it is no answer to `question` at all (RFC 5452 section 9.1)."""
    import dns.exception
    import dns.flags
    import dns.message
    import dns.rcode

    if len(octets) < HEADER_OCTETS or int.from_bytes(octets[:2], "big") != question.message.id:
        return None
    _asked, *records = struct.unpack_from("!4H", octets, 4)
    unread = sum(records) > _MOST_RECORDS
    try:
        answer = dns.message.from_wire(octets, ignore_trailing=True, question_only=unread)
    except (dns.exception.DNSException, ValueError):
        return Verdict(outcome=Outcome.CORRUPT, detail="malformed")
    if not answer.flags & dns.flags.QR:
        return None
    # A server that could not read the question need not repeat it (RFC 1035 section 4.1.1, FORMERR).
    without_question = answer.rcode() != dns.rcode.NOERROR and not answer.question
    if not without_question and not _same_question(question.message, answer, exact=config.mixed_case):
        return None
    if unread:
        return Verdict(outcome=Outcome.CORRUPT, detail=f"more than {_MOST_RECORDS} records")
    truncated = bool(answer.flags & dns.flags.TC)
    outcome, detail = _meaning(answer, config, truncated=truncated)
    return Verdict(
        outcome=outcome,
        detail=detail,
        rcode=dns.rcode.to_text(answer.rcode()),
        truncated=truncated,
        authenticated=bool(answer.flags & dns.flags.AD),
        nsid=_nsid(answer),
    )


def expected_records(config: DnsConfig) -> frozenset[dns.rdata.Rdata | bytes]:
    """`expected_answers` in the form in which answers are compared; ConfigError for what is no such record.

    A TXT record is compared by its text alone, however it is cut into strings (RFC 7208 section 3.3).
    """
    import dns.exception
    import dns.name
    import dns.rdata

    if config.record_type == "TXT":
        return frozenset(text.encode() for text in config.expected_answers)
    found: set[dns.rdata.Rdata | bytes] = set()
    for text in config.expected_answers:
        try:
            record = dns.rdata.from_text(
                "IN", config.record_type, text, origin=dns.name.root, relativize=False
            )
        except (dns.exception.DNSException, ValueError) as error:
            raise ConfigError(
                f"expected_answers: {text!r} is no {config.record_type} record",
                remedy="write it as in a zone file, without name, TTL and type",
            ) from error
        found.add(record)
    return frozenset(found)


def _meaning(answer: dns.message.Message, config: DnsConfig, *, truncated: bool) -> tuple[Outcome, str]:
    import dns.rcode

    rcode = dns.rcode.to_text(answer.rcode())
    if rcode != config.expected_rcode:
        if rcode == "NOERROR":
            # A name that must not exist and does: somebody on the way answers in the server's place.
            return Outcome.CORRUPT, f"NOERROR instead of {config.expected_rcode}"
        return Outcome.REJECTED, rcode
    if rcode != "NOERROR":
        return Outcome.RECEIVED, rcode
    if truncated:
        return Outcome.RECEIVED, TRUNCATED
    return _content(answer, config)


def _content(answer: dns.message.Message, config: DnsConfig) -> tuple[Outcome, str]:
    import dns.exception
    import dns.message

    if not isinstance(answer, dns.message.QueryMessage):
        return Outcome.CORRUPT, "no answer to a query"
    try:
        found = answer.resolve_chaining().answer
    except dns.exception.DNSException:
        return Outcome.CORRUPT, "chain of aliases without end"
    if found is None:
        return (Outcome.CORRUPT if config.expected_answers else Outcome.RECEIVED), NO_RECORD
    if not config.expected_answers:
        return Outcome.RECEIVED, ""
    expected = expected_records(config)
    for record in found:
        comparable = b"".join(record.strings) if config.record_type == "TXT" else record
        if comparable not in expected:
            return Outcome.CORRUPT, _shown(f"unexpected answer {record.to_text()}")
    return Outcome.RECEIVED, ""


def _same_question(query: dns.message.Message, answer: dns.message.Message, *, exact: bool) -> bool:
    """True when the question came back; `exact` holds it to the capitals too."""
    if query.question != answer.question:
        return False
    return not exact or query.question[0].name.labels == answer.question[0].name.labels


def _nsid(answer: dns.message.Message) -> bytes | None:
    import dns.edns

    for option in answer.options:
        if isinstance(option, dns.edns.NSIDOption):
            return bytes(option.nsid)
    return None


def _shown(text: str) -> str:
    """What a far end wrote, as a singleton's detail may hold it."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:200]
