"""ICMP echo packets: literal octets, scapy's checksums, and messages that are none."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nhip.errors import WireError
from probes.packets import icmp
from probes.packets.icmp import Echo
from tests.lab.scapy_oracle import ask


def test_the_checksum_of_the_rfc_example() -> None:
    # RFC 1071 section 3: the words 0001 f203 f4f5 f6f7 sum to ddf2.
    assert icmp.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF ^ 0xDDF2


def test_the_checksum_of_nothing_and_of_an_odd_octet() -> None:
    assert icmp.checksum(b"") == 0xFFFF
    assert icmp.checksum(b"\x01") == icmp.checksum(b"\x01\x00") == 0xFEFF


@given(octets=st.binary(max_size=300))
def test_a_message_with_its_checksum_sums_to_zero(octets: bytes) -> None:
    even = octets + bytes(len(octets) % 2)
    assert icmp.checksum(even + icmp.checksum(even).to_bytes(2, "big")) == 0


@given(data=st.binary(min_size=1, max_size=80), position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_message_with_one_octet_changed_is_not_whole(data: bytes, position: int, flip: int) -> None:
    octets = bytearray(icmp.pack_request(Echo(1, 2, data), 4))
    assert icmp.is_whole(bytes(octets))
    octets[position % len(octets)] ^= flip
    assert not icmp.is_whole(bytes(octets))


@pytest.mark.parametrize("ip_version", [4, 6])
def test_of_a_number_above_16_bits_the_lowest_stand_in_the_header(ip_version: int) -> None:
    assert icmp.pack_request(Echo(1, 70_000, b""), ip_version)[6:8] == (70_000 - 65_536).to_bytes(2, "big")


def test_an_ipv4_request_is_these_octets() -> None:
    assert icmp.pack_request(Echo(0x1234, 0x0005, b"abc"), 4) == bytes.fromhex("0800 2164 1234 0005 616263")


def test_an_ipv6_request_leaves_the_checksum_to_the_kernel() -> None:
    assert icmp.pack_request(Echo(0x1234, 5, b"abc"), 6) == bytes.fromhex("8000 0000 1234 0005 616263")


def test_scapy_builds_the_same_octets() -> None:
    rng = random.Random(792)
    echoes = [
        Echo(rng.getrandbits(16), rng.getrandbits(16), rng.randbytes(rng.choice([0, 1, 8, 55, 56, 1472])))
        for _ in range(40)
    ]
    built = ask(*[("icmp_build", (echo.identifier, echo.sequence, echo.data.hex())) for echo in echoes])
    assert [icmp.pack_request(echo, 4) for echo in echoes] == [bytes.fromhex(octets) for octets in built]


@pytest.mark.parametrize("ip_version", [4, 6])
def test_a_reply_and_a_quoted_request_are_told_apart(ip_version: int) -> None:
    request = icmp.pack_request(Echo(7, 9, b"data"), ip_version)
    reply = bytes([{4: 0, 6: 129}[ip_version]]) + request[1:]
    assert icmp.unpack_request(request, ip_version) == Echo(7, 9, b"data")
    assert icmp.unpack_reply(reply, ip_version) == Echo(7, 9, b"data")
    assert icmp.unpack_reply(request, ip_version) is None
    assert icmp.unpack_request(reply, ip_version) is None


@pytest.mark.parametrize("octets", [b"", b"\x00", bytes(7)])
def test_what_is_cut_short_is_a_wire_error(octets: bytes) -> None:
    for unpack in (icmp.unpack_reply, icmp.unpack_request):
        with pytest.raises(WireError, match="no ICMP echo"):
            unpack(octets, 4)


def test_an_ip_header_with_options_is_stripped_whole() -> None:
    message = icmp.pack_request(Echo(1, 2, b""), 4)
    assert icmp.strip_ip_header(b"\x45" + bytes(19) + message) == message
    assert icmp.strip_ip_header(b"\x4f" + bytes(59) + message) == message
    with pytest.raises(WireError, match="IPv4 header"):
        icmp.strip_ip_header(b"")


@given(octets=st.binary(max_size=100), ip_version=st.sampled_from([4, 6]))
def test_octets_at_random_are_an_echo_or_a_wire_error(octets: bytes, ip_version: int) -> None:
    for unpack in (icmp.unpack_reply, icmp.unpack_request):
        try:
            unpack(octets, ip_version)
        except WireError:
            assert len(octets) < icmp.HEADER_OCTETS
