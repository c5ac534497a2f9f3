"""What a server's certificate says of itself: names and dates, read from its DER octets (RFC 5280).

Read without judging: a certificate that expired, or that nobody trusts, is exactly the one whose dates
matter. Whether it may be trusted is the TLS library's to say.

::

    Certificate      SEQUENCE
      tbsCertificate   SEQUENCE
        version          [0] (absent in version 1)
        serialNumber     INTEGER
        signature        SEQUENCE
        issuer           Name
        validity         SEQUENCE  notBefore Time, notAfter Time
        subject          Name
        publicKey        SEQUENCE
        issuerUniqueID   [1], subjectUniqueID [2]
        extensions       [3] SEQUENCE OF (OID, critical, OCTET STRING)  -> subjectAltName 2.5.29.17
      ...
    Name = SEQUENCE OF SET OF SEQUENCE (OID, string)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

# Identifier octets (X.690): class, constructed bit and tag number in one.
_SEQUENCE, _SET, _OID, _OCTET_STRING = 0x30, 0x31, 0x06, 0x04
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_DNS_NAME, _IP_ADDRESS = 0x82, 0x87
_ENCODINGS = {
    0x0C: "utf-8",
    0x13: "ascii",
    0x14: "latin-1",
    0x16: "ascii",
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}

_SUBJECT_ALTERNATIVE_NAME = bytes.fromhex("551d11")
# RFC 4514 section 3, and what else stands in certificates of the public web.
_ATTRIBUTES = {
    bytes.fromhex("550403"): "CN",
    bytes.fromhex("550406"): "C",
    bytes.fromhex("550407"): "L",
    bytes.fromhex("550408"): "ST",
    bytes.fromhex("55040a"): "O",
    bytes.fromhex("55040b"): "OU",
}
_LONGEST_OCTETS = 65_536


class CertificateError(ValueError):
    """Octets that are no certificate; says where reading stopped."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Names and dates of one certificate; `dns_names` and `addresses` are its subjectAltName."""

    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime
    dns_names: tuple[str, ...]
    addresses: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]

    def is_for(self, host: str) -> bool:
        """Whether the names cover `host` (RFC 9525): addresses exactly, ``*`` as first label only."""
        try:
            return ipaddress.ip_address(host) in self.addresses
        except ValueError:
            return any(_covers(pattern, host) for pattern in self.dns_names)


def parse_certificate(der: bytes) -> Certificate:
    """Names and dates of the certificate in `der`; CertificateError for anything else."""
    if len(der) > _LONGEST_OCTETS:
        raise CertificateError(f"longer than {_LONGEST_OCTETS} octets")
    certificate = _only(der, _SEQUENCE, "certificate")
    fields = list(_elements(_first(certificate, _SEQUENCE, "tbsCertificate")))
    if fields and fields[0][0] == _VERSION:
        del fields[0]
    if len(fields) < 6:
        raise CertificateError("tbsCertificate is too short")
    _serial, _signature, issuer, validity, subject, _key, *rest = fields
    times = list(_elements(_value(validity, _SEQUENCE, "validity")))
    if len(times) != 2:
        raise CertificateError("validity has no two times")
    dns_names, addresses = _alternative_names(rest)
    return Certificate(
        subject=_name(_value(subject, _SEQUENCE, "subject")),
        issuer=_name(_value(issuer, _SEQUENCE, "issuer")),
        not_before=_time(*times[0]),
        not_after=_time(*times[1]),
        dns_names=dns_names,
        addresses=addresses,
    )


def _covers(pattern: str, host: str) -> bool:
    wanted, given = host.lower().removesuffix("."), pattern.lower().removesuffix(".")
    if not given.startswith("*."):
        return wanted == given
    first, _dot, rest = wanted.partition(".")
    # One label, and no wildcard right below the root: "*.vn" is nobody's certificate.
    return bool(first) and rest == given[2:] and "." in rest


