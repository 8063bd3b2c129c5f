"""Cache-aside with a lock against the herd, as it is published. DO NOT COPY: it lets the herd pass, and keeps old rows.

    read    GET · on a miss SETNX a lock · who has not got it waits 50 ms, GETs again, and falls through · SELECT,
            SETEX, DEL the lock
    write   UPDATE · DEL

The defects: whoever has waited once loads, too; a load of more than 50 ms is made by everybody. Whoever falls through
deletes a lock that is somebody else's. The lock has no end, for SETNX takes no EX: its holder dies, and every miss
costs 50 ms and a load from then on. And it does not fence the fill:

    R has the lock, SELECTs 0, and stalls
                                                W UPDATEs to 1, DELs the value, and is acknowledged
    R SETEXes 0                                 all who read now get 0, until the entry ends

`app.caching.CacheAside` is what to copy: its lock is a token that a fill needs, and that an invalidation voids.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from redis.asyncio import Redis

from app.lab.strategy import Holds, Table


class SetNx:
    """A number under a key. Who finds its lock taken waits for `pause`, once."""

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
        """From the cache, else from the table: under the lock, or without it."""
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
        """Into the table; the next reader shall fill the cache."""
        await self._table.save(key, value)
        await self._redis.delete(f"{self._prefix}:{key}")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Nothing works behind the calls."""
        yield
