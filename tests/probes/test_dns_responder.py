"""The responder's own name, told to who asks for it and to nobody else."""

from __future__ import annotations

from collections.abc import Iterator

import dns.edns
import dns.flags
import dns.message
import dns.name
import pytest

from nhip.clock import SystemClock
from nhip.config import convert
from nhip.errors import ConfigError
from nhip.measurement import Outcome, Target
from probes.server.dns_responder import DnsResponder, DnsResponderConfig, answer_to
from tests.lab.resolvers import measure_dns, outcomes

ZONE = dns.name.from_text("lab.example")
NAMED = DnsResponderConfig(zone="lab.example", ipv4="192.0.2.1", hosts=["127.0.0.1"], port=0, instance="hn-1")


def answered(config: DnsResponderConfig, *, nsid: bool, dnssec: bool = False) -> dns.message.Message:
    options: list[dns.edns.Option] = [dns.edns.NSIDOption(b"")] if nsid else []
    query = dns.message.make_query(
        "a.lab.example", "A", use_edns=0, options=options, want_dnssec=dnssec, payload=1232
    )
    octets = answer_to(query.to_wire(), ZONE, config)
    assert octets is not None
    return dns.message.from_wire(octets)


def test_who_asks_for_the_name_of_the_instance_gets_it() -> None:
    answer = answered(NAMED, nsid=True, dnssec=True)
    assert [option.to_text() for option in answer.options] == ["NSID hn-1"]
    assert answer.answer[0][0].to_text() == "192.0.2.1"
    assert answer.flags & dns.flags.AA
    assert answer.ednsflags & dns.flags.DO  # RFC 3225 section 3: copied


@pytest.mark.parametrize(("config", "nsid"), [(NAMED, False), (DnsResponderConfig(zone="lab.example"), True)])
def test_nobody_is_told_who_did_not_ask_nor_when_there_is_no_name(
    config: DnsResponderConfig, nsid: bool
) -> None:
    assert not answered(config, nsid=nsid).options


def test_a_name_that_could_make_answers_long_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"file\.toml:instance"):
        convert(
            {"zone": "lab.example", "instance": "x" * 65}, DnsResponderConfig, "file.toml", environment={}
        )


@pytest.fixture
def responder() -> Iterator[DnsResponder]:
    running = DnsResponder(NAMED, SystemClock())
    running.start()
    yield running
    running.close()


def test_the_probe_shows_which_instance_answered(responder: DnsResponder) -> None:
    target = Target(id="resolver", host="127.0.0.1", port=responder.addresses[0][1])
    sample = measure_dns(target)
    assert outcomes(sample) == [Outcome.RECEIVED] * 3
    assert sample.facts["nsid"] == "hn-1"
    assert "nsid" not in measure_dns(target, nsid=False).facts
