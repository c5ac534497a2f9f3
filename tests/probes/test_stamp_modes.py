"""The stamp probe in its modes and with its extensions, against reflectors that know more or less than it."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nhip.clock import SystemClock
from nhip.config import convert
from nhip.errors import ConfigError
from nhip.measurement import Outcome, Sample, Target
from probes.api import ProbeContext
from probes.network import HostNetwork
from probes.packets import stamp_auth, stamp_tlv
from probes.stamp.plan import Mode
from probes.stamp.probe import Stamp, StampConfig
from tests.lab.peers import udp_peer
from tests.lab.reflectors import KEY, running
from tests.lab.scripted_reflector import Script, ntp, scripted

HOSTS = ["127.0.0.1", "::1"]


def measure(port: int, *, host: str = "127.0.0.1", **settings: Any) -> Sample:
    table = {"count": 5, "interval_seconds": 0.005, "loss_threshold_seconds": 0.3} | settings
    config = convert(table, StampConfig, "test", environment={})
    context = ProbeContext(clock=SystemClock(), network=HostNetwork())
    return Stamp(config).measure(Target(id="target", host=host, port=port), context)


def outcomes(sample: Sample) -> set[Outcome]:
    return {singleton.outcome for singleton in sample.singletons}


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "key"
    path.write_bytes(KEY + b"\n")
    path.chmod(0o600)
    return str(path)


def authenticated(key_file: str, **more: Any) -> dict[str, Any]:
    return {"mode": "authenticated", "key_file": key_file} | more


EVERYTHING = {
    "location": True,
    "class_of_service": True,
    "timestamp_information": True,
    "direct_measurement": True,
}


# Authenticated


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(
    "extensions", [{"follow_up": False}, {}, EVERYTHING, EVERYTHING | {"size_octets": 900}]
)
def test_an_authenticated_test_is_received(host: str, extensions: dict[str, Any], key_file: str) -> None:
    with running(host, authenticated=True, keys=(KEY,)) as reflector:
        sample = measure(reflector.address[1], host=host, **authenticated(key_file, **extensions))
        assert reflector.counters.not_authentic == 0
        assert reflector.counters.integrity_failures == 0
    assert outcomes(sample) == {Outcome.RECEIVED}
    assert sample.method.name == "stamp_authenticated"
    assert sample.octets_sent == sample.octets_received == 5 * (sample.type_p.size_octets or 0)
    assert "stamp_integrity" not in sample.facts
    if extensions.get("follow_up", True):
        assert sample.facts["stamp_extensions"] == "returned"
        assert "stamp_unrecognised" not in sample.facts


def test_a_reflector_with_another_key_answers_nothing(key_file: str) -> None:
    with running(authenticated=True, keys=(b"k" * 32,)) as reflector:
        sample = measure(reflector.address[1], **authenticated(key_file))
        assert reflector.counters.not_authentic == 5
    assert outcomes(sample) == {Outcome.LOST}


def forger(sign: Callable[[bytes], bytes]) -> Callable[[socket.socket, bytes, tuple[str, int]], None]:
    """A reflector without our key that knows everything else."""

    def reflect(sock: socket.socket, request: bytes, peer: tuple[str, int]) -> None:
        now = ntp(time.time_ns())
        covered = (
            request[:4] + bytes(12) + now + b"\x80\x01\0\0" + bytes(4) + now + bytes(8) + request[:4]
            + bytes(12) + request[16:26] + bytes(6) + b"\x40" + bytes(15)
        )  # fmt: skip
        sock.sendto(covered + sign(covered), peer)

    return reflect


def test_a_forged_answer_is_ignored_and_said_so_and_would_be_believed_with_the_key(key_file: str) -> None:
    with udp_peer(forger(lambda covered: stamp_auth.digest(b"k" * 32, covered))) as port:
        sample = measure(port, **authenticated(key_file, follow_up=False))
    assert outcomes(sample) == {Outcome.LOST}
    assert any("5 answers not signed with our key ignored" in note for note in sample.notes)
    # The twin: the same answers with the right signature.
    with udp_peer(forger(lambda covered: stamp_auth.digest(KEY, covered))) as port:
        sample = measure(port, **authenticated(key_file, follow_up=False))
    assert outcomes(sample) == {Outcome.RECEIVED}


def test_a_key_that_cannot_be_used_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        measure(9, **authenticated(str(tmp_path / "absent")))


# TWAMP Light


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("size_octets", [41, 44, 400])
def test_our_reflector_answers_a_twamp_light_test(host: str, size_octets: int) -> None:
    with running(host) as reflector:
        sample = measure(reflector.address[1], host=host, mode="twamp_light", size_octets=size_octets)
    assert outcomes(sample) == {Outcome.RECEIVED}
    assert sample.method.name == "stamp_twamp_light"
    assert sample.octets_received == 5 * size_octets


def test_a_twamp_request_is_that_of_rfc_5357() -> None:
    seen: list[bytes] = []
    with udp_peer(lambda _sock, octets, _peer: seen.append(octets)) as port:
        measure(port, mode="twamp_light", loss_threshold_seconds=0.05)
    for sequence, octets in enumerate(seen):
        assert len(octets) == 44
        assert struct.unpack("!I", octets[:4]) == (sequence,)
        assert octets[14:] == bytes(30)


def test_a_twamp_answer_of_another_length_is_an_answer() -> None:
    """RFC 5357 lets a reflector pad as it likes; some end before the sender's TTL."""
    for octets in (38, 41, 44, 300):
        with scripted(
            Script(change=lambda answer, octets=octets: answer.ljust(octets, b"\0")[:octets])
        ) as port:
            sample = measure(port, mode="twamp_light")
        assert outcomes(sample) == {Outcome.RECEIVED}


