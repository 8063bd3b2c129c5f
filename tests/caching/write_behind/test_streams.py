"""A key that is no longer a stream holds up no other stream."""

import asyncio
import logging

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching.write_behind.shard import Shard, number
from tests.caching.write_behind.views import Views

PAGES = [f"page {place}" for place in range(12)]
"""At least one page in each shard."""
ALL = {number(page): Shard("views", number(page)) for page in PAGES}
LOST, *OTHERS = ALL.values()


async def counted(sql: asyncpg.Connection) -> set[str]:
    """Returns the pages that the database has views of."""
    return {row["page"] for row in await sql.fetch("SELECT page FROM page_views")}


async def test_a_foreign_value_in_place_of_a_stream_stops_no_other_stream(
    views: Views, redis: Redis, sql: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """All streams have pending views · somebody sets a string under the name of one · the others are flushed, and the
    flusher reports why not all are · the name is free again, and what was lost is accepted again and flushed"""
    assert len(ALL) == 4
    for page in PAGES:
        await views.counters.add(page, 1)
    await redis.set(LOST.stream, "what somebody else keeps there")
    with caplog.at_level(logging.ERROR):
        await views.carry()
    assert await counted(sql) == {page for page in PAGES if number(page) != LOST.number}
    trouble = f"{LOST.stream} is a string in Redis, not a stream: nothing is flushed from it."
    assert str(views.flusher.trouble) == trouble
    assert [record.message for record in caplog.records] == [trouble]

    await redis.delete(LOST.stream)
    views.flusher._gathering._claimed = 0.0  # Streams are checked again only every few seconds.
    await views.carry()
    assert views.flusher.trouble is None
    await views.check()
    await views.carry()
    assert await counted(sql) == set(PAGES)


async def test_flushed_entries_are_removed_although_another_stream_is_overwritten_meanwhile(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """The flusher has gathered entries of all streams, and waits for the database · somebody sets a string under the
    name of one · all entries are counted, and those of the other streams are removed"""
    for page in PAGES:
        await views.counters.add(page, 1)
    views.commit.clear()
    flushing = asyncio.create_task(views.flusher.round())
    await views.gathered.wait()
    await redis.set(LOST.stream, "what somebody else keeps there")
    views.commit.set()
    await flushing
    assert await counted(sql) == set(PAGES)
    assert [await redis.xlen(shard.stream) for shard in OTHERS] == [0, 0, 0]


async def test_an_overwritten_stream_does_not_stop_the_check_of_other_shards(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """One stream is overwritten, and Redis loses the others · what was in the others is accepted again"""
    for page in PAGES:
        await views.counters.add(page, 1)
    await redis.set(LOST.stream, "what somebody else keeps there")
    for shard in OTHERS:
        await redis.delete(shard.stream)
    with pytest.raises(Exception, match="WRONGTYPE"):
        await views.check()
    assert [await redis.xlen(shard.stream) > 0 for shard in OTHERS] == [True, True, True]
