"""Keys are spread over four shards, which are asked in one round trip and answer independently."""

import asyncio

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching import (
    BacklogFull,
    Cap,
)
from app.caching.write_behind.shard import number
from tests.caching.write_behind.views import Views


async def test_additions_to_all_shards_succeed_although_redis_has_forgotten_the_script(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    pages = {f"page-{place}": place for place in range(1, 21)}
    assert {number(page) for page in pages} == {0, 1, 2, 3}
    await redis.script_flush()
    await views.counters.add_many(pages)
    await views.counters.add_many(pages)
    await views.carry()
    assert await sql.fetchval("SELECT sum(views) FROM page_views") == 2 * sum(pages.values())
    assert await sql.fetchval("SELECT count(*) FROM page_views") == 20


async def test_a_full_shard_refuses_only_its_own_additions(
    views: Views, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All shards are asked in one round trip, and each gives its own answer."""
    monkeypatch.setattr(views.counters._acceptance, "cap", Cap(entries=4, bytes=2**27))
    full, *others = (next(page for page in map(str, range(100)) if number(page) == shard) for shard in range(4))
    await views.counters.add(full, 1)
    answers = await asyncio.gather(*(views.counters.add(page, 1) for page in (full, *others)), return_exceptions=True)
    assert isinstance(answers[0], BacklogFull)
    assert not any(isinstance(answer, BaseException) for answer in answers[1:])
