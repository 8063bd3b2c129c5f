"""What both stores have in the end, read without the application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.caching.write_behind.shard import GROUP, shards
from tests.caching.write_behind.views import COUNTED

SHARDS = shards("views")


@asynccontextmanager
async def psql(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Opens a connection to Postgres."""
    connection = await asyncpg.connect(database_url)
    try:
        yield connection
    finally:
        await connection.close()


async def stored(database_url: str) -> dict[str, int]:
    """Returns the views of each page."""
    async with psql(database_url) as sql:
        return {row["page"]: row["views"] for row in await sql.fetch(COUNTED)}


async def dead_letters(database_url: str) -> int:
    """Returns the number of dead letters."""
    async with psql(database_url) as sql:
        return int(await sql.fetchval("SELECT count(*) FROM dead_letters"))


async def waiting(redis_url: str) -> dict[str, object]:
    """Returns what is pending, and its counters: nothing in the end. XPENDING counts entries that flushers hold."""
    found: dict[str, object] = {}
    try:
        async with Redis.from_url(redis_url) as redis:
            for shard in SHARDS:
                found[shard.stream] = await redis.xlen(shard.stream)
                found[f"{shard.stream} pending"] = (await redis.xpending(shard.stream, GROUP))["pending"]
                found[shard.backlog], found[shard.bytes] = await redis.mget(shard.backlog, shard.bytes)
    except RedisError as error:
        return {"Redis": error}  # Perhaps the group does not exist yet.
    return {name: number for name, number in found.items() if number}


async def carried(redis_url: str) -> bool:
    """Whether nothing is pending, and no flusher holds anything."""
    return not await waiting(redis_url)
