"""Concurrent additions share one call, and each gets its own answer."""

import asyncio
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching import (
    TotalOverflow,
)
from tests.caching.write_behind.views import Views, stored


async def test_concurrent_additions_share_a_call(views: Views, redis: Redis, sql: asyncpg.Connection) -> None:
    await redis.config_resetstat()
    await asyncio.gather(*(views.counters.add("home", 1) for _ in range(1000)))
    assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] < 10
    while await views.flusher.round():
        pass
    assert await stored(sql) == 1000


async def test_more_keys_than_one_entry_may_have_become_several_entries(views: Views, sql: asyncpg.Connection) -> None:
    await views.counters.add_many({f"page {place}": place for place in range(1, 5001)})
    backlog = await views.counters.backlog()
    assert backlog.amount == 5000 * 5001 // 2
    assert backlog.oldest is not None
    while await views.flusher.round():
        pass
    assert await sql.fetchval("SELECT sum(views) FROM page_views") == 5000 * 5001 // 2
    backlog = await views.counters.backlog()
    assert (backlog.amount, backlog.oldest) == (0, None)


UNCOUNTABLE: list[tuple[str, Any, str | None, str]] = [
    ("home", -1, None, "-1 cannot be added: an amount must be 1 to 9,007,199,254,740,991."),
    ("home", 0, None, "0 cannot be added"),
    ("home", 2**53, None, "9,007,199,254,740,992 cannot be added"),
    ("home", 1.5, None, "1.5 is not an amount: it must be a whole number."),
    ("home", True, None, "True is not an amount: it must be a whole number."),
    ("", 1, None, "'' is not a key"),
    ("a\0b", 1, None, "is not a key"),
    ("\ud800", 1, None, "is not a key"),
    ("home", 1, "a b", "'a b' is not an idempotency key"),
    ("home", 1, "\ud800", "is not an idempotency key"),
]


@pytest.mark.parametrize(("page", "count", "key", "says"), UNCOUNTABLE)
async def test_an_invalid_amount_or_key_is_refused_before_it_joins_other_additions(
    views: Views, sql: asyncpg.Connection, page: str, count: Any, key: str | None, says: str
) -> None:
    """All of them come in one tick, and would share one call."""
    assert await views.total() == 0
    many = {"home": 1, "news": 1, page: count}
    answers = await asyncio.gather(
        views.counters.add("home", 5),
        views.counters.add(page, count, key),
        views.counters.add_many(many, key),
        return_exceptions=True,
    )
    assert answers[0] == 5
    for error in answers[1:]:
        assert isinstance(error, ValueError)
        assert says in str(error)
    await views.carry()
    assert (await stored(sql), await stored(sql, "news")) == (5, 0)
    assert await sql.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_only_the_addition_that_overflows_a_total_is_refused(
    views: Views,
) -> None:
    assert await views.total() == 0
    answers = await asyncio.gather(
        *(views.counters.add("home", count) for count in (1, 2**53 - 2, 1, 1)), return_exceptions=True
    )
    assert [isinstance(answer, TotalOverflow) for answer in answers] == [False, True, False, False]
    assert await views.total() == 3
