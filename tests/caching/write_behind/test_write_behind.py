"""What was accepted is counted once, whatever is lost or dies on the way.

The rules are C6 and C8: a batch has a guard, and counts once in a flush; the ledger records batches, not entries. C1
to C5 and C7 are the rules of totals (`test_totals.py`).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.exceptions import TimeoutError as RedisTimeout

from app.caching import (
    BacklogFull,
    Batch,
    Cache,
    CacheUnavailable,
    Cap,
    WriteBehind,
    made_at,
    open_redis,
)
from app.caching.write_behind import flushing, gathering
from app.caching.write_behind.shard import GROUP
from tests.caching.write_behind.views import HOME, Views, batch_of, stored


async def test_an_addition_whose_answer_was_lost_counts_once(
    views: Views, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C6. The script has run · its answer is lost · the call is repeated"""
    assert await views.total() == 0
    accept = views.counters._acceptance._script
    answers = 0

    async def lossy(*, keys: Sequence[str], args: Sequence[object]) -> object:
        nonlocal answers
        answer = await accept(keys=keys, args=args)
        answers += 1
        if answers == 1:
            raise RedisTimeout("The answer is lost.")
        return answer

    monkeypatch.setattr(views.counters._acceptance, "_script", lossy)
    assert await views.counters.add("home", 5) == 5
    assert answers == 2
    await views.flusher.round()
    assert await stored(sql) == 5
    assert await views.total() == 5


async def test_two_entries_of_one_batch_in_one_flush_count_once(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """C6. Redis was restored from a copy, and the batch accepted again: the ledger only knows earlier transactions."""
    await views.counters.add("home", 5)
    entries: Any = await redis.xrange(HOME.stream)
    await redis.xadd(HOME.stream, entries[0][1])
    assert await views.flusher.round() == 2
    assert await stored(sql) == 5


async def test_entries_of_a_dead_flusher_are_claimed_and_counted_once(
    views: Views, redis: Redis, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C8. One flusher dies before COMMIT, and one after it: a third one claims all their entries."""
    monkeypatch.setattr(gathering, "ABANDONED", timedelta(milliseconds=1))
    await views.counters.add("home", 3)
    await views.new_flusher()._gathering.read(0.001)
    await views.counters.add("home", 4)
    await views.commit_without_acknowledging()
    heir = views.new_flusher()
    while await redis.xlen(HOME.stream):
        await heir.round()
    assert await stored(sql) == 7
    assert await views.total() == 7
    assert (await redis.xpending(HOME.stream, GROUP))["pending"] == 0


async def test_a_repeated_idempotency_key_counts_once_for_each_key(views: Views, sql: asyncpg.Connection) -> None:
    await asyncio.gather(*(views.counters.add("home", 2, "click-1") for _ in range(50)))
    await views.counters.add("home", 2, "click-1")
    await views.counters.add("news", 1, "click-1")
    await views.counters.add_many({"home": 7, "news": 7}, "batch-1")
    await views.counters.add_many({"home": 7, "news": 7, "about": 7}, "batch-1")
    assert [await views.total(page) for page in ("home", "news", "about")] == [9, 8, 7]
    while await views.flusher.round():
        pass
    assert [await stored(sql, page) for page in ("home", "news", "about")] == [9, 8, 7]


async def test_a_full_backlog_accepts_nothing_more(
    views: Views, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views.counters._acceptance, "cap", Cap(entries=8, bytes=2**27))
    await views.counters.add("home", 1)
    await views.counters.add("home", 1)
    with pytest.raises(BacklogFull):
        await views.counters.add("home", 1)
    while await views.flusher.round():
        pass
    assert await stored(sql) == 2
    await views.counters.add("home", 1)


async def test_an_entry_that_is_no_batch_becomes_a_dead_letter(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    await redis.xadd(HOME.stream, {"batch": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "deltas": b"\xff{"})
    await views.counters.add("home", 1)
    assert await views.total() == 1
    while await views.flusher.round():
        pass
    assert await stored(sql) == 1
    assert await views.total() == 1
    letter = await sql.fetchrow("SELECT entry, batch, reason, deliveries FROM dead_letters")
    assert letter is not None
    assert letter["entry"] == b"\xff{"
    assert letter["batch"].startswith("views:{")
    assert (letter["reason"], letter["deliveries"]) == ("It is no batch.", 1)


async def test_without_redis_nothing_is_accepted(opened: Cache, views: Views) -> None:
    async with (
        open_redis("unix:///nowhere/redis.sock", timeout=timedelta(seconds=1), connections=1) as nowhere,
        WriteBehind(replace(opened, redis=nowhere), "views", views.target) as counters,
    ):
        for question in (
            counters.add("home", 1),
            counters.add_many({"home": 1}),
            counters.get("home"),
            counters.backlog(),
        ):
            with pytest.raises(CacheUnavailable, match="Redis did not answer for counters"):
                await question


async def test_a_large_backlog_is_flushed_in_several_transactions(
    views: Views, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database was away, more was accepted than it can count within one statement's timeout."""
    monkeypatch.setattr(flushing, "MOST_ROWS", 700)
    for place in range(4):
        await views.counters.add_many({f"page {place} {number}": 1 for number in range(1000)})
    sizes: list[int] = []
    flush = views.flusher._flush

    async def measured(batches: Sequence[Batch]) -> int:
        sizes.append(sum(len(batch.amounts) for batch in batches))
        return await flush(batches)

    monkeypatch.setattr(views.flusher, "_flush", measured)
    while await views.flusher.round():
        pass
    assert await sql.fetchval("SELECT sum(views) FROM page_views") == 4000
    assert max(sizes) <= 700


async def test_a_dump_that_reads_the_ledger_does_not_block_a_new_hour(
    views: Views, sql: asyncpg.Connection, redis: Redis
) -> None:
    async with sql.transaction():
        await sql.execute("SELECT count(*) FROM applied")
        await redis.xadd(HOME.stream, {"batch": batch_of(timedelta(hours=23)), "deltas": '{"home": 5}'})
        assert await views.flusher.round() == 1
    assert await stored(sql) == 5


async def test_a_dropped_partition_is_created_again(views: Views, sql: asyncpg.Connection, redis: Redis) -> None:
    for times in (1, 2, 3):
        batch = batch_of(timedelta(hours=3))
        await redis.xadd(HOME.stream, {"batch": batch, "deltas": '{"home": 5}'})
        while await views.flusher.round():
            pass
        assert await stored(sql) == 5 * times
        await sql.execute(f"DROP TABLE applied_{made_at(batch):%Y%m%d%H}")
    assert await sql.fetchval("SELECT count(*) FROM dead_letters") == 0
