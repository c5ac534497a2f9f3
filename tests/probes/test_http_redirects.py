"""Redirects: followed as far as the task allows, each told with its time, never to where they must not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest

from nhip.measurement import Outcome
from probes.http.place import Place, RedirectRefusedError, followed
from probes.http.reach import Reach, reach, step_refused
from probes.network import Address, HostNetwork, Way
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
    ("address", "expected"),
    [
        ("127.0.0.1", Reach.HOST),
        ("127.1.2.3", Reach.HOST),
        ("::1", Reach.HOST),
        ("169.254.169.254", Reach.LINK),
        ("fe80::1%eth0", Reach.LINK),
        ("10.0.0.1", Reach.PRIVATE),
        ("192.168.1.1", Reach.PRIVATE),
        ("100.64.0.1", Reach.PRIVATE),
        ("fd00::1", Reach.PRIVATE),
        ("8.8.8.8", Reach.PUBLIC),
        ("2606:4700::1111", Reach.PUBLIC),
        # IPv4 in IPv6: mapped, compatible, NAT64 of everybody's and of one network's, 6to4, Teredo.
        ("::ffff:127.0.0.1", Reach.HOST),
        ("::ffff:10.0.0.1", Reach.PRIVATE),
        ("::ffff:8.8.8.8", Reach.PUBLIC),
        ("::127.0.0.1", Reach.HOST),
        ("64:ff9b::a9fe:a9fe", Reach.LINK),
        ("64:ff9b::808:808", Reach.PUBLIC),
        ("64:ff9b:1::a9fe:a9fe", Reach.LINK),
        ("64:ff9b:1::808:808", Reach.PRIVATE),
        ("2002:7f00:1::1", Reach.HOST),
        ("2002:a00:1::1", Reach.PRIVATE),
        ("2001:0:808:808::80ff:fffe", Reach.HOST),
        # Of nobody.
        ("0.0.0.0", None),  # noqa: S104
        ("0.1.2.3", None),
        ("255.255.255.255", None),
        ("224.0.0.1", None),
        ("::", None),
        ("ff02::1", None),
        ("fec0::1", None),
        ("::ffff:0.0.0.0", None),
        ("64:ff9b::e000:1", None),
    ],
)
def test_how_far_in_an_address_lies(address: str, expected: Reach | None) -> None:
    assert reach(address) is expected


INSIDE_OUT = ["127.0.0.1", "169.254.169.254", "10.0.0.1", "8.8.8.8"]


@pytest.mark.parametrize("before", INSIDE_OUT)
@pytest.mark.parametrize("then", INSIDE_OUT)
def test_no_server_sends_a_probe_further_in_than_itself(before: str, then: str) -> None:
    inwards = INSIDE_OUT.index(then) < INSIDE_OUT.index(before)
    assert bool(step_refused(before, then)) is inwards


@pytest.mark.parametrize("before", INSIDE_OUT)
@pytest.mark.parametrize("then", ["0.0.0.0", "224.0.0.1", "fec0::1"])  # noqa: S104
def test_to_an_address_of_nobody_none_is_followed(before: str, then: str) -> None:
    assert step_refused(before, then) == "redirect to an address that is no host's"


# What addresses of loopback tell of themselves in the tests below.
SEEMING = {"127.0.0.2": "10.0.0.1", "127.0.0.3": "10.0.0.9", "127.0.0.4": "1.1.1.1", "::1": "2606:4700::1111"}


class SeemingAddress(Address):
    """Loopback that calls itself something else."""

    @property
    def host(self) -> str:
        return SEEMING.get(self.sockaddr[0], self.sockaddr[0])

    def __hash__(self) -> int:
        return hash((self.family, self.sockaddr))


class Names(HostNetwork):
    """Names with the addresses that are theirs here."""

    def __init__(self, **addresses: list[str]) -> None:
        super().__init__()
        self._addresses = addresses

    def resolve_all(self, host: str, port: int, *, timeout_seconds: float) -> tuple[Address, ...]:
        found = self._addresses[host.partition(".")[0]]
        families = [socket.AF_INET6 if ":" in text else socket.AF_INET for text in found]
        return tuple(
            SeemingAddress(family, (text, port)) for family, text in zip(families, found, strict=True)
        )

    def way(self, address: Address) -> Way | None:
        return None


@pytest.mark.parametrize(
    ("outer", "inner", "words"),
    [
        ("127.0.0.4", "127.0.0.2", "redirect from a public address to a private address"),
        ("127.0.0.2", "127.0.0.1", "redirect from a private address to an address of its own host"),
    ],
)
def test_a_visit_does_not_follow_a_server_further_in(outer: str, inner: str, words: str) -> None:
    asked: list[bytes] = []

    def page(sock: socket.socket) -> None:
        asked.append(read_head(sock))
        sock.sendall(WHOLE)

    with (
        tcp_peer(page, inner) as inside,
        tcp_peer(steps({"/": f"http://inner.example:{inside}/"}), outer) as port,
        tcp_peer(steps({"/": f"http://inner.example:{inside}/"}), inner) as level,
    ):
        network = Names(outer=[outer], inner=[inner])
        refused = visit(port, "outer.example", tls=False, redirects=1, network=network)
        assert asked == []
        # The twin: sent there by a server that lies as far in, the same redirect is followed.
        allowed = visit(level, "inner.example", tls=False, redirects=1, network=network)
    assert fate(refused)[0] is Outcome.REJECTED
    assert fate(refused)[1].endswith(words)
    assert fate(allowed)[0] is Outcome.RECEIVED
    assert len(asked) == 1


def test_what_counts_is_the_address_connected_to_and_not_the_first_of_its_name() -> None:
    """Or a public server whose name has a private address too, where nobody listens, could send us inside."""
    with (
        tcp_peer(steps({}), "127.0.0.3") as inside,
        tcp_peer(steps({"/": f"http://inner.example:{inside}/"}), "::1") as port,
    ):
        network = Names(outer=["127.0.0.2", "::1"], inner=["127.0.0.3"])
        sample = visit(port, "outer.example", tls=False, redirects=1, happy_eyeballs=True, network=network)
    assert sample.address == "2606:4700::1111"
    assert fate(sample)[0] is Outcome.REJECTED
    assert fate(sample)[1].endswith("redirect from a public address to a private address")


class Unanswered(Names):
    """The resolver says nothing about one name until nobody waits any more."""

    def resolve_all(self, host: str, port: int, *, timeout_seconds: float) -> tuple[Address, ...]:
        if host == "slow.example":
            threading.Event().wait(timeout_seconds)
            return ()
        return (
            () if host == "none.example" else super().resolve_all(host, port, timeout_seconds=timeout_seconds)
        )


def test_a_look_up_for_which_no_time_was_left_is_lost_and_not_a_name_without_address() -> None:
    answers = {"/": "http://slow.example/", "/none": "http://none.example/"}
    with tcp_peer(steps(answers, 0.2)) as port:
        network = Unanswered(outer=["127.0.0.1"])
        settings = {"tls": False, "redirects": 1, "network": network, "loss_threshold_seconds": 0.6}
        late = visit(port, "outer.example", **settings)
        # The twin: where the resolver says no, the name has no address.
        none = visit(port, "outer.example", path="/none", **settings)
    assert fate(late)[0] is Outcome.LOST
    assert fate(late)[1].endswith("timed out")
    assert fate(none)[0] is Outcome.NOT_RESOLVED
