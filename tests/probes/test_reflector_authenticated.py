"""The reflector in authenticated mode: whose packets it answers, how often, and how old they may be."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nhip.clock import SystemClock
from nhip.errors import ConfigError
from probes.packets import stamp_auth, stamp_tlv
from probes.packets.stamp_tlv import INTEGRITY
from probes.reflector import Reflector, ReflectorCounters, ReflectorSettings, StampSection
from probes.reflector.responder import Responder
from probes.reflector.stamped_socket import Request
from tests.lab.fake_clock import FakeClock
from tests.lab.peers import closed_port
from tests.lab.reflectors import (
    KEY,
    asked,
    client,
    request,
    running,
    sender_packet,
    signed,
    silent,
)

OLD_KEY = b"the key of last year, still valid"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_signed_request_gets_a_signed_answer(host: str) -> None:
    with running(host, authenticated=True, keys=(KEY,)) as reflector, client(reflector, host) as sock:
        before = time.time_ns()
        sent = signed(3)
        answer = asked(sock, sent)
        after = time.time_ns()
    assert stamp_auth.signing_key(answer, [KEY]) == KEY
    found = stamp_auth.unpack_reflector(answer)
    assert (found.sequence, found.sender_sequence, found.sender_hop_limit) == (0, 3, 64)
    assert found.sender_sent_wall_ns == stamp_auth.unpack_sender(sent).sent_wall_ns
    assert before <= found.received_wall_ns <= found.sent_wall_ns <= after
    assert len(answer) == len(sent) == 112


FORGED = {
    "not signed": lambda: request(0, 112),
    "signed with another key": lambda: signed(key=b"x" * 32),
    "a changed sequence number": lambda: b"\0\0\0\x09" + signed()[4:],
    "a changed time": lambda: signed()[:16] + bytes(8) + signed()[24:],
    "cut short": lambda: signed()[:111],
    "unauthenticated": lambda: request(0, 44),
}


@pytest.mark.parametrize("name", FORGED)
def test_what_is_not_signed_with_our_key_is_not_answered(name: str) -> None:
    with running(authenticated=True, keys=(KEY,)) as reflector, client(reflector) as sock:
        assert silent(sock, FORGED[name]())
        assert reflector.counters.not_authentic == 1
        assert reflector.sessions == 0, "a forged packet takes no room"
        asked(sock, signed())
    assert reflector.counters.reflected == 1


def test_without_authentication_the_same_forged_packet_is_answered() -> None:
    """The twin: a reflector that does not look at signatures answers anybody."""
    with running(keys=(KEY,)) as reflector, client(reflector) as sock:
        assert len(asked(sock, request(0, 112))) == 112
        assert reflector.counters.not_authentic == 0


def test_forged_packets_use_up_nothing_of_what_a_client_may_have() -> None:
    clock = FakeClock(wall_ns=time.time_ns())
    settings = {"authenticated": True, "keys": (KEY,), "packets_per_second": 3}
    with running(clock=clock, **settings) as reflector, client(reflector) as sock:
        for _ in range(50):
            sock.send(request(0, 112))
        for sequence in range(3):
            asked(sock, signed(sequence))
        assert silent(sock, signed(3)), "a client's own packets do"
        assert (reflector.counters.not_authentic, reflector.counters.rate_limited) == (50, 1)


def test_two_keys_are_valid_while_keys_change_and_each_answer_has_its_own() -> None:
    with running(authenticated=True, keys=(KEY, OLD_KEY)) as reflector, client(reflector) as sock:
        for sequence, key in enumerate((KEY, OLD_KEY)):
            answer = asked(sock, signed(sequence, key=key))
            assert stamp_auth.signing_key(answer, [key]) == key
            assert stamp_auth.signing_key(answer, [KEY if key is OLD_KEY else OLD_KEY]) is None
    with running(authenticated=True, keys=(KEY,)) as reflector, client(reflector) as sock:
        assert silent(sock, signed(key=OLD_KEY)), "the old key has been taken out"


# Replays


def test_a_replayed_packet_is_counted_and_not_answered() -> None:
    with running(authenticated=True, keys=(KEY,)) as reflector, client(reflector) as sock:
        first, second = signed(0), signed(1)
        asked(sock, first)
        asked(sock, second)
        for packet in (first, second, first):
            assert silent(sock, packet, 0.05)
        assert reflector.counters.replayed == 3
        asked(sock, signed(2))
    assert reflector.counters.reflected == 3


def test_without_a_replay_window_the_same_packet_is_answered_again() -> None:
    """The twin of the test above."""
    with (
        running(authenticated=True, keys=(KEY,), replay_window_packets=0) as reflector,
        client(reflector) as sock,
    ):
        packet = signed(0)
        for _ in range(3):
            asked(sock, packet)
        assert reflector.counters.replayed == 0


def test_packets_out_of_order_within_the_window_are_answered() -> None:
    with running(authenticated=True, keys=(KEY,)) as reflector, client(reflector) as sock:
        packets = [signed(sequence) for sequence in range(5)]
        for position in (0, 4, 2, 3, 1):
            asked(sock, packets[position])
    assert reflector.counters.replayed == 0


def test_a_sender_that_begins_again_with_newer_packets_is_answered() -> None:
    with running(authenticated=True, keys=(KEY,)) as reflector, client(reflector) as sock:
        for _ in range(2):
            for sequence in range(3):
                answer = asked(sock, signed(sequence))
                assert stamp_auth.unpack_reflector(answer).sequence == sequence
    assert reflector.counters.replayed == 0


# Freshness


@pytest.mark.parametrize("age_seconds", [61, 3_600, -61])
def test_a_packet_too_old_or_from_the_future_is_not_answered(age_seconds: int) -> None:
    wall_ns = time.time_ns() - age_seconds * 1_000_000_000
    with (
        running(authenticated=True, keys=(KEY,), freshness_seconds=60) as reflector,
        client(reflector) as sock,
    ):
        assert silent(sock, signed(0, wall_ns=wall_ns))
        assert reflector.counters.stale == 1
        asked(sock, signed(1))
    # The twin: nobody looks.
    with (
        running(authenticated=True, keys=(KEY,), freshness_seconds=0) as reflector,
        client(reflector) as sock,
    ):
        asked(sock, signed(0, wall_ns=wall_ns))


def test_freshness_understands_both_time_formats() -> None:
    packet = sender_packet(0)
    ptp = stamp_auth.pack_sender(
        type(packet)(
            sequence=0,
            sent_wall_ns=packet.sent_wall_ns,
            error=type(packet.error)(False, 0, 1, ptp_format=True),
            session_id=1,
        ),
        KEY,
    )
    with (
        running(authenticated=True, keys=(KEY,), freshness_seconds=60) as reflector,
        client(reflector) as sock,
    ):
        asked(sock, ptp)


# Replays after a session was forgotten


class Replayer:
    """A responder, and the packets put to it at times of our choosing, in seconds."""

    def __init__(self, **settings: Any) -> None:
        self.clock = FakeClock()
        self.counters = ReflectorCounters()
        self.responder = Responder(
            ReflectorSettings(authenticated=True, keys=(KEY,), freshness_seconds=60, **settings),
            packets_per_second=1e6,
            clock=self.clock,
            counters=self.counters,
            address=("192.0.2.1", 862),
        )

    def put(self, octets: bytes, port: int = 5_000) -> bool | str:
        """Whether it is answered, or why not."""
        found = self.responder.answer(Request(octets, ("192.0.2.9", port), self.clock.wall_ns(), True, 64))
        return found if isinstance(found, str) else True

    def packet(self, *, ahead_seconds: float = 0, session_id: int = 5) -> bytes:
        wall_ns = self.clock.wall_ns() + round(ahead_seconds * 1e9)
        return signed(0, wall_ns=wall_ns, session_id=session_id)


@pytest.mark.parametrize(("idle_seconds", "second"), [(120, "replayed"), (60, True)])
def test_a_packet_from_the_future_cannot_be_replayed_while_it_is_fresh(
    idle_seconds: float, second: bool | str
) -> None:
    """Sent by a clock a minute ahead it is fresh for two; the twin forgets the session after one."""
    replayer = Replayer(session_idle_seconds=idle_seconds)
    octets = replayer.packet(ahead_seconds=60)
    assert replayer.put(octets) is True
    replayer.clock.advance(119.9)
    assert replayer.put(octets) == second
    replayer.clock.advance(0.2)
    assert replayer.put(octets) == "stale"


def test_a_full_table_refuses_new_sessions_instead_of_forgetting_what_could_be_replayed() -> None:
    replayer = Replayer(session_idle_seconds=600, most_sessions=16)
    first = replayer.packet(session_id=1)
    assert replayer.put(first) is True
    for session_id in range(2, 100):
        replayer.put(replayer.packet(session_id=session_id), port=session_id + 5_000)
    assert replayer.put(replayer.packet(session_id=200)) == "no_room"
    assert replayer.put(first) == "replayed", "it was not forgotten"
    assert len(replayer.responder.sessions) == 16
    replayer.clock.advance(121)
    assert replayer.put(replayer.packet(session_id=200)) is True, "nothing of before is fresh any more"


def test_without_a_window_the_table_forgets_and_the_packet_is_answered_again() -> None:
    """The twin: nobody guards against replays, so the session silent longest goes."""
    replayer = Replayer(session_idle_seconds=600, most_sessions=16, replay_window_packets=0)
    first = replayer.packet(session_id=1)
    assert replayer.put(first) is True
    for session_id in range(2, 100):
        assert replayer.put(replayer.packet(session_id=session_id)) is True
    assert replayer.put(first) is True
    assert replayer.counters.sessions_evicted > 80


def test_a_busy_probe_with_a_key_may_have_an_eighth_of_the_table() -> None:
    replayer = Replayer(session_idle_seconds=600, most_sessions=4_096)
    answered = [replayer.put(replayer.packet(session_id=session_id)) for session_id in range(1, 600)]
    assert answered == [True] * 512 + ["no_room"] * 87


# Extensions


def test_signed_extensions_are_filled_in_and_signed() -> None:
    with running(authenticated=True, keys=(KEY,)) as reflector, client(reflector) as sock:
        packet = signed(0, stamp_tlv.direct_measurement_wanted(1))
        answer = asked(sock, packet)
    assert len(answer) == len(packet)
    assert stamp_tlv.authentic(answer, 112, [KEY]) == KEY
    tlvs = stamp_tlv.unpack(answer[112:])
    assert stamp_tlv.direct_measurement(tlvs[0].value) == stamp_tlv.DirectMeasurement(1, 1, 1)


def test_unsigned_extensions_of_a_signed_packet_are_returned_with_the_i_flag() -> None:
    with running(authenticated=True, keys=(KEY,)) as reflector, client(reflector) as sock:
        packet = signed(0) + stamp_tlv.pack([stamp_tlv.direct_measurement_wanted(1)])
        answer = asked(sock, packet)
        assert reflector.counters.integrity_failures == 1
    (tlv,) = stamp_tlv.unpack(answer[112:])
    assert tlv.flags & INTEGRITY
    assert tlv.value == stamp_tlv.direct_measurement_wanted(1).value
    assert stamp_auth.signing_key(answer, [KEY]) == KEY, "the base packet is answered all the same"


def test_an_answer_sent_back_is_not_answered_again() -> None:
    with running(authenticated=True, keys=(KEY,)) as reflector, client(reflector) as sock:
        answer = asked(sock, signed(0))
        assert silent(sock, answer)
        assert reflector.counters.already_reflected == 1


# Configuration


def key_file(folder: Path, name: str = "key", key: bytes = KEY, mode: int = 0o600) -> str:
    path = folder / name
    path.write_bytes(key + b"\n")
    path.chmod(mode)
    return str(path)


def test_a_configured_reflector_reads_its_keys_when_it_is_made(tmp_path: Path) -> None:
    section = StampSection(
        host="127.0.0.1",
        port=0,
        mode="authenticated",
        key_files=[key_file(tmp_path), key_file(tmp_path, "b")],
    )
    reflector = Reflector.of(section, SystemClock())
    reflector.start()
    try:
        assert "authenticated, stateful" in reflector.description
        with client(reflector) as sock:
            asked(sock, signed(0))
    finally:
        reflector.close()


def test_the_command_obeys_the_configuration(tmp_path: Path) -> None:
    """``nhip server`` with an authenticated reflector answers what is signed and nothing else."""
    port = closed_port(socket.SOCK_DGRAM)
    config = tmp_path / "server.toml"
    config.write_text(
        'format = "nhip-server/1"\n[file_transfer]\nhosts = ["127.0.0.1"]\nport = 0\n'
        f'[stamp]\nhost = "127.0.0.1"\nport = {port}\nmode = "authenticated"\n'
        f'key_files = ["{key_file(tmp_path)}"]\n'
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "nhip.cli", "server", "--config", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = next(text for text in process.stderr if "STAMP reflector" in text)
        assert ", authenticated, stateful" in line
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", port))
            assert silent(sock, request(0, 112))
            assert stamp_auth.signing_key(asked(sock, signed(0)), [KEY]) == KEY
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_a_key_that_others_can_read_or_that_is_too_short_is_refused(tmp_path: Path) -> None:
    open_to_all = StampSection(mode="authenticated", key_files=[key_file(tmp_path, mode=0o644)])
    with pytest.raises(ConfigError, match="can be read by others") as raised:
        open_to_all.settings()
    assert "chmod 600" in raised.value.remedy
    short = StampSection(mode="authenticated", key_files=[key_file(tmp_path, "short", b"fifteen-octets!")])
    with pytest.raises(ConfigError, match="15 characters") as raised:
        short.settings()
    assert "nhip key" in raised.value.remedy