# Reflectors that know less


@pytest.mark.parametrize("name", ["base packet alone", "zeros in their place"])
def test_a_reflector_without_extensions_is_received_and_named_so(name: str) -> None:
    def change(answer: bytes) -> bytes:
        return answer[:44] if name == "base packet alone" else answer[:44].ljust(len(answer), b"\0")

    with scripted(Script(change=change)) as port:
        sample = measure(port, **EVERYTHING)
    assert outcomes(sample) == {Outcome.RECEIVED}
    assert sample.facts["stamp_extensions"] == "not_returned"
    assert "stamp_nat" not in sample.facts


def test_extensions_returned_as_they_were_are_recognised_by_nobody() -> None:
    with scripted(Script()) as port:
        sample = measure(port, **EVERYTHING)
    assert outcomes(sample) == {Outcome.RECEIVED}
    assert sample.facts["stamp_unrecognised"] == (
        "location,timestamp_information,class_of_service,direct_measurement,follow_up"
    )
    assert "stamp_sync_source" not in sample.facts


def flagged(flag: int) -> Callable[[bytes], bytes]:
    def change(answer: bytes) -> bytes:
        return answer[:44] + bytes([flag]) + answer[45:]

    return change


def test_a_malformed_or_unbelieved_extension_is_not_read() -> None:
    with scripted(Script(change=flagged(stamp_tlv.MALFORMED))) as port:
        sample = measure(port, follow_up=True)
    assert sample.facts["stamp_malformed"] == "follow_up"
    with scripted(Script(change=flagged(stamp_tlv.INTEGRITY))) as port:
        sample = measure(port, follow_up=True)
    assert sample.facts["stamp_integrity"] == "failed"
    assert outcomes(sample) == {Outcome.RECEIVED}


# What extensions tell


@pytest.mark.parametrize("host", HOSTS)
def test_everything_asked_is_told(host: str) -> None:
    with running(host) as reflector:
        sample = measure(reflector.address[1], host=host, dscp=46, **EVERYTHING)
    facts = sample.facts
    assert facts["stamp_nat"] == "no"
    assert facts["stamp_seen_address"] == host
    assert (facts["stamp_dscp_received"], facts["stamp_dscp_returned"]) == ("46", "as_asked")
    assert facts["stamp_sync_source"] in ("ntp", "free_running")
    assert (facts["stamp_method_in"], facts["stamp_method_out"]) == ("software", "software")
    counts = {found.name: found.value for found in sample.statistics if found.unit == "packets"}
    assert counts["reflector_received_packets"] == counts["reflector_sent_packets"] == 5


