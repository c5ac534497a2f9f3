"""What only some kinds of test tell: of a call, a certificate, a resolver, a reflector, the line itself."""

from __future__ import annotations

from collections.abc import Sequence

from collector.export.latency import Families
from nhip.measurement import Direction
from nhip.voice_codecs import voice_codecs
from nhip.wire import Record

_VOICE = {
    "mos": "nhip_probe_last_mean_opinion_score",
    "r_factor": "nhip_probe_last_voice_rating_score",
    "mouth_to_ear_seconds": "nhip_probe_last_mouth_to_ear_seconds",
    "rtp_jitter_seconds": "nhip_probe_last_rtp_jitter_seconds",
    "jitter_buffer_discard_ratio": "nhip_probe_last_jitter_buffer_discard_ratio",
    "voice_loss_ratio": "nhip_probe_last_voice_loss_ratio",
}


_PLAIN = {
    "certificate_expiry_timestamp": "nhip_probe_last_certificate_expiry_timestamp_seconds",
    "dns_truncated_answers": "nhip_probe_last_dns_cut_answers",
    "dns_server_instances": "nhip_probe_last_dns_server_instances",
    "reflector_send_lag_seconds": "nhip_probe_last_reflector_send_lag_seconds",
    "reflector_clock_offset_seconds": "nhip_probe_last_reflector_clock_offset_seconds",
}
# Statistics whose name holds what the metric has as a label.
_NAMED = {
    "tcp_connect_ipv4": ("nhip_probe_last_tcp_connect_seconds", "4"),
    "tcp_connect_ipv6": ("nhip_probe_last_tcp_connect_seconds", "6"),
    "interface_octets_sent": ("nhip_probe_last_interface_bytes", Direction.UP.value),
    "interface_octets_received": ("nhip_probe_last_interface_bytes", Direction.DOWN.value),
}
# Statistics that come once for each of a closed list.
_LISTED = {
    "dns_answers": (
        "nhip_probe_last_dns_answers",
        frozenset({"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"}),
    ),
    "directional_reordered_ratio": (
        "nhip_probe_last_directional_reordered_ratio",
        frozenset(direction.value for direction in Direction),
    ),
}
_TLS_VERSIONS = frozenset({"TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"})
_HTTP_VERSIONS = frozenset({"1.0", "1.1", "2", "3"})


def add_findings(families: Families, labels: Sequence[str], record: Record) -> None:
    """One sample for each statistic that has a metric.

    A probe's free text never becomes a label: what is not in a closed list is left out.
    """
    for statistic in record.statistics:
        name = statistic.name
        if name in _PLAIN and not statistic.of:
            families.add(_PLAIN[name], labels, statistic.value)
        elif name in _NAMED and not statistic.of:
            metric, label = _NAMED[name]
            families.add(metric, (*labels, label), statistic.value)
        elif name in _LISTED and statistic.of in _LISTED[name][1]:
            families.add(_LISTED[name][0], (*labels, statistic.of), statistic.value)
    tls, http = record.facts.get("tls_version", ""), record.facts.get("http_version", "")
    agreed = (tls if tls in _TLS_VERSIONS else "", http if http in _HTTP_VERSIONS else "")
    if any(agreed):
        families.add("nhip_probe_last_tls_info", (*labels, *agreed), 1)
    if record.kind == "voice":
        _add_voice(families, labels, record)


def _add_voice(families: Families, labels: Sequence[str], record: Record) -> None:
    """By codec and direction, both known ones."""
    codecs = {codec.id for codec in voice_codecs().codec}
    for statistic in record.statistics:
        codec, _, direction = statistic.of.partition("/")
        metric = _VOICE.get(statistic.name)
        if metric is not None and codec in codecs and direction in set(Direction):
            families.add(metric, (*labels, codec, direction), statistic.value)
