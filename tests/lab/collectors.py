"""A real collector on loopback and a client that speaks to it, for tests of both sides of the wire."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from collector.collector_config import CollectorConfig
from collector.keys import Key, new_key
from collector.service import Collector
from nhip.clock import Clock, SystemClock
from nhip.status import StatusView
from nhip.wire import Acknowledgement

KEY, FORECAST_KEY = new_key(), new_key()
PROBE = {
    "id": "p1",
    "key_sha256": KEY.sha256,
    "operator": "alpha",
    "province": "01",
    "technologies": ["fixed"],
}


def config(directory: Path, **changes: Any) -> CollectorConfig:
    """A configuration with one probe, ``p1``, whose key is KEY; tables as they stand in TOML."""
    table = {
        "format": "nhip-collector/1",
        "data_dir": str(directory / "data"),
        "listen": {"port": 0},
        "limits": {"minimum_free_octets": 0},
        "forecast_key_sha256": FORECAST_KEY.sha256,
        "probe": [PROBE],
    }
    return msgspec.convert({**table, **changes}, CollectorConfig)


def plain_page(view: StatusView, language: str) -> str:
    """A stand-in for the real page: its language and the number of its rows."""
    return f"<!doctype html><html lang={language}><p>{len(view.accesses)}</p>"


@contextlib.contextmanager
def running(settings: CollectorConfig, clock: Clock | None = None) -> Iterator[Collector]:
    """A collector that answers, in this process."""
    collector = Collector(settings, clock or SystemClock(), plain_page)
    collector.start()
    try:
        yield collector
    finally:
        collector.close()


@dataclass
class Reply:
    """One HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def acknowledgement(self) -> Acknowledgement:
        return msgspec.json.decode(self.body, type=Acknowledgement)


@dataclass
class Client:
    """A keep-alive connection to a collector."""

    port: int
    key: Key | None = KEY
    timeout_seconds: float = 20.0
    _connection: http.client.HTTPConnection = field(init=False)

    def __post_init__(self) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.timeout_seconds)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Reply:
        sent = {"Authorization": f"Bearer {self.key.secret}"} if self.key else {}
        self._connection.request(method, path, body, {**sent, **(headers or {})})
        response = self._connection.getresponse()
        return Reply(
            response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        )

    def post(self, body: bytes, headers: dict[str, str] | None = None) -> Reply:
        return self.request(
            "POST", "/api/v1/records", body, {"Content-Type": "application/json", **(headers or {})}
        )

    def get(self, path: str, headers: dict[str, str] | None = None) -> Reply:
        return self.request("GET", path, None, headers)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def write_config(path: Path, port: int, data_dir: Path, probes: list[dict[str, Any]], **store: Any) -> None:
    """A configuration file for a collector that runs as its own process."""
    lines = [
        'format = "nhip-collector/1"',
        f'data_dir = "{data_dir}"',
        f"[listen]\nport = {port}",
        "[limits]\nminimum_free_octets = 0",
        "[store]",
        *(f"{name} = {_toml(value)}" for name, value in store.items()),
    ]
    for probe in probes:
        lines += ["[[probe]]", *(f"{name} = {_toml(value)}" for name, value in probe.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _toml(value: object) -> str:
    return msgspec.json.encode(value).decode()
