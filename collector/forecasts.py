"""The newest forecast of every link, durable: published by forecasting, shown by metrics and page.

One row for each link and provenance, so that a simulated forecast never takes the place of one that rests on
measured traffic. A forecast older than the one kept changes nothing.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from nhip.errors import StoreError, WireError
from nhip.wire import LinkForecast

FILE_NAME = "forecasts.sqlite"
PROVENANCES = frozenset({"measured", "simulated"})
VERDICTS = frozenset({"already_over", "crosses", "never", "no_capacity"})

_decoder = msgspec.json.Decoder(list[LinkForecast])


class Forecasts:
    """Forecasts in ``directory/forecasts.sqlite``; a copy in memory answers every reader."""

    def __init__(self, directory: Path, *, at_most: int = 10_000) -> None:
        self._path = directory / FILE_NAME
        self._at_most = at_most
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._current: dict[tuple[str, str], LinkForecast] = {}

    def start(self) -> None:
        """Open the file and read what is in it; StoreError when it cannot be."""
        try:
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._connection = connection
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS forecast ("
                " link_id TEXT NOT NULL, provenance TEXT NOT NULL, made_at_wall_ns INTEGER NOT NULL,"
                " body BLOB NOT NULL, PRIMARY KEY (link_id, provenance)) STRICT"
            )
            rows = connection.execute("SELECT body FROM forecast").fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}", remedy="look at the disk") from error
        for (body,) in rows:
            forecast = msgspec.json.decode(body, type=LinkForecast)
            self._current[forecast.link_id, forecast.provenance] = forecast

    def publish(self, body: bytes) -> int:
        """Keep the forecasts in `body` durably; how many were new. WireError, StoreError."""
        forecasts = decode(body)
        with self._lock:
            newer = {
                (forecast.link_id, forecast.provenance): forecast
                for forecast in forecasts
                if self._is_newer(forecast)
            }
            if len(self._current.keys() | newer.keys()) > self._at_most:
                raise StoreError(f"more than {self._at_most} links", remedy="publish fewer links")
            self._write(list(newer.values()))
            self._current.update(newer)
            return len(newer)

    def current(self) -> tuple[LinkForecast, ...]:
        """The newest forecast of each link, by link."""
        with self._lock:
            return tuple(self._current[key] for key in sorted(self._current))

    def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _is_newer(self, forecast: LinkForecast) -> bool:
        kept = self._current.get((forecast.link_id, forecast.provenance))
        return kept is None or forecast.made_at_wall_ns > kept.made_at_wall_ns

    def _write(self, forecasts: list[LinkForecast]) -> None:
        connection = self._connection
        if connection is None:
            raise StoreError(f"{self._path}: is not open", remedy="call start() first")
        try:
            with _transaction(connection):
                connection.executemany(
                    "INSERT OR REPLACE INTO forecast VALUES (?, ?, ?, ?)",
                    (
                        (item.link_id, item.provenance, item.made_at_wall_ns, msgspec.json.encode(item))
                        for item in forecasts
                    ),
                )
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}", remedy="look at the disk") from error


def decode(body: bytes) -> list[LinkForecast]:
    """The forecasts in a JSON array; WireError names the first that is wrong and how."""
    try:
        forecasts = _decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise WireError(f"no forecasts: {error}") from error
    for forecast in forecasts:
        fault = _fault(forecast)
        if fault:
            raise WireError(f"forecast of {forecast.link_id}: {fault}")
    return forecasts


def date_seconds(text: str) -> float | None:
    """Seconds since 1970 of an ISO 8601 date, or date and time, UTC by default; None when it is neither."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _fault(forecast: LinkForecast) -> str:
    if forecast.provenance not in PROVENANCES:
        return "provenance is neither measured nor simulated"
    if not (forecast.series_id + forecast.produced_by).isprintable():
        return "series_id or produced_by holds control characters"
    length = len(forecast.times)
    if len(forecast.median) != length or any(len(path) != length for path in forecast.quantiles.values()):
        return "times, median and quantiles differ in length"
    for limit in forecast.limits:
        if limit.verdict not in VERDICTS:
            return f"verdict of {limit.rule_id} is none of {', '.join(sorted(VERDICTS))}"
        dates = (limit.median_date, *(limit.interval80 or ()))
        if any(text is not None and date_seconds(text) is None for text in dates):
            return f"a date of {limit.rule_id} is not written as YYYY-MM-DD"
    return ""


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
