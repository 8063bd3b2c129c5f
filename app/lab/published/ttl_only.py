"""Cache-aside without invalidation: the article's leaf "TTL-only expiration". COPY where a value may be `ttl` old.

    read    GET · on a miss SELECT, and SETEX
    write   UPDATE

It is not wrong but stale, for a stated time: no write has to reach the cache, so no race can be lost.

    R reads 0, and keeps it
                                                W UPDATEs to 1, and is acknowledged
    R reads 0                                   until the entry expires
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from redis.asyncio import Redis

from app.lab.published.cache_aside import get_or_load
from app.lab.strategy import Holds, Table


class TtlOnly:
    """A number under a key, up to `ttl` old."""

    holds = Holds.VALUES

    def __init__(self, redis: Redis, table: Table, prefix: str, ttl: timedelta) -> None:
        self._redis, self._table, self._prefix, self._ttl = redis, table, prefix, ttl

    async def read(self, key: str) -> int | None:
        """Reads the cache; on a miss, loads the row and fills the cache."""
        return await get_or_load(self._redis, f"{self._prefix}:{key}", self._ttl, self._table, key)

    async def write(self, key: str, value: int) -> None:
        """Writes to the table only."""
        await self._table.save(key, value)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Nothing runs in the background."""
        yield
