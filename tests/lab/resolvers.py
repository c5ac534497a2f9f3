"""Answers that scripted name servers give, built with dnspython, and asking a probe through one call."""

from __future__ import annotations

import socket
import threading

import dns.edns
import dns.exception
import dns.message
import dns.rrset

from nhip.clock import SystemClock
from nhip.config import convert
from nhip.measurement import Outcome, Sample, Target
from probes.api import ProbeContext
from probes.dns.config import DnsConfig
from probes.dns.probe import Dns
from probes.network import HostNetwork, Network

NAME = "host.lab.example"


def answer_for(
    query: dns.message.Message, *records: str, kind: str = "A", instance: bytes | None = None
) -> dns.message.Message:
    """An answer to `query` with those records, 192.0.2.1 unless given."""
    answer = dns.message.make_response(query)
    for text in records or ("192.0.2.1",):
        answer.answer.append(dns.rrset.from_text(query.question[0].name, 0, "IN", kind, text))
    if instance is not None:
        option = dns.edns.GenericOption(dns.edns.OptionType.NSID, instance)
        answer.use_edns(0, options=[option])
    return answer


def measure_dns(
    target: Target,
    *,
    network: Network | None = None,
    cancelled: threading.Event | None = None,
    **settings: object,
) -> Sample:
    """One quick test."""
    table = {"count": 3, "interval_seconds": 0.05, "loss_threshold_seconds": 0.5, "name": NAME}
    config = convert(table | settings, DnsConfig, "test", environment={})
    context = ProbeContext(
        clock=SystemClock(), network=network or HostNetwork(), cancelled=cancelled or threading.Event()
    )
    return Dns(config).measure(target, context)


def outcomes(sample: Sample) -> list[Outcome]:
    return [singleton.outcome for singleton in sample.singletons]


def notes(sample: Sample) -> list[str]:
    """What a sample notes, without how late a busy machine made its questions."""
    return [note for note in sample.notes if "the plan was moved back" not in note]


def read_exactly(sock: socket.socket, octets: int) -> bytes:
    """That many octets; fewer when the peer has finished."""
    found = b""
    while len(found) < octets:
        part = sock.recv(octets - len(found))
        if not part:
            break
        found += part
    return found


def read_question(sock: socket.socket) -> dns.message.Message | None:
    """The next question on a stream; `None` when the peer has finished or speaks something else."""
    length = read_exactly(sock, 2)
    if len(length) < 2:
        return None
    try:
        return dns.message.from_wire(read_exactly(sock, int.from_bytes(length, "big")))
    except dns.exception.DNSException:
        return None


def framed(octets: bytes) -> bytes:
    """A message as it stands on a stream."""
    return len(octets).to_bytes(2, "big") + octets
