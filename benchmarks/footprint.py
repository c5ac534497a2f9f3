"""What a probe host pays: megabytes installed and seconds to start.

    python -m benchmarks.footprint

Installs ``nhip[probe]`` from this checkout into a fresh virtual environment (packages come from the index
pip is set up for), measures how much it grew, and times ``nhip --help`` and ``nhip check`` there. The peer
in the same run is an empty interpreter, which is the floor.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
RUNS = 9


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "venv"
        venv.create(environment, with_pip=True)
        before = megabytes(environment)
        python = environment / "bin" / "python"
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", f"{CHECKOUT}[probe]"],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        after = megabytes(environment)
        print(f"empty environment {before:.1f} MB; nhip[probe] adds {after - before:.1f} MB")
        floor = seconds([str(python), "-c", "pass"])
        nhip = str(environment / "bin" / "nhip")
        probe = str(CHECKOUT / "configs" / "probe.toml")
        for name, command in (
            ("nhip --help", [nhip, "--help"]),
            ("nhip check probe.toml", [nhip, "check", probe]),
        ):
            found = seconds(command)
            print(f"{name:<22} {found:.3f} s, {found / floor:.1f} times an empty interpreter ({floor:.3f} s)")


def megabytes(folder: Path) -> float:
    """Apparent size of all files below `folder`, in 10^6 octets."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def seconds(command: list[str]) -> float:
    """Median wall time of `command`, started from another folder so that only what is installed counts."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=tempfile.gettempdir())
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    sys.exit(main())
