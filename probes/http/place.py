"""Where a page lies, and where a redirect may lead to (RFC 9110 section 15.4)."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from probes.http.http1 import host_field
from probes.network import is_host

DEFAULT_PORT, DEFAULT_TLS_PORT = 80, 443
REDIRECTS = frozenset({301, 302, 303, 307, 308})

_LONGEST_PATH = 2_000
# What may stand in a request target as it is (RFC 3986 section 3.3, 3.4); `%` because it is encoded already.
_UNCHANGED = "/?:@!$&'()*+,;=-._~%"


class RedirectRefusedError(Exception):
    """A redirect that is not followed, and why."""


@dataclass(frozen=True, slots=True)
class Place:
    """One page: scheme, host, port and path."""

    tls: bool
    host: str
    port: int
    path: str

    @property
    def scheme(self) -> str:
        return "https" if self.tls else "http"

    @property
    def authority(self) -> str:
        """Host and port as the Host field has them."""
        return host_field(self.host, self.port, DEFAULT_TLS_PORT if self.tls else DEFAULT_PORT)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def followed(place: Place, location: str, *, allow_downgrade: bool) -> Place:
    """Where `location` leads from `place`; RedirectRefusedError for no web page, or one no longer secret."""
    try:
        parts = urlsplit(urljoin(str(place), location))
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise RedirectRefusedError("redirect to no address") from error
    if parts.scheme not in ("http", "https"):
        raise RedirectRefusedError("redirect to no web page")
    if parts.username is not None or parts.password is not None:
        raise RedirectRefusedError("redirect with a user name in it")
    if not is_host(host) or port == 0:
        raise RedirectRefusedError("redirect to no address")
    tls = parts.scheme == "https"
    if place.tls and not tls and not allow_downgrade:
        raise RedirectRefusedError("redirect from https to http")
    path = quote(parts.path or "/", safe=_UNCHANGED)
    if parts.query:
        path += "?" + quote(parts.query, safe=_UNCHANGED)
    if len(path) > _LONGEST_PATH or not path.startswith("/"):
        raise RedirectRefusedError("redirect to a path of no usual form")
    return Place(tls, host, port or (DEFAULT_TLS_PORT if tls else DEFAULT_PORT), path)
