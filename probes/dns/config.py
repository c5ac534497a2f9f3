"""The knobs of a dns test, and which of them go together."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import msgspec

from nhip.errors import ConfigError

# How many thresholds a datagram question's socket stays open for a late answer.
LATE_FACTOR = 2
_MOST_OPEN_QUESTIONS = 500
_NAME_PATTERN = r"^(\.|(?=.{1,253}\.?$)([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.?)+)$"

Name = Annotated[str, msgspec.Meta(pattern=_NAME_PATTERN, max_length=254)]
RecordType = Literal["A", "AAAA", "CAA", "CNAME", "HTTPS", "MX", "NS", "PTR", "SOA", "SRV", "TXT"]
Rcode = Literal["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"]


class Transport(StrEnum):
    """What carries the question: RFC 1035 datagrams, RFC 7766, RFC 7858 and RFC 8484."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"
    HTTPS = "https"


class DnsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Knobs of a dns test."""

    transport: Transport = Transport.UDP
    name: Name = "example.com"
    record_type: RecordType = "A"
    count: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 10
    interval_seconds: Annotated[float, msgspec.Meta(ge=0.01, le=3600)] = 1.0
    loss_threshold_seconds: Annotated[float, msgspec.Meta(gt=0, le=120)] = 2.0
    mixed_case: bool = False
    recursion_desired: bool = True
    edns: bool = True
    edns_payload_octets: Annotated[int, msgspec.Meta(ge=512, le=65_535)] = 1232
    nsid: bool = True
    dnssec: bool = False
    padding: bool = False
    expected_rcode: Rcode = "NOERROR"
    expected_answers: list[Annotated[str, msgspec.Meta(min_length=1, max_length=4_000)]] = []
    retry_truncated: bool = False
    reuse_connection: bool = False
    path: Annotated[str, msgspec.Meta(pattern=r"^/[!-~]*$", max_length=2000)] = "/dns-query"
    http_method: Literal["POST", "GET"] = "POST"
    server_name: str | None = None
    ca_file: str | None = None
    verify_certificate: bool = True

    def __post_init__(self) -> None:
        self._check_transport()
        if not self.edns and (self.dnssec or self.padding):
            key = "dnssec" if self.dnssec else "padding"
            raise ConfigError(f"{key}: needs EDNS", remedy=f"set edns = true, or {key} = false")
        if self.expected_answers:
            self._check_expected_answers()
        open_questions = min(self.count, LATE_FACTOR * self.loss_threshold_seconds / self.interval_seconds)
        if self.transport is Transport.UDP and open_questions > _MOST_OPEN_QUESTIONS:
            raise ConfigError(
                f"interval_seconds: {self.interval_seconds:g} keeps {open_questions:.0f} questions open",
                remedy="lengthen interval_seconds or shorten loss_threshold_seconds",
            )

    def _check_transport(self) -> None:
        """A setting that the transport cannot honour is refused; it would be ignored in silence."""
        encrypted = (Transport.TLS, Transport.HTTPS)
        only: dict[str, tuple[bool, tuple[Transport, ...]]] = {
            "retry_truncated": (self.retry_truncated, (Transport.UDP,)),
            "reuse_connection": (self.reuse_connection, (Transport.TCP, *encrypted)),
            "padding": (self.padding, encrypted),
            "server_name": (self.server_name is not None, encrypted),
            "ca_file": (self.ca_file is not None, encrypted),
            "verify_certificate": (not self.verify_certificate, encrypted),
            "http_method": (self.http_method != "POST", (Transport.HTTPS,)),
        }
        for key, (is_set, transports) in only.items():
            if is_set and self.transport not in transports:
                raise ConfigError(
                    f"{key}: has no meaning with transport {self.transport.value!r}",
                    remedy=f"leave it out, or set transport = {transports[0].value!r}",
                )

    def _check_expected_answers(self) -> None:
        from probes.dns.question import expected_records

        if self.expected_rcode != "NOERROR":
            raise ConfigError(
                f"expected_answers: an answer with {self.expected_rcode} holds none",
                remedy="leave out expected_answers or expected_rcode",
            )
        expected_records(self)
