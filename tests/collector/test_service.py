"""The collector as a whole: started, restarted, killed by signal, and alone in its directory."""

from __future__ import annotations

import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from collector.service import SEEN_KEPT_SECONDS, Collector
from collector.store.registry import STORES
from nhip.clock import SystemClock
from nhip.errors import ConfigError
from tests.lab import collectors
from tests.lab.collector_process import collector_process, free_port
from tests.lab.collectors import PROBE, Client, plain_page
from tests.lab.deliverer import Deliverer, is_ready, until
from tests.lab.fake_clock import FakeClock
from tests.lab.records import SECOND_NS, agent, batch, record


@pytest.mark.parametrize("store", STORES.names())
def test_after_a_restart_everything_is_shown_again_and_nothing_twice(tmp_path: Path, store: str) -> None:
    settings = collectors.config(tmp_path, store={"name": store}, regulation="regulations/qcvn34_2022.toml")
    body = batch([record(epoch="e1", sequence=n) for n in range(1, 31)], status=agent())
    with collectors.running(settings) as collector, Client(collector.port or 0) as client:
        client.post(body)
        before = collector.view()
    with collectors.running(settings) as collector, Client(collector.port or 0) as client:
        until(lambda: collector.view().verdicts[0].samples == 30)
        after = collector.view()
        assert after.accesses == before.accesses
        assert [row.samples for row in after.verdicts] == [row.samples for row in before.verdicts]
        assert after.records_stored == 30
        assert client.post(body).acknowledgement().duplicate == 30
        assert collector.view().verdicts[0].samples == 30


def test_a_result_of_a_slow_schedule_is_shown_again_after_a_restart(tmp_path: Path) -> None:
    settings = collectors.config(tmp_path)
    half_an_hour_ago = time.time_ns() - 1800 * SECOND_NS
    hourly = record(started_wall_ns=half_an_hour_ago, parameters={"schedule_interval_seconds": 3600})
    with collectors.running(settings) as collector, Client(collector.port or 0) as client:
        client.post(batch([hourly]))
        assert len(collector.view().series) == 1
    with collectors.running(settings) as collector:
        until(lambda: len(collector.view().series) == 1)


def last_seen_wall_ns(collector: Collector) -> int | None:
    [row] = collector.view().accesses
    return row.last_seen_wall_ns


def test_when_a_probe_was_last_heard_survives_a_restart_long_after(tmp_path: Path) -> None:
    """Also when all it had to say was that it lives."""
    clock, settings = FakeClock(), collectors.config(tmp_path)
    with collectors.running(settings, clock) as collector, Client(collector.port or 0) as client:
        client.post(batch([], status=agent(clock.wall_ns())))
        heard_wall_ns = last_seen_wall_ns(collector)
        assert heard_wall_ns == clock.wall_ns()
    clock.advance(30 * 86_400)
    with collectors.running(settings, clock) as collector:
        assert last_seen_wall_ns(collector) == heard_wall_ns
        assert collector.view().accesses[0].silent


def test_when_a_probe_was_last_heard_is_on_disk_within_a_minute(tmp_path: Path) -> None:
    clock = FakeClock()
    with (
        collectors.running(collectors.config(tmp_path), clock) as collector,
        Client(collector.port or 0) as client,
    ):
        client.post(batch([], status=agent(clock.wall_ns())))
        assert collector.store.last_seen() == {}
        clock.advance(SEEN_KEPT_SECONDS)
        client.post(batch([], status=agent(clock.wall_ns())))
        assert collector.store.last_seen() == {"p1": clock.wall_ns()}


def modes(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): oct(path.stat().st_mode & 0o777) for path in directory.rglob("*")
    }


def test_journal_archive_and_forecasts_are_their_owners_alone(tmp_path: Path) -> None:
    settings = collectors.config(tmp_path, store={"name": "delta"})
    with collectors.running(settings) as collector, Client(collector.port or 0) as client:
        client.post(batch([record()]))
        found = modes(tmp_path / "data")
    assert found.pop("archive") == "0o700"
    beside = {name: mode for name, mode in found.items() if not name.startswith("archive/")}
    assert {"journal.sqlite", "journal.sqlite-wal", "forecasts.sqlite", "lock"} <= set(beside)
    assert set(beside.values()) == {"0o600"}


