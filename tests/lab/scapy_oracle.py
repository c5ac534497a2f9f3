"""scapy as an independent implementation of packet formats, in a process of its own.

scapy is GPL-2.0-only and slow to import: no test imports it, one process is started and asked.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import subprocess
import sys
from typing import Any

import pytest

_PROGRAM = r"""
import json, sys
from fractions import Fraction
from scapy.layers.inet import ICMP
from scapy.contrib.stamp import (
    ErrorEstimate, STAMPSessionReflectorTestUnauthenticated, STAMPSessionSenderTestUnauthenticated,
    STAMPTestTLV,
)
from scapy.packet import Raw

STAMP = {
    "sender": STAMPSessionSenderTestUnauthenticated,
    "reflector": STAMPSessionReflectorTestUnauthenticated,
}

def stamp_build(kind, fields):
    for key in ("err_estimate", "err_estimate_sender"):
        if key in fields:
            fields[key] = ErrorEstimate(**fields[key])
    for key in ("ts", "ts_rx", "ts_sender"):
        if key in fields:  # scapy takes seconds and gives 64 bits back
            fields[key] = Fraction(fields[key], 1 << 32)
    if "tlvs" in fields:
        fields["tlv_objects"] = [
            STAMPTestTLV(flags=flags, type=type_, len=len(value) // 2, value=bytes.fromhex(value))
            for flags, type_, value in fields.pop("tlvs")
        ]
    return bytes(STAMP[kind](**fields)).hex()

def stamp_read(kind, octets):
    packet = STAMP[kind](bytes.fromhex(octets))
    found = {}
    for field in packet.fields_desc:
        value = packet.getfieldval(field.name)
        if isinstance(value, ErrorEstimate):
            value = {name: value.getfieldval(name) for name in ("S", "Z", "scale", "multiplier")}
        if not isinstance(value, list):
            found[field.name] = value if isinstance(value, (int, dict)) else float(value)
    found["tlvs"] = [
        [int(tlv.flags), tlv.type, bytes(tlv.value).hex()] for tlv in packet.tlv_objects
    ]
    return found

def icmp_build(identifier, sequence, data):
    return bytes(ICMP(type=8, id=identifier, seq=sequence) / Raw(bytes.fromhex(data))).hex()

CALLS = {"stamp_build": stamp_build, "stamp_read": stamp_read, "icmp_build": icmp_build}
print(json.dumps([CALLS[name](*arguments) for name, arguments in json.load(sys.stdin)]))
"""


def ask(*questions: tuple[str, tuple[Any, ...]]) -> list[Any]:
    """The answers to ``(function, arguments)``, all from one process."""
    return list(_ask(json.dumps(questions)))


@functools.cache
def _ask(questions: str) -> tuple[Any, ...]:
    if importlib.util.find_spec("scapy") is None:
        pytest.skip("scapy is not installed (extra capture)")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM],
        input=questions,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(done.stdout))
