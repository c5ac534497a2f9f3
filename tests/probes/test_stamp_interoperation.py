"""STAMP and TWAMP Light with what others made: scapy live, twampy's recorded packets, Wireshark's decoder."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from nhip.clock import SystemClock
from nhip.measurement import Outcome, Sample, Target
from probes.api import ProbeContext
from probes.network import HostNetwork
from probes.packets import stamp, stamp_tlv
from probes.stamp.plan import Mode
from probes.stamp.probe import Stamp, StampConfig
from tests.lab.peers import udp_peer
from tests.lab.reflectors import asked, client, extended, running
from tests.lab.scapy_stamp import scapy_reflects, scapy_sends

HOSTS = ["127.0.0.1", "::1"]

# twampy, github.com/nokia/twampy at commit 179fdf50: its sender with --padding 30 and its responder with
# --padding 0, as its own debug log shows them; how they were run is in docs/interoperation.md.
TWAMPY_REQUEST = bytes.fromhex("00000001eeb0a3f3ad4543ff3fff" + "00" * 30)
TWAMPY_ANSWERS = (
    "00000000eeb0a410f8aa53ff00010000eeb0a410f8aa53ff00000000eeb0a410f893fada3fff",
    "00000001eeb0a4110578fbff00010000eeb0a4110578fbff00000001eeb0a411056687c93fff",
)


def measure(port: int, host: str = "127.0.0.1", **settings: object) -> Sample:
    config = StampConfig(count=20, interval_seconds=0.01, loss_threshold_seconds=1, **settings)  # type: ignore[arg-type]
    context = ProbeContext(clock=SystemClock(), network=HostNetwork())
    return Stamp(config).measure(Target(id="target", host=host, port=port), context)


# scapy


@pytest.mark.parametrize("host", HOSTS)
def test_scapy_sends_and_our_reflector_answers(host: str) -> None:
    tlvs = [(3, "00" * 4), (200, "abcd"), (7, "00" * 16), (1, "55" * 9)]
    with running(host) as reflector:
        found = scapy_sends(host, reflector.address[1], 5, tlvs)
    for sequence, answer in enumerate(found):
        assert answer["octets"][0] == answer["octets"][1]
        assert (answer["seq"], answer["seq_sender"], answer["ssid"]) == (sequence, sequence, 77)
        assert answer["ttl_sender"] == 64
        assert answer["ts_sender"] == pytest.approx(answer["sent"], abs=1e-6)
        assert answer["ts_rx"] <= answer["ts"]
        assert abs(answer["ts_rx"] - answer["sent"]) < 1
        assert answer["multiplier"] != 0
        assert [(flags, kind) for flags, kind, _value in answer["tlvs"]] == [
            (0, 3),
            (0x80, 200),
            (0, 7),
            (0, 1),
        ]
        assert answer["tlvs"][3][2] == "55" * 9
        follow_up = bytes.fromhex(answer["tlvs"][2][2])
        number, left = struct.unpack_from("!IQ", follow_up)
        if sequence:
            assert number == sequence - 1
            assert 0 <= left / 2**32 - found[sequence - 1]["ts"] < 0.1


@pytest.mark.parametrize("host", HOSTS)
def test_our_probe_sends_and_scapy_answers(host: str) -> None:
    with scapy_reflects(host) as port:
        sample = measure(port, host, size_octets=200)
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.RECEIVED}
    assert sample.facts["stamp_extensions"] == "returned"
    assert sample.facts["stamp_unrecognised"] == "follow_up"
    assert all(0 <= (singleton.delay_ns or 0) < 50_000_000 for singleton in sample.singletons)


# twampy


def test_twampy_s_recorded_request_is_answered_as_its_sender_reads_answers() -> None:
    """Its sender reads 36 octets: its own sequence number at 24, T1 at 28, T2 at 16 and T3 at 4."""
    with running() as reflector, client(reflector) as sock:
        answer = asked(sock, TWAMPY_REQUEST)
    number, t3, _estimate, _zero, t2, sequence, t1 = struct.unpack_from("!IQHHQIQ", answer)
    assert (number, sequence) == (0, 1)
    assert t1 == int.from_bytes(TWAMPY_REQUEST[4:12], "big")
    assert t2 < t3
    assert len(answer) == len(TWAMPY_REQUEST)


def test_twampy_s_recorded_answers_are_read() -> None:
    for number, text in enumerate(TWAMPY_ANSWERS):
        found = stamp.unpack_reflector(bytes.fromhex(text), shortest=38)
        assert (found.sequence, found.sender_sequence) == (number, number)
        assert found.received_wall_ns == found.sent_wall_ns, "it writes one time stamp twice"
        assert 0 < found.received_wall_ns - found.sender_sent_wall_ns < 1_000_000
        assert found.sender_error == stamp.ErrorEstimate(False, 63, 255)


def test_a_responder_that_answers_as_twampy_recorded_is_received() -> None:
    def reflect(sock: socket.socket, request: bytes, peer: tuple[str, int]) -> None:
        recorded = bytes.fromhex(TWAMPY_ANSWERS[0])
        sock.sendto(recorded[:24] + request[:14], peer)

    with udp_peer(reflect) as port:
        sample = measure(port, mode=Mode.TWAMP_LIGHT)
    assert {singleton.outcome for singleton in sample.singletons} == {Outcome.RECEIVED}
    assert any("T2 = T3" in note for note in sample.notes)


# Wireshark


def capture_file(path: Path, datagrams: list[tuple[int, int, bytes]]) -> None:
    """A capture of UDP datagrams (source port, destination port, octets) over IPv4, without link layer."""
    octets = struct.pack("!IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 101)
    for source, destination, payload in datagrams:
        udp = struct.pack("!HHHH", source, destination, 8 + len(payload), 0) + payload
        loopback = socket.inet_aton("127.0.0.1")
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, loopback, loopback) + udp
        octets += struct.pack("!IIII", 0, 0, len(ip), len(ip)) + ip
    path.write_bytes(octets)


@pytest.mark.servers
def test_wireshark_reads_our_packets_as_we_meant_them(tmp_path: Path) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("needs tshark: apt-get install tshark")
    with running() as reflector, client(reflector) as sock:
        pairs = []
        for sequence in (0, 1, 5):
            packet = extended(stamp_tlv.follow_up_wanted(), sequence=sequence)
            pairs.append((packet, asked(sock, packet)))
    capture_file(tmp_path / "answers.pcap", [(862, 20_000, answer) for _request, answer in pairs])
    names = (
        "seq_number",
        "sender_seq_number",
        "sender_ttl",
        "error_estimate.multiplier",
    )
    fields = [part for name in names for part in ("-e", f"twamp.test.{name}")]
    times = [
        "-e",
        "twamp.test.timestamp",
        "-e",
        "twamp.test.receive_timestamp",
        "-e",
        "twamp.test.sender_timestamp",
    ]
    done = subprocess.run(
        ["tshark", "-r", str(tmp_path / "answers.pcap"), "-d", "udp.port==862,twamp.test", "-T", "fields",
         "-E", "separator=|", *fields, *times],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"TZ": "UTC", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    for number, (line, (packet, answer)) in enumerate(zip(lines, pairs, strict=True)):
        asked_for, found = stamp.unpack_sender(packet), stamp.unpack_reflector(answer)
        own, sender, ttl, multipliers, *read = line.split("|")
        assert (int(own), int(sender), int(ttl)) == (number, asked_for.sequence, 64)
        assert multipliers == f"{found.error.multiplier},{found.sender_error.multiplier}"
        for text, wall_ns in zip(
            read, (found.sent_wall_ns, found.received_wall_ns, asked_for.sent_wall_ns), strict=True
        ):
            fraction = text.split(".")[1].split(" ")[0].ljust(9, "0")[:9]
            assert abs(int(fraction) - wall_ns % 1_000_000_000) <= 1
