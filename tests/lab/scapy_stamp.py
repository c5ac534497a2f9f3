"""scapy.contrib.stamp as the other end of real STAMP sessions, in processes of their own.

scapy is GPL-2.0-only and slow to import: no test imports it. The sender prints what it received, field by
field; the reflector prints its port, then answers until its standard input closes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

_HEAD = r"""
import json, socket, sys, time
from scapy.contrib.stamp import (
    ErrorEstimate, STAMPSessionReflectorTestUnauthenticated as Answer,
    STAMPSessionSenderTestUnauthenticated as Request, STAMPTestTLV as Tlv,
)
EPOCH = 2208988800
def now(): return time.time() + EPOCH
def family(host): return socket.AF_INET6 if ":" in host else socket.AF_INET
"""
_SENDER = (
    _HEAD
    + r"""
host, port, count, tlvs = json.load(sys.stdin)
sock = socket.socket(family(host), socket.SOCK_DGRAM)
sock.settimeout(2)
found = []
for sequence in range(count):
    objects = [
        Tlv(flags=0x80, type=kind, len=len(value) // 2, value=bytes.fromhex(value)) for kind, value in tlvs
    ]
    request = Request(seq=sequence, ts=now(), err_estimate=ErrorEstimate(S=0, Z=0, scale=0, multiplier=1),
                      ssid=77, tlv_objects=objects)
    sock.sendto(bytes(request), (host, port))
    octets, _address = sock.recvfrom(9216)
    answer = Answer(octets)
    found.append({
        "octets": [len(bytes(request)), len(octets)], "seq": answer.seq, "ssid": answer.ssid,
        "seq_sender": answer.seq_sender, "ttl_sender": answer.ttl_sender, "ts": float(answer.ts),
        "ts_rx": float(answer.ts_rx), "ts_sender": float(answer.ts_sender), "sent": float(request.ts),
        "multiplier": answer.err_estimate.multiplier,
        "tlvs": [[int(tlv.flags), tlv.type, bytes(tlv.value).hex()] for tlv in answer.tlv_objects],
    })
print(json.dumps(found))
"""
)
_REFLECTOR = (
    _HEAD
    + r"""
import select
host = sys.argv[1]
sock = socket.socket(family(host), socket.SOCK_DGRAM)
sock.bind((host, 0))
print(sock.getsockname()[1], flush=True)
number = 0
while True:
    ready, _, _ = select.select([sock, sys.stdin], [], [])
    if sys.stdin in ready:
        break
    octets, address = sock.recvfrom(9216)
    received = now()
    request = Request(octets)
    for tlv in request.tlv_objects:
        tlv.flags = 0 if tlv.type == 1 else 0x80  # knows Extra Padding only
    answer = Answer(seq=number, ts=now(), err_estimate=ErrorEstimate(S=0, Z=0, scale=0, multiplier=1),
                    ssid=request.ssid, ts_rx=received, seq_sender=request.seq, ts_sender=request.ts,
                    err_estimate_sender=request.err_estimate, ttl_sender=64, tlv_objects=request.tlv_objects)
    answer = bytearray(bytes(answer))
    answer[28:36] = octets[4:12]  # scapy rounds T1 to a double
    sock.sendto(bytes(answer), address)
    number += 1
"""
)


def scapy_sends(host: str, port: int, count: int, tlvs: list[tuple[int, str]]) -> list[dict[str, Any]]:
    """What scapy read in the answers to `count` requests with `tlvs` (type, value as hexadecimal digits)."""
    _need_scapy()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _SENDER],
        input=json.dumps([host, port, count, tlvs]),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@contextlib.contextmanager
def scapy_reflects(host: str) -> Iterator[int]:
    """A stateful reflector by scapy on `host`; gives its port."""
    _need_scapy()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _REFLECTOR, host],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.communicate(timeout=20)


def _need_scapy() -> None:
    if importlib.util.find_spec("scapy") is None:
        pytest.skip("scapy is not installed (extra capture)")
