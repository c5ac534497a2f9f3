"""Packing: what comes out is what went in, for every dictionary there ever was; and three days fit."""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nhip import wire
from nhip.clock import SystemClock
from nhip.config import convert
from nhip.errors import CannotMeasureError, WireError
from nhip.measurement import Access, Target, Technology
from probes.agent_config import SpoolSection
from probes.api import ProbeContext
from probes.network import HostNetwork
from probes.packing import DICTIONARIES, pack, unpack
from probes.reflector import Reflector
from probes.registry import PROBES
from probes.server import MeasurementServer, ServerConfig
from probes.server.dns_responder import DnsResponder, DnsResponderConfig
from tests.lab import records

THREE_DAYS_SECONDS = 72 * 3600
SETTINGS = {
    "dns": {"name": "host.lab.example"},
    "file_transfer": {"size_octets": 20_000, "count": 1},
    "http": {"tls": False},
}


@pytest.fixture(scope="module")
def real_records() -> dict[str, bytes]:
    """One record of every kind this host can measure, from real packets over loopback."""
    return dict(measured())


def measured() -> Iterator[tuple[str, bytes]]:
    clock = SystemClock()
    server = MeasurementServer(ServerConfig(hosts=["127.0.0.1"], port=0), clock)
    responder = DnsResponder(
        DnsResponderConfig(zone="lab.example", ipv4="192.0.2.1", hosts=["127.0.0.1"], port=0), clock
    )
    reflector = Reflector("127.0.0.1", 0, clock=clock)
    bricks = (server, responder, reflector)
    for brick in bricks:
        brick.start()
    stamp_port = reflector.address[1]
    ports = {"dns": responder.addresses[0][1], "stamp": stamp_port, "voice": stamp_port, "icmp": None}
    try:
        for kind in PROBES.names():
            probe_type = PROBES.load(kind)
            interval_seconds = 0.1 if kind in ("http", "tls") else 0.01
            table = {"count": 20, "interval_seconds": interval_seconds} | SETTINGS.get(kind, {})
            table |= {"count": 3} if kind == "http" else {}
            target = Target(id="server-hn", host="127.0.0.1", port=ports.get(kind, server.port))
            context = ProbeContext(clock=clock, network=HostNetwork())
            try:
                sample = probe_type(convert(table, probe_type.Config, "t", environment={})).measure(
                    target, context
                )
            except CannotMeasureError:
                continue
            record = wire.record(
                sample,
                probe_id="hn-beta-5g-017",
                access=Access(operator="beta", technology=Technology.MOBILE_5G, province="79"),
                wall_ns=time.time_ns(),
            )
            record.parameters["schedule_interval_seconds"] = 60.0
            yield (
                kind,
                wire.encode_record(
                    msgspec.structs.replace(record, epoch="fedcba9876543210", sequence=123_456)
                ),
            )
    finally:
        for brick in bricks:
            brick.close()


def test_the_default_spool_holds_three_days_of_the_largest_records_at_one_a_second(
    real_records: dict[str, bytes],
) -> None:
    assert len(real_records) >= 5
    default = msgspec.convert({"path": "s"}, SpoolSection, dec_hook=lambda into, value: into(value))
    largest = max(len(pack(body)) for body in real_records.values())
    assert default.maximum_octets / largest >= THREE_DAYS_SECONDS * 1.2, "a fifth is left for longer names"
    # The twin: unpacked, the same spool held less than two thirds of it.
    plain = sum(len(body) for body in real_records.values()) / len(real_records)
    assert default.maximum_octets / plain < THREE_DAYS_SECONDS * 2 / 3


def test_a_mebibyte_holds_more_than_two_thousand_records(real_records: dict[str, bytes]) -> None:
    average = sum(len(pack(body)) for body in real_records.values()) / len(real_records)
    assert (1 << 20) / average > 2_000


def test_every_kind_comes_back_octet_for_octet(real_records: dict[str, bytes]) -> None:
    for body in real_records.values():
        assert unpack(pack(body)) == body


@given(body=st.binary(max_size=3000))
def test_whatever_is_packed_comes_back(body: bytes) -> None:
    assert unpack(pack(body)) == body


def test_plain_json_of_an_older_spool_is_read_as_it_is() -> None:
    body = wire.encode_record(records.record())
    assert unpack(body) == body


@given(packed=st.binary(max_size=200).filter(lambda octets: octets[:1] != b"{"))
def test_damage_is_said_and_never_guessed_at(packed: bytes) -> None:
    with pytest.raises(WireError, match="no record"):
        unpack(packed)


@pytest.mark.parametrize("position", [0, 1, 5, 40, -1])
def test_one_changed_octet_is_noticed(position: int) -> None:
    octets = bytearray(pack(wire.encode_record(records.record())))
    octets[position] ^= 0x55
    with pytest.raises(WireError):
        unpack(bytes(octets))


def test_a_dictionary_never_changes_once_spools_were_written_with_it() -> None:
    """Add a dictionary under the next number instead; this hash holds for ever."""
    hashes = {number: hashlib.sha256(octets).hexdigest() for number, octets in DICTIONARIES.items()}
    assert hashes == {
        1: "f0bae7e7ff24fd825359a0c36a4a651973e6b869cd012a1fa232b7d56af48364",
        2: "889d700a5d7055ead64202bd969176febc1192d779ba1e9dc15025f0e2d2dfe6",
    }


def test_a_spool_of_before_the_second_dictionary_is_still_read() -> None:
    body = wire.encode_record(records.record())
    packer = zlib.compressobj(6, zdict=DICTIONARIES[1])
    assert unpack(b"\x01" + packer.compress(body) + packer.flush()) == body
