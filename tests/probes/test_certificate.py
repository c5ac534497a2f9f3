"""Certificates read from DER: what openssl made is what is read, and nothing else is ever taken for one."""

from __future__ import annotations

import ipaddress
import ssl
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.tls.certificate import Certificate, CertificateError, parse_certificate
from tests.lab.certificate import Certificate as Files
from tests.lab.certificate import make_certificate
from tests.lab.certificate_authority import CertificateAuthority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    made = CertificateAuthority(tmp_path_factory.mktemp("authority"))
    made.start()
    return made


def der_of(files: Files) -> bytes:
    return ssl.PEM_cert_to_DER_cert(files.certificate.read_text())


def openssl_says(files: Files, *options: str) -> str:
    words = ["openssl", "x509", "-in", str(files.certificate), "-noout", *options]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize(
    ("not_before", "not_after"),
    [
        (datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2000, 2, 29, 0, 0, 1, tzinfo=UTC)),
        (datetime(2024, 1, 1, tzinfo=UTC), datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (datetime(2024, 1, 1, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)),
        (datetime(1960, 6, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_dates_of_both_forms_are_read_as_openssl_wrote_them(
    authority: CertificateAuthority, not_before: datetime, not_after: datetime
) -> None:
    files = authority.issue("DNS:localhost", not_before=not_before, not_after=not_after)
    der = der_of(files)
    found = parse_certificate(der)
    assert (found.not_before, found.not_after) == (not_before, not_after)
    # UTCTime up to 2049 and GeneralizedTime from 2050 on (RFC 5280 section 4.1.2.5).
    form = "%y%m%d%H%M%SZ" if not_after.year < 2050 else "%Y%m%d%H%M%SZ"
    assert not_after.strftime(form).encode() in der
    told = datetime.strptime(openssl_says(files, "-enddate"), "notAfter=%b %d %H:%M:%S %Y %Z")
    assert told.replace(tzinfo=UTC) == found.not_after


def test_names_are_read_as_openssl_wrote_them(authority: CertificateAuthority) -> None:
    files = authority.issue(
        *("DNS:www.example.vn", "DNS:*.example.vn", "IP:192.0.2.7", "IP:2001:db8::7", "email:a@example.vn"),
        subject="/C=VN/O=Tổng công ty Nhịp/CN=www.example.vn",
    )
    found = parse_certificate(der_of(files))
    assert found.subject == "C=VN, O=Tổng công ty Nhịp, CN=www.example.vn"
    assert found.issuer == "CN=Test Root, O=Nhip Lab"
    assert found.dns_names == ("www.example.vn", "*.example.vn")
    assert [str(address) for address in found.addresses] == ["192.0.2.7", "2001:db8::7"]
    assert "DNS:*.example.vn" in openssl_says(files, "-ext", "subjectAltName")


def test_a_certificate_without_alternative_names_has_none(authority: CertificateAuthority) -> None:
    found = parse_certificate(der_of(authority.issue(subject="/CN=bare.example")))
    assert (found.dns_names, found.addresses) == ((), ())
    assert not found.is_for("bare.example")  # RFC 9525: the common name is no name of a server


def test_the_root_of_this_host_s_store_is_read_too() -> None:
    """Real certificates, of versions 1 and 3 and with every kind of string."""
    bundle = ssl.get_default_verify_paths().cafile
    if not bundle or not Path(bundle).is_file():
        pytest.skip("this host has no file of certificates (Debian package ca-certificates)")
    context = ssl.create_default_context()
    roots = context.get_ca_certs(binary_form=True)
    told = context.get_ca_certs()
    assert len(roots) > 50
    for der, known in zip(roots, told, strict=True):
        found = parse_certificate(der)
        for when, key in ((found.not_before, "notBefore"), (found.not_after, "notAfter")):
            assert when.timestamp() == ssl.cert_time_to_seconds(str(known[key]))  # type: ignore[literal-required]


@pytest.mark.parametrize(
    ("host", "covered"),
    [
        ("www.example.vn", True),
        ("WWW.EXAMPLE.VN", True),
        ("www.example.vn.", True),
        ("a.wild.example", True),
        ("wild.example", False),
        ("a.b.wild.example", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("2001:db8:0::7", True),
        ("anything.vn", False),
        ("", False),
    ],
)
def test_names_cover_a_host_as_rfc_9525_says(host: str, covered: bool) -> None:
    day = datetime(2026, 1, 1, tzinfo=UTC)
    names = ("www.example.vn", "*.wild.example", "*.vn", "*")
    addresses = (ipaddress.ip_address("192.0.2.7"), ipaddress.ip_address("2001:db8::7"))
    assert Certificate("", "", day, day, names, addresses).is_for(host) is covered


@given(st.binary(max_size=300))
def test_octets_of_any_kind_are_refused_by_name_or_read(octets: bytes) -> None:
    try:
        parse_certificate(octets)
    except CertificateError as error:
        assert str(error)


def test_every_damage_of_a_real_certificate_is_refused_by_name_or_read(tmp_path: Path) -> None:
    der = der_of(make_certificate(tmp_path, "localhost", "127.0.0.1"))
    assert parse_certificate(der).dns_names == ("localhost",)
    for position in range(len(der)):
        for value in (0x00, 0x80, 0xFF, der[position] ^ 0x01):
            damaged = der[:position] + bytes([value]) + der[position + 1 :]
            try:
                parse_certificate(damaged)
            except CertificateError as error:
                assert str(error)
        with pytest.raises(CertificateError):
            parse_certificate(der[:position])


def test_a_certificate_beyond_all_measure_is_refused_unread() -> None:
    with pytest.raises(CertificateError, match="longer than"):
        parse_certificate(bytes(100_000))
