"""Redirects: followed as far as the task allows, each told with its time, never to where they must not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest

from nhip.measurement import Outcome
from probes.http.place import Place, RedirectRefusedError, followed, leads_inside
from probes.network import Address, HostNetwork
from tests.lab.certificate import make_certificate
from tests.lab.certificate_authority import CertificateAuthority
from tests.lab.http2_server import Fields, Http2Visitor, http2_server
from tests.lab.http_probe import fate, phases, visit
from tests.lab.peers import closed_port, read_head, tcp_peer
from tests.lab.tls_server import server_context, tls_peer

FOUND = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {}\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def steps(answers: dict[str, str], pause_seconds: float = 0.0) -> Callable[[socket.socket], None]:
    """A server whose `answers` say for each path where it leads; other paths are a page."""
    pause = threading.Event()

    def script(sock: socket.socket) -> None:
        path = read_head(sock).split(b" ")[1].decode()
        if path in answers:
            pause.wait(pause_seconds)
            sock.sendall(FOUND.format(answers[path]).encode())
        else:
            sock.sendall(WHOLE)

    return script


def test_redirects_are_followed_and_each_is_told_with_its_time() -> None:
    with tcp_peer(steps({"/": "/one", "/one": "two?x=1"}, 0.1)) as port:
        sample = visit(port, tls=False, redirects=2)
    outcome, detail = fate(sample)
    assert outcome is Outcome.RECEIVED
    first, second, last = detail.split(", ")
    assert first.startswith("HTTP 302 to /one (1")
    assert second.startswith("HTTP 302 to two?x=1 (1")
    assert last == "HTTP 200"
    assert sample.facts["redirects"] == "2"
    assert sample.facts["final_url"] == f"http://127.0.0.1:{port}/two?x=1"
    found = phases(sample.singletons[0])
    # The phases are the last connection's; what led there is one phase before them.
    assert list(found) == ["redirects", "tcp", "first_byte", "transfer"]
    assert 0.2e9 <= found["redirects"] < 0.4e9
    assert found["first_byte"] < 0.1e9


def test_without_leave_none_is_followed() -> None:
    asked: list[bytes] = []

    def script(sock: socket.socket) -> None:
        asked.append(read_head(sock))
        sock.sendall(FOUND.format("/one").encode())

    with tcp_peer(script) as port:
        sample = visit(port, tls=False)
    assert fate(sample) == (Outcome.RECEIVED, "HTTP 302 to /one")
    assert len(asked) == 1
    assert "redirects" not in sample.facts


def test_a_circle_ends_at_the_limit() -> None:
    with tcp_peer(steps({"/": "/"})) as port:
        outcome, detail = fate(visit(port, tls=False, redirects=3))
    assert outcome is Outcome.REJECTED
    assert detail.endswith("HTTP 302 to /: more than 3 redirects")
    assert detail.count(" ms)") == 3


def test_all_hops_together_have_one_deadline() -> None:
    with tcp_peer(steps({"/": "/"}, 0.15)) as port:
        sample = visit(port, tls=False, redirects=10, loss_threshold_seconds=0.5)
    assert fate(sample)[0] is Outcome.LOST
    assert 0.5e9 <= sample.ended.mono_ns - sample.started.mono_ns < 0.9e9


def test_from_http_to_https_the_certificate_is_checked(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    certificate = make_certificate(tmp_path_factory.mktemp("tls"), "localhost", "127.0.0.1")

    def page(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(WHOLE)

    with (
        tls_peer(server_context(certificate), page) as secure,
        tcp_peer(steps({"/": f"https://127.0.0.1:{secure}/"})) as port,
    ):
        trusted = visit(port, tls=False, redirects=1, ca_file=str(certificate.certificate))
        untrusted = visit(port, tls=False, redirects=1)
    assert fate(trusted)[0] is Outcome.RECEIVED
    assert list(phases(trusted.singletons[0])) == ["redirects", "tcp", "tls", "first_byte", "transfer"]
    assert trusted.facts["certificate_verified"] == "yes"
    assert fate(untrusted)[0] is Outcome.TLS_FAILED


def test_from_https_to_http_only_with_leave(tmp_path_factory: pytest.TempPathFactory) -> None:
    certificate = make_certificate(tmp_path_factory.mktemp("tls"), "localhost", "127.0.0.1")
    with tcp_peer(steps({})) as plain:
        script = steps({"/": f"http://127.0.0.1:{plain}/"})
        with tls_peer(server_context(certificate), script) as port:
            settings = {"redirects": 1, "ca_file": str(certificate.certificate)}
            refused = visit(port, **settings)
            allowed = visit(port, allow_downgrade=True, **settings)
    assert fate(refused)[0] is Outcome.REJECTED
    assert fate(refused)[1].endswith("redirect from https to http")
    assert fate(allowed)[0] is Outcome.RECEIVED


def test_another_host_is_looked_up_anew_and_over_the_same_network() -> None:
    asked: list[str] = []

    class Watched(HostNetwork):
        def resolve_all(self, host: str, port: int, *, timeout_seconds: float) -> tuple[Address, ...]:
            asked.append(host)
            found = "127.0.0.2" if host == "other.example" else host
            return super().resolve_all(found, port, timeout_seconds=timeout_seconds)

    with tcp_peer(steps({})) as page, tcp_peer(steps({"/": f"http://Other.Example:{page}/x"})) as port:
        network = Watched(ip_version=4)
        refused = visit(port, tls=False, redirects=1, network=network)
    # Nobody listens at 127.0.0.2; that the connection went there is what matters.
    assert asked == ["127.0.0.1", "other.example"]
    assert fate(refused)[0] is Outcome.REFUSED
    assert refused.address == "127.0.0.1"
    assert "dns" in phases(refused.singletons[0])


def test_a_name_without_address_and_an_address_without_a_way_are_the_server_s_affair() -> None:
    with tcp_peer(steps({"/": "http://host.invalid/", "/b": "http://255.255.255.255/"})) as port:
        network = HostNetwork()
        unknown = visit(port, tls=False, redirects=1, network=network, loss_threshold_seconds=10.0)
        nowhere = visit(port, tls=False, redirects=1, path="/b")
        other_version = visit(port, tls=False, redirects=1, path="/b", network=HostNetwork(ip_version=4))
    assert fate(unknown)[0] is Outcome.NOT_RESOLVED
    for sample in (nowhere, other_version):
        assert fate(sample)[0] is Outcome.UNREACHABLE
        assert "255.255.255.255" in fate(sample)[1]


def test_an_address_of_another_version_is_told() -> None:
    with tcp_peer(steps({"/": "http://[::1]/"})) as port:
        sample = visit(port, tls=False, redirects=1, network=HostNetwork(ip_version=4))
    assert fate(sample)[0] is Outcome.UNREACHABLE
    assert "sends IPv4" in fate(sample)[1]


def test_a_refused_port_after_a_redirect_is_refused() -> None:
    with tcp_peer(steps({"/": f"http://127.0.0.1:{closed_port(socket.SOCK_STREAM)}/"})) as port:
        assert fate(visit(port, tls=False, redirects=1))[0] is Outcome.REFUSED


def test_a_relative_redirect_stays_at_the_target_whatever_name_it_goes_by() -> None:
    hosts: list[bytes] = []

    def script(sock: socket.socket) -> None:
        head = read_head(sock)
        hosts.extend(line for line in head.split(b"\r\n") if line.lower().startswith(b"host:"))
        sock.sendall(WHOLE if b"/next" in head else FOUND.format("/next").encode())

    with tcp_peer(script) as port:
        sample = visit(port, tls=False, redirects=1, server_name="www.Example.vn")
    assert fate(sample)[0] is Outcome.RECEIVED
    assert len(hosts) == 2
    assert all(b"www.example.vn" in host.lower() for host in hosts)


def test_redirects_work_over_http2(tmp_path_factory: pytest.TempPathFactory) -> None:
    authority = CertificateAuthority(tmp_path_factory.mktemp("authority"))
    authority.start()
    certificate = authority.issue("IP:127.0.0.1")

    def script(visitor: Http2Visitor, stream_id: int, fields: Fields) -> None:
        if dict(fields)[":path"] == "/":
            visitor.answer(stream_id, [(":status", "308"), ("location", "/next")])
        else:
            visitor.answer(stream_id, [(":status", "200")], b"hello")

    with http2_server(script, server_context(certificate, ["h2"])) as port:
        sample = visit(
            port, http_version="http2", redirects=1, ca_file=str(authority.root), body_contains=["hello"]
        )
    assert fate(sample)[0] is Outcome.RECEIVED
    assert (sample.facts["redirects"], sample.facts["http_version"]) == ("1", "2")


HERE = Place(True, "www.example.vn", 443, "/a/b?c=d")


@pytest.mark.parametrize(
    ("location", "place"),
    [
        ("/x", "https://www.example.vn/x"),
        ("x", "https://www.example.vn/a/x"),
        ("?y=1", "https://www.example.vn/a/b?y=1"),
        ("//other.example:8443/x", "https://other.example:8443/x"),
        ("https://other.example", "https://other.example/"),
        ("https://[2001:db8::1]:444/x#part", "https://[2001:db8::1]:444/x"),
        (
            "/có dấu?q=tiếng việt",
            "https://www.example.vn/c%C3%B3%20d%E1%BA%A5u?q=ti%E1%BA%BFng%20vi%E1%BB%87t",
        ),
        ("/a%20b", "https://www.example.vn/a%20b"),
        ("/../../x", "https://www.example.vn/x"),
    ],
)
def test_where_a_location_leads(location: str, place: str) -> None:
    assert str(followed(HERE, location, allow_downgrade=False)) == place


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://www.example.vn/", "https to http"),
        ("ftp://www.example.vn/", "no web page"),
        ("javascript:alert(1)", "no web page"),
        ("file:///etc/passwd", "no web page"),
        ("https://user:secret@www.example.vn/", "user name"),
        ("https://2130706433/", "no address"),
        ("https://0x7f.1/", "no address"),
        ("https://two words/", "no address"),
        ("https://www.example.vn:99999/", "no address"),
        ("https://www.example.vn:0/", "no address"),
        ("https://[::1/", "no address"),
        ("/" + "x" * 3_000, "no usual form"),
        ("/x\r\nHost: evil", ""),
    ],
)
def test_a_location_that_is_no_page_is_refused(location: str, reason: str) -> None:
    if not reason:
        # Control characters never reach a request line: urllib drops them, and quoting would encode them.
        assert followed(HERE, location, allow_downgrade=False).path.isprintable()
        return
    with pytest.raises(RedirectRefusedError, match=reason):
        followed(HERE, location, allow_downgrade=False)


@pytest.mark.parametrize(
    ("first", "then", "inside"),
    [
        ("1.1.1.1", "127.0.0.1", True),
        ("1.1.1.1", "169.254.169.254", True),
        ("1.1.1.1", "10.0.0.1", True),
        ("1.1.1.1", "100.64.0.1", True),
        ("2606:4700::1111", "::1", True),
        ("2606:4700::1111", "fe80::1%eth0", True),
        ("2606:4700::1111", "::ffff:127.0.0.1", True),
        ("1.1.1.1", "8.8.8.8", False),
        ("1.1.1.1", "2606:4700::1111", False),
        # A test of a private server may be sent about among private servers.
        ("10.0.0.1", "10.0.0.2", False),
        ("127.0.0.1", "10.0.0.1", False),
    ],
)
def test_no_public_server_sends_a_probe_to_private_addresses(first: str, then: str, inside: bool) -> None:
    assert leads_inside(first, then) is inside


class Elsewhere(HostNetwork):
    """The target's address is told as a public one, though packets go to loopback."""

    def resolve_all(self, host: str, port: int, *, timeout_seconds: float) -> tuple[Address, ...]:
        address = Address(socket.AF_INET, ("127.0.0.1", port))
        return (PublicLooking(address.family, address.sockaddr) if host == "public.example" else address,)


class PublicLooking(Address):
    """Loopback that calls itself public."""

    @property
    def host(self) -> str:
        return "1.1.1.1"

    def __hash__(self) -> int:
        return hash((self.family, self.sockaddr))


def test_a_visit_does_not_follow_a_public_server_inside() -> None:
    with (
        tcp_peer(steps({})) as private,
        tcp_peer(steps({"/": f"http://private.example:{private}/"})) as port,
    ):
        refused = visit(port, "public.example", tls=False, redirects=1, network=_routed(Elsewhere()))
        # The twin: from a private target the same redirect is followed.
        allowed = visit(port, "inner.example", tls=False, redirects=1, network=_routed(Elsewhere()))
    assert fate(refused)[0] is Outcome.REJECTED
    assert fate(refused)[1].endswith("redirect from a public address to one that is not")
    assert fate(allowed)[0] is Outcome.RECEIVED


def _routed(network: HostNetwork) -> HostNetwork:
    network.way = lambda address: None  # type: ignore[method-assign]
    return network
