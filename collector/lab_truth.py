"""What a lab knows of its accesses, read from the JSON file it writes.

::

    {"accesses": [{"probe_id": "hn-alpha-fixed", "delay_seconds": 0.012, "loss_ratio": 0.01,
                   "down_bits_per_second": 80e6, "up_bits_per_second": 40e6}]}

Any of the four figures may be absent; other keys are ignored.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from nhip.status import Truth
from nhip.wire import Ratio

log = logging.getLogger("nhip.collector.lab_truth")

_Positive = Annotated[float, Meta(ge=0, le=1e13)]


class _Access(msgspec.Struct, frozen=True, kw_only=True):
    probe_id: str
    delay_seconds: _Positive | None = None
    loss_ratio: Ratio | None = None
    down_bits_per_second: _Positive | None = None
    up_bits_per_second: _Positive | None = None


class _Lab(msgspec.Struct, frozen=True, kw_only=True):
    accesses: list[_Access]


def read_truth(path: Path) -> dict[str, Truth]:
    """Truth by probe; empty, with a line in the log, while the file is absent or no such JSON."""
    try:
        lab = msgspec.json.decode(path.read_bytes(), type=_Lab)
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        log.warning("no truth of the lab: %s", error, extra={"path": str(path)})
        return {}
    return {
        access.probe_id: Truth(
            delay_seconds=access.delay_seconds,
            loss_ratio=access.loss_ratio,
            down_bits_per_second=access.down_bits_per_second,
            up_bits_per_second=access.up_bits_per_second,
        )
        for access in lab.accesses
    }
