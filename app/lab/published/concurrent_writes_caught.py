"""The two concurrent writes with the article's catch ("updateUserSafe"). DO NOT COPY: it handles half of the failures.

    read    GET · on a miss SELECT, and SETEX
    write   UPDATE ∥ SETEX, and DEL if the SETEX fails; awaited together

The catch handles a cache that fails while the database does not. All defects of `ConcurrentWrites` remain: a database
that fails after the SETEX leaves a value that was never committed, and two writers leave the older one.

    V UPDATEs to 1
    W UPDATEs to 2, SETEXes 2
    V SETEXes 1                                 the database has 2; every reader gets 1 until the entry expires

When Redis is away, the DEL fails, too, and the caller gets an error for a write that is committed.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.lab.published.cache_aside import get_or_load
from app.lab.strategy import Holds, Table


class ConcurrentWritesCaught:
    """A number under a key, written to both stores at the same time; a failed cache write becomes an invalidation."""

    holds = Holds.VALUES

    def __init__(self, redis: Redis, table: Table, prefix: str, ttl: timedelta) -> None:
        self._redis, self._table, self._prefix, self._ttl = redis, table, prefix, ttl

    async def read(self, key: str) -> int | None:
        """Reads the cache; on a miss, loads the row and fills the cache."""
        return await get_or_load(self._redis, f"{self._prefix}:{key}", self._ttl, self._table, key)

    async def write(self, key: str, value: int) -> None:
        """Writes to both stores; if the cache write fails, deletes the entry."""
        await asyncio.gather(self._table.save(key, value), self._set_or_delete(f"{self._prefix}:{key}", value))

    async def _set_or_delete(self, name: str, value: int) -> None:
        try:
            await self._redis.set(name, value, ex=self._ttl)
        except RedisError:
            await self._redis.delete(name)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Nothing runs in the background."""
        yield
