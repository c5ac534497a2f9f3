"""The collector over real HTTP on loopback: who may send, what is taken, what comes back."""

from __future__ import annotations

import gzip
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.keys import new_key
from collector.service import Collector
from nhip.wire import batch_sha256
from tests.lab import collectors
from tests.lab.collectors import FORECAST_KEY, KEY, PROBE, Client
from tests.lab.disks import NEEDS_ROOT, small_disk
from tests.lab.records import agent, batch, record


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    with collectors.running(collectors.config(tmp_path)) as running:
        yield running


@pytest.fixture
def client(collector: Collector) -> Iterator[Client]:
    assert collector.port is not None
    with Client(collector.port) as client:
        yield client


def refused(collector: Collector, reason: str) -> int:
    return collector.ingest.counters.refused[reason]


def test_a_batch_is_acknowledged_with_the_hash_of_its_bytes(client: Client, collector: Collector) -> None:
    body = batch([record(epoch="e1", sequence=n) for n in (1, 2, 3)], status=agent())
    acknowledgement = client.post(body).acknowledgement()
    assert acknowledgement.batch_sha256 == batch_sha256(body)
    assert (acknowledgement.stored, acknowledgement.duplicate, acknowledgement.rejected) == (3, 0, [])
    assert len(list(collector.store.records(0, 2**62))) == 3


def test_a_compressed_batch_is_acknowledged_with_the_hash_of_what_was_compressed(client: Client) -> None:
    body = batch([record()])
    acknowledgement = client.post(gzip.compress(body), {"Content-Encoding": "gzip"}).acknowledgement()
    assert acknowledgement.batch_sha256 == batch_sha256(body)


def test_a_batch_sent_again_is_acknowledged_as_duplicate(client: Client, collector: Collector) -> None:
    body = batch([record(epoch="e1", sequence=1), record()])
    assert client.post(body).acknowledgement().stored == 2
    again = client.post(body).acknowledgement()
    assert (again.stored, again.duplicate) == (0, 2)
    assert collector.ingest.counters.duplicate == 2


def test_an_empty_batch_says_that_the_probe_lives(client: Client, collector: Collector) -> None:
    reply = client.post(batch([], status=agent()))
    assert reply.status == 200
    [access] = client.get("/api/v1/status").json()["accesses"]
    assert not access["silent"]


@pytest.mark.parametrize("authorization", ["", "Bearer ", "Bearer wrong", "Basic cDE6eA==", "Bearer \xff"])
def test_without_a_known_key_nothing_is_read(
    client: Client, collector: Collector, authorization: str
) -> None:
    reply = client.post(batch([record()]), {"Authorization": authorization})
    assert reply.status == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert refused(collector, "unauthorised") == 1
    assert collector.store.counts().records == 0


def test_a_key_speaks_for_its_own_probe_only(tmp_path: Path) -> None:
    other = new_key()
    probes = [PROBE, {**PROBE, "id": "p2", "key_sha256": other.sha256}]
    with (
        collectors.running(collectors.config(tmp_path, probe=probes)) as collector,
        Client(collector.port or 0, other) as client,
    ):
        assert client.post(batch([record()], probe_id="p1")).status == 403
        assert client.post(batch([record(probe_id="p2")], probe_id="p2")).status == 200
        reply = client.post(batch([record(probe_id="p1")], probe_id="p2"))
        assert reply.acknowledgement().rejected[0].reason.startswith("identity")


def test_a_web_page_cannot_send(client: Client, collector: Collector) -> None:
    assert client.post(batch([record()]), {"Origin": "http://127.0.0.1"}).status == 403


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"schema_version":1}', b"\xff\xfe", b"[" * 100_000]
)
def test_what_is_no_batch_is_refused(client: Client, collector: Collector, body: bytes) -> None:
    reply = client.post(body)
    assert reply.status == 400
    assert reply.json()["error"].startswith("no batch")
    assert refused(collector, "malformed") == 1
    assert client.get("/-/healthy").status == 200


