"""dns over all four transports against unbound, and the same questions asked by other clients."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import dns.message
import dns.query
import pytest

from nhip import statistics
from nhip.measurement import Outcome, Sample, StampSource, Target
from tests.lab.certificate import make_certificate
from tests.lab.resolvers import measure_dns, outcomes
from tests.lab.unbound import HOST, INSTANCE, NAME, Unbound, unbound

pytestmark = pytest.mark.servers

TRANSPORTS = ["udp", "tcp", "tls", "https"]
each_transport = pytest.mark.parametrize("transport", TRANSPORTS)


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unbound]:
    folder = tmp_path_factory.mktemp("unbound")
    with unbound(folder, make_certificate(folder, NAME, HOST)) as running:
        yield running


def port_of(resolver: Unbound, transport: str) -> int:
    return {
        "udp": resolver.udp_port,
        "tcp": resolver.tcp_port,
        "tls": resolver.tls_port,
        "https": resolver.https_port,
    }[transport]


def measure(resolver: Unbound, transport: str, **settings: Any) -> Sample:
    if transport in ("tls", "https"):
        settings = {"ca_file": str(resolver.certificate.certificate), "server_name": NAME} | settings
    target = Target(id="resolver", host=HOST, port=port_of(resolver, transport))
    return measure_dns(target, transport=transport, loss_threshold_seconds=2.0, **settings)


@each_transport
def test_the_right_answer_comes_with_the_instance_and_the_agreed_versions(
    resolver: Unbound, transport: str
) -> None:
    sample = measure(resolver, transport, expected_answers=["192.0.2.1"], dnssec=True)
    assert outcomes(sample) == [Outcome.RECEIVED] * 3
    assert sample.facts["nsid"] == INSTANCE
    assert sample.facts["rcode"] == "NOERROR"
    assert sample.facts["dnssec_authenticated"] == "no"  # nobody signs this zone
    if transport in ("tls", "https"):
        assert sample.facts["tls_version"] == "TLSv1.3"
        assert sample.facts["certificate_verified"] == "yes"
    if transport == "https":
        assert (sample.facts["http_version"], sample.facts["alpn"]) == ("2", "h2")
    assert sample.timestamp_source is StampSource.KERNEL


@each_transport
@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("AAAA", "host.lab.example", "2001:db8::1"),
        ("MX", "host.lab.example", "10 mail.lab.example."),
        ("TXT", "host.lab.example", "one two"),
        ("HTTPS", "host.lab.example", "1 . alpn=h2"),
        ("CAA", "host.lab.example", '0 issue "ca.example"'),
        ("SRV", "_sip._udp.lab.example", "1 2 5060 host.lab.example."),
        ("NS", "lab.example", "host.lab.example."),
        ("SOA", "lab.example", "host.lab.example. root.lab.example. 1 2 3 4 5"),
        ("PTR", "1.2.0.192.in-addr.arpa", "host.lab.example."),
    ],
)
def test_records_of_every_type_are_what_the_zone_says(
    resolver: Unbound, transport: str, kind: str, name: str, expected: str
) -> None:
    sample = measure(resolver, transport, name=name, record_type=kind, expected_answers=[expected], count=1)
    assert [(one.outcome, one.detail) for one in sample.singletons] == [(Outcome.RECEIVED, "")]


@each_transport
def test_codes_of_failure_are_told_apart_from_the_expected_one(resolver: Unbound, transport: str) -> None:
    absent = measure(resolver, transport, name="absent.lab.example", count=1)
    assert [(one.outcome, one.detail) for one in absent.singletons] == [(Outcome.REJECTED, "NXDOMAIN")]
    expected = measure(resolver, transport, name="absent.lab.example", count=1, expected_rcode="NXDOMAIN")
    assert outcomes(expected) == [Outcome.RECEIVED]
    assert statistics.delays_seconds(expected.singletons)
    refused = measure(resolver, transport, name="host.refused.example", count=1)
    assert [(one.outcome, one.detail) for one in refused.singletons] == [(Outcome.REJECTED, "REFUSED")]
    rewritten = measure(resolver, transport, count=1, expected_answers=["198.51.100.7"])
    assert outcomes(rewritten) == [Outcome.CORRUPT]


def test_a_long_answer_is_truncated_in_a_datagram_and_whole_over_the_rest(resolver: Unbound) -> None:
    long = {"name": "long.lab.example", "record_type": "TXT", "count": 2}
    cut = measure(resolver, "udp", **long)
    assert {one.detail for one in cut.singletons} == {"truncated"}
    again = measure(resolver, "udp", retry_truncated=True, **long)
    assert outcomes(again) == [Outcome.RECEIVED] * 2
    assert [phase.name for phase in again.singletons[0].phases] == ["retry_tcp", "retry_query"]
    for transport in ("tcp", "tls", "https"):
        sample = measure(resolver, transport, **long)
        assert [(one.outcome, one.detail) for one in sample.singletons] == [(Outcome.RECEIVED, "")] * 2
        (size,) = [one.value for one in sample.statistics if one.name == "dns_answer_octets"]
        assert size is not None
        assert size > 2_900


@pytest.mark.parametrize("transport", ["tcp", "tls", "https"])
def test_one_kept_connection_is_enough_for_unbound(resolver: Unbound, transport: str) -> None:
    sample = measure(resolver, transport, reuse_connection=True, count=10, interval_seconds=0.01)
    assert outcomes(sample) == [Outcome.RECEIVED] * 10
    (connections,) = [one.value for one in sample.statistics if one.name == "dns_connections"]
    assert connections == 1


@pytest.mark.parametrize("http_method", ["POST", "GET"])
def test_both_methods_of_https_are_taken(resolver: Unbound, http_method: str) -> None:
    assert outcomes(measure(resolver, "https", http_method=http_method)) == [Outcome.RECEIVED] * 3


def test_another_path_is_rejected_by_its_status(resolver: Unbound) -> None:
    sample = measure(resolver, "https", path="/other", count=1)
    assert [(one.outcome, one.detail) for one in sample.singletons] == [(Outcome.REJECTED, "HTTP 404")]


def test_padded_questions_get_padded_answers(resolver: Unbound) -> None:
    sample = measure(resolver, "tls", padding=True, count=1)
    sizes = [one.value for one in sample.statistics if one.name == "dns_answer_octets"]
    assert sizes == [468]  # RFC 8467 section 4.1: servers pad to multiples of 468


def test_a_stranger_s_certificate_is_a_failed_handshake(resolver: Unbound) -> None:
    sample = measure(resolver, "tls", ca_file=None, count=1)
    assert outcomes(sample) == [Outcome.TLS_FAILED]


def test_dnspython_gets_the_same_answers(resolver: Unbound) -> None:
    query = dns.message.make_query("host.lab.example", "A")
    certificate = str(resolver.certificate.certificate)
    answers = [
        dns.query.udp(query, HOST, port=resolver.udp_port, timeout=2),
        dns.query.tcp(query, HOST, port=resolver.tcp_port, timeout=2),
        dns.query.tls(
            query, HOST, port=resolver.tls_port, timeout=2, verify=certificate, server_hostname=NAME
        ),
    ]
    for transport, answer in zip(TRANSPORTS, answers, strict=False):
        texts = [record.to_text() for record in answer.answer[0]]
        assert texts == ["192.0.2.1"]
        assert outcomes(measure(resolver, transport, expected_answers=texts)) == [Outcome.RECEIVED] * 3


@each_transport
def test_kdig_is_no_faster(resolver: Unbound, transport: str) -> None:
    """Another client's own figure for the same question, asked in turns on the same machine."""
    if shutil.which("kdig") is None:
        pytest.skip("kdig is not installed (Debian package knot-dnsutils)")
    options = {"udp": [], "tcp": ["+tcp"], "tls": ["+tls"], "https": ["+https"]}[transport]
    ours, theirs = [], []
    for _ in range(7):
        sample = measure(resolver, transport, count=1)
        ours += statistics.delays_seconds(sample.singletons)
        output = subprocess.run(
            ["kdig", f"@{HOST}", "-p", str(port_of(resolver, transport)), *options, "host.lab.example", "A"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout
        found = re.search(r"From .* in ([0-9.]+) ms", output)
        assert found, output
        theirs.append(float(found[1]) / 1000)
    median, other = statistics.quantile(ours, 0.5), statistics.quantile(theirs, 0.5)
    assert median is not None
    assert other is not None
    # kdig counts connecting in; ours must not be longer than that by more than this machine's noise.
    assert median <= other + 0.005