def test_a_collector_run_as_a_program_makes_no_file_others_can_read(tmp_path: Path) -> None:
    port = free_port()
    settings = tmp_path / "collector.toml"
    collectors.write_config(settings, port, tmp_path / "data", [PROBE], name="delta")
    with collector_process(settings) as process:
        until(lambda: is_ready(port))
        found = modes(tmp_path / "data")
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    assert any(name.startswith("archive/_delta_log/") for name in found)
    assert {mode[-2:] for mode in found.values()} == {"00"}


def test_close_may_be_called_twice_and_before_start(tmp_path: Path) -> None:
    collector = Collector(collectors.config(tmp_path), SystemClock(), plain_page)
    collector.close()
    collector.start()
    collector.close()
    collector.close()


def test_a_collector_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with collectors.running(collectors.config(tmp_path)):
        assert set(threading.enumerate()) > before
    until(lambda: set(threading.enumerate()) <= before)


def test_two_collectors_cannot_share_a_directory(tmp_path: Path) -> None:
    with collectors.running(collectors.config(tmp_path)):
        second = Collector(collectors.config(tmp_path), SystemClock(), plain_page)
        with pytest.raises(ConfigError, match="another collector"):
            second.start()
    with collectors.running(collectors.config(tmp_path)):
        pass


def test_a_port_in_use_is_named_and_nothing_is_left_running(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        settings = collectors.config(tmp_path, listen={"port": other.getsockname()[1]})
        with pytest.raises(ConfigError, match="listen"):
            Collector(settings, SystemClock(), plain_page).start()
    assert set(threading.enumerate()) <= before
    with collectors.running(collectors.config(tmp_path)):
        pass


def test_an_unknown_store_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"store\.name: 'sqlight'.*sqlite"):
        collectors.config(tmp_path, store={"name": "sqlight"})


def test_sigterm_ends_it_after_the_last_acknowledgement(tmp_path: Path) -> None:
    port = free_port()
    deliverer = Deliverer("p1", port)
    settings = tmp_path / "collector.toml"
    collectors.write_config(settings, port, tmp_path / "data", [deliverer.table()], name="sqlite")
    with collector_process(settings) as process:
        until(lambda: is_ready(port))
        deliverer.start()
        until(lambda: deliverer.batches > 5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        deliverer.abandon()
    log = (tmp_path / "collector.log").read_text()
    assert '"event": "collector closed"' in log
    assert "Traceback" not in log and deliverer.key.secret not in log
    store = STORES.load("sqlite")(tmp_path / "data", collectors.config(tmp_path).store)
    store.start()
    assert deliverer.acknowledged <= {entry.record.record_id for entry in store.records(0, 2**62)}
    store.close()


def test_it_is_not_ready_before_it_is_started(tmp_path: Path) -> None:
    collector = Collector(collectors.config(tmp_path), SystemClock(), plain_page)
    assert collector.port is None
    collector.start()
    with Client(collector.port or 0, None) as client:
        assert client.get("/-/ready").status == 200
    collector.close()


def test_a_declared_speed_of_lines_declared_differently_is_none(tmp_path: Path) -> None:
    """A verdict that mixes plans would be about none of them."""
    declared = [{"operator": "alpha", "technology": "fixed", "down_bits_per_second": 1e8}]
    other = {**PROBE, "id": "p2", "key_sha256": "0" * 64, "declared_down_bits_per_second": 3e8}
    profile = "regulations/qcvn34_2022.toml"
    same = collectors.config(tmp_path, declared=declared, regulation=profile)
    mixed = collectors.config(tmp_path, declared=declared, probe=[PROBE, other], regulation=profile)
    with collectors.running(same) as collector:
        assert [row.limit for row in collector.view().verdicts] == [0.05, 0.8e8, None]
    with collectors.running(mixed) as collector:
        assert [row.limit for row in collector.view().verdicts] == [0.05, None, None]
