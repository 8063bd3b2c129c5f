"""Write-through by two writes at the same time, as it is published. DO NOT COPY: it answers what was never committed.

    read    GET · on a miss SELECT, and SETEX
    write   UPDATE ∥ SETEX, both waited for (`Promise.all`)

The defects: the two stores need not take two writers in the same order, and neither waits for the other.

    W SETEXes 1                                 R reads 1
    W's UPDATE fails                            it never was

    V UPDATEs to 1
    W UPDATEs to 2, SETEXes 2
    V SETEXes 1                                 the database has 2, and all who read get 1, until the entry ends

`app.caching.WriteThrough` is what to copy: it takes the old value away, commits, and only then fills.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from redis.asyncio import Redis

from app.lab.published.cache_aside import get_or_load
from app.lab.strategy import Holds, Table


class ConcurrentWrites:
    """A number under a key, written to both stores at once."""

    holds = Holds.VALUES

    def __init__(self, redis: Redis, table: Table, prefix: str, ttl: timedelta) -> None:
        self._redis, self._table, self._prefix, self._ttl = redis, table, prefix, ttl

    async def read(self, key: str) -> int | None:
        """From the cache, else from the table, whose answer is kept."""
        return await get_or_load(self._redis, f"{self._prefix}:{key}", self._ttl, self._table, key)

    async def write(self, key: str, value: int) -> None:
        """Into both. Raises what the first of them raises, while the other goes on."""
        await asyncio.gather(
            self._table.save(key, value), self._redis.set(f"{self._prefix}:{key}", value, ex=self._ttl)
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Nothing works behind the calls."""
        yield
