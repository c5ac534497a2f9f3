"""Only a lab's own processes are ended, and control questions get answers or reasons."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from select import select
from typing import Any

import pytest

from nhip.errors import LabError
from nhip.lab.control import ControlServer, Conversation, ask
from nhip.lab.histogram import Histogram
from nhip.lab.state import Process, check_name, end_processes, is_alive, process_of, write_whole


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def test_a_process_is_ended(child: subprocess.Popen[bytes]) -> None:
    process = process_of("guest", child.pid)
    assert process is not None and is_alive(process)
    end_processes([process])
    assert not is_alive(process)


def test_a_process_that_inherited_an_id_is_left_alone(child: subprocess.Popen[bytes]) -> None:
    process = process_of("guest", child.pid)
    assert process is not None
    impostor = Process("guest", process.pid, process.start_ticks - 1)
    end_processes([impostor])
    assert is_alive(process)
    assert child.poll() is None


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); input()"
    stubborn = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    process = process_of("guest", stubborn.pid)
    assert process is not None
    end_processes([process], grace_seconds=0.05)
    stubborn.communicate()
    assert stubborn.returncode == -9


def test_nobody_is_found_behind_an_id_that_is_free() -> None:
    assert process_of("guest", 2**22 + 1) is None


@pytest.mark.parametrize("name", ["", "Lab", "a b", "-a", "a/b", "a" * 32])
def test_a_name_that_could_not_be_a_namespace_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="cannot name a lab"):
        check_name(name)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", b"one")
    write_whole(tmp_path / "file", b"two")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"two"


def answer(request: dict[str, Any]) -> Any:
    if request["do"] == "big":
        return "x" * 1_000_000
    if request["do"] == "bytes":
        return b'{"a": 1}'
    raise LabError("this cannot be done", remedy="ask for big")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Path]:
    # Far longer than the 107 bytes a unix socket's name may have.
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    server, ended = ControlServer(folder / "control.sock", answer), threading.Event()
    watched = [server.start()]

    def serve() -> None:
        while not ended.is_set():
            for descriptor in select([one for one in watched if server.watches(one)], [], [], 0.01)[0]:
                fresh = server.serve(descriptor)
                if fresh is not None:
                    watched.append(fresh)

    thread = threading.Thread(target=serve)
    thread.start()
    yield folder / "control.sock"
    ended.set()
    thread.join()
    server.close()
    assert not (folder / "control.sock").exists()


def test_questions_are_answered_at_any_length(served: Path) -> None:
    assert ask(served, {"do": "big"}) == "x" * 1_000_000
    assert ask(served, {"do": "bytes"}) == {"a": 1}


def test_a_conversation_asks_many_times_and_after_a_refusal(served: Path) -> None:
    conversation = Conversation(served)
    assert conversation.ask({"do": "bytes"}) == {"a": 1}
    with pytest.raises(LabError, match="ask for big"):
        conversation.ask({"do": "more"})
    assert conversation.ask({"do": "bytes"}) == {"a": 1}
    conversation.close()


def test_the_reason_of_a_refusal_reaches_the_asker(served: Path) -> None:
    with pytest.raises(LabError, match="this cannot be done; ask for big"):
        ask(served, {"do": "nothing"})


def test_where_nobody_answers_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="nhip lab status"):
        ask(tmp_path / "control.sock", {"do": "truth"})


def test_a_histogram_knows_its_quantiles_to_a_microsecond() -> None:
    histogram = Histogram()
    assert histogram.summary() == {
        "count": 0,
        "p50_seconds": None,
        "p90_seconds": None,
        "p99_seconds": None,
        "max_seconds": None,
    }
    for microseconds in range(100):
        histogram.add(microseconds * 1000)
    histogram.add(-5)
    histogram.add(10**12)
    found = histogram.summary()
    assert found["count"] == 102
    assert found["p50_seconds"] == pytest.approx(50e-6, abs=2e-6)
    assert found["p90_seconds"] == pytest.approx(91e-6, abs=2e-6)
    assert found["max_seconds"] == 1000.0
