"""What a test learnt of the server beside the delay: instances, answer codes, sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from nhip import statistics
from nhip.measurement import Statistic
from nhip.statistics import NANOSECONDS_PER_SECOND
from probes.dns.answers import Answers, Judged
from probes.dns.config import DnsConfig

# A farm that names a new instance with every answer must not fill the record.
_MOST_INSTANCES_LISTED = 16
_LONGEST_INSTANCE_OCTETS = 64


def facts(answers: Answers, config: DnsConfig) -> dict[str, str]:
    """In words: ``rcode``, ``nsid``, ``dnssec_authenticated`` and ``http_version``."""
    found: dict[str, str] = {}
    if answers.http_versions:
        found["http_version"] = ", ".join(answers.http_versions)
    if rcodes := _rcodes(answers.judged):
        found["rcode"] = ", ".join(rcodes)
    if instances := list(dict.fromkeys(_instances(answers.judged))):
        more = len(instances) - _MOST_INSTANCES_LISTED
        listed = [instance_text(instance) for instance in instances[:_MOST_INSTANCES_LISTED]]
        found["nsid"] = ", ".join(listed + ([f"and {more} more"] if more > 0 else []))
    # Only an answer that could have been validated says anything by lacking the flag.
    usable = [judged.verdict for judged in answers.judged if judged.verdict.rcode in ("NOERROR", "NXDOMAIN")]
    if config.dnssec and usable:
        marks = {verdict.authenticated for verdict in usable}
        found["dnssec_authenticated"] = "yes, no" if len(marks) == 2 else "yes" if True in marks else "no"
    return found


def numbers(answers: Answers, config: DnsConfig) -> tuple[Statistic, ...]:
    """In numbers; one that does not exist is left out."""
    judged = answers.judged
    found = [
        _number("dns_answers", count, "answers", count, "answers with this code, duplicates left out", rcode)
        for rcode, count in _rcodes(judged).items()
    ]
    if judged:
        truncated = sum(one.verdict.truncated for one in judged)
        found.append(
            _number("dns_truncated_answers", truncated, "answers", len(judged), "answers with the TC bit set")
        )
        size = statistics.quantile([one.octets for one in judged], 0.5)
        found.append(
            _number("dns_answer_octets", size, "octets", len(judged), "median size of the DNS messages")
        )
    if instances := _instances(judged):
        found.append(
            _number(
                "dns_server_instances",
                len(set(instances)),
                "instances",
                len(instances),
                "different name server identifiers (RFC 5001) among the answers that carry one",
            )
        )
    if answers.connections:
        found.append(
            _number(
                "dns_connections",
                answers.connections,
                "connections",
                len(answers.singletons),
                "connections opened",
            )
        )
    if config.reuse_connection:
        for of, reused in (("first", False), ("reused", True)):
            queries = [one.query_ns / NANOSECONDS_PER_SECOND for one in judged if one.reused is reused]
            if queries:
                found.append(
                    _number(
                        "dns_query_seconds",
                        statistics.quantile(queries, 0.5),
                        "seconds",
                        len(queries),
                        "median from question to last octet of the answer, connecting left out; first: first "
                        "question of a connection, reused: any later one",
                        of,
                    )
                )
    return tuple(found)


def instance_text(nsid: bytes) -> str:
    """A name server identifier as text: itself where it is printable, else hexadecimal (RFC 5001)."""
    shown = nsid[:_LONGEST_INSTANCE_OCTETS]
    printable = all(0x21 <= octet <= 0x7E and octet != ord(",") for octet in shown)
    text = shown.decode("ascii") if shown and printable else f"0x{shown.hex()}"
    return text if len(shown) == len(nsid) else f"{text}..."


def _rcodes(judged: Sequence[Judged]) -> dict[str, int]:
    """How many answers had each code, the most frequent first."""
    codes = [one.verdict.rcode for one in judged if one.verdict.rcode is not None]
    return dict(Counter(codes).most_common())


def _instances(judged: Sequence[Judged]) -> list[bytes]:
    return [one.verdict.nsid for one in judged if one.verdict.nsid]


def _number(
    name: str, value: float | None, unit: str, count: int, definition: str, of: str = ""
) -> Statistic:
    return Statistic(name=name, value=value, unit=unit, count=count, definition=definition, of=of)
