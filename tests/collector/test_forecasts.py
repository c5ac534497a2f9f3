"""Forecasts: published with their own key, durable, the newest of each link and provenance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from collector.forecast_check import date_seconds
from collector.forecasts import Forecasts, Published, decode
from nhip.errors import StoreError, WireError
from nhip.wire import LimitForecast, LinkForecast
from tests.lab import collectors
from tests.lab.collectors import FORECAST_KEY, Client, Reply
from tests.lab.fake_clock import START_WALL_NS, FakeClock


def forecast(link_id: str = "hn-hcm", made_at_wall_ns: int = 5, **changes: object) -> LinkForecast:
    fields: dict[str, object] = {
        "link_id": link_id,
        "series_id": "hn-hcm in",
        "produced_by": "ETS(A,Ad,M) of log",
        "made_at_wall_ns": made_at_wall_ns,
        "unit": "bit/s",
        "step_seconds": 3600.0,
        "provenance": "measured",
    }
    return LinkForecast(**{**fields, **changes})  # type: ignore[arg-type]


def body(*forecasts: LinkForecast) -> bytes:
    return msgspec.json.encode(forecasts)


def path(quantiles: dict[str, list[float]]) -> dict[str, object]:
    """One step, its median 2, and quantiles around it."""
    return {"times": ["2027-01-01"], "median": [2.0], "quantiles": quantiles}


@pytest.fixture
def forecasts(tmp_path: Path) -> Iterator[Forecasts]:
    kept = Forecasts(tmp_path, FakeClock(), at_most=3)
    kept.start()
    yield kept
    kept.close()


def test_what_was_published_is_there_after_a_restart(tmp_path: Path, forecasts: Forecasts) -> None:
    assert forecasts.publish(body(forecast("b"), forecast("a"))) == Published(2, 0)
    forecasts.close()
    again = Forecasts(tmp_path, FakeClock())
    again.start()
    assert again.current() == (forecast("a"), forecast("b"))
    again.close()


def test_only_a_newer_forecast_takes_the_place_of_one(forecasts: Forecasts) -> None:
    forecasts.publish(body(forecast(made_at_wall_ns=5)))
    assert forecasts.publish(body(forecast(made_at_wall_ns=5), forecast(made_at_wall_ns=4))) == Published(
        0, 2
    )
    assert forecasts.publish(body(forecast(made_at_wall_ns=6))) == Published(1, 0)
    assert [one.made_at_wall_ns for one in forecasts.current()] == [6]


def test_a_simulated_forecast_never_replaces_a_measured_one(forecasts: Forecasts) -> None:
    forecasts.publish(body(forecast(), forecast(made_at_wall_ns=9, provenance="simulated")))
    assert [one.provenance for one in forecasts.current()] == ["measured", "simulated"]


def test_more_links_than_there_may_be_are_refused_whole(forecasts: Forecasts) -> None:
    with pytest.raises(StoreError, match="more than 3"):
        forecasts.publish(body(*(forecast(f"l{number}") for number in range(4))))
    assert forecasts.current() == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"provenance": "guessed"}, "provenance"),
        ({"times": ["2027-01-01"], "median": []}, "length"),
        ({"quantiles": {"0.9": [1.0]}}, "length"),
        ({"produced_by": "a\nb"}, "control"),
        ({"times": ["soon"], "median": [1.0]}, "ISO"),
        ({"times": ["2027-01-02", "2027-01-01"], "median": [1.0, 1.0]}, "ascend"),
        ({"times": ["2027-01-01", "2027-01-01"], "median": [1.0, 1.0]}, "ascend"),
        ({"times": ["2027-01-01"], "median": [-1.0]}, "negative"),
        (path({"high": [3.0]}), "name of a quantile"),
        (path({"90": [3.0]}), "name of a quantile"),
        (path({"nan": [3.0]}), "name of a quantile"),
        (path({"0": [3.0]}), "name of a quantile"),
        (path({"0.9": [-3.0]}), "negative"),
        (path({"0.9": [3.0], "0.90": [3.0]}), "twice"),
        (path({"0.1": [3.0], "0.9": [2.5]}), "order"),
        (path({"0.9": [1.5]}), "order"),
        (path({"0.1": [2.5]}), "order"),
        ({"made_at_wall_ns": START_WALL_NS + 1}, "future"),
        ({"limits": [LimitForecast(rule_id="r", statistic="p95", verdict="maybe")]}, "verdict"),
        (
            {"limits": [LimitForecast(rule_id="r", statistic="p95", verdict="crosses", median_date="soon")]},
            "date",
        ),
    ],
)
def test_a_forecast_that_contradicts_itself_is_refused_by_name(changes: dict[str, object], said: str) -> None:
    with pytest.raises(WireError, match=f"hn-hcm.*{said}"):
        decode(body(forecast(**changes)), START_WALL_NS)


def test_a_value_that_is_no_number_is_refused() -> None:
    text = body(forecast(**path({"0.9": [12345.0]})))
    for hostile in (b"1e999", b"NaN", b"Infinity", b"null"):
        with pytest.raises(WireError):
            decode(text.replace(b"12345.0", hostile), START_WALL_NS)


def test_a_path_in_order_is_taken() -> None:
    good = forecast(**path({"0.1": [1.0], "0.5": [2.0], "0.9": [3.0], "0.975": [3.0]}))
    assert decode(body(good), START_WALL_NS) == [good]


def test_a_forecast_from_the_future_keeps_no_later_one_out(tmp_path: Path) -> None:
    clock = FakeClock()
    kept = Forecasts(tmp_path, clock, ahead_seconds=300)
    kept.start()
    limit_wall_ns = START_WALL_NS + 300 * 10**9
    with pytest.raises(WireError, match="future"):
        kept.publish(body(forecast("good"), forecast(made_at_wall_ns=limit_wall_ns + 1)))
    assert kept.current() == ()
    assert kept.publish(body(forecast(made_at_wall_ns=limit_wall_ns))) == Published(1, 0)
    clock.step(-86_400)  # our own date was wrong and is set right
    assert kept.publish(body(forecast(made_at_wall_ns=clock.wall_ns()))) == Published(1, 0)
    kept.close()


def test_the_newest_of_one_publication_is_kept_in_whatever_order(forecasts: Forecasts) -> None:
    both = body(forecast(made_at_wall_ns=7), forecast(made_at_wall_ns=6))
    assert forecasts.publish(both) == Published(1, 1)
    assert [one.made_at_wall_ns for one in forecasts.current()] == [7]


def test_a_date_is_midnight_utc_unless_it_says_otherwise() -> None:
    assert date_seconds("1970-01-02") == 86_400
    assert date_seconds("1970-01-02T07:00:00+07:00") == 86_400
    assert date_seconds("2027-02-30") is None


def test_publishing_needs_its_own_key(tmp_path: Path) -> None:
    with collectors.running(collectors.config(tmp_path)) as collector:
        port = collector.port or 0

        def publish(client: Client, content: bytes) -> Reply:
            return client.request("POST", "/api/v1/forecasts", content, {"Content-Type": "application/json"})

        with Client(port) as probe, Client(port, FORECAST_KEY) as publisher:
            assert publish(probe, body(forecast())).status == 401
            reply = publish(publisher, body(forecast()))
            assert (reply.status, reply.json()) == (200, {"stored": 1, "older": 0})
            assert publish(publisher, b"[{}]").status == 400
            assert publisher.post(b"{}").status == 401
            [one] = probe.get("/api/v1/forecasts").json()
        assert one["link_id"] == "hn-hcm"
        assert collector.view().links == (forecast(),)
        assert not collector.view().simulated
    with collectors.running(collectors.config(tmp_path)) as collector:
        assert collector.view().links == (forecast(),)


def test_without_a_configured_key_nobody_publishes(tmp_path: Path) -> None:
    settings = collectors.config(tmp_path, forecast_key_sha256=None)
    with collectors.running(settings) as collector, Client(collector.port or 0, FORECAST_KEY) as publisher:
        reply = publisher.request(
            "POST", "/api/v1/forecasts", body(forecast()), {"Content-Type": "application/json"}
        )
    assert reply.status == 401
