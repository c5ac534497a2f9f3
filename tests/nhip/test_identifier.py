"""Identifiers: the layout of RFC 9562 version 7, and that they sort by time."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nhip.identifier import made_at_wall_ns, uuid7

wall_times = st.integers(min_value=0, max_value=2**63 - 1)


def test_the_milliseconds_stand_where_the_rfc_example_has_them() -> None:
    # RFC 9562 appendix A.6: 2022-02-22 14:22:22.00 GMT-5 gives 017F22E2-79B0-7...
    made = uuid7(1_645_557_742_000 * 1_000_000)
    assert str(made).startswith("017f22e2-79b0-7")


@given(wall_ns=wall_times)
def test_version_and_variant_are_right_and_the_time_comes_back(wall_ns: int) -> None:
    made = uuid7(wall_ns)
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made_at_wall_ns(made) == wall_ns // 1_000_000 * 1_000_000


@given(first=wall_times, later=wall_times)
def test_identifiers_made_at_least_a_microsecond_apart_sort_by_time(first: int, later: int) -> None:
    if later - first >= 1_000:
        assert uuid7(first) < uuid7(later)
        assert str(uuid7(first)) < str(uuid7(later))


def test_the_fraction_of_a_millisecond_follows_the_version() -> None:
    assert (uuid7(999_999).int >> 64) & 0xFFF == 4095
    assert (uuid7(500_000).int >> 64) & 0xFFF == 2048
    assert (uuid7(1_000_000).int >> 64) & 0xFFF == 0


def test_a_thousand_identifiers_of_one_instant_differ() -> None:
    assert len({uuid7(1) for _ in range(1000)}) == 1000


def test_the_time_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version 7"):
        made_at_wall_ns(uuid.UUID("00000000-0000-4000-8000-000000000000"))
