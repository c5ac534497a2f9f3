"""A certificate authority for tests, run by the openssl command: any name, any dates.

The test is skipped where openssl is absent.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.lab.certificate import Certificate

_CONFIGURATION = """
[ca]
default_ca = authority
[authority]
dir = {folder}
database = {folder}/index.txt
serial = {folder}/serial
new_certs_dir = {folder}
certificate = {folder}/authority.pem
private_key = {folder}/authority.key
default_md = sha256
policy = anything
unique_subject = no
copy_extensions = copy
[anything]
commonName = optional
organizationName = optional
countryName = optional
"""

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class CertificateAuthority:
    """Issues certificates below one root, whose file is `root`."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "authority.pem"
        self._folder = folder
        self._numbers = itertools.count(1)

    def start(self) -> None:
        """Make the root's key and certificate."""
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed (Debian package openssl)")
        (self._folder / "ca.cnf").write_text(_CONFIGURATION.format(folder=self._folder))
        (self._folder / "index.txt").write_text("")
        (self._folder / "serial").write_text("01\n")
        _openssl(
            *("req", "-x509", *_KEY, "-days", "2", "-subj", "/CN=Test Root/O=Nhip Lab"),
            *("-keyout", str(self._folder / "authority.key"), "-out", str(self.root)),
        )

    def issue(
        self,
        *alternatives: str,
        subject: str = "/CN=localhost",
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> Certificate:
        """A certificate for `alternatives` such as ``DNS:localhost`` and ``IP:::1``, good now by default."""
        number = next(self._numbers)
        now = datetime.now(UTC)
        made = Certificate(self._folder / f"leaf{number}.pem", self._folder / f"leaf{number}.key")
        request = self._folder / f"leaf{number}.csr"
        names = ("-addext", f"subjectAltName={','.join(alternatives)}") if alternatives else ()
        _openssl(
            *("req", "-new", *_KEY, "-subj", subject, *names, "-utf8"),
            *("-keyout", str(made.key), "-out", str(request)),
        )
        _openssl(
            *(
                "ca",
                "-batch",
                "-notext",
                "-preserveDN",
                "-config",
                str(self._folder / "ca.cnf"),
                "-in",
                str(request),
            ),
            *("-startdate", _date(not_before or now - timedelta(hours=1))),
            *("-enddate", _date(not_after or now + timedelta(days=1))),
            *("-out", str(made.certificate)),
        )
        return made


def _date(when: datetime) -> str:
    return when.strftime("%Y%m%d%H%M%SZ")


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)
