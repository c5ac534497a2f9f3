"""The newest forecast of every link, durable: published by forecasting, shown by metrics and page.

One row for each link and provenance, so that a simulated forecast never takes the place of one that rests on
measured traffic. A forecast older than the one kept changes nothing, and one that says it was made in the
future is refused: it would keep every later one out.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from collector.directory import make_private
from collector.forecast_check import fault_of
from nhip.clock import Clock
from nhip.errors import StoreError, WireError
from nhip.wire import LinkForecast

FILE_NAME = "forecasts.sqlite"

_decoder = msgspec.json.Decoder(list[LinkForecast])


@dataclass(frozen=True, slots=True)
class Published:
    """What became of the forecasts of one publication."""

    stored: int
    older: int
    """No newer than what was kept already, or than another one beside it."""


class Forecasts:
    """Forecasts in ``directory/forecasts.sqlite``; a copy in memory answers every reader."""

    def __init__(
        self, directory: Path, clock: Clock, *, ahead_seconds: float = 300.0, at_most: int = 10_000
    ) -> None:
        self._path = directory / FILE_NAME
        self._clock = clock
        self._ahead_ns = round(ahead_seconds * 1e9)
        self._at_most = at_most
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._current: dict[tuple[str, str], LinkForecast] = {}

    def start(self) -> None:
        """Open the file and read what is in it; StoreError when it cannot be."""
        try:
            make_private(self._path)
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
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{self._path}: {error}", remedy="look at the disk") from error
        for (body,) in rows:
            forecast = msgspec.json.decode(body, type=LinkForecast)
            self._current[forecast.link_id, forecast.provenance] = forecast

    def publish(self, body: bytes) -> Published:
        """Keep the forecasts in `body` durably, all or none; how many were newer. WireError, StoreError."""
        latest_wall_ns = self._clock.wall_ns() + self._ahead_ns
        forecasts = decode(body, latest_wall_ns)
        with self._lock:
            newer: dict[tuple[str, str], LinkForecast] = {}
            for forecast in forecasts:
                key = forecast.link_id, forecast.provenance
                kept = newer.get(key) or self._current.get(key)
                # One that was kept before this host's clock was set right gives way to any.
                if kept is None or not forecast.made_at_wall_ns <= kept.made_at_wall_ns <= latest_wall_ns:
                    newer[key] = forecast
            if len(self._current.keys() | newer.keys()) > self._at_most:
                raise StoreError(f"more than {self._at_most} links", remedy="publish fewer links")
            self._write(list(newer.values()))
            self._current.update(newer)
            return Published(len(newer), len(forecasts) - len(newer))

    def current(self) -> tuple[LinkForecast, ...]:
        """The newest forecast of each link, by link."""
        with self._lock:
            return tuple(self._current[key] for key in sorted(self._current))

    def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

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


def decode(body: bytes, latest_wall_ns: int) -> list[LinkForecast]:
    """The forecasts in a JSON array; WireError names the first that is wrong and how.

    One made after `latest_wall_ns` is wrong, too.
    """
    try:
        forecasts = _decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise WireError(f"no forecasts: {error}") from error
    for forecast in forecasts:
        fault = fault_of(forecast)
        if forecast.made_at_wall_ns > latest_wall_ns:
            fault = "made_at_wall_ns lies in the future"
        if fault:
            raise WireError(f"forecast of {forecast.link_id}: {fault}")
    return forecasts


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