def _alternative_names(
    fields: list[tuple[int, bytes]],
) -> tuple[tuple[str, ...], tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]]:
    names: list[str] = []
    addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = []
    for tag, value in fields:
        if tag != _EXTENSIONS:
            continue
        for extension_tag, extension in _elements(_only(value, _SEQUENCE, "extensions")):
            if extension_tag != _SEQUENCE:
                raise CertificateError("extension is no sequence")
            parts = list(_elements(extension))
            if not parts or parts[0] != (_OID, _SUBJECT_ALTERNATIVE_NAME):
                continue
            inner = _value(parts[-1], _OCTET_STRING, "subjectAltName")
            for kind, octets in _elements(_only(inner, _SEQUENCE, "subjectAltName")):
                if kind == _DNS_NAME:
                    names.append(_text(octets, "ascii"))
                elif kind == _IP_ADDRESS and len(octets) in (4, 16):
                    addresses.append(ipaddress.ip_address(octets))
    return tuple(names), tuple(addresses)


def _name(octets: bytes) -> str:
    """A Name as ``CN=www.example.vn, O=Example``; attributes this file has no word for are left out."""
    found = []
    for set_tag, relative in _elements(octets):
        if set_tag != _SET:
            raise CertificateError("name is no sequence of sets")
        for pair_tag, pair in _elements(relative):
            parts = list(_elements(pair)) if pair_tag == _SEQUENCE else []
            if len(parts) != 2 or parts[0][0] != _OID:
                raise CertificateError("name has an attribute that is no pair")
            word = _ATTRIBUTES.get(parts[0][1])
            encoding = _ENCODINGS.get(parts[1][0])
            if word and encoding:
                found.append(f"{word}={_text(parts[1][1], encoding)}")
    return ", ".join(found)


def _text(octets: bytes, encoding: str) -> str:
    """Text of a stranger, fit for a line of text: whatever is not printable becomes ``?``."""
    text = octets.decode(encoding, "replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _time(tag: int, octets: bytes) -> datetime:
    """Time as RFC 5280 section 4.1.2.5 allows it: ``YYMMDDHHMMSSZ`` up to 2049, ``YYYYMMDDHHMMSSZ`` after."""
    if tag not in (_UTC_TIME, _GENERALIZED_TIME):
        raise CertificateError("validity holds no time")
    year_digits = 2 if tag == _UTC_TIME else 4
    digits = octets[:-1]
    if len(octets) != year_digits + 11 or not digits.isdigit() or octets[-1:] != b"Z":
        raise CertificateError("validity holds a time in another form than RFC 5280's")
    year = int(digits[:year_digits])
    if tag == _UTC_TIME:
        year += 1900 if year >= 50 else 2000
    month, day, hour, minute, second = (int(digits[at : at + 2]) for at in range(year_digits, len(digits), 2))
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise CertificateError("validity holds no date of the calendar") from error


def _only(octets: bytes, tag: int, what: str) -> bytes:
    """The value of the one element that fills `octets`."""
    found = list(_elements(octets))
    if len(found) != 1:
        raise CertificateError(f"{what} is not one element")
    return _value(found[0], tag, what)


def _first(octets: bytes, tag: int, what: str) -> bytes:
    return _value(next(_elements(octets), (0, b"")), tag, what)


def _value(element: tuple[int, bytes], tag: int, what: str) -> bytes:
    if element[0] != tag:
        raise CertificateError(f"{what} has another type than RFC 5280 says")
    return element[1]


def _elements(octets: bytes) -> Iterator[tuple[int, bytes]]:
    """Each element's identifier octet and value; lengths are definite and never reach beyond the end."""
    at = 0
    while at < len(octets):
        if at + 2 > len(octets):
            raise CertificateError("an element ends early")
        tag, length = octets[at], octets[at + 1]
        at += 2
        if length >= 0x80:
            size = length & 0x7F
            if not 1 <= size <= 3 or at + size > len(octets):
                raise CertificateError("an element has no length")
            length = int.from_bytes(octets[at : at + size], "big")
            at += size
        if at + length > len(octets):
            raise CertificateError("an element is longer than what holds it")
        yield tag, octets[at : at + length]
        at += length
