"""Delivery: only the hash of the batch counts as an acknowledgement, whatever stands in between."""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nhip.errors import ConfigError, ShipError
from nhip.wire import batch_sha256
from probes.ship import FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS, Shipper, read_key, retry_seconds
from tests.lab import records
from tests.lab.certificate import Certificate, make_certificate
from tests.lab.peers import closed_port
from tests.lab.scripted_collector import Act, ScriptedCollector

BODY = records.batch([records.record(), records.record()])


def shipper_for(
    collector: ScriptedCollector | str, *, timeout_seconds: float = 5, ca_file: Path | None = None
) -> Shipper:
    url = collector if isinstance(collector, str) else collector.url
    return Shipper(url, "secret-key", timeout_seconds=timeout_seconds, ca_file=ca_file)


@pytest.fixture
def collector(request: pytest.FixtureRequest) -> Iterator[ScriptedCollector]:
    with ScriptedCollector(getattr(request, "param", ())) as found:
        yield found


def test_a_stored_batch_is_acknowledged_by_its_hash(collector: ScriptedCollector) -> None:
    shipper = shipper_for(collector)
    acknowledgement = shipper.deliver(BODY)
    shipper.close()
    assert acknowledgement.batch_sha256 == batch_sha256(BODY)
    assert acknowledgement.stored == 2
    assert len(collector.stored_ids()) == 2
    assert collector.headers[0]["authorization"] == "Bearer secret-key"
    assert collector.headers[0]["content-encoding"] == "gzip"


REFUSED = {
    Act.WRONG_HASH: "acknowledged another batch",
    Act.PORTAL: "no acknowledgement",
    Act.REDIRECT: "answered 302",
    Act.BUSY: "answered 503",
    Act.UNKNOWN_KEY: "answered 401",
    Act.RESET: "was not reached",
    Act.LOSE_ANSWER: "was not reached",
    Act.HALF_ANSWER: "was not reached",
    Act.NOT_HTTP: "was not reached",
    Act.DEEP_JSON: "no acknowledgement",
}


@pytest.mark.parametrize(
    ("collector", "says"),
    [([act], says) for act, says in REFUSED.items()],
    indirect=["collector"],
    ids=[act.name for act in REFUSED],
)
def test_nothing_else_is_taken_for_an_acknowledgement(collector: ScriptedCollector, says: str) -> None:
    shipper = shipper_for(collector)
    with pytest.raises(ShipError, match=says) as raised:
        shipper.deliver(BODY)
    assert collector.url in raised.value.what
    assert "secret-key" not in str(raised.value)
    assert str(raised.value).isprintable(), "what a stranger says must not forge lines of a log"
    # The next delivery works: nothing of the failure stays in the connection.
    assert shipper.deliver(BODY).stored == 2
    shipper.close()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0", 0.0), ("86400", LONGEST_RETRY_SECONDS), ("inf", LONGEST_RETRY_SECONDS)]
    + [(nonsense, None) for nonsense in ("-1", "soon", "nan", "Wed, 21 Oct 2026 07:28:00 GMT")],
)
def test_the_time_the_collector_asks_for_is_passed_on(header: str, seconds: float | None) -> None:
    with ScriptedCollector([Act.BUSY], retry_after=header) as collector:
        shipper = shipper_for(collector)
        with pytest.raises(ShipError) as raised:
            shipper.deliver(BODY)
        shipper.close()
    assert raised.value.retry_after_seconds == seconds


@pytest.mark.parametrize("collector", [[Act.HANG]], indirect=True)
def test_a_collector_that_hangs_is_given_up_at_the_timeout(collector: ScriptedCollector) -> None:
    shipper = shipper_for(collector, timeout_seconds=0.3)
    begun = time.monotonic()
    with pytest.raises(ShipError, match="was not reached"):
        shipper.deliver(BODY)
    assert 0.25 < time.monotonic() - begun < 3
    shipper.close()


def test_nobody_there_is_said_with_the_address() -> None:
    import socket

    url = f"http://127.0.0.1:{closed_port(socket.SOCK_STREAM)}"
    with pytest.raises(ShipError, match="refused") as raised:
        shipper_for(url).deliver(BODY)
    assert url in raised.value.what


def test_a_connection_is_kept_while_it_works(collector: ScriptedCollector) -> None:
    shipper = shipper_for(collector)
    for _ in range(5):
        shipper.deliver(BODY)
    shipper.close()
    assert collector.connections == 1


@pytest.mark.parametrize("collector", [[Act.CLOSE_AFTER] * 3], indirect=True)
def test_a_connection_closed_while_idle_is_no_failed_delivery(collector: ScriptedCollector) -> None:
    shipper = shipper_for(collector)
    for _ in range(4):
        shipper.deliver(BODY)
    shipper.close()
    assert collector.connections == 4
    assert len(collector.stored_ids()) == 8


@pytest.mark.parametrize("collector", [[Act.OK, Act.LOSE_ANSWER, Act.LOSE_ANSWER]], indirect=True)
def test_a_broken_connection_is_tried_once_more_and_not_for_ever(collector: ScriptedCollector) -> None:
    shipper = shipper_for(collector)
    shipper.deliver(BODY)
    with pytest.raises(ShipError):
        shipper.deliver(BODY)
    shipper.close()
    assert len(collector.acts) == 3


