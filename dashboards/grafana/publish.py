"""Bring the dashboards to a remote Grafana: idempotent, by fixed identifiers, nothing written when equal.

::

    folder     GET /api/folders/UID ──404──▶ POST /api/folders ──409, 412──▶ somebody was faster: exists
    dashboard  GET /api/dashboards/uid/UID ──404 or different──▶ POST /api/dashboards/db
                                           ──equal──▶ nothing

Numeric identifiers are never used; Grafana 13 no longer answers to them. The transport is grafana-api, an
archived library that this module alone imports: it only joins addresses, adds the token and turns statuses
into exceptions. A server that fails (5xx) is asked again, since every step may be repeated.
"""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from dashboards.grafana import build
from nhip import __version__
from nhip.errors import PublishError
from nhip.language import Language

if TYPE_CHECKING:
    from grafana_api.grafana_api import GrafanaAPI

FOLDER_UID = "nhip"
FOLDER_TITLE = "Nhịp"
# Given by the server to each version it stores; no part of what a dashboard says.
SERVER_KEYS = frozenset({"id", "version", "iteration"})
PAUSES_SECONDS = (0.5, 2.0)
MOST_DIFFERENCES = 20


class Action(StrEnum):
    UNCHANGED = "unchanged"
    CREATE = "create"
    UPDATE = "update"


@dataclass(frozen=True, slots=True)
class Change:
    """What was done to one object, or would be; `differences` name keys with their old and new value."""

    what: str
    action: Action
    differences: tuple[str, ...] = ()


class Transport(Protocol):
    """What is needed of a Grafana: an answer to a method and a path, or PublishError."""

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None: ...


def publish(
    url: str,
    token: str,
    *,
    languages: Sequence[Language] = tuple(Language),
    dry_run: bool = False,
    timeout_seconds: float = 10.0,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Change]:
    """Ensure the folder and a dashboard for each language; what was changed, or with `dry_run` would be.

    `url` may hold a path prefix. PublishError says what the server refused and what to do.
    """
    server = Grafana(url, token, timeout_seconds=timeout_seconds, sleep=sleep)
    try:
        changes = [ensure_folder(server, dry_run=dry_run)]
        for language in languages:
            model = json.loads(build.path(language).read_text(encoding="utf-8"))
            changes.append(ensure_dashboard(server, model, dry_run=dry_run))
        return changes
    finally:
        server.close()


def ensure_folder(server: Transport, *, dry_run: bool = False) -> Change:
    """The folder exists afterwards; one that people renamed keeps its name."""
    what = f"folder {FOLDER_UID}"
    if server.ask("GET", f"/folders/{FOLDER_UID}") is not None:
        return Change(what, Action.UNCHANGED)
    if not dry_run:
        try:
            server.ask("POST", "/folders", {"uid": FOLDER_UID, "title": FOLDER_TITLE})
        except _Conflict as error:
            # Versions differ in the status they give an existing folder; look whether it is ours.
            if server.ask("GET", f"/folders/{FOLDER_UID}") is None:
                raise PublishError(
                    f"a folder titled {FOLDER_TITLE!r} exists under another identifier: {error.what}",
                    remedy="rename that folder, then publish again",
                ) from error
            return Change(what, Action.UNCHANGED)
    return Change(what, Action.CREATE)


def ensure_dashboard(server: Transport, model: dict[str, Any], *, dry_run: bool = False) -> Change:
    """The dashboard is stored as given afterwards; it is not written when it is already."""
    uid = model["uid"]
    what = f"dashboard {uid}"
    stored = server.ask("GET", f"/dashboards/uid/{uid}")
    differences: tuple[str, ...] = ()
    if stored is not None:
        meta = stored.get("meta", {})
        differences = tuple(_differences(_said(stored.get("dashboard", {})), _said(model)))
        if meta.get("folderUid", FOLDER_UID) != FOLDER_UID:
            differences = (f"$folder: {meta['folderUid']!r} -> {FOLDER_UID!r}", *differences)
        if not differences:
            return Change(what, Action.UNCHANGED)
        if meta.get("provisioned"):
            raise PublishError(
                f"{what} is provisioned from files on the server and differs",
                remedy="update those files (dashboards.grafana.provision), or remove the provider",
            )
    if not dry_run:
        _save(server, model)
    action = Action.CREATE if stored is None else Action.UPDATE
    return Change(what, action, differences[:MOST_DIFFERENCES])


