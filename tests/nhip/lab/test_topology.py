"""Topologies are laid out without clashes, and files with mistakes are refused by key."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import msgspec
import pytest

from nhip.errors import LabError
from nhip.lab.effects import expected_loss_ratio
from nhip.lab.plan import Plan, pair_plan, plan_of
from nhip.lab.topology import default_topology, load_topology

FILE = """
seed = 7
[international.down]
delay_seconds = 0.05
[[operators]]
id = "one"
[[operators.access]]
technology = "4g"
[operators.access.down]
delay_seconds = 0.02
jitter_distribution = "normal"
jitter_seconds = 0.003
rate_bits_per_second = 30e6
[operators.access.up]
trace = "up.trace"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "lab.toml"
    path.write_text(text)
    return path


def test_the_default_lab_has_three_operators_with_three_hosts_each() -> None:
    plan = plan_of(default_topology())
    assert {link.id for link in plan.links} == {
        f"{operator}-{access}" for operator in ("alpha", "beta", "gamma") for access in ("fixed", "4g", "3g")
    } | {"international"}
    assert len(plan.hosts) == 3 + 3 + 9


def test_no_two_interfaces_share_an_address_or_a_name_in_one_host() -> None:
    interfaces = plan_of(default_topology()).interfaces()
    for field in ("ipv4", "ipv6"):
        assert len({getattr(interface, field) for interface in interfaces}) == len(interfaces)
    assert len({(interface.host, interface.name) for interface in interfaces}) == len(interfaces)
    assert all(len(interface.name) <= 15 for interface in interfaces)


def test_every_address_is_kept_for_measuring_or_for_documentation() -> None:
    for interface in plan_of(default_topology()).interfaces():
        assert ip_address(interface.ipv4) in ip_network("198.18.0.0/15")
        assert ip_address(interface.ipv6) in ip_network("2001:db8::/32")


def test_the_default_links_lie_apart() -> None:
    links = [link for link in plan_of(default_topology()).links if link.operator]
    assert len({link.down.delay_seconds for link in links}) == len(links)
    assert any(expected_loss_ratio(link.down) == 0 for link in links)
    assert any(expected_loss_ratio(link.down) > 0.01 for link in links)


def test_a_trace_can_drive_the_4g_download_of_gamma(tmp_path: Path) -> None:
    link = plan_of(default_topology(trace_4g=tmp_path / "trace")).link("gamma-4g")
    assert (link.down.trace, link.down.rate_bits_per_second) == (str(tmp_path / "trace"), None)


def test_a_file_gives_the_topology_it_describes(tmp_path: Path) -> None:
    topology = load_topology(write(tmp_path, FILE))
    plan = plan_of(topology)
    link = plan.link("one-4g")
    assert (topology.seed, link.down.rate_bits_per_second, link.down.jitter_seconds) == (7, 30e6, 0.003)
    assert link.up.trace == str(tmp_path / "up.trace")
    assert plan.link("international").down.delay_seconds == 0.05


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            ("delay_seconds = 0.02", "delay_second = 0.02"),
            r"delay_second.*operators\[0\].access\[0\].down",
        ),
        (("delay_seconds = 0.02", "delay_seconds = -1"), "delay_seconds is -1"),
        (('"4g"', '"4h"'), "technology"),
        (('id = "one"', 'id = "server"'), "cannot be an operator's id"),
        (('id = "one"', 'id = "One"'), "cannot be an operator's id"),
        (("seed = 7", "seed = "), "no TOML"),
        (("seed = 7", "seeds = 7"), "seeds"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path: Path, change: tuple[str, str], complaint: str) -> None:
    with pytest.raises(LabError, match=complaint) as caught:
        load_topology(write(tmp_path, FILE.replace(*change)))
    assert caught.value.remedy


def test_two_operators_of_one_name_are_refused(tmp_path: Path) -> None:
    second = '[[operators]]\nid = "one"\naccess = [{technology = "3g"}]\n'
    with pytest.raises(LabError, match="'one' is there twice"):
        load_topology(write(tmp_path, FILE + second))


def test_a_plan_survives_json() -> None:
    for plan in (plan_of(default_topology()), pair_plan()):
        assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan
