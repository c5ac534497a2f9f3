"""Units of traffic: text such as ``10Gbit/s`` in, bit/s or bytes out, and back for people.

Inside there are two units only: ``bit/s`` for a rate and ``bytes`` for the volume carried in one step.
Prefixes are decimal, as on every interface: 1 Gbit/s is 1,000,000,000 bit/s.
"""

from __future__ import annotations

import math
import re
from typing import Literal

from nhip.errors import SeriesError

Unit = Literal["bit/s", "bytes"]

BITS_PER_BYTE = 8

_PREFIXES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_RATE = re.compile(r"^(?P<prefix>[kKMGT]?)(?P<stem>bit/s|bits/s|bps|b/s|byte/s|bytes/s|B/s|Bps)$")
_VOLUME = re.compile(r"^(?P<prefix>[kKMGT]?)(?P<stem>byte|bytes|B)$")
_QUANTITY = re.compile(r"^(?P<number>[0-9]+(?:[.,][0-9]+)?)\s*(?P<unit>[A-Za-z/]+)$")
_KNOWN = "bit/s, kbit/s, Mbit/s, Gbit/s, Tbit/s, byte/s, bytes, kB, MB, GB"


def parse_unit(text: str) -> tuple[Unit, float]:
    """The inside unit that `text` names and the factor that leads to it.

    ``Mbit/s`` gives ``("bit/s", 1e6)``, ``byte/s`` ``("bit/s", 8.0)``, ``GB`` ``("bytes", 1e9)``.
    SeriesError when the unit is unknown: a number whose unit is guessed is a wrong number.
    """
    wanted = text.strip()
    if match := _RATE.match(wanted):
        bits = BITS_PER_BYTE if match["stem"] in {"byte/s", "bytes/s", "B/s", "Bps"} else 1
        return "bit/s", _PREFIXES[match["prefix"]] * bits
    if match := _VOLUME.match(wanted):
        return "bytes", _PREFIXES[match["prefix"]]
    raise SeriesError(f"the unit {text!r} is unknown", remedy=f"use one of {_KNOWN}")


def parse_rate(text: str) -> float:
    """Bits per second of a text such as ``10Gbit/s``, ``400 Mbit/s`` or ``1,5Tbit/s``.

    SeriesError when it is no positive rate: a bare number or a volume says nothing about a link.
    """
    match = _QUANTITY.match(text.strip())
    remedy = "write a number and its unit, for example 10Gbit/s or 400Mbit/s"
    if match is None:
        raise SeriesError(f"{text!r} is no rate", remedy=remedy)
    unit, factor = parse_unit(match["unit"])
    number = float(match["number"].replace(",", "."))
    if unit != "bit/s":
        raise SeriesError(f"{text!r} is a volume and no rate", remedy=remedy)
    if number <= 0 or not math.isfinite(number):
        raise SeriesError(f"{text!r} is not above zero", remedy=remedy)
    return number * factor


def scale_for(largest: float, unit: Unit) -> tuple[float, str]:
    """Divisor and word that show numbers up to `largest` in few digits, for example ``(1e9, "Gbit/s")``."""
    words = {
        "bit/s": ("bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"),
        "bytes": ("B", "kB", "MB", "GB", "TB"),
    }
    for power in (4, 3, 2, 1):
        if largest >= 1000.0**power:
            return 1000.0**power, words[unit][power]
    return 1.0, words[unit][0]
