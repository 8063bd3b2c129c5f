"""Write-through by two concurrent writes, as published. DO NOT COPY: it returns what was never committed.

    read    GET · on a miss SELECT, and SETEX
    write   UPDATE ∥ SETEX, awaited together (`Promise.all`)

The defects: the two stores may see two writers in different orders, and neither store waits for the other.

    W SETEXes 1                                 R reads 1
    W's UPDATE fails                            1 was never committed

    V UPDATEs to 1
    W UPDATEs to 2, SETEXes 2
    V SETEXes 1                                 the database has 2; every reader gets 1 until the entry expires

Copy `app.caching.WriteThrough` instead: it removes the old value, commits, and only then fills.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from redis.asyncio import Redis

from app.lab.published.cache_aside import get_or_load
from app.lab.strategy import Holds, Table


class ConcurrentWrites:
    """A number under a key, written to both stores at the same time."""

    holds = Holds.VALUES

    def __init__(self, redis: Redis, table: Table, prefix: str, ttl: timedelta) -> None:
        self._redis, self._table, self._prefix, self._ttl = redis, table, prefix, ttl

    async def read(self, key: str) -> int | None:
        """Reads the cache; on a miss, loads the row and fills the cache."""
        return await get_or_load(self._redis, f"{self._prefix}:{key}", self._ttl, self._table, key)

    async def write(self, key: str, value: int) -> None:
        """Writes to both. Raises what the first to fail raises, while the other goes on."""
        await asyncio.gather(
            self._table.save(key, value), self._redis.set(f"{self._prefix}:{key}", value, ex=self._ttl)
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Nothing runs in the background."""
        yield
