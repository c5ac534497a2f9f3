"""The configuration files of the demo, written as an operator would write them."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What a lab of one kind can carry, and on which ports."""

    kinds: tuple[str, ...]
    """The kinds of test whose truth the lab knows."""
    delay_kind: str
    """The kind the page shows delay and loss of."""
    truth_kinds: tuple[str, ...]
    """What the lab's recorder calls the packets of that kind."""
    stamp_port: int
    dns: bool
    international: bool
    server_binds_address: bool
    """The server listens on its lab address only; else on every address of its namespace."""


# ICMP is shown because the far end's kernel answers it at once: what the lab sees at the access host's
# interface is then the network's delay alone. A STAMP reply also waited in the reflector, which STAMP takes
# out and the lab does not.
NAMESPACES = Variant(
    kinds=("stamp", "icmp", "tcp_connect", "dns", "http", "file_transfer"),
    delay_kind="icmp",
    truth_kinds=("icmp",),
    stamp_port=862,
    dns=True,
    international=True,
    server_binds_address=False,
)
# Without privilege: no ICMP between loopback hosts, no port below 1024, and a relay accepts a TCP connection
# before the far end has, so that a connect time would say nothing.
LOOPBACK = Variant(
    kinds=("stamp", "http", "file_transfer"),
    delay_kind="stamp",
    truth_kinds=("stamp", "udp"),
    stamp_port=8862,
    dns=False,
    international=False,
    server_binds_address=True,
)

PROVINCES = {"alpha": "01", "beta": "48", "gamma": "79"}  # Hà Nội, Đà Nẵng, Hồ Chí Minh
DEFAULT_PROVINCE = "01"
FILE_PORT = 8862
DNS_PORT = 53
DNS_NAME = "measure.nhip.test"
# Of one STAMP or ICMP test.
PACKETS = 20
# What the page sums up.
WINDOW_SECONDS = 3600.0
# QCVN 34 wants a file of at least two seconds. The accesses of one operator take turns with theirs.
TRANSFER_SECONDS = 2.0
# What an operator of the demo declares, as a share of the lab's configured rate.
DECLARED_SHARE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessPlan:
    """One access host of the lab and what its probe needs to know."""

    host: str
    operator: str
    technology: str
    province: str
    down_bits_per_second: float
    up_bits_per_second: float
    server_address: str
    international_address: str | None
    variant: Variant
    key: str


def new_key() -> str:
    """A probe key: 32 random octets."""
    return secrets.token_urlsafe(32)


def sha256(key: str) -> str:
    """What the collector's file holds of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def collector_toml(
    folder: Path, accesses: Sequence[AccessPlan], *, port: int, forecast_key: str, truth_file: Path
) -> str:
    """The collector's file: its probes, what their operators declare, where the lab's truth lies."""
    lines = [
        'format = "nhip-collector/1"',
        f"data_dir = {_text(folder / 'collector')}",
        f"truth_file = {_text(truth_file)}",
        'regulation = "regulations/qcvn34_2022.toml"',
        f"forecast_key_sha256 = {_text(sha256(forecast_key))}",
        "[listen]",
        f"port = {port}",
        f"unix_socket = {_text(folder / 'collector.sock')}",
        "[status]",
        f"window_seconds = {WINDOW_SECONDS}",
        "silent_seconds = 30.0",
        f"delay_kinds = [{_text(accesses[0].variant.delay_kind)}]",
    ]
    for access in accesses:
        lines += [
            "[[probe]]",
            f"id = {_text(access.host)}",
            f"key_sha256 = {_text(sha256(access.key))}",
            f"operator = {_text(access.operator)}",
            f"province = {_text(access.province)}",
            f"technologies = [{_text(access.technology)}]",
            "[[declared]]",
            f"operator = {_text(access.operator)}",
            f"technology = {_text(access.technology)}",
            f"down_bits_per_second = {access.down_bits_per_second * DECLARED_SHARE}",
            f"up_bits_per_second = {access.up_bits_per_second * DECLARED_SHARE}",
        ]
    return "\n".join(lines) + "\n"


def server_toml(address: str, variant: Variant) -> str:
    """The measurement server's file; `address` is its own in the lab."""
    lines = ['format = "nhip-server/1"', "[file_transfer]", f"port = {FILE_PORT}"]
    if variant.server_binds_address:
        lines.append(f"hosts = [{_text(address)}]")
    lines += ["[stamp]", f"port = {variant.stamp_port}"]
    if variant.server_binds_address:
        lines.append(f"host = {_text(address)}")
    if variant.dns:
        lines += ["[dns]", f"port = {DNS_PORT}", 'zone = "nhip.test"', f"ipv4 = {_text(address)}"]
    return "\n".join(lines) + "\n"


def probe_toml(folder: Path, access: AccessPlan) -> str:
    """One probe's file: packets every few seconds, files in turn with the other probes of the lab."""
    lines = [
        'format = "nhip-probe/1"',
        f"probe_id = {_text(access.host)}",
        "[access]",
        f"operator = {_text(access.operator)}",
        f"technology = {_text(access.technology)}",
        f"province = {_text(access.province)}",
        "[collector]",
        f"url = {_text('unix://' + str(folder / 'collector.sock'))}",
        f"key_file = {_text(folder / f'{access.host}.key')}",
        "interval_seconds = 2.0",
        "[spool]",
        f"path = {_text(folder / 'spool' / f'{access.host}.sqlite')}",
        "[network]",
        "ip_version = 4",
        f"exclusive_lock = {_text(folder / f'{access.operator}.lock')}",
    ]
    targets = {
        "server": None,
        "reflector": access.variant.stamp_port,
        "files": FILE_PORT,
        "resolver": DNS_PORT,
    }
    for target, target_port in targets.items():
        lines += ["[[target]]", f"id = {_text(target)}", f"host = {_text(access.server_address)}"]
        lines += [f"port = {target_port}"] if target_port else []
        lines += ['target_class = "domestic"']
    if access.international_address:
        lines += ["[[target]]", 'id = "international"', f"host = {_text(access.international_address)}"]
        lines += ['target_class = "international"']
    packets = f"{{ count = {PACKETS}, interval_seconds = 0.05 }}"
    size = f'{{ direction = "both", duration_seconds = {TRANSFER_SECONDS}, expected_bits_per_second = %s }}'
    tasks = [
        ("stamp", "reflector", 3, packets),
        ("icmp", "server", 3, packets),
        ("icmp", "international", 6, packets),
        ("tcp_connect", "files", 10, "{ count = 3, interval_seconds = 0.2 }"),
        ("dns", "resolver", 10, f'{{ name = "{DNS_NAME}", count = 3, interval_seconds = 0.2 }}'),
        ("http", "files", 10, "{ tls = false, count = 1 }"),
        # Long enough for every access to have its turn before any has its second.
        ("file_transfer", "files", 60, size % access.down_bits_per_second),
    ]
    for kind, target, interval, settings in tasks:
        if kind not in access.variant.kinds or (
            target == "international" and not access.international_address
        ):
            continue
        lines += [
            "[[task]]",
            f"kind = {_text(kind)}",
            f"target = {_text(target)}",
            f"interval_seconds = {interval}",
            'arrival = "fixed"\nstart_at_once = true' if kind == "file_transfer" else 'arrival = "poisson"',
            f"settings = {settings}",
        ]
    return "\n".join(lines) + "\n"


def _text(value: object) -> str:
    """A TOML basic string; JSON's escapes are a subset of TOML's."""
    return json.dumps(str(value), ensure_ascii=False)
