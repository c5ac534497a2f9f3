"""``nhip measure`` as a person or a script runs it: a real process, real packets, its exit code."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from nhip.clock import SystemClock
from probes.reflector import Reflector
from tests.lab.network import fresh_name, needs_namespaces
from tests.lab.peers import closed_port

SUMMARY_KEYS = {"min", "mean", "p50", "p95", "p99", "max"}
# What the documentation promises to scripts; there may be more.
PROMISED_KEYS = {
    *("kind", "target", "method", "sent", "received", "lost", "duplicate", "reordered", "loss_ratio"),
    *("loss_interval", "round_trip_delay_seconds", "ipdv_seconds", "pdv_seconds", "timestamp_source"),
    "singletons",
}
HEAVY = ("scapy", "pandas", "statsmodels", "duckdb", "numpy", "pyarrow", "deltalake", "jinja2", "dns", "h11")


def nhip(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nhip.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "NHIP_LANGUAGE": "en", **environment},
    )


def measured(*arguments: str) -> dict[str, Any]:
    done = nhip("measure", *arguments, "--json")
    assert done.returncode in (0, 1), done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture(scope="module")
def listening_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def reflector_port() -> Iterator[int]:
    reflector = Reflector("127.0.0.1", 0, clock=SystemClock())
    reflector.start()
    yield reflector.address[1]
    reflector.close()


# What it prints


def test_the_json_document_has_every_promised_key(reflector_port: int) -> None:
    found = measured(
        "stamp", "127.0.0.1", "--port", str(reflector_port), "--count", "5", "--interval", "0.01"
    )
    assert set(found) >= PROMISED_KEYS
    assert (found["kind"], found["target"]["host"]) == ("stamp", "127.0.0.1")
    assert (found["sent"], found["received"], found["lost"]) == (5, 5, 0)
    assert found["loss_ratio"] == 0.0
    low, high = found["loss_interval"]
    assert low == 0.0
    assert high == pytest.approx(0.4345, abs=1e-4)  # Wilson, 0 of 5
    for key in ("round_trip_delay_seconds", "ipdv_seconds", "pdv_seconds"):
        assert set(found[key]) >= SUMMARY_KEYS
    delay = found["round_trip_delay_seconds"]
    assert 0 < delay["min"] <= delay["p50"] <= delay["max"] < 1
    assert found["timestamp_source"] == "kernel"
    assert [one["outcome"] for one in found["singletons"]] == ["received"] * 5


def test_what_does_not_exist_is_null_in_json() -> None:
    port = closed_port(socket.SOCK_STREAM)
    found = measured("tcp_connect", "127.0.0.1", "--port", str(port), "--count", "2", "--interval", "0.01")
    assert (found["sent"], found["received"], found["lost"], found["failed"]) == (2, 0, 0, 2)
    for key in (
        "loss_ratio",
        "loss_interval",
        "round_trip_delay_seconds",
        "ipdv_seconds",
        "pdv_seconds",
    ):
        assert found[key] is None
    assert found["outcome"] == "refused"
    assert all(one["delay_ns"] is None for one in found["singletons"])


@pytest.mark.parametrize(
    ("language", "words"),
    [("en", ("Attempts", "3 sent, 3 received, 0 lost", "Loss", "0.00 %")),
     ("vi", ("Lượt đo", "3 gửi, 3 nhận, 0 mất", "Tỷ lệ mất", "0,00 %", "Trễ khứ hồi"))],
)  # fmt: skip
def test_the_table_is_in_the_language_asked_for(
    language: str, words: tuple[str, ...], listening_port: int
) -> None:
    done = nhip(
        *("--lang", language, "measure", "tcp_connect", "127.0.0.1", "--port", str(listening_port)),
        *("--count", "3", "--interval", "0.01"),
    )
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in words), done.stdout
    assert f"127.0.0.1  {'port' if language == 'en' else 'cổng'} {listening_port}" in done.stdout


def test_every_option_reaches_the_probe(reflector_port: int) -> None:
    found = measured(
        *("stamp", "localhost", "-4", "--port", str(reflector_port), "--count", "4", "--interval", "0.02"),
        *("--size", "100", "--timeout", "0.5", "--interface", "lo", "--source", "127.0.0.9"),
        *("--set", "spacing=poisson", "--set", "dscp=46"),
    )
    assert found["sent"] == 4
    assert (found["type_p"]["size_octets"], found["type_p"]["dscp"]) == (100, 46)
    assert found["loss_threshold_seconds"] == 0.5
    assert (found["interface"], found["source_address"]) == ("lo", "127.0.0.9")
    assert (found["parameters"]["spacing"], found["parameters"]["interval_seconds"]) == ("poisson", 0.02)
    assert found["octets_sent"] == found["octets_received"] == 400


# Exit codes


def test_a_target_that_answers_gives_0(listening_port: int) -> None:
    done = nhip("measure", "tcp_connect", "127.0.0.1", "--port", str(listening_port), "--count", "1")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_target_that_does_not_answer_gives_1_and_is_still_told() -> None:
    done = nhip(
        "measure", "tcp_connect", "127.0.0.1", "--port", str(closed_port(socket.SOCK_STREAM)), "--count", "1"
    )
    assert done.returncode == 1
    assert "refused (ECONNREFUSED)" in done.stdout
    assert done.stderr == ""


def test_a_name_without_address_gives_1() -> None:
    done = nhip("measure", "tcp_connect", "host.invalid", "--count", "1", "--timeout", "5")
    assert done.returncode == 1
    assert "name not resolved" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("tcp_conect", "127.0.0.1"), "did you mean 'tcp_connect'?"),
        (("tcp_connect", "127.0.0.1", "--interface", "absent0"), "ip -brief address"),
        (("tcp_connect", "127.0.0.1", "--source", "192.0.2.77"), "192.0.2.77"),
        (("tcp_connect", "two words"), "neither a name nor an address"),
        (("tcp_connect", "127.0.0.1", "--count", "0"), "nhip measure tcp_connect: --count 0: expected"),
        (("tcp_connect", "127.0.0.1", "--set", "count=0"), "tcp_connect: --set count=0: expected"),
        (("tcp_connect", "127.0.0.1", "--fwmark", "0"), "nhip measure: --fwmark 0: expected"),
        (("tcp_connect", "127.0.0.1", "--source", "x"), "nhip measure: --source 'x': is no address"),
        (
            ("tcp_connect", "127.0.0.1", "--set", "zz=1"),
            "--set zz: no setting of tcp_connect; see: nhip kinds",
        ),
        (("tcp_connect", "127.0.0.1", "--size", "9"), "--size"),
        (
            ("tcp_connect", "127.0.0.1", "--set", "cuont=1"),
            "did you mean 'count'? see: nhip kinds tcp_connect",
        ),
        (("tcp_connect", "127.0.0.1", "--set", "count"), "KEY=VALUE"),
        (("tcp_connect", "127.0.0.1", "--port", "99999"), "65535"),
        (("tcp_connect",), "TARGET"),
    ],
)
def test_what_this_host_cannot_do_gives_2_and_says_what_to_do(arguments: tuple[str, ...], says: str) -> None:
    done = nhip("measure", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "of this file" not in done.stderr


def test_a_test_of_which_nothing_left_this_host_gives_2() -> None:
    from nhip.measure import exit_code
    from nhip.measurement import Outcome
    from tests.lab.samples import other, sample

    assert exit_code(sample([other(0, Outcome.NOT_SENT)])) == 2
    assert exit_code(sample([other(0, Outcome.NOT_SENT), other(1, Outcome.LOST)])) == 1


def test_interrupting_prints_what_was_measured(listening_port: int) -> None:
    import signal

    process = subprocess.Popen(
        [
            *(sys.executable, "-u", "-m", "nhip.cli", "measure", "tcp_connect", "127.0.0.1", "--json"),
            *("--port", str(listening_port), "--count", "1000", "--interval", "0.05"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=1.5)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    found = json.loads(out)
    assert process.returncode == 0
    assert found["received"] >= 1
    assert (found["lost"], found["received"] + found["not_sent"]) == (0, 1000)


# Privilege


@pytest.fixture
def bare_namespace() -> Iterator[str]:
    """A network namespace as the kernel makes it: nobody may ping by datagram socket."""
    needs_namespaces()
    name = f"nhip-{fresh_name()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


def unprivileged_ping(namespace: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed (Debian package util-linux)")
    return subprocess.run(
        [
            *("ip", "netns", "exec", namespace, "setpriv", "--bounding-set", "-net_raw"),
            *("--inh-caps", "-net_raw", sys.executable, "-m", "nhip.cli", "measure", "icmp", "127.0.0.1"),
            *("--count", "2", "--interval", "0.01"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "NHIP_LANGUAGE": "en"},
    )


@pytest.mark.lab
def test_icmp_without_privilege_names_the_sysctl_that_allows_it(bare_namespace: str) -> None:
    refused = unprivileged_ping(bare_namespace)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert "sysctl -w net.ipv4.ping_group_range='0 2147483647'" in refused.stderr
    assert "datagram socket: Permission denied" in refused.stderr
    assert "raw socket: Operation not permitted" in refused.stderr
    # The remedy, as the message gives it, works.
    setting = refused.stderr.strip().rsplit("sysctl -w ", 1)[1].replace("'", "")
    subprocess.run(["ip", "netns", "exec", bare_namespace, "sysctl", "-q", "-w", setting], check=True)
    allowed = unprivileged_ping(bare_namespace)
    assert allowed.returncode == 0, allowed.stderr
    assert "2 sent, 2 received, 0 lost" in allowed.stdout


# Cost


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from nhip.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        f"print([name for name in {HEAVY!r} + ('probes', 'collector', 'forecasting', 'dashboards')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]"), done.stdout
    assert "Nhịp" in done.stdout


def test_measuring_imports_nothing_that_only_the_collector_needs(listening_port: int) -> None:
    code = (
        "import sys\n"
        "from nhip.cli import main\n"
        "try:\n    main(['measure', 'tcp_connect', '127.0.0.1', '--count', '1', "
        f"'--port', '{listening_port}'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        f"print([name for name in {HEAVY!r} + ('collector', 'forecasting', 'dashboards')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]"), done.stdout


def test_every_command_has_a_line_in_the_help() -> None:
    done = nhip("--help")
    assert done.returncode == 0
    for command in ("measure", "probe", "check", "schema"):
        assert f"  {command} " in done.stdout
