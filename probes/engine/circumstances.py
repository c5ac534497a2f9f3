"""What all records of one agent have in common. Without numpy, for the agent makes it."""

from __future__ import annotations

from dataclasses import dataclass

from nhip.measurement import Access
from nhip.statistics import OWN_ERROR_SHARE


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """Whose records they are, and by which line they were measured."""

    probe_id: str
    access: Access
    interface: str | None = None
    source_address: str | None = None
    own_error_share: float = OWN_ERROR_SHARE
