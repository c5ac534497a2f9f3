"""unbound from Debian on loopback: a resolver that others wrote, over all four transports."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.certificate import Certificate
from tests.lab.peers import closed_port

UNBOUND = shutil.which("unbound") or "/usr/sbin/unbound"
HOST = "127.0.0.1"
NAME = "resolver.lab.example"
INSTANCE = "hn-resolver-1"


@dataclass(frozen=True)
class Unbound:
    """Where it listens, and the certificate it shows."""

    udp_port: int
    tcp_port: int
    tls_port: int
    https_port: int
    certificate: Certificate


@contextlib.contextmanager
def unbound(folder: Path, certificate: Certificate) -> Iterator[Unbound]:
    """A running unbound that knows one zone and asks nobody; the test is skipped where it is absent."""
    if not os.access(UNBOUND, os.X_OK):
        pytest.skip("unbound is not installed (Debian package unbound)")
    plain, tls, https = (closed_port(socket.SOCK_STREAM) for _ in range(3))
    long_texts = "\n".join(
        f"  local-data: 'long.lab.example. 60 IN TXT \"{number:03d}{'x' * 240}\"'" for number in range(12)
    )
    configuration = folder / "unbound.conf"
    configuration.write_text(
        f"""server:
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  num-threads: 1
  interface: {HOST}@{plain}
  interface: {HOST}@{tls}
  interface: {HOST}@{https}
  port: {plain}
  tls-port: {tls}
  https-port: {https}
  http-endpoint: "/dns-query"
  tls-service-key: "{certificate.key}"
  tls-service-pem: "{certificate.certificate}"
  access-control: 127.0.0.0/8 allow
  do-not-query-localhost: no
  nsid: "ascii_{INSTANCE}"
  module-config: "iterator"
  local-zone: "lab.example." static
  local-data: "host.lab.example. 60 IN A 192.0.2.1"
  local-data: "host.lab.example. 60 IN AAAA 2001:db8::1"
  local-data: "host.lab.example. 60 IN MX 10 mail.lab.example."
  local-data: 'host.lab.example. 60 IN TXT "one two"'
  local-data: "host.lab.example. 60 IN HTTPS 1 . alpn=h2"
  local-data: "host.lab.example. 60 IN CAA 0 issue ca.example"
  local-data: "_sip._udp.lab.example. 60 IN SRV 1 2 5060 host.lab.example."
  local-data: "lab.example. 60 IN NS host.lab.example."
  local-data: "lab.example. 60 IN SOA host.lab.example. root.lab.example. 1 2 3 4 5"
  local-zone: "refused.example." refuse
{long_texts}
  local-data-ptr: "192.0.2.1 host.lab.example"
remote-control:
  control-enable: no
""",
        encoding="utf-8",
    )
    log = folder / "unbound.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [UNBOUND, "-d", "-c", str(configuration)], stdout=output, stderr=output, cwd=folder
        )
    try:
        _await_listener(process, https, log)
        yield Unbound(plain, plain, tls, https, certificate)
    finally:
        process.terminate()
        process.wait(10)


def _await_listener(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        os.sched_yield()
    pytest.fail(f"unbound did not start: {log.read_text(encoding='utf-8')}")
