"""The numbers of echo requests beyond the 16 bits of the header, and replies whose octets were changed."""

from __future__ import annotations

import socket
import struct

import pytest

from nhip.measurement import Stamp, StampSource
from probes.icmp import _Session
from probes.ledger import Answer
from probes.network import Address
from probes.packets.icmp import checksum
from probes.timestamping import Datagram

AT = Stamp(0, 0, StampSource.USER)
V4, V6 = Address(socket.AF_INET, ("192.0.2.1", 0)), Address(socket.AF_INET6, ("2001:db8::1", 0, 0, 0))
REPLY = {4: 0, 6: 129}
KINDS = [(V4, False), (V4, True), (V6, False), (V6, True)]


def reply(request: bytes, address: Address, *, raw: bool, spoil: int | None = None) -> Datagram:
    """What the far end makes of a request; `spoil` is the octet of it that the way changes."""
    message = bytearray(request)
    message[0], message[2:4] = REPLY[address.ip_version], b"\0\0"
    if address.ip_version == 4:
        message[2:4] = checksum(bytes(message)).to_bytes(2, "big")
    if spoil is not None:
        message[spoil] ^= 0x01
    header = b"\x45" + bytes(19) if raw and address.ip_version == 4 else b""
    return Datagram(header + bytes(message), address.sockaddr, AT)


def rewritten(request: bytes, sequence: int) -> bytes:
    """A request whose header has another number, its checksum made anew."""
    bare = request[:2] + bytes(2) + request[4:6] + struct.pack("!H", sequence) + request[8:]
    return bare[:2] + checksum(bare).to_bytes(2, "big") + bare[4:]


@pytest.mark.parametrize(("address", "raw"), KINDS)
@pytest.mark.parametrize("sequence", [0, 65_535, 65_536, 70_000, 199_999])
def test_a_reply_is_matched_by_the_whole_number(address: Address, raw: bool, sequence: int) -> None:
    session = _Session(address, raw, 12)
    for earlier in (4_464, 69_999):
        session.request(earlier, AT)
    request = session.request(sequence, AT)
    assert request[6:8] == struct.pack("!H", sequence % 65_536)
    assert session.answer(reply(request, address, raw=raw)) == Answer(sequence)
    assert session.quoted(request) == sequence


def test_the_header_s_number_alone_would_be_two_packets() -> None:
    """The twin: 70,000 and 4,464 have the same header, and only the data tells them apart."""
    session = _Session(V4, True, 12)
    one, other = session.request(4_464, AT), session.request(70_000, AT)
    assert one[4:8] == other[4:8]
    assert session.answer(reply(one, V4, raw=True)) == Answer(4_464)
    assert session.answer(reply(other, V4, raw=True)) == Answer(70_000)


@pytest.mark.parametrize("octets", [8, 12, 19])
def test_a_short_quote_settles_only_a_packet_that_it_cannot_be_mistaken_for(octets: int) -> None:
    session = _Session(V4, True, 56)
    early = session.request(4_464, AT)[:octets]
    assert session.quoted(early) == 4_464, "no other was sent with that number in its header"
    late = session.request(70_000, AT)[:octets]
    assert session.quoted(early) is None
    assert session.quoted(late) is None
    only = session.request(69_000, AT)[:octets]
    assert session.quoted(only) is None, "3,464 was sent too, for all it knows"
    assert session.quoted(session.request(10_000, AT)[:octets]) == 10_000, "75,536 was not"


def test_a_quote_of_a_number_never_sent_settles_nothing() -> None:
    session = _Session(V4, True, 56)
    session.request(3, AT)
    other = _Session(V4, True, 56)
    other._identifier, other._token = session._identifier, session._token
    assert session.quoted(other.request(4, AT)) is None
    assert session.quoted(other.request(4, AT)[:8]) is None


@pytest.mark.parametrize("spoil", [1, 2, 4, 20, 50, 63])
def test_a_raw_ipv4_reply_that_was_changed_on_the_way_is_not_whole(spoil: int) -> None:
    """Changed in code, checksum, identifier or data: corrupt, or not recognised as ours at all."""
    session = _Session(V4, True, 56)
    found = session.answer(reply(session.request(7, AT), V4, raw=True, spoil=spoil))
    if spoil == 4:
        assert found is None
    else:
        assert found == Answer(7, intact=False)


@pytest.mark.parametrize("spoil", [6, 7, 18, 19])
def test_a_reply_with_one_of_its_two_numbers_damaged_is_nobody_s(spoil: int) -> None:
    session = _Session(V4, True, 56)
    session.request(6, AT)
    assert session.answer(reply(session.request(7, AT), V4, raw=True, spoil=spoil)) is None


def test_a_far_end_that_writes_another_number_into_the_header_gives_a_corrupt_reply() -> None:
    session = _Session(V4, False, 56)
    request = rewritten(session.request(7, AT), 8)
    assert session.answer(reply(request, V4, raw=False)) == Answer(7, intact=False)


def test_the_kernel_has_looked_at_the_checksum_of_every_other_socket() -> None:
    """The twin: what a datagram socket gets is not looked at again, so only our own octets tell."""
    session = _Session(V4, False, 56)
    assert session.answer(reply(session.request(7, AT), V4, raw=False, spoil=2)) == Answer(7)
