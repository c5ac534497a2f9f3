"""Many datagrams for one system call: order, content and refusals as the kernel has them."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import numpy as np
import pytest

from probes.engine.batch import MOST_AT_ONCE, ReceiveBlock, SendBlock, sockaddr


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind(("127.0.0.1", 0))
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        yield sender, receiver


def block_to(receiver: socket.socket, count: int) -> SendBlock:
    block = SendBlock(count, 12, socket.AF_INET)
    block.data.view(np.uint64)[:, 0] = np.arange(count)
    row = bytearray(sockaddr(socket.AF_INET, "127.0.0.1"))
    row[2:4] = receiver.getsockname()[1].to_bytes(2, "big")
    block.addresses[:] = np.frombuffer(bytes(row), np.uint8)
    return block


def test_datagrams_arrive_in_order_with_their_content(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = pair
    assert block_to(receiver, 200).send(sender.fileno(), 10, 150) == 150
    block = ReceiveBlock(100, 64, 64)
    numbers: list[int] = []
    while count := block.receive(receiver.fileno()):
        assert (block.lengths[:count] == 12).all()
        numbers += block.data.view(np.uint64)[:count, 0].tolist()
    assert numbers == list(range(10, 160))


def test_more_than_one_call_takes_are_sent_in_several(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = pair
    wanted = MOST_AT_ONCE + 100
    assert block_to(receiver, wanted).send(sender.fileno(), 0, wanted) == wanted


def test_what_was_taken_before_a_refusal_is_told_and_then_the_refusal(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    sender, receiver = pair
    block = block_to(receiver, 10)
    block.addresses[6, 4:8] = (255, 255, 255, 255)  # broadcast, which this socket may not
    assert block.send(sender.fileno(), 0, 10) == 6
    with pytest.raises(PermissionError):
        block.send(sender.fileno(), 6, 4)
    assert block.send(sender.fileno(), 7, 3) == 3


def test_nothing_waiting_is_no_error_and_another_failure_is(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    _sender, receiver = pair
    block = ReceiveBlock(4, 64, 64)
    assert block.receive(receiver.fileno()) == 0
    with pytest.raises(OSError) as caught:
        block.receive(-1)
    assert caught.value.errno == errno.EBADF


def test_room_before_the_data_moves_it_onto_a_word(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = pair
    block_to(receiver, 3).send(sender.fileno(), 0, 3)
    block = ReceiveBlock(4, 64, 64, lead=4)
    assert block.receive(receiver.fileno()) == 3
    assert block.data[:3, 4].tolist() == [0, 1, 2]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_row_is_what_the_kernel_itself_writes(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one, socket.socket(family, socket.SOCK_DGRAM) as other:
        one.bind((host, 0))
        other.bind((host, 0))
        other.sendto(b"x", one.getsockname())
        block = ReceiveBlock(1, 16, 64)
        assert block.receive(one.fileno()) == 1
        mine = bytearray(sockaddr(family, host))
        mine[2:4] = other.getsockname()[1].to_bytes(2, "big")
        assert block.addresses[0].tobytes() == bytes(mine)
