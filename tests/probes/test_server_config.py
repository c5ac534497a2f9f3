"""The configuration of the measurement server: what it refuses, by key and value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nhip import config
from nhip.errors import ConfigError
from probes.server_config import MeasurementServerConfig

GOOD: dict[str, Any] = {
    "format": "nhip-server/1",
    "file_transfer": {"hosts": ["127.0.0.1", "::1"]},
    "stamp": {"host": "::"},
    "dns": {"zone": "measure.example.vn.", "ipv4": "192.0.2.1"},
    "metrics": {"listen": "127.0.0.1:9465"},
}


def convert(**tables: Any) -> MeasurementServerConfig:
    return config.convert(GOOD | tables, MeasurementServerConfig, "server.toml", environment={})


def test_a_good_file_is_taken() -> None:
    found = convert()
    assert found.metrics is not None
    assert found.metrics.address == ("127.0.0.1", 9465)
    assert config.convert({"format": "nhip-server/1"}, MeasurementServerConfig, "s").metrics is None


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({"stamp": {"host": "measure.example.vn"}}, "server.toml:stamp.host: 'measure.example.vn': is no"),
        ({"stamp": {"host": ""}}, "server.toml:stamp.host: ''"),
        ({"stamp": {"host": "[::]"}}, "server.toml:stamp.host: '[::]'"),
        ({"file_transfer": {"hosts": ["::", "x"]}}, "server.toml:file_transfer.hosts[1]: 'x'"),
        ({"dns": {"zone": "a.vn", "hosts": ["localhost"]}}, "server.toml:dns.hosts[0]: 'localhost'"),
        ({"dns": {"zone": "measure..vn"}}, "server.toml:dns.zone: 'measure..vn': has an empty"),
        ({"dns": {"zone": ".vn"}}, "server.toml:dns.zone: '.vn'"),
        ({"dns": {"zone": "."}}, "server.toml:dns.zone: '.'"),
        ({"dns": {"zone": "a" * 64 + ".vn"}}, "server.toml:dns.zone"),
        (
            {"file_transfer": {"certificate_file": "/absent/c.pem", "key_file": "/absent/k.pem"}},
            "server.toml:file_transfer.certificate_file: '/absent/c.pem': is no file",
        ),
        ({"stamp": {"networks": ["192.0.2.1/24"]}}, "server.toml:stamp.networks[0]: '192.0.2.1/24'"),
        ({"stamp": {"networks": ["::/0", "x"]}}, "server.toml:stamp.networks[1]: 'x'"),
        ({"stamp": {"mode": "authenticated"}}, "server.toml:stamp.key_files: is missing"),
        (
            {"stamp": {"key_files": ["/absent/key"]}},
            "server.toml:stamp.key_files[0]: '/absent/key': is no file",
        ),
        ({"stamp": {"key_files": ["a", "b", "c"]}}, "server.toml:stamp.key_files"),
        ({"stamp": {"replay_window_packets": -1}}, "server.toml:stamp.replay_window_packets: -1"),
        ({"metrics": {"listen": "[::]:9465"}}, "server.toml:metrics.listen: '[::]:9465': can be reached"),
        ({"metrics": {"lisen": "x"}}, "server.toml:metrics.lisen"),
    ],
)
def test_a_wrong_file_is_refused_by_key_and_value(tables: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        convert(**tables)
    assert says in raised.value.what
    assert raised.value.remedy


def test_a_session_must_be_remembered_for_twice_as_long_as_a_time_may_be_off(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("0123456789abcdef\n")
    key.chmod(0o600)
    table = {"mode": "authenticated", "key_files": [str(key)], "freshness_seconds": 60.0}
    with pytest.raises(ConfigError, match=r"stamp\.session_idle_seconds: 119") as raised:
        convert(stamp=table | {"session_idle_seconds": 119.0})
    assert "write 120 or more" in raised.value.remedy
    found = convert(stamp=table | {"session_idle_seconds": 120.0})
    assert found.stamp is not None
    settings = found.stamp.settings()
    assert (settings.keys, settings.authenticated) == ((b"0123456789abcdef",), True)


def test_a_key_file_that_is_missing_is_named_and_one_that_is_there_is_taken(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    certificate.write_text("")
    table = {"certificate_file": str(certificate), "key_file": str(key)}
    with pytest.raises(ConfigError, match=r"file_transfer\.key_file"):
        convert(file_transfer=table)
    key.write_text("")
    assert convert(file_transfer=table)
