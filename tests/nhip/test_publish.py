"""Forecasts handed to a collector: it has them all, or somebody is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from nhip.errors import ConfigError, ShipError
from nhip.publish import publish_forecasts


@contextmanager
def scripted(status: int, body: bytes) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A collector on loopback that answers every POST the same, and what it was sent."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            seen.append(
                {
                    "path": self.path,
                    "key": self.headers["Authorization"],
                    "body": json.loads(self.rfile.read(length)),
                }
            )
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_forecasts_go_to_the_collector_with_the_key() -> None:
    with scripted(200, b'{"stored": 2}') as (url, seen):
        publish_forecasts(url, "k3y", [{"link_id": "a"}, {"link_id": "b"}])
    assert seen == [
        {"path": "/api/v1/forecasts", "key": "Bearer k3y", "body": [{"link_id": "a"}, {"link_id": "b"}]}
    ]


def test_a_forecast_the_collector_did_not_take_is_an_error() -> None:
    with scripted(200, b'{"stored": 1}') as (url, _), pytest.raises(ShipError, match="took 1 of 2"):
        publish_forecasts(url, "k", [{}, {}])


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b"[]", b""])
def test_a_stranger_that_says_ok_is_no_collector(body: bytes) -> None:
    with scripted(200, body) as (url, _), pytest.raises(ShipError):
        publish_forecasts(url, "k", [{}])


def test_a_refusal_is_told_in_the_collectors_words() -> None:
    with scripted(401, b'{"error": "no"}') as (url, _), pytest.raises(ShipError, match="401"):
        publish_forecasts(url, "k", [{}])


def test_nobody_there_is_told() -> None:
    with scripted(200, b"") as (url, _):
        pass
    with pytest.raises(ShipError, match="not reached"):
        publish_forecasts(url, "k", [{}])


def test_the_key_never_leaves_unencrypted() -> None:
    with pytest.raises(ConfigError, match="unencrypted"):
        publish_forecasts("http://collector.example.vn", "k", [{}])
