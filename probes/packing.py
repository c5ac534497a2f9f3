"""How a record lies in the spool: deflated (RFC 1950) against a dictionary of what every record says.

A record is 3 kB of which most are keys and words that the one before had too; alone it shrinks to half,
with a preset dictionary to a fifth. The first octet says which dictionary was used. A dictionary is never
changed, only followed by a better one under the next number, so that an old spool stays readable; a spool
from before packing holds plain JSON, whose first octet is a brace.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from nhip.errors import WireError

_LEVEL = 6
_PLAIN = b"{"[0]
_CURRENT = 2
# No record is larger; what claims to be, is damage.
_LARGEST_OCTETS = 64 * 1024 * 1024

_SUMMARY = '":{"unit":"seconds","count":10,"min":0.000,"mean":0.00,"p50":0.00,"p95":0.0,"p99":0.0,"max":0.0'
# Rare things first: what stands nearer to the end of a dictionary costs least to refer to.
_DICTIONARY_1 = (
    '"singletons":[{"sequence":0,"outcome":"lost","sent":{"wall_ns":17,"mono_ns":1,"source":"user"},"received":'
    '{"wall_ns":17,"mono_ns":1,"source":"kernel"},"delay_ns":1,"delay_source":"kernel","transfer":null,'
    '"phases":[],"detail":""},{"sequence":1,"outcome":"received","sent":{"wall_ns":17'
    'late","not_sent","corrupt","truncated","refused","ECONNREFUSED"unreachable","reset","rejected","busy",'
    '"tls_failed","not_resolved","SYN repeated 1 times"ICMP type 3 code 1"HTTP 301 to https://www.'
    '"notes":["1 foreign answers ignored"],"name resolved by this host\'s resolver, not over wwan0"],'
    '"notes":["transfer 1 down: round trip 20000 us, 0 segments sent again by this host","transfer 2 up: '
    'round trip 20000 us, 0 segments sent again by this host"],"a transfer ended before duration_seconds: '
    'expected_bits_per_second is too low"]'
    '"on_net","off_net","international","3g","5g","4g","indoor","outdoor_fixed","outdoor_moving",'
    '"speeds":[{"direction":"down","transfers":1,"octets":25000000,"mean_bits_per_second":10000000.0,'
    '"rates_bits_per_second":[10000000.0]},{"direction":"up","transfers":1,"octets":25000000,'
    '"mean_bits_per_second":10000000.0,"rates_bits_per_second":[10000000.0]}],'
    '"phases_seconds":{"dns":0.00,"tcp":0.00,"tls":0.00,"first_byte":0.00,"transfer":0.00},"timestamp_source":'
    '"user","clock":{"synchronised":false,"estimated_error_ns":16000000000,"maximum_error_ns":16000000000},'
    '"interface":"wwan0","address":"2001:db8::1","source_address":"192.0.2.1","octets_sent":'
    '"parameters":{"count":1,"direction":"both","interval_seconds":1.0,"size_octets":25000000,"streams":1,'
    '"tls":true,"verify_certificate":true,"duration_seconds":2.0,"expected_bits_per_second":100000000.0,'
    '"congestion_control":"cubic","server_congestion_control":"bbr","schedule_interval_seconds":900.0},'
    '"parameters":{"count":3,"interval_seconds":1.0,"method":"GET","path":"/","tls":true,'
    '"verify_certificate":true,"schedule_interval_seconds":300.0},"notes":[]}'
    '"parameters":{"count":10,"interval_seconds":1.0,"name":"www.example.vn","record_type":"AAAA",'
    '"mixed_case":false,"schedule_interval_seconds":120.0},"notes":[]}'
    '"kind":"file_transfer","method":{"name":"file_transfer","version":"1"},"software_version":'
    '"kind":"http","method":{"name":"http1","version":"1"},"software_version":'
    '"kind":"dns","method":{"name":"dns_udp","version":"1"},"software_version":'
    '"kind":"tcp_connect","method":{"name":"tcp_connect","version":"1"},"software_version":'
    '"kind":"stamp","method":{"name":"stamp_unauthenticated","version":"1"},"software_version":'
    '"type_p":{"protocol":"icmpv6","ip_version":6,"size_octets":null,"dscp":0,"destination_port":443},'
    '"type_p":{"protocol":"tcp","ip_version":4,"size_octets":0,"dscp":0,"destination_port":8862},'
    '"type_p":{"protocol":"udp","ip_version":4,"size_octets":44,"dscp":0,"destination_port":862},'
    '"loss_ratio":null,"loss_interval":null,"round_trip_delay_seconds":null,"ipdv_seconds":null,'
    '"pdv_seconds":null,"speeds":[],"phases_seconds":{"tcp":0.0'
    # One record of the commonest kind, whole.
    '{"schema_version":1,"record_id":"01a0-7b-8-9-a","probe_id":"hn-alpha-fixed-01","epoch":"0123456789abcdef",'
    '"sequence":1,"kind":"icmp","method":{"name":"icmp_echo","version":"1"},"software_version":"0.1.0",'
    '"target":{"id":"server-","host":"measure.","port":null,"target_class":"domestic"},"access":{"operator":"",'
    '"technology":"fixed","province":"01","environment":"fixed"},"type_p":{"protocol":"icmp","ip_version":4,'
    '"size_octets":64,"dscp":0,"destination_port":null},"outcome":"received","started_wall_ns":17,'
    '"duration_ns":1,"loss_threshold_seconds":2.0,"counters":{"sent":20,"received":20,"lost":0,"failed":0,'
    '"busy":0,"late":0,"duplicate":0,"reordered":0,"not_sent":0},"loss_ratio":0.0,'
    '"loss_interval":[0.0,0.1611251580528194,0.2775327998628892],'
    f'"round_trip_delay_seconds{_SUMMARY}}},"ipdv_seconds{_SUMMARY}}},"pdv_seconds{_SUMMARY}}},'
    '"speeds":[],"phases_seconds":{},"timestamp_source":"kernel","clock":{"synchronised":true,'
    '"estimated_error_ns":1000,"maximum_error_ns":100000},"interface":null,"address":"192.0.2.1",'
    '"source_address":null,"octets_sent":1280,"octets_received":1680,"parameters":{"count":20,'
    '"interval_seconds":0.5,"spacing":"poisson","schedule_interval_seconds":60.0},"notes":[]}'
).encode()
# Records grew: percentiles, the probe's own timing, definitions. One real record of every kind, the commonest
# last, with its long numbers taken out; made from a loopback run of each kind.
_DICTIONARY_2 = (Path(__file__).parent / "dictionaries" / "2.txt").read_bytes()
DICTIONARIES: dict[int, bytes] = {1: _DICTIONARY_1, 2: _DICTIONARY_2}


def pack(body: bytes) -> bytes:
    """A record's JSON, packed with the current dictionary."""
    packer = zlib.compressobj(_LEVEL, zdict=DICTIONARIES[_CURRENT])
    return bytes([_CURRENT]) + packer.compress(body) + packer.flush()


def unpack(packed: bytes) -> bytes:
    """A record's JSON, octet for octet as it was packed; WireError when it is damaged."""
    if packed[:1] == bytes([_PLAIN]):
        return packed
    dictionary = DICTIONARIES.get(packed[0]) if packed else None
    if dictionary is None:
        raise WireError("no record: packed in a way this version does not know")
    unpacker = zlib.decompressobj(zdict=dictionary)
    try:
        body = unpacker.decompress(packed[1:], _LARGEST_OCTETS)
    except zlib.error as error:
        raise WireError(f"no record: damaged on the disk ({error})") from error
    if not unpacker.eof:
        raise WireError("no record: cut short on the disk")
    return body
