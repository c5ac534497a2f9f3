"""Requests are right on the wire, and replies are read out of whatever comes."""

from __future__ import annotations

import socket
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.engine.batch import ReceiveBlock, SendBlock
from probes.engine.packet import PacketFormat
from probes.packets import icmp


def written(form: PacketFormat, count: int = 5) -> tuple[SendBlock, np.ndarray]:
    block = SendBlock(count, form.packet_octets, form.family)
    form.prepare(block)
    numbers = np.arange(count)
    nonces = form.write(block, 70_000 + numbers, numbers * 3, numbers + 2)
    return block, nonces


def received(form: PacketFormat, messages: list[bytes]) -> ReceiveBlock:
    block = ReceiveBlock(len(messages), 400, 64, lead=form.lead)
    for row, message in enumerate(messages):
        block.data[row, form.lead : form.lead + len(message)] = np.frombuffer(message, np.uint8)
        block.lengths[row] = len(message)
    return block


def reply_to(block: SendBlock, row: int, octets: int) -> bytearray:
    reply = bytearray(block.data[row, :octets].tobytes())
    reply[0] = 0
    return reply


@given(st.integers(32, 200))
def test_a_raw_request_has_the_checksum_another_implementation_computes(size: int) -> None:
    form = PacketFormat(socket.AF_INET, size, raw=True)
    block, _nonces = written(form)
    for row in range(5):
        octets = block.data[row, : form.packet_octets].tobytes()
        assert icmp.checksum(octets) == 0  # RFC 1071: over a right packet the sum is zero
        echo = icmp.unpack_request(octets, 4)
        assert echo is not None
        assert echo.sequence == (70_000 + row) & 0xFFFF


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_requests_are_laid_out_as_drawn(family: socket.AddressFamily) -> None:
    form = PacketFormat(family, 40, raw=False)
    block, nonces = written(form)
    octets = block.data[4, :48].tobytes()
    assert octets[0] == (8 if family is socket.AF_INET else 128)
    assert struct.unpack_from("!Q", octets, 16) == (70_004,)
    assert octets[8:16] == form.token.tobytes()
    assert octets[24:32] == nonces[4].tobytes()
    assert struct.unpack_from("!II", octets, 32) == (12, 6)


def test_every_probe_has_a_nonce_of_its_own() -> None:
    form = PacketFormat(socket.AF_INET, 56, raw=False)
    _block, nonces = written(form, 1000)
    assert len(set(nonces.tolist())) == 1000


@pytest.mark.parametrize("raw", [False, True])
def test_replies_are_read_back(raw: bool) -> None:
    form = PacketFormat(socket.AF_INET, 56, raw=raw)
    block, nonces = written(form)
    header = bytes([0x45]) + bytes(19) if raw else b""
    messages = [header + bytes(reply_to(block, row, 64)) for row in range(5)]
    messages.insert(2, header + b"\0" + bytes(63))  # no token
    messages.insert(4, header + b"\0")  # cut short
    replies = form.read(received(form, messages), len(messages))
    assert replies.foreign == 2
    assert replies.serials.tolist() == [70_000, 70_001, 70_002, 70_003, 70_004]
    assert replies.nonces.tolist() == nonces.tolist()
    assert replies.targets.tolist() == [0, 3, 6, 9, 12]
    assert replies.intact.all()


def test_ipv4_options_before_a_reply_are_stepped_over() -> None:
    form = PacketFormat(socket.AF_INET, 56, raw=True)
    block, _nonces = written(form, 2)
    plain, long = reply_to(block, 0, 64), reply_to(block, 1, 64)
    messages = [bytes([0x45]) + bytes(19) + bytes(plain), bytes([0x47]) + bytes(27) + bytes(long)]
    replies = form.read(received(form, messages), 2)
    assert replies.serials.tolist() == [70_000, 70_001]
    assert replies.intact.tolist() == [True, True]


@given(st.integers(40, 63))
def test_any_changed_octet_of_the_pattern_makes_a_reply_broken(place: int) -> None:
    form = PacketFormat(socket.AF_INET, 56, raw=False)
    block, _nonces = written(form, 1)
    reply = reply_to(block, 0, 64)
    reply[place] ^= 1
    assert form.read(received(form, [bytes(reply)]), 1).intact.tolist() == [False]


def test_quotations_tell_the_serial_or_sixteen_bits_of_it_or_nothing() -> None:
    form = PacketFormat(socket.AF_INET, 56, raw=False)
    block, _nonces = written(form, 1)
    request = block.data[0, :64].tobytes()
    assert form.quoted_serial(request) == 70_000
    assert form.quoted_serial(request[:24]) == 70_000
    assert form.quoted_serial(request[:23]) is None
    assert form.quoted_sequence(request[:8]) == 70_000 & 0xFFFF
    other = PacketFormat(socket.AF_INET, 56, raw=False)
    assert other.quoted_serial(request) is None
    assert other.quoted_sequence(request) is None
