"""Token buckets: a second's worth at once, then the rate, for each client by itself."""

from __future__ import annotations

import pytest

from probes.token_bucket import TokenBuckets

SECOND = 1_000_000_000


def taken(buckets: TokenBuckets, client: str, now_ns: int, tries: int = 100) -> int:
    return sum(buckets.take(client, now_ns) for _ in range(tries))


@pytest.mark.parametrize(("per_second", "at_once"), [(10, 10), (1, 1), (0.5, 1)])
def test_a_client_gets_a_second_s_worth_at_once_and_at_least_one(per_second: float, at_once: int) -> None:
    assert taken(TokenBuckets(per_second, most_clients=9), "a", 0) == at_once


def test_what_was_taken_comes_back_at_the_rate_and_never_more_than_the_depth() -> None:
    buckets = TokenBuckets(10, most_clients=9)
    assert taken(buckets, "a", 0) == 10
    assert taken(buckets, "a", SECOND // 2) == 5
    assert taken(buckets, "a", 100 * SECOND) == 10


def test_one_client_s_flood_costs_another_nothing() -> None:
    buckets = TokenBuckets(10, most_clients=9)
    taken(buckets, "a", 0)
    assert taken(buckets, "b", 0) == 10


def test_the_longest_silent_client_is_forgotten_first() -> None:
    buckets = TokenBuckets(1, most_clients=2)
    for client in ("a", "b", "a", "c"):
        buckets.take(client, 0)
    assert not buckets.take("a", 0), "a was remembered"
    assert buckets.take("b", 0), "b was forgotten, so it begins anew"


def test_a_client_has_no_second_s_worth_again_by_having_its_bucket_pushed_out() -> None:
    """Invented clients fill the table in between; the twin has room for all of them."""
    crowded, roomy = TokenBuckets(100, most_clients=50), TokenBuckets(100, most_clients=50_000)
    for buckets in (crowded, roomy):
        assert taken(buckets, "a", 0, tries=200) == 100
        for number in range(60):
            taken(buckets, f"invented-{number}", 0, tries=1)
    assert taken(crowded, "a", 0, tries=200) == 1
    assert taken(roomy, "a", 0, tries=200) == 0, "it is remembered, and has used up what it had"
    assert taken(roomy, "new", 0, tries=200) == 100
    assert taken(crowded, "new", 0, tries=200) == 1


def test_a_client_that_came_to_a_full_table_earns_as_any_other() -> None:
    buckets = TokenBuckets(100, most_clients=1)
    buckets.take("a", 0)
    buckets.take("b", 0)
    assert taken(buckets, "b", 1_000_000_000, tries=200) == 100
