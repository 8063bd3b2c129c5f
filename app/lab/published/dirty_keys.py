"""Write-behind by dirty flags, as published. DO NOT COPY: it loses writes that arrive during a flush.

    read    GET · on a miss SELECT, and SET
    write   INCRBY, after a SET of the row where there is no counter yet · set the dirty flag
    sync    for each dirty key: GET · UPDATE to that number · clear the flag; every second

The defects: clearing the flag also covers counts that came after the GET, and a SET erases concurrent counts.

    S GETs 1, UPDATEs to 1
                                                W INCRs to 2, sets the flag (already set), and is acknowledged
    S clears the flag                           nobody flushes 2

    V SELECTs 0
                                                W SELECTs 0, SETs 0, INCRs to 1, and is acknowledged
    V SETs 0                                    1 is gone

`dirty_keys_compared.py` beside it repairs both. Copy `app.caching.WriteBehind` instead: it flushes increments rather
than totals, so a Redis that went back in time does not set the database back as well.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from redis.asyncio import Redis

from app.lab.published.flushing import flushing
from app.lab.strategy import Holds, Table


class DirtyKeys:
    """A counter under a key, which is flushed to the table later. A counter does not expire: `ttl` is ignored."""

    holds = Holds.COUNTS

    def __init__(
        self,
        redis: Redis,
        table: Table,
        prefix: str,
        ttl: timedelta,
        *,
        interval: timedelta = timedelta(seconds=1),
    ) -> None:
        self._redis, self._table, self._prefix, self._interval = redis, table, prefix, interval

    async def read(self, key: str) -> int | None:
        """Reads Redis; on a miss, loads the row and fills Redis."""
        counter = await self._redis.get(f"{self._prefix}:{key}")
        return await self._begin(key) if counter is None else int(counter)

    async def write(self, key: str, value: int) -> None:
        """Adds one, in Redis."""
        if not await self._redis.exists(f"{self._prefix}:{key}"):
            await self._begin(key)
        await self._redis.incrby(f"{self._prefix}:{key}", 1)
        await self._redis.sadd(f"{self._prefix}:dirty", key)

    async def flush(self) -> int:
        """Flushes what is dirty and returns how many keys that were. Raises what the table raises; the key stays
        marked."""
        dirty = await self._redis.smembers(f"{self._prefix}:dirty")
        for raw in dirty:
            key = raw.decode() if isinstance(raw, bytes) else str(raw)
            counter = await self._redis.get(f"{self._prefix}:{key}")
            await self._table.save(key, int(counter or 0))
            await self._redis.srem(f"{self._prefix}:dirty", key)
        return len(dirty)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Syncs, and pauses when nothing is dirty."""
        async with flushing(self.flush, self._interval):
            yield

    async def _begin(self, key: str) -> int | None:
        row = await self._table.load(key)
        if row is None:
            return None
        await self._redis.set(f"{self._prefix}:{key}", row.value)
        return row.value
