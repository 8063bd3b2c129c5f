"""Totals are exact, include what is pending, and never decrease, except by dead letters.

The rules are C1 to C5, and C7: an addition needs no total of its key; a total includes what is pending; pending batches
are checked against the ledger; an acknowledgement begins a new generation; a seed knows of deliveries; entries that are
gone take their totals with them. C6 and C8 are in `test_write_behind.py`.
"""

import asyncio
from datetime import timedelta

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching import (
    Behind,
)
from app.caching.write_behind import totals
from app.caching.write_behind.shard import GROUP, number
from app.caching.write_behind.totals import TOTAL
from tests.caching.write_behind.views import HOME, Views, batch_of, stored, sums


async def test_an_addition_to_an_uncached_key_needs_no_database_and_creates_no_total(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """C1. If a view created the total of a page that is not cached, it would lack the database's hundred views."""
    await sql.execute("INSERT INTO page_views VALUES ('home', 100)")
    views.before.clear()  # The database does not answer.
    assert await views.counters.add("home", 1) is None
    assert await redis.get(HOME.total("home", views.cache.identity.run)) is None
    views.before.set()
    assert await views.total() == 101
    assert await views.counters.add("home", 2) == 103


async def test_a_total_includes_what_is_pending(views: Views, redis: Redis, sql: asyncpg.Connection) -> None:
    """C2. A total that is read anew from the database alone would lack what is pending, and decrease."""
    await views.counters.add("home", 5)
    assert await views.total() == 5
    await redis.delete(HOME.total("home", views.cache.identity.run))
    assert await views.total() == 5
    assert await stored(sql) == 0
    await views.flusher.round()
    assert await stored(sql) == 5
    assert await views.total() == 5


async def test_a_committed_batch_without_an_acknowledgement_is_not_counted_twice(views: Views, redis: Redis) -> None:
    """C3. The flusher commits · it dies · the total is evicted · a read adds the database and the pending entries"""
    await views.counters.add("home", 8)
    await views.commit_without_acknowledging()
    await redis.delete(HOME.total("home", views.cache.identity.run))
    assert await views.total() == 8
    await views.flusher.round()
    assert await views.total() == 8


async def test_a_total_is_not_seeded_across_an_acknowledgement(views: Views, sql: asyncpg.Connection) -> None:
    """C4. R reads the stream, and asks the database
                                        a view is accepted, flushed, and acknowledged
    R would seed what it saw: neither the database's views that R read nor the stream include the new view
    """
    await views.counters.add("home", 31)
    await views.flusher.round()
    views.behind.clear()
    reader = asyncio.create_task(views.total())
    await views.read.wait()
    await views.counters.add("home", 16)
    await views.flusher.round()
    views.behind.set()
    assert await reader == 47
    assert await views.total() == 47


async def test_a_total_does_not_count_a_delivered_entry_twice(views: Views) -> None:
    """C5. R reads the stream
                                        a view is accepted, and its flush commits, and is not yet acknowledged
    R asks the database, which has the view, and would seed: the stream has the view, too
    """
    await views.counters.add("home", 31)
    await views.flusher.round()
    views.before.clear()
    reader = asyncio.create_task(views.total())
    await views.asked.wait()
    await views.counters.add("home", 16)
    await views.commit_without_acknowledging()
    views.before.set()
    assert await reader == 47
    await views.flusher.round()
    assert await views.total() == 47


async def test_after_flushall_totals_are_not_below_the_database(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """C7. A flusher has gathered views · FLUSHALL · a read builds the total from the database · the flush commits"""
    await views.counters.add("home", 79)
    await views.flusher.round()
    views.gathered.clear()
    await views.counters.add("home", 32)
    views.commit.clear()
    slow = asyncio.create_task(views.flusher.round())
    await views.gathered.wait()
    await redis.flushall()
    await views.new_flusher().round()  # The group is created again.
    assert await views.total() == 79
    views.commit.set()
    await slow
    assert await stored(sql) == 111
    assert await views.total() == 111


async def test_an_uncached_total_with_too_long_a_backlog_is_an_error_and_never_wrong(
    views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "MOST_LOOKED_AT", 1)
    await views.counters.add("home", 1)
    await views.counters.add("home", 1)
    with pytest.raises(Behind, match="More than 1 entries wait"):
        await views.total()
    while await views.flusher.round():
        pass
    assert await views.total() == 2


async def test_a_pending_entry_that_was_trimmed_does_not_block_totals(views: Views, redis: Redis) -> None:
    await views.counters.add("home", 5)
    await views.new_flusher()._gathering.read(0.001)  # It is delivered, and its flusher dies.
    await redis.xtrim(HOME.stream, maxlen=0, approximate=False)
    assert await views.total() == 0


async def test_a_total_is_not_seeded_across_a_new_group(views: Views, redis: Redis, sql: asyncpg.Connection) -> None:
    """R reads the stream · a view is delivered and committed · the group is deleted, and created again · R asks the
    database, and would seed: the new group does not know that the view was delivered
    """
    views.before.clear()
    reader = asyncio.create_task(views.total())
    await views.asked.wait()
    await views.counters.add("home", 5)
    await views.commit_without_acknowledging()
    await redis.xgroup_destroy(HOME.stream, GROUP)
    await views.new_flusher()._gathering.create_groups()
    views.before.set()
    assert await reader == 5
    assert await views.total() == 5


async def test_reads_of_keys_without_additions_leave_nothing_lasting_behind(views: Views, redis: Redis) -> None:
    """Their names have the greatest length. A page that was viewed once is kept, though its total was 0 before."""
    pages = [f"{place:04}".ljust(2048, "x") for place in range(40)]
    before = {key async for key in redis.scan_iter("*")}
    assert set(await asyncio.gather(*map(views.total, pages))) == {0}
    assert await views.total("home") == 0
    assert await views.counters.add("home", 1) == 1
    kept = {key: await redis.pttl(key) async for key in redis.scan_iter("*") if key not in before}
    short = {key for key, left in kept.items() if left != -1 and left <= totals.NOTHING / timedelta(milliseconds=1)}
    assert len(short) == 40
    home = HOME.total("home", views.cache.identity.run).encode()
    assert kept[home] > TOTAL / timedelta(milliseconds=1) / 2
    assert max(len(key) for key in kept.keys() - short) < 100


@pytest.mark.parametrize("page", ["a\0b", "\ud800", ""])
async def test_a_read_of_an_invalid_key_fails_no_other_read(views: Views, page: str) -> None:
    await views.counters.add("home", 5)
    answers = await asyncio.gather(views.total("home"), views.total(page), views.total("news"), return_exceptions=True)
    assert (answers[0], answers[2]) == (5, 0)
    assert isinstance(answers[1], ValueError)


@pytest.mark.parametrize("rot", ["many", str(2**53), "9" * 17, "9" * 5000, None])
async def test_a_corrupt_total_is_rebuilt_and_does_not_affect_the_others(
    views: Views, redis: Redis, sql: asyncpg.Connection, rot: str | None
) -> None:
    """It is no number, or too large to count on, or of another type. Good and bad totals are read, built, and added to
    together."""
    pages = [page for page in map(str, range(99)) if number(page) == HOME.number][:9]
    await views.counters.add_many(dict.fromkeys(["home", *pages], 1))

    async def spoil() -> None:
        total = HOME.total("home", views.cache.identity.run)
        await redis.delete(total)
        await (redis.hset(total, "many", "1") if rot is None else redis.set(total, rot))

    await spoil()
    assert await asyncio.gather(*map(views.total, [*pages, "home"])) == [1] * 10
    await spoil()
    answers = await asyncio.gather(*(views.counters.add(page, 2) for page in ["home", *pages]))
    assert answers == [None] + [3] * 9
    assert await asyncio.gather(*map(views.total, ["home", *pages])) == [3] * 10
    await views.carry()
    assert await sums(sql) == dict.fromkeys(["home", *pages], 3)


@pytest.mark.parametrize("delta", ['"many"', "null", "{}"])
async def test_an_invalid_entry_does_not_spoil_a_total_that_is_being_built(
    views: Views, redis: Redis, delta: str
) -> None:
    """R reads, and asks the database       somebody writes into the stream       R seeds: what came since is added"""
    views.before.clear()
    reader = asyncio.create_task(views.total())
    await views.asked.wait()
    await redis.xadd(HOME.stream, {"batch": batch_of(), "deltas": f'{{"home": {delta}}}', "views": 1})
    await views.counters.add("home", 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views.counters._totals, "_look", None)  # A second read of the stream would fail.
        views.before.set()
        assert await reader == 5


async def test_a_corrupt_generation_counts_as_another_generation(views: Views, redis: Redis) -> None:
    await redis.delete(HOME.generation)
    await redis.rpush(HOME.generation, "theirs")
    await views.counters.add("home", 5)
    assert await views.total() == 5
