"""The knobs of an http test."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from nhip.errors import ConfigError

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]
_FieldName = Annotated[str, msgspec.Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$")]


class HttpConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Knobs of an http test."""

    count: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 3
    interval_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 1.0
    loss_threshold_seconds: Annotated[float, msgspec.Meta(gt=0, le=300)] = 10.0
    http_version: Literal["http1", "http2", "http3", "auto"] = "http1"
    tls: bool = True
    server_name: Annotated[str, msgspec.Meta(max_length=253)] = ""
    verify_certificate: bool = True
    ca_file: str | None = None
    method: Literal["GET", "HEAD"] = "GET"
    path: Annotated[str, msgspec.Meta(pattern=r"^/[!-~]*$", max_length=2000)] = "/"
    expected_status: list[Annotated[int, msgspec.Meta(ge=100, le=599)]] = []
    max_body_octets: Annotated[int, msgspec.Meta(ge=0, le=100_000_000)] = 1_000_000
    redirects: Annotated[int, msgspec.Meta(ge=0, le=10)] = 0
    allow_downgrade: bool = False
    body_contains: Annotated[list[_Text], msgspec.Meta(max_length=20)] = []
    body_lacks: Annotated[list[_Text], msgspec.Meta(max_length=20)] = []
    body_sha256: Annotated[str, msgspec.Meta(pattern=r"^([0-9A-Fa-f]{64})?$")] = ""
    header_contains: Annotated[dict[_FieldName, _Text], msgspec.Meta(max_length=20)] = {}
    happy_eyeballs: bool = False
    happy_eyeballs_delay_seconds: Annotated[float, msgspec.Meta(ge=0.01, le=2)] = 0.25

    def __post_init__(self) -> None:
        if self.http_version == "http3" and not self.tls:
            raise ConfigError("http_version: HTTP/3 is always encrypted", remedy="leave tls at true")
        if self.http_version == "http3" and self.happy_eyeballs:
            raise ConfigError(
                "happy_eyeballs: races TCP connections, and HTTP/3 has none",
                remedy="leave it out, or take another http_version",
            )
        if self.method == "HEAD" and (self.body_contains or self.body_lacks or self.body_sha256):
            raise ConfigError(
                "method: an answer to HEAD has no body to check",
                remedy='take "GET", or leave body_contains, body_lacks and body_sha256 out',
            )

    @property
    def alpn(self) -> list[str]:
        """What is offered in a TLS handshake over TCP, the favourite first."""
        return {"http2": ["h2"], "auto": ["h2", "http/1.1"]}.get(self.http_version, ["http/1.1"])

    def expects(self, status: int) -> bool:
        """Whether an answer of that status is what the task wants."""
        return status in self.expected_status if self.expected_status else 200 <= status < 400
