"""Hands forecasts to a collector over HTTP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import msgspec

from nhip import __version__
from nhip.errors import ShipError
from nhip.secret import refuse_clear_text

FORECASTS_PATH = "/api/v1/forecasts"


def publish_forecasts(
    url: str, key: str, forecasts: Sequence[dict[str, Any]], *, timeout_seconds: float = 20.0
) -> None:
    """Return when the collector at `url` (``http`` or ``https``) has them; ShipError says why not."""
    if not url.startswith(("http://", "https://")):
        raise ShipError(f"{url} is no address of a collector", remedy="write https://HOST[:PORT]")
    refuse_clear_text(url, "--publish")
    request = urllib.request.Request(  # noqa: S310 - the scheme was just checked
        url.rstrip("/") + FORECASTS_PATH,
        data=json.dumps(forecasts, allow_nan=False).encode(),
        headers={
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "User-Agent": f"nhip/{__version__}",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds) as answer:  # noqa: S310
            stored = msgspec.json.decode(answer.read(), type=_Answer).stored
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(500).decode("utf-8", "replace")
        raise ShipError(f"{url} answered {error.code}: {said}") from error
    except (OSError, msgspec.MsgspecError) as error:
        raise ShipError(
            f"{url} was not reached: {error}", remedy="is the collector running there?"
        ) from error
    if stored != len(forecasts):
        raise ShipError(
            f"{url} took {stored} of {len(forecasts)} forecasts",
            remedy="it has newer ones of the others: check this host's clock",
        )


class _Answer(msgspec.Struct):
    stored: int
