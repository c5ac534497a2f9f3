"""Whom a probe trusts in a TLS connection, and what the two ends agreed on.

The certificate is checked unless the task says otherwise.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from nhip.errors import CannotMeasureError

HTTP_1_1, HTTP_2 = "http/1.1", "h2"
_MINIMUM_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class TlsSession:
    """What a handshake ended in: version, cipher suite, protocol chosen by ALPN, the server's certificate."""

    version: str
    cipher: str
    alpn: str
    """Empty where the server chose none."""
    certificate: bytes | None
    """DER octets of the server's own certificate; the chain above it is not kept."""


def client_context(
    ca_file: str | None,
    *,
    verify: bool = True,
    alpn: Sequence[str] = (HTTP_1_1,),
    minimum_version: str = "TLSv1.2",
) -> ssl.SSLContext:
    """A TLS client's context; CannotMeasureError when `ca_file` cannot be used.

    `ca_file` holds the certificates to trust instead of the host's own. HTTP/1.1 is offered by ALPN unless
    the caller says otherwise, because some servers take a client without it for a very old one.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise CannotMeasureError(
            f"ca_file {ca_file}: {error.strerror or error}",
            remedy="name a readable file of PEM certificates",
        ) from error
    context.minimum_version = _MINIMUM_VERSIONS[minimum_version]
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def looking_context(alpn: Sequence[str] = ()) -> ssl.SSLContext:
    """A context that takes any certificate and any version: only to look at a server, never to talk to it."""
    context = client_context(None, verify=False, alpn=alpn)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def session_of(sock: ssl.SSLSocket) -> TlsSession:
    """The session of a socket whose handshake is done."""
    cipher = sock.cipher()
    return TlsSession(
        version=sock.version() or "",
        cipher=cipher[0] if cipher else "",
        alpn=sock.selected_alpn_protocol() or "",
        certificate=sock.getpeercert(binary_form=True),
    )