def test_a_socket_file_reaches_a_collector_on_the_same_machine(tmp_path: Path) -> None:
    with ScriptedCollector(unix=tmp_path / "collector.sock") as collector:
        shipper = shipper_for(collector)
        assert shipper.deliver(BODY).stored == 2
        shipper.close()


def test_close_works_before_and_after_everything() -> None:
    shipper = shipper_for("http://127.0.0.1:1")
    shipper.close()
    shipper.close()


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"), "collector.test", "127.0.0.1")


def server_side(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


def test_a_collector_of_our_own_authority_is_delivered_to(certificate: Certificate) -> None:
    with ScriptedCollector(tls=server_side(certificate)) as collector:
        shipper = shipper_for(collector, ca_file=certificate.certificate)
        assert shipper.deliver(BODY).stored == 2
        shipper.close()


def test_a_certificate_nobody_vouches_for_is_refused_without_being_asked_to(certificate: Certificate) -> None:
    with ScriptedCollector(tls=server_side(certificate)) as collector:
        with pytest.raises(ShipError, match="CERTIFICATE_VERIFY_FAILED"):
            shipper_for(collector).deliver(BODY)
        assert collector.headers == [], "the key must not be told to a stranger"


def test_a_certificate_of_another_name_is_refused(certificate: Certificate) -> None:
    with ScriptedCollector(tls=server_side(certificate)) as collector:
        shipper = shipper_for(f"https://localhost:{collector.port}", ca_file=certificate.certificate)
        with pytest.raises(ShipError, match="CERTIFICATE_VERIFY_FAILED"):
            shipper.deliver(BODY)
        assert collector.headers == []


def test_old_tls_is_refused(certificate: Certificate) -> None:
    import warnings

    context = server_side(certificate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.minimum_version = ssl.TLSVersion.TLSv1
    with (
        ScriptedCollector(tls=context) as collector,
        pytest.raises(ShipError, match="was not reached"),
    ):
        shipper_for(collector, ca_file=certificate.certificate).deliver(BODY)


def test_a_ca_file_that_is_not_there_is_a_failed_delivery_and_no_crash(tmp_path: Path) -> None:
    with pytest.raises(ShipError, match="No such file"):
        shipper_for("https://127.0.0.1:1", ca_file=tmp_path / "absent.pem").deliver(BODY)


# Waiting


@given(failures=st.integers(1, 1000), asked=st.none() | st.floats(0, 300), seed=st.integers())
def test_the_wait_grows_has_an_end_and_is_never_less_than_asked(
    failures: int, asked: float | None, seed: int
) -> None:
    wait = retry_seconds(failures, random.Random(seed), asked)
    assert wait >= (asked or 0)
    assert wait >= FIRST_RETRY_SECONDS / 2
    assert wait <= LONGEST_RETRY_SECONDS + max(asked or 0, LONGEST_RETRY_SECONDS) / 2


def test_waits_double_from_one_second_to_five_minutes() -> None:
    longest = [
        max(retry_seconds(failures, random.Random(seed)) for seed in range(300)) for failures in range(1, 12)
    ]
    expected = [min(2.0**power, LONGEST_RETRY_SECONDS) for power in range(11)]
    assert longest == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("asked", [None, 30.0])
def test_a_thousand_probes_do_not_come_back_in_the_same_second(asked: float | None) -> None:
    waits = [retry_seconds(6, random.Random(seed), asked) for seed in range(1000)]
    busiest = max(sum(second <= wait < second + 1 for wait in waits) for second in range(60))
    assert busiest < 130


def test_a_thousand_probes_told_to_wait_from_their_first_failure_spread_too() -> None:
    waits = [retry_seconds(1, random.Random(seed), 30.0) for seed in range(1000)]
    assert max(waits) - min(waits) > 14


# The key


def test_the_key_comes_from_the_environment_or_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "probe.key"
    path.write_text("from-file\n")
    path.chmod(0o600)
    assert read_key("from-environment", path) == "from-environment"
    assert read_key(" with-a-newline\n", None) == "with-a-newline"
    assert read_key(None, path) == "from-file"
    assert read_key("", path) == "from-file"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "probe.key"
    path.write_text("secret")
    path.chmod(mode)
    with pytest.raises(ConfigError, match="can be read by others") as raised:
        read_key(None, path)
    assert raised.value.remedy == f"run: chmod 600 {path}"


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"line\nline", b"\xff\xfe", "khóa".encode()])
def test_a_file_without_a_key_is_refused_and_its_content_not_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "probe.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError) as raised:
        read_key(None, path)
    assert str(path) in str(raised.value)
    assert "words" not in str(raised.value)


@pytest.mark.parametrize("key", ["two words", "line\r\nX-Injected: 1", "khóa"])
def test_a_key_that_no_header_can_carry_is_refused_at_start(key: str) -> None:
    with pytest.raises(ConfigError, match="holds no key"):
        read_key(key, None)


def test_no_key_at_all_says_where_to_put_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no key") as raised:
        read_key(None, None)
    assert "NHIP_PROBE_KEY" in raised.value.remedy
    with pytest.raises(ConfigError, match="cannot be read"):
        read_key(None, tmp_path / "absent")
