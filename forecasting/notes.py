"""What a reader must know beside the numbers, in both languages of Nhịp."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Note:
    """One remark, for example how many gaps were filled or why another model answered."""

    en: str
    vi: str
