"""The configuration file: what is refused, and how it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from collector.collector_config import CollectorConfig, declared_bits_per_second, profile_path
from nhip import config
from nhip.errors import ConfigError
from nhip.measurement import Direction, Technology
from tests.lab.collectors import PROBE

BASE: dict[str, object] = {"format": "nhip-collector/1", "data_dir": "/var/lib/x"}


def convert(**changes: object) -> CollectorConfig:
    return config.convert({**BASE, **changes}, CollectorConfig, "collector.toml")


def test_the_shipped_example_is_valid_and_its_profile_is_found() -> None:
    settings = config.load(config.shipped("collector.toml"), CollectorConfig)
    assert settings.listen.host == "127.0.0.1"
    path = profile_path(settings)
    assert path is not None and path.name == "qcvn34_2022.toml" and path.exists()
    assert config.check(path) == "nhip-regulation/1"
    assert profile_path(convert()) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prob": [PROBE]}, "did you mean 'probe'"),
        ({"probe": [PROBE, PROBE]}, "probe.id: 'p1': appears 2 times"),
        ({"probe": [PROBE, {**PROBE, "id": "p2"}]}, "probe.key_sha256"),
        ({"probe": [{**PROBE, "key_sha256": "secret"}]}, "key_sha256"),
        ({"probe": [{**PROBE, "technologies": []}]}, "technologies"),
        ({"probe": [{**PROBE, "id": "P 1"}]}, "id"),
        ({"probe": [{**PROBE, "metrics_url": "file:///etc/passwd"}]}, "metrics_url"),
        ({"probe": [{**PROBE, "metrics_url": "http://u:p@h/"}]}, "metrics_url"),
        ({"listen": {"host": "0.0.0.0"}}, "read_key_sha256"),  # noqa: S104
        ({"listen": {"host": "::"}}, "read_key_sha256"),
        ({"listen": {"host": "collector.example"}}, "read_key_sha256"),
        ({"listen": {"port": 70000}}, "listen.port"),
        ({"declared": [{"operator": "a", "technology": "fixed"}] * 2}, "declared"),
        ({"limits": {"connection": 5}}, "did you mean 'connections'"),
        ({"format": "nhip-collector/2"}, "format"),
        ({"store": {"name": "dleta"}}, "store.name: 'dleta' is no known store; did you mean 'delta'?"),
        ({"probe": [{**PROBE, "province": "02"}]}, "probe.province: p1: '02' was no province code"),
        ({"probe": [{**PROBE, "province": "hanoi"}]}, "probe.province: p1: 'hanoi'"),
        ({"regulation": "regulations/qcvn99.toml"}, "regulation: 'regulations/qcvn99.toml'"),
        ({"regulation": "regulations/capacity_rules.toml"}, "is no regulation profile"),
        ({"store": {"remember_ids_days": 1}}, "store.remember_ids_days"),
        ({"limits": {"record_age_seconds": 30 * 86_400}}, "store.remember_ids_days"),
        ({"limits": {"epochs_per_batch": 65}}, "limits.epochs_per_batch"),
    ],
)
def test_a_wrong_file_is_refused_by_its_key(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        convert(**changes)
    assert said in str(caught.value)
    assert str(caught.value).startswith("collector.toml:")


def test_reading_from_elsewhere_needs_a_key_or_a_word() -> None:
    assert convert(listen={"host": "0.0.0.0", "public_reading": True})  # noqa: S104
    assert convert(listen={"host": "192.0.2.1", "read_key_sha256": "0" * 64})
    assert convert(listen={"host": "127.5.5.5"}) and convert(listen={"host": "::1"})


def test_a_lines_own_declared_speed_comes_before_the_operators() -> None:
    settings = convert(
        probe=[{**PROBE, "declared_down_bits_per_second": 3e8}],
        declared=[
            {
                "operator": "alpha",
                "technology": "fixed",
                "down_bits_per_second": 1e8,
                "up_bits_per_second": 5e7,
            }
        ],
    )
    [probe] = settings.probes
    assert declared_bits_per_second(settings, probe, Technology.FIXED, Direction.DOWN) == 3e8
    assert declared_bits_per_second(settings, probe, Technology.FIXED, Direction.UP) == 5e7
    assert declared_bits_per_second(settings, probe, Technology.MOBILE_4G, Direction.UP) is None


def test_a_profile_by_path_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(config.shipped("regulations/qcvn34_2022.toml").read_bytes())
    settings = convert(regulation=str(tmp_path / "mine.toml"))
    assert profile_path(settings) == tmp_path / "mine.toml"