def test_only_json_plain_or_gzip_is_taken(client: Client) -> None:
    body = batch([record()])
    assert client.post(body, {"Content-Type": "text/plain"}).status == 415
    assert client.post(body, {"Content-Encoding": "br"}).status == 415
    assert client.post(body, {"Content-Type": "application/json; charset=utf-8"}).status == 200


def test_one_bad_record_is_put_aside_and_the_others_are_stored(client: Client, collector: Collector) -> None:
    body = batch([record(), b'{"schema_version":1}', record(access={"operator": "beta"}), record()])
    acknowledgement = client.post(body).acknowledgement()
    assert acknowledgement.stored == 2
    assert [item.position for item in acknowledgement.rejected] == [1, 2]
    assert [aside.reason for aside in collector.store.quarantine()] == ["malformed", "malformed"]
    assert collector.ingest.counters.quarantined == {"malformed": 2}


def test_a_body_that_unpacks_to_a_thousand_times_its_size_is_refused(
    client: Client, collector: Collector
) -> None:
    bomb = gzip.compress(bytes(100 * 2**20))
    reply = client.post(bomb, {"Content-Encoding": "gzip"})
    assert reply.status == 413
    assert refused(collector, "too_large") == 1


def test_gzip_that_is_cut_or_continued_is_refused(client: Client) -> None:
    packed = gzip.compress(batch([record()]))
    for body in (packed[:-9], packed + packed, packed + b"x", b"no gzip", zlib.compress(b"{}")):
        assert client.post(body, {"Content-Encoding": "gzip"}).status == 400


def test_a_large_body_is_refused_by_its_announcement_and_by_its_octets(
    client: Client, collector: Collector
) -> None:
    too_large = bytes(collector.config.limits.body_octets + 1)
    assert collector.port is not None
    with socket.create_connection(("127.0.0.1", collector.port)) as announced:
        head = f"POST /api/v1/records HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY.secret}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(too_large)}\r\n\r\n"
        announced.sendall(head.encode())
        assert announced.recv(4096).startswith(b"HTTP/1.1 413")
    with socket.create_connection(("127.0.0.1", collector.port)) as chunked:
        head = head.split("Content-Length")[0] + "Transfer-Encoding: chunked\r\n\r\n"
        chunked.sendall(head.encode())
        chunked.sendall(b"%x\r\n" % len(too_large) + too_large + b"\r\n0\r\n\r\n")
        assert chunked.recv(4096).startswith(b"HTTP/1.1 413")


def test_a_refusal_says_what_to_do(client: Client) -> None:
    reply = client.request("POST", "/api/v1/records", b"{}", {"Authorization": "Bearer nobody"})
    assert reply.json() == {
        "error": "no probe has this key",
        "remedy": "add its hash to a [[probe]] of collector.toml",
    }


def test_unknown_pages_and_methods(client: Client) -> None:
    assert client.get("/nope").status == 404
    reply = client.request("GET", "/api/v1/records")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert client.request("POST", "/metrics", b"").status == 405


def test_head_is_get_without_the_body(client: Client) -> None:
    reply = client.request("HEAD", "/metrics")
    assert (reply.status, reply.body) == (200, b"")


def test_every_answer_carries_the_security_headers(client: Client) -> None:
    for path in ("/", "/metrics", "/nope", "/api/v1/status"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("path", "accepted", "language"),
    [
        ("/", "", "vi"),
        ("/", "en-GB,en;q=0.8", "en"),
        ("/", "vi-VN,vi;q=0.9,en;q=0.8", "vi"),
        ("/", "en;q=0.1,vi;q=0.2", "vi"),
        ("/", "fr", "vi"),
        ("/", "en;q=nonsense", "vi"),
        ("/vi", "en", "vi"),
        ("/en", "vi", "en"),
    ],
)
def test_the_page_comes_in_the_language_asked_for(
    client: Client, path: str, accepted: str, language: str
) -> None:
    reply = client.get(path, {"Accept-Language": accepted})
    assert f"lang={language}".encode() in reply.body
    assert reply.headers["content-language"] == language


