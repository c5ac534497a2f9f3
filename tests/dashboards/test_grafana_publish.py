"""Publishing against a scripted Grafana: a real HTTP server on loopback that stores, refuses and fails."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dashboards.grafana.build import path, uid
from dashboards.grafana.publish import FOLDER_UID, Action, PublishError, publish
from nhip.language import Language

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "glsa_for-a-test"
VI, EN = uid(Language.VIETNAMESE), uid(Language.ENGLISH)


@dataclass
class FakeGrafana:
    """What a Grafana remembers, and the answers it is told to give first."""

    port: int = 0
    prefix: str = ""
    folders: dict[str, str] = field(default_factory=dict)
    dashboards: dict[str, dict[str, Any]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    script: dict[tuple[str, str], list[tuple[int, Any]]] = field(default_factory=dict)
    """Answers to give, in turn, to a method and path before behaving."""
    seen: list[tuple[str, str]] = field(default_factory=list)
    saved: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.prefix}"

    @property
    def writes(self) -> int:
        return sum(method != "GET" for method, _ in self.seen)

    def answer(self, method: str, place: str, body: Any) -> tuple[int, Any]:
        self.seen.append((method, place))
        if scripted := self.script.get((method, place)):
            return scripted.pop(0)
        if (method, place) == ("POST", "/api/folders"):
            self.folders[body["uid"]] = body["title"]
            return 200, body
        if (method, place) == ("POST", "/api/dashboards/db"):
            self.saved.append(body)
            model = body["dashboard"]
            version = self.dashboards.get(model["uid"], {"version": 0})["version"] + 1
            self.dashboards[model["uid"]] = {**model, "id": 7, "version": version}
            return 200, {"status": "success", "uid": model["uid"], "version": version}
        if found := re.fullmatch(r"/api/folders/(.+)", place):
            title = self.folders.get(found[1])
            return (404, {"message": "folder not found"}) if title is None else (200, {"title": title})
        if found := re.fullmatch(r"/api/dashboards/uid/(.+)", place):
            model = self.dashboards.get(found[1])
            if model is None:
                return 404, {"message": "Dashboard not found"}
            return 200, {"dashboard": model, "meta": {"folderUid": FOLDER_UID, **self.meta}}
        return 404, {"message": "unknown path"}


@pytest.fixture
def grafana() -> Iterator[FakeGrafana]:
    fake = FakeGrafana()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _reply(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                fake.seen.append((self.command, self.path))
                status, said = 401, {"message": "Invalid API key"}
            else:
                status, said = fake.answer(self.command, self.path.removeprefix(fake.prefix), body)
            text = said.encode() if isinstance(said, str) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = _reply

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        fake.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()


def actions(changes: list[Any]) -> dict[str, Action]:
    return {change.what: change.action for change in changes}


def test_first_run_creates_and_second_run_writes_nothing(grafana: FakeGrafana) -> None:
    first = publish(grafana.url, TOKEN)
    assert set(actions(first).values()) == {Action.CREATE}
    assert grafana.folders == {FOLDER_UID: "Nhịp"}
    assert set(grafana.dashboards) == {VI, EN}
    written = grafana.writes
    assert written == 3
    second = publish(grafana.url, TOKEN)
    assert set(actions(second).values()) == {Action.UNCHANGED}
    assert grafana.writes == written


def test_dashboard_is_saved_by_uid_into_the_folder_and_never_by_number(grafana: FakeGrafana) -> None:
    publish(grafana.url, TOKEN, languages=[Language.VIETNAMESE])
    (saved,) = grafana.saved
    committed = json.loads(path(Language.VIETNAMESE).read_text(encoding="utf-8"))
    assert saved["dashboard"] == {**committed, "id": None}
    assert saved["folderUid"] == FOLDER_UID and saved["overwrite"] is True
    assert "folderId" not in saved


def test_changed_dashboard_is_put_right_and_the_difference_named(grafana: FakeGrafana) -> None:
    publish(grafana.url, TOKEN)
    grafana.dashboards[EN]["panels"][1]["title"] = "mine"
    before = grafana.writes
    changes = {change.what: change for change in publish(grafana.url, TOKEN)}
    assert changes[f"dashboard {EN}"].action is Action.UPDATE
    assert changes[f"dashboard {EN}"].differences == (
        "$.panels[1].title: 'mine' -> 'Round-trip delay, median'",
    )
    assert changes[f"dashboard {VI}"].action is Action.UNCHANGED
    assert grafana.writes == before + 1


def test_dry_run_tells_and_writes_nothing(grafana: FakeGrafana) -> None:
    changes = publish(grafana.url, TOKEN, dry_run=True)
    assert set(actions(changes).values()) == {Action.CREATE}
    publish(grafana.url, TOKEN)
    grafana.dashboards[VI]["refresh"] = "5s"
    before = grafana.writes
    changes = publish(grafana.url, TOKEN, dry_run=True)
    assert actions(changes)[f"dashboard {VI}"] is Action.UPDATE
    assert changes[1].differences == ("$.refresh: '5s' -> '30s'",)
    assert grafana.writes == before


def test_dashboard_in_another_folder_is_moved(grafana: FakeGrafana) -> None:
    publish(grafana.url, TOKEN)
    grafana.meta = {"folderUid": "elsewhere"}
    changes = publish(grafana.url, TOKEN, dry_run=True)
    assert changes[1].differences == ("$folder: 'elsewhere' -> 'nhip'",)


@pytest.mark.parametrize("status", [409, 412])
def test_folder_that_somebody_else_just_made_is_taken_as_it_is(grafana: FakeGrafana, status: int) -> None:
    grafana.folders[FOLDER_UID] = "Nhịp"
    grafana.script["GET", f"/api/folders/{FOLDER_UID}"] = [(404, {"message": "not yet"})]
    grafana.script["POST", "/api/folders"] = [(status, {"message": "already exists"})]
    assert actions(publish(grafana.url, TOKEN))[f"folder {FOLDER_UID}"] is Action.UNCHANGED


def test_folder_title_taken_by_another_folder_is_explained(grafana: FakeGrafana) -> None:
    grafana.script["POST", "/api/folders"] = [(412, {"message": "a folder with the same name exists"})]
    with pytest.raises(PublishError, match=r"under another identifier.*rename that folder"):
        publish(grafana.url, TOKEN)


def test_dashboard_title_taken_by_another_one_is_explained(grafana: FakeGrafana) -> None:
    grafana.script["POST", "/api/dashboards/db"] = [
        (412, {"message": "A dashboard with the same name exists", "status": "name-exists"})
    ]
    with pytest.raises(PublishError, match=r"412: .*same name exists.*rename what is in the way"):
        publish(grafana.url, TOKEN)


def test_wrong_token_is_explained_and_asked_only_once(grafana: FakeGrafana) -> None:
    with pytest.raises(PublishError, match="401: Unauthorized; the token is wrong or expired"):
        publish(grafana.url, "glsa_wrong")
    assert len(grafana.seen) == 1


def test_missing_permission_names_the_role(grafana: FakeGrafana) -> None:
    grafana.script["POST", "/api/folders"] = [(403, {"message": "Access denied"})]
    with pytest.raises(PublishError, match=r"403: .*Access denied; give the service account the role Editor"):
        publish(grafana.url, TOKEN)


def test_server_that_fails_for_a_moment_is_asked_again(grafana: FakeGrafana) -> None:
    pauses: list[float] = []
    grafana.script["GET", f"/api/folders/{FOLDER_UID}"] = [(502, "<html>bad gateway</html>"), (503, "busy")]
    grafana.script["POST", "/api/dashboards/db"] = [(500, {"message": "database is locked"})]
    changes = publish(grafana.url, TOKEN, sleep=pauses.append)
    assert set(actions(changes).values()) == {Action.CREATE}
    assert pauses == [0.5, 2.0, 0.5]


def test_server_that_keeps_failing_is_given_up_with_its_words(grafana: FakeGrafana) -> None:
    grafana.script["GET", f"/api/folders/{FOLDER_UID}"] = [(500, {"message": "database is locked"})] * 3
    with pytest.raises(PublishError, match=r"the server failed: .*database is locked"):
        publish(grafana.url, TOKEN, sleep=lambda _: None)
    assert len(grafana.seen) == 3


def test_provisioned_dashboard_that_differs_is_left_alone(grafana: FakeGrafana) -> None:
    publish(grafana.url, TOKEN)
    grafana.meta = {"provisioned": True}
    assert set(actions(publish(grafana.url, TOKEN)).values()) == {Action.UNCHANGED}
    grafana.dashboards[VI]["refresh"] = "5s"
    before = grafana.writes
    with pytest.raises(PublishError, match="provisioned from files"):
        publish(grafana.url, TOKEN)
    assert grafana.writes == before


@pytest.mark.parametrize("said", ["<html>please log in</html>", "[]", "null"])
def test_answer_that_is_no_grafanas_is_no_success(grafana: FakeGrafana, said: str) -> None:
    grafana.script["GET", f"/api/folders/{FOLDER_UID}"] = [(200, said)]
    with pytest.raises(PublishError, match="check"):
        publish(grafana.url, TOKEN)


def test_saving_that_is_not_confirmed_is_no_success(grafana: FakeGrafana) -> None:
    grafana.script["POST", "/api/dashboards/db"] = [(200, {"welcome": "to the hotel"})]
    with pytest.raises(PublishError, match="did not confirm"):
        publish(grafana.url, TOKEN)


def test_prefix_of_the_address_is_kept(grafana: FakeGrafana) -> None:
    grafana.prefix = "/monitor/grafana"
    changes = publish(f"{grafana.url}/", TOKEN)
    assert set(actions(changes).values()) == {Action.CREATE}


def test_server_that_is_not_there_is_named() -> None:
    with pytest.raises(PublishError, match=r"no answer of a Grafana at http://127\.0\.0\.1:1"):
        publish("http://127.0.0.1:1", TOKEN, timeout_seconds=2)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("http://grafana.example.vn", "would send the token unprotected"),
        ("ftp://grafana.example.vn", "no address of a Grafana"),
        ("grafana.example.vn:3000", "no address of a Grafana"),
        ("https://user:pass@grafana.example.vn", "no address of a Grafana"),
        ("https://grafana.example.vn:port", "no address"),
    ],
)
def test_unusable_address_is_refused_before_anything_is_sent(url: str, complaint: str) -> None:
    with pytest.raises(PublishError, match=complaint):
        publish(url, TOKEN)


@pytest.mark.parametrize("token", ["", "  \n", "a\nb"])
def test_unusable_token_is_refused_before_anything_is_sent(grafana: FakeGrafana, token: str) -> None:
    with pytest.raises(PublishError, match="token is empty or holds"):
        publish(grafana.url, token)
    assert grafana.seen == []


def test_one_module_alone_imports_the_archived_library() -> None:
    packages = ("nhip", "probes", "collector", "forecasting", "dashboards")
    importing = {
        found.relative_to(ROOT).as_posix()
        for package in packages
        for found in (ROOT / package).rglob("*.py")
        if re.search(r"^\s*(?:from|import) grafana_api\b", found.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert importing == {"dashboards/grafana/publish.py"}
