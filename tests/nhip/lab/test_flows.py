"""New payload bytes by sequence number, out of packets built by hand."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from nhip.lab.flows import Half, TcpFlows, addresses_of, join_halves, reverse_key
from nhip.lab.report import FlowHalf

SYN, ACK = 0x02, 0x10


def segment(sequence: int, size: int, *, flags: int = ACK, port: int = 40000, six: bool = False) -> bytes:
    """An IP packet with `size` bytes of TCP payload."""
    tcp = struct.pack("!HHIIBBHHH", port, 80, sequence & 0xFFFFFFFF, 0, 5 << 4, flags, 1000, 0, 0)
    if six:
        addresses = bytes(15) + b"\1" + bytes(15) + b"\2"
        return struct.pack("!IHBB", 6 << 28, 20 + size, 6, 64) + addresses + tcp + bytes(size)
    addresses = bytes([1, 1, 1, 1]) + bytes([2, 2, 2, 2])
    header = struct.pack("!BBHHHBBH", 0x45, 0, 40 + size, 0, 0, 64, 6, 0)
    return header + addresses + tcp + bytes(size)


def half_of(*packets: bytes) -> Half:
    flows = TcpFlows()
    for number, packet in enumerate(packets, start=1):
        flows.delivered(packet, number * 1000, number * 1000 - 1)
    ((_, half),) = flows.since(0)
    return half


def test_bytes_in_order_are_counted_once() -> None:
    half = half_of(segment(99, 0, flags=SYN), segment(100, 50), segment(150, 50))
    assert (half.payload_bytes, half.repeated_bytes, half.from_client) == (100, 0, True)
    assert (half.first_payload_ns, half.first_payload_bytes, half.last_payload_ns) == (2000, 50, 3000)


def test_a_retransmission_counts_as_repeated() -> None:
    half = half_of(segment(100, 50), segment(100, 50), segment(125, 50))
    assert (half.payload_bytes, half.repeated_bytes) == (75, 75)


def test_a_hole_is_filled_later_and_counted_then() -> None:
    half = half_of(segment(0, 10), segment(30, 10), segment(10, 10), segment(15, 20))
    assert (half.payload_bytes, half.repeated_bytes, half.holes) == (40, 10, None)


def test_sequence_numbers_wrap() -> None:
    half = half_of(
        segment(2**32 - 51, 0, flags=SYN), segment(2**32 - 50, 100), segment(50, 100), segment(0, 50)
    )
    assert (half.payload_bytes, half.repeated_bytes) == (200, 50)


def test_ipv6_is_counted_alike() -> None:
    half = half_of(segment(0, 0, flags=SYN, six=True), segment(1, 1000, six=True))
    assert half.payload_bytes == 1000


def test_a_new_syn_on_old_ports_is_a_new_connection() -> None:
    half = half_of(segment(0, 0, flags=SYN), segment(1, 500), segment(7000, 0, flags=SYN), segment(7001, 20))
    assert half.payload_bytes == 20


def test_a_repeated_syn_is_the_same_connection() -> None:
    half = half_of(segment(0, 0, flags=SYN), segment(0, 0, flags=SYN), segment(1, 20))
    assert (half.payload_bytes, half.opened_ns) == (20, 1000)


def test_fragments_and_stumps_are_left_out() -> None:
    flows, whole = TcpFlows(), segment(0, 100)
    flows.delivered(whole[:6] + b"\x00\x10" + whole[8:], 1, 1)
    flows.delivered(whole[:30], 1, 1)
    assert flows.since(0) == []


def test_the_oldest_of_too_many_flows_is_forgotten_and_counted() -> None:
    flows = TcpFlows()
    for port in range(1025):
        flows.delivered(segment(0, 10, port=port + 1), port, port)
    assert (len(flows.since(0)), flows.forgotten) == (1024, 1)


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), min_size=1, max_size=40))
def test_any_order_counts_each_byte_once(pieces: list[tuple[int, int]]) -> None:
    start = pieces[0][0]
    flows = TcpFlows()
    flows.delivered(segment(start - 1 + 2**31, 0, flags=SYN), 0, 0)
    for offset, size in pieces:
        flows.delivered(segment(offset + 2**31, size), 1, 1)
    ((_, half),) = flows.since(0)
    wanted = {byte for offset, size in pieces for byte in range(offset, offset + size) if byte >= start}
    assert half.payload_bytes == len(wanted)
    before = sum(max(0, min(start, offset + size) - offset) for offset, size in pieces)
    assert half.payload_bytes + half.repeated_bytes + before >= sum(size for _, size in pieces)


def test_the_two_halves_of_a_connection_are_joined() -> None:
    flows = TcpFlows()
    flows.delivered(segment(0, 10), 5, 5)
    ((key, _),) = flows.since(0)
    assert addresses_of(key) == ("1.1.1.1", 40000, "2.2.2.2", 80)
    assert addresses_of(reverse_key(key)) == ("2.2.2.2", 80, "1.1.1.1", 40000)
    up, down = FlowHalf(7, 10, 0, 1, 2, None), FlowHalf(9, 500, 0, 1, 2, 3.0)
    (flow,) = join_halves({key: up}, {reverse_key(key): down}, {key: True})
    assert (flow.client, flow.client_port, flow.server_port, flow.up, flow.down) == (
        "1.1.1.1",
        40000,
        80,
        up,
        down,
    )
    assert flow.opened_wall_ns == 7
    (other,) = join_halves({key: up}, {}, {key: False})
    assert (other.client_port, other.server_port, other.down) == (80, 40000, None)


def test_the_first_arrival_is_when_the_payload_reached_the_link_not_when_it_was_delivered() -> None:
    half = half_of(segment(99, 0, flags=SYN), segment(100, 50), segment(150, 50))
    assert (half.first_arrival_ns, half.first_payload_ns) == (1999, 2000)


def test_a_lost_first_copy_has_arrived_all_the_same() -> None:
    flows = TcpFlows()
    flows.delivered(segment(99, 0, flags=SYN), 10, 5)
    flows.lost(segment(100, 50), 20)
    flows.delivered(segment(100, 50), 300, 290)
    ((_, half),) = flows.since(0)
    assert (half.first_arrival_ns, half.first_payload_ns) == (20, 300)