def test_reading_can_be_kept_behind_a_key(tmp_path: Path) -> None:
    reader = new_key()
    settings = collectors.config(tmp_path, listen={"port": 0, "read_key_sha256": reader.sha256})
    with collectors.running(settings) as collector, Client(collector.port or 0, None) as client:
        for path in ("/", "/metrics", "/api/v1/status", "/api/v1/forecasts", "/api/sd"):
            assert client.get(path).status == 401
            assert client.get(path, {"Authorization": f"Bearer {KEY.secret}"}).status == 401
            assert client.get(path, {"Authorization": f"Bearer {reader.secret}"}).status == 200
        assert client.get("/-/healthy").status == 200


def test_a_unix_socket_answers_as_well(tmp_path: Path) -> None:
    path = tmp_path / "collector.sock"
    settings = collectors.config(tmp_path, listen={"port": 0, "unix_socket": str(path)})
    with collectors.running(settings), socket.socket(socket.AF_UNIX) as local:
        local.connect(str(path))
        local.sendall(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert local.recv(4096).startswith(b"HTTP/1.1 200")
    assert not path.exists()


def test_discovery_names_the_collector_and_the_probes_with_a_page(tmp_path: Path) -> None:
    probe = {**PROBE, "metrics_url": "http://192.0.2.7:9464/m"}
    settings = collectors.config(
        tmp_path, probe=[probe], listen={"port": 0, "advertised": "collector.example:8642"}
    )
    with collectors.running(settings) as collector, Client(collector.port or 0) as client:
        reply = client.get("/api/sd")
    assert reply.headers["content-type"] == "application/json"
    assert reply.json() == [
        {"targets": ["collector.example:8642"], "labels": {"nhip_role": "collector"}},
        {
            "targets": ["192.0.2.7:9464"],
            "labels": {
                "nhip_role": "probe",
                "probe": "p1",
                "operator": "alpha",
                "province": "01",
                "technology": "fixed",
                "__scheme__": "http",
                "__metrics_path__": "/m",
            },
        },
    ]


def test_no_get_changes_anything(client: Client) -> None:
    client.post(batch([record()]))
    first = client.get("/metrics").body
    for path in ("/", "/metrics", "/api/v1/status", "/api/sd", "/-/ready", "/api/v1/forecasts"):
        client.get(path)
    assert client.get("/metrics").body == first


def test_secrets_are_shown_nowhere(client: Client, capfd: pytest.CaptureFixture[str]) -> None:
    client.post(batch([record()]))
    client.post(b"{", {"Authorization": "Bearer canary-1234567"})
    for path in ("/", "/metrics", "/api/v1/status", "/api/sd", "/api/v1/forecasts"):
        page = client.get(path).body.decode()
        for secret in (KEY.secret, KEY.sha256, FORECAST_KEY.secret, "canary-1234567"):
            assert secret not in page
    said = "".join(capfd.readouterr())
    assert KEY.secret not in said and "canary" not in said


@NEEDS_ROOT
@pytest.mark.lab
def test_a_full_disk_is_answered_507_and_collecting_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 3 * 2**20) as disk:
        (disk / "ballast").write_bytes(bytes(2**20))
        with collectors.running(collectors.config(disk)) as collector, Client(collector.port or 0) as client:
            stored = 0
            for first in range(1, 100_000, 100):
                body = batch([record(epoch="e1", sequence=n) for n in range(first, first + 100)])
                reply = client.post(body)
                if reply.status != 200:
                    break
                stored += reply.acknowledgement().stored
            assert reply.status == 507
            assert int(reply.headers["retry-after"]) >= 1
            assert refused(collector, "disk_full") == 1
            assert client.get("/metrics").status == 200
            assert client.get("/-/healthy").status == 200
            assert len(list(collector.store.records(0, 2**62))) == stored > 0

            (disk / "ballast").unlink()
            assert client.post(body).acknowledgement().stored == 100
            assert collector.store.counts().records == stored + 100


def test_too_little_free_space_is_refused_before_the_disk_is_full(tmp_path: Path) -> None:
    settings = collectors.config(tmp_path, limits={"minimum_free_octets": 2**60})
    with collectors.running(settings) as collector, Client(collector.port or 0) as client:
        assert client.post(batch([record()])).status == 507