def _save(server: Transport, model: dict[str, Any]) -> None:
    answer = server.ask(
        "POST",
        "/dashboards/db",
        {
            "dashboard": {**model, "id": None},
            "folderUid": FOLDER_UID,
            # The identifier is ours: whatever lies there is an older or a changed copy of this dashboard.
            "overwrite": True,
            "message": f"nhip {__version__}",
        },
    )
    if answer is None or answer.get("uid") != model["uid"]:
        raise PublishError(
            f"dashboard {model['uid']}: the server did not confirm it: {answer!r}",
            remedy="look whether the address is that of a Grafana, not of a proxy before it",
        )


def _said(model: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in model.items() if key not in SERVER_KEYS}


def _differences(old: Any, new: Any, place: str = "$") -> Iterator[str]:
    """Each place where two models differ, as ``$.panels[3].title: 'a' -> 'b'``."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{place}.{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (left, right) in enumerate(zip(old, new, strict=True)):
            yield from _differences(left, right, f"{place}[{index}]")
    elif old != new:
        yield f"{place}: {_short(old)} -> {_short(new)}"


def _short(value: Any, longest: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


class _Conflict(PublishError):
    """409 or 412: something is already there."""


class Grafana:
    """A Grafana's HTTP interface with a token, on grafana-api's transport."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout_seconds: float = 10.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = url
        self._token = token.strip()
        self._timeout_seconds = timeout_seconds
        self._sleep = sleep
        self._api: GrafanaAPI | None = None

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """The server's answer; None when it has no such thing. PublishError for everything else."""
        from grafana_api.grafana_api import GrafanaClientError, GrafanaServerError

        api = self._connected()
        for pause in (*PAUSES_SECONDS, None):
            try:
                answer = getattr(api, method)(path, json=body)
            except GrafanaServerError as error:
                if pause is None:
                    raise PublishError(
                        f"{method} {path}: the server failed: {error.message}",
                        remedy="look at Grafana's log, then publish again; nothing is half done",
                    ) from error
                self._sleep(pause)
                continue
            except GrafanaClientError as error:
                if error.status_code == 404:
                    return None
                raise _refusal(method, path, error.status_code, str(error.message)) from error
            except (OSError, ValueError, TypeError) as error:
                # The library's own exceptions for network and answer are OSError and ValueError underneath.
                raise PublishError(
                    f"{method} {path}: no answer of a Grafana at {self._url}: {error}",
                    remedy="check address, port and path prefix, and that Grafana runs",
                ) from error
            if not isinstance(answer, dict):
                raise PublishError(
                    f"{method} {path}: answered with {_short(answer)}", remedy="check the address"
                )
            return answer
        raise AssertionError("the last pause is None, so the loop returned or raised")

    def close(self) -> None:
        """Close the connection; safe at any time."""
        if self._api is not None:
            self._api.s.close()
            self._api = None

    def _connected(self) -> GrafanaAPI:
        if self._api is None:
            from grafana_api.grafana_api import GrafanaAPI

            if not self._token or not self._token.isprintable():
                raise PublishError(
                    "the token is empty or holds control characters", remedy="give a service account's token"
                )
            protocol, host, port, prefix = _parts(self._url)
            self._api = GrafanaAPI(
                self._token,
                host=host,
                port=port,
                url_path_prefix=prefix,
                protocol=protocol,
                timeout=self._timeout_seconds,
            )
        return self._api


def _refusal(method: str, path: str, status: int, message: str) -> PublishError:
    where = f"{method} {path}: {status}: {message}"
    if status == 401:
        return PublishError(where, remedy="the token is wrong or expired: make a new service account token")
    if status == 403:
        return PublishError(where, remedy="give the service account the role Editor")
    if status in (409, 412):
        return _Conflict(where, remedy="rename what is in the way, then publish again")
    return PublishError(where, remedy="Nhịp supports Grafana 10 and later")


def _parts(url: str) -> tuple[str, str, int | None, str]:
    """Scheme, host, port and path prefix as the library wants them; PublishError for an unusable address."""
    try:
        found = urlsplit(url)
        port = found.port
    except ValueError as error:
        raise PublishError(
            f"{url!r} is no address: {error}", remedy="write https://host[:port][/prefix]"
        ) from (error)
    host = found.hostname or ""
    if found.scheme not in ("http", "https") or not host or found.username or found.query or found.fragment:
        raise PublishError(f"{url!r} is no address of a Grafana", remedy="write https://host[:port][/prefix]")
    if found.scheme == "http" and not _is_loopback(host):
        raise PublishError(
            f"{url!r} would send the token unprotected", remedy="use https, or publish on the server itself"
        )
    prefix = found.path.strip("/")
    bracketed = f"[{host}]" if ":" in host else host
    return found.scheme, bracketed, port, f"{prefix}/" if prefix else ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
