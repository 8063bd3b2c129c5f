"""Cache-aside with a lock against stampedes, as published. DO NOT COPY: it allows stampedes, and keeps old rows.

    read    GET · on a miss SETNX a lock · without the lock, wait 50 ms, GET again, and fall through · SELECT, SETEX,
            DEL the lock
    write   UPDATE · DEL

The defects: a reader that has waited once loads, too, so when a load takes more than 50 ms every reader makes it. A
reader that falls through deletes another reader's lock. The lock never expires, for SETNX takes no EX: when its holder
dies, every miss costs 50 ms and a load from then on. And it does not fence the fill:

    R has the lock, SELECTs 0, and stalls
                                                W UPDATEs to 1, DELs the value, and is acknowledged
    R SETEXes 0                                 every reader gets 0 until the entry expires

Copy `app.caching.CacheAside` instead: its lock is a token that a fill needs, and that an invalidation voids.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from redis.asyncio import Redis

from app.lab.strategy import Holds, Table


class SetNx:
    """A number under a key. A reader that finds the lock taken waits for `pause`, once."""

    holds = Holds.VALUES

    def __init__(
        self,
        redis: Redis,
        table: Table,
        prefix: str,
        ttl: timedelta,
        *,
        pause: timedelta = timedelta(milliseconds=50),
    ) -> None:
        self._redis, self._table, self._prefix, self._ttl, self._pause = redis, table, prefix, ttl, pause

    async def read(self, key: str) -> int | None:
        """Reads the cache; on a miss, loads the row and fills the cache, with the lock or without it."""
        name, lock = f"{self._prefix}:{key}", f"{self._prefix}:lock:{key}"
        cached = await self._redis.get(name)
        if cached is not None:
            return int(cached)
        if not await self._redis.set(lock, "1", nx=True):
            await asyncio.sleep(self._pause.total_seconds())
            cached = await self._redis.get(name)
            if cached is not None:
                return int(cached)
            # "Lock holder failed -- fall through."
        try:
            row = await self._table.load(key)
            if row is None:
                return None
            await self._redis.set(name, row.value, ex=self._ttl)
            return row.value
        finally:
            await self._redis.delete(lock)

    async def write(self, key: str, value: int) -> None:
        """Writes to the table and deletes the entry; the next reader fills the cache."""
        await self._table.save(key, value)
        await self._redis.delete(f"{self._prefix}:{key}")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Nothing runs in the background."""
        yield
