"""Whom a probe trusts in a TLS connection: the certificate is checked unless the task says otherwise."""

from __future__ import annotations

import ssl

from nhip.errors import CannotMeasureError


def client_context(ca_file: str | None, *, verify: bool = True) -> ssl.SSLContext:
    """A TLS client's context; CannotMeasureError when `ca_file` cannot be used.

    `ca_file` holds the certificates to trust instead of the host's own. HTTP/1.1 is offered by ALPN,
    because some servers take a client without it for a very old one.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise CannotMeasureError(
            f"ca_file {ca_file}: {error.strerror or error}",
            remedy="name a readable file of PEM certificates",
        ) from error
    context.set_alpn_protocols(["http/1.1"])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
