"""What the questions of one test came to, whichever transport carried them."""

from __future__ import annotations

from dataclasses import dataclass

from nhip.measurement import Outcome, Phase, Singleton
from probes.dns.question import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One answer that was read whole: to which question, what it says, and how long it is."""

    sequence: int
    verdict: Verdict
    octets: int
    query_ns: int
    """From question to answer, whatever the answer says."""
    reused: bool = False
    """True when its connection had carried a question before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Every question's fate, and what was learnt besides."""

    singletons: tuple[Singleton, ...]
    judged: tuple[Judged, ...] = ()
    octets_sent: int = 0
    octets_received: int = 0
    connections: int = 0
    """Connections that stood, whatever came of the question."""
    http_versions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """What became of a truncated answer's question when it was asked again over TCP."""

    outcome: Outcome
    detail: str
    phases: tuple[Phase, ...]
    octets_sent: int
    octets_received: int