def test_an_address_changed_on_the_way_shows_as_a_nat() -> None:
    def reflect(sock: socket.socket, request: bytes, peer: tuple[str, int]) -> None:
        now = ntp(time.time_ns())
        value = struct.pack("!HH", 862, peer[1] ^ 1) + bytes.fromhex("00 08 0010 cb007109") + bytes(12)
        value += bytes.fromhex("00 05 0010 7f000001") + bytes(12)
        answer = request[:4] + now + b"\0\x01\0\0" + now + request[:14] + b"\0\0\x40\0\0\0"
        sock.sendto(answer + bytes.fromhex("00 02 002c") + value, peer)

    with udp_peer(reflect) as port:
        sample = measure(port, location=True, follow_up=False)
    assert outcomes(sample) == {Outcome.RECEIVED}
    assert (sample.facts["stamp_nat"], sample.facts["stamp_seen_address"]) == ("yes", "203.0.113.9")


def test_a_mark_that_the_reflector_does_not_use_is_told() -> None:
    with running(honour_dscp=False) as reflector:
        sample = measure(reflector.address[1], dscp=46, class_of_service=True)
    assert sample.facts["stamp_dscp_returned"] == "refused"


# Sizes and settings


@pytest.mark.parametrize(
    ("settings", "size_octets", "follow_up"),
    [
        ({}, 64, True),
        ({"follow_up": False}, 44, False),
        ({"size_octets": 44}, 44, False),
        ({"size_octets": 60}, 60, False),
        ({"size_octets": 64}, 64, True),
        ({"size_octets": 1400}, 1400, True),
        ({"location": True}, 112, True),
        ({"mode": "authenticated"}, 152, True),
        ({"mode": "authenticated", "follow_up": False}, 112, False),
        ({"mode": "authenticated", "size_octets": 200}, 200, True),
        ({"mode": "twamp_light"}, 44, False),
        ({"mode": "twamp_light", "size_octets": 41}, 41, False),
    ],
)
def test_packets_have_the_size_asked_for_and_a_follow_up_where_it_fits(
    settings: dict[str, Any], size_octets: int, follow_up: bool
) -> None:
    key = {"key_file": "key"} if settings.get("mode") == "authenticated" else {}
    plan = convert(settings | key, StampConfig, "test", environment={}).plan()
    assert plan.size_octets == size_octets
    assert plan.asks(stamp_tlv.Kind.FOLLOW_UP) is follow_up
    assert plan.mode is Mode(settings.get("mode", "unauthenticated"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"size_octets": 45}, "file.toml:size_octets: 45: is no size that these packets can have"),
        ({"size_octets": 43}, "file.toml:size_octets: 43"),
        ({"size_octets": 63, "follow_up": True}, "file.toml:size_octets: 63"),
        ({"size_octets": 40}, "file.toml:size_octets"),
        ({"mode": "authenticated"}, "file.toml:key_file: is missing in mode authenticated"),
        ({"key_file": "k"}, "file.toml:key_file: 'k': is of no use in mode unauthenticated"),
        ({"mode": "twamp_light", "location": True}, "file.toml:mode: 'twamp_light': has no extensions"),
        ({"mode": "twamp_light", "follow_up": True}, "file.toml:mode: 'twamp_light'"),
        ({"mode": "clear"}, "file.toml:mode"),
        ({"reflector": "perhaps"}, "file.toml:reflector"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_key(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        convert(settings, StampConfig, "file.toml", environment={})
    assert says in raised.value.what
    assert raised.value.remedy


def test_the_size_that_would_fit_is_in_the_remedy() -> None:
    with pytest.raises(ConfigError) as raised:
        convert({"size_octets": 63, "follow_up": True}, StampConfig, "f", environment={})
    assert "write 64, or 68 or more" in raised.value.remedy
