"""Keys are read from files of their owner only and never cross a network in clear text."""

from __future__ import annotations

from pathlib import Path

import pytest

from nhip.errors import ConfigError
from nhip.secret import read_key_file, refuse_clear_text


def key_file(folder: Path, content: str, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_text(content, encoding="ascii")
    path.chmod(mode)
    return path


def test_the_key_is_the_files_one_line(tmp_path: Path) -> None:
    assert read_key_file(key_file(tmp_path, "s3cret\n")) == "s3cret"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_file_others_can_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        read_key_file(key_file(tmp_path, "s3cret", mode))


@pytest.mark.parametrize("content", ["", "\n", "two words", "a\nb"])
def test_a_file_without_a_key_is_refused_and_its_content_not_shown(tmp_path: Path, content: str) -> None:
    with pytest.raises(ConfigError, match="holds no key") as caught:
        read_key_file(key_file(tmp_path, content))
    assert content.strip() == "" or content not in str(caught.value)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent"):
        read_key_file(tmp_path / "absent")


@pytest.mark.parametrize(
    "url", ["https://collector.example.vn", "http://127.0.0.1:8642", "http://[::1]/", "http://localhost"]
)
def test_encrypted_or_local_is_fine(url: str) -> None:
    refuse_clear_text(url, "--publish")


@pytest.mark.parametrize(
    "url", ["http://collector.example.vn", "http://192.0.2.1", "http://127.0.0.1.example.vn"]
)
def test_clear_text_to_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="unencrypted"):
        refuse_clear_text(url, "--publish")
